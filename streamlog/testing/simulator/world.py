"""One simulated world: machines, their network, and everything that is drawn from one seed.

Each use of chance has a stream of its own, named and forked from the seed: a draw more in one of them does not shift
the others, so a run with one fault less is still nearly the same run. That is what makes shrinking work.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

from streamlog.env import Scope
from streamlog.testing.simulator.disk import CAPACITY_BYTES, Names, SimDisk
from streamlog.testing.simulator.environment import SimHooks
from streamlog.testing.simulator.loop import SimLoop
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.network import NetworkKnobs, SimNetwork
from streamlog.testing.simulator.owner import Owner
from streamlog.testing.simulator.policy import Policy
from streamlog.testing.simulator.storage import DiskKnobs
from streamlog.testing.simulator.trace import Trace

T = TypeVar("T")

EPOCH_MS = 1_700_000_000_000
"""What the wall clocks show when the world begins."""

_PAST_WORLDS: list[object] = []
"""Worlds that are over. Collecting one would run the `finally` blocks of all that was going on in it."""


class World:
    """See the module's essay. `run` once."""

    def __init__(
        self,
        seed: int,
        *,
        policy: Callable[[Random], Policy] | None = None,
        network: NetworkKnobs | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.trace = Trace(tell)
        self.loop = SimLoop(policy(self.random("turns")) if policy else None, self.trace)
        self.network = SimNetwork(self.loop, self.random("network"), network)
        self.machines: dict[str, Machine] = {}
        self.reached: dict[str, int] = {}
        """Situations of `Hooks.sometimes`, and how often each was reached."""
        self.buggify: dict[str, float] = {}
        """Rare paths that nodes take in this run, and how likely."""
        self.threads_in_steps = False
        """Of machines that are added from now on."""
        self.errors: list[str] = []
        """What a loop had to report: exceptions that nobody caught."""
        self.scope = Scope("world", lambda error: self.errors.append(f"the simulator itself: {error!r}"))
        """Owns what goes on outside of all machines."""
        self.loop.on_error = self._on_error
        self.network.note = lambda text, segment: self.trace.note(self.loop.now_ns, "net", text)

    def random(self, label: str) -> Random:
        """The stream of chance with this name: always the same for one seed."""
        return Random(f"{self.seed}/{label}")

    @property
    def now_ms(self) -> int:
        return self.loop.now_ns // 1_000_000

    def note(self, who: str, what: str) -> None:
        self.trace.note(self.loop.now_ns, who, what)

    def sometimes(self, name: str) -> None:
        self.reached[name] = self.reached.get(name, 0) + 1

    def machine(
        self,
        name: str,
        *,
        names: Names = Names.JOURNAL,
        capacity_bytes: int = CAPACITY_BYTES,
        disk: DiskKnobs | None = None,
        wall_offset_ms: int = 0,
    ) -> Machine:
        """A new machine, with nothing on its disk."""
        machine = Machine(
            name,
            f"10.0.0.{len(self.machines) + 1}",
            self.loop,
            self.network,
            SimDisk(self.random(f"disk {name}"), names, capacity_bytes),
            self.random(f"machine {name}"),
            lambda random: SimHooks(random, self.buggify, self.reached),
            wall_ms=EPOCH_MS + wall_offset_ms,
            note=self.note,
            disk_knobs=disk,
        )
        machine.threads_in_steps = self.threads_in_steps
        self.machines[name] = machine
        return machine

    def run(self, scenario: Coroutine[Any, Any, T], *, seconds_max: float = 3600) -> T:
        """Run the scenario, which belongs to no machine, to its end; then the world is over.

        Raises what the scenario raises; Deadlock, Runaway; TimeoutError after `seconds_max` of the world's time.
        """

        async def bounded() -> T:
            async with asyncio.timeout(seconds_max):
                return await scenario

        with _still():
            try:
                return self.loop.run(bounded())
            finally:
                _PAST_WORLDS.append(self.loop)
                self.loop.close()

    def _on_error(self, owner: Owner, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = f"{context.get('message')}: {error!r}" if error is not None else str(context.get("message"))
        self.note(owner.name, text)
        self.errors.append(f"{owner.name}: {text}")


@contextmanager
def _still() -> Iterator[None]:
    """No garbage collection: it would run finalizers at moments that depend on the allocator."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
