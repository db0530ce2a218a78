"""What every run stands on: a world made from a setup, services on its machines, a nemesis, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeVar, cast

from streamlog.env import Env
from streamlog.testing.simulator.invariants import Violation
from streamlog.testing.simulator.loop import Deadlock, Runaway
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.nemesis import Nemesis, Service, told
from streamlog.testing.simulator.policy import InTurn, Policy, Priorities, RandomTurns
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.world import World

T = TypeVar("T")

CHECK_EVERY: Final = 16
"""Callbacks between two looks at the nodes."""

PRIORITY_CHANGE_EVERY: Final = 200

SECONDS_MAX: Final = 600.0
"""Of the world's time, besides the safety phase."""


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    setup: Setup
    violations: list[str] = field(default_factory=list)
    digest: str = ""
    steps: int = 0
    virtual_ms: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    acked: int = 0
    events: list[str] = field(default_factory=list)
    """The last lines of the trace, when there are violations."""


class Stage:
    """See the module's essay."""

    def __init__(self, setup: Setup, tell: Callable[[str], None] | None) -> None:
        self.setup = setup
        self.world = World(setup.seed, policy=lambda random: _policy(setup, random), network=setup.network, tell=tell)
        self.world.threads_in_steps = setup.threads_in_steps
        self.services: dict[str, Service] = {}
        self.nemesis = Nemesis(self.world, self.services)
        self.violations: list[Violation] = []

    def perform(self, scenario: Coroutine[Any, Any, None], check: Callable[[], None]) -> Outcome:
        """Run the scenario to its end; `check` looks at the nodes now and then, and may raise Violation."""
        world = self.world
        world.loop.check_every = 1 if self.setup.watchful else CHECK_EVERY
        world.loop.on_check = check
        violations = self.violations
        try:
            world.run(scenario, seconds_max=SECONDS_MAX + self.setup.safety_ms / 1000)
        except Violation as violation:
            violations.append(violation)
        except (Deadlock, Runaway, TimeoutError) as error:
            violations.append(Violation(77, f"{type(error).__name__}: {error}"))
        violations += [Violation(85, text) for text in world.errors]
        outcome = Outcome(
            self.setup,
            [str(violation) for violation in violations],
            world.trace.digest(),
            world.trace.step_count,
            world.now_ms,
            self.nemesis.counts,
            world.reached,
        )
        if violations:
            outcome.events = list(world.trace.events)
        return outcome

    def violate(self, number: int, text: str) -> None:
        self.violations.append(Violation(number, text))

    def add(self, name: str, machine: Machine, main: Callable[[Env], Coroutine[Any, Any, object]]) -> None:
        """Keep a program running on a machine."""
        self.services[name] = Service(self.world, machine, main)
        self.services[name].run()

    async def once(self, name: str, work: Callable[[Env], Coroutine[Any, Any, T]], seconds_max: float) -> T:
        """Run a program to its end, on a machine of its own."""
        process = self.world.machine(name).start(work)
        async with asyncio.timeout(seconds_max):
            await process.ended
        if process.error is not None:
            raise process.error
        return cast("T", process.result)  # what `work` returned

    async def until_healed(self) -> None:
        """The safety phase: faults happen at their times; then everything is put right and turns are fair."""
        self.nemesis.run(self.setup.faults)
        await asyncio.sleep(max(self.setup.safety_ms - self.world.now_ms, 0) / 1000)
        self.nemesis.end()
        self.world.loop.policy = InTurn()

    async def stop_all(self) -> bool:
        """Ask every program that still runs to stop: one after the other, or all at once. Whether all did, cleanly."""
        names = [name for name, service in self.services.items() if service.is_wanted]
        at_once = self.world.random("stop").random() < 0.5
        if at_once and len(names) > 1:
            self.world.sometimes("all nodes stopped at once")
        stops = [asyncio.ensure_future(self._stop(name)) for name in names] if at_once else []
        return all([await stop for stop in stops] if at_once else [await self._stop(name) for name in names])

    async def _stop(self, name: str) -> bool:
        try:
            process = await self.services[name].stop()
        except TimeoutError:
            self.violate(80, f"{name} does not stop")
            return False
        if process is not None and process.error is not None:
            self.violate(80, f"{name} stopped with {told(process.error)}")
            return False
        return True

    def states(self) -> str:
        """How all programs are, for a message."""
        found = []
        for name, service in self.services.items():
            last = service.last
            state = "runs" if service.machine.process is not None else f"ended: {last and last.error!r}"
            found.append(f"{name} {state}")
        return "; ".join(found)


def _policy(setup: Setup, random: Random) -> Policy:
    if setup.turns == "in turn":
        return InTurn()
    return RandomTurns(random) if setup.turns == "random" else Priorities(random, PRIORITY_CHANGE_EVERY)
