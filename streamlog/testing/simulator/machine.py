"""Machines and the processes on them. A process is one incarnation: it is started, may be paused, and ends.

    start -> running -> its main returned or raised, or `kill`: the disk's cache survives
                     -> `cut_power`: only what was synced survives

An end that the process did not choose runs none of its code: no `finally`, no cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any

from streamlog.env import Env
from streamlog.testing.simulator.disk import SimDisk
from streamlog.testing.simulator.environment import SimClock, SimEntropy, SimHooks, SimOffload, WallClock
from streamlog.testing.simulator.loop import SimLoop
from streamlog.testing.simulator.network import SimNetwork
from streamlog.testing.simulator.owner import WORLD, MonotonicClock, NodeDead
from streamlog.testing.simulator.storage import DiskFaults, DiskKnobs, SimStorage

CALLBACK_COST_NS = 5_000
"""Of one callback on a healthy machine: a few microseconds of Python."""

UPTIME_MS_MAX = 1_000_000
"""A machine has been up for some time when its first process starts."""


class Process:
    """One incarnation of a program on a machine."""

    def __init__(self, machine: Machine, number: int, random: Random, hooks: SimHooks) -> None:
        self.machine = machine
        self.number = number
        self.owner = machine.loop.add_owner(f"{machine.name}/{number}", machine.clock, machine.callback_cost_ns)
        self.offload = SimOffload(machine.loop, self.owner, random, steps=machine.threads_in_steps)
        self.offload.on_interleaved = partial(hooks.sometimes, "loop went on during a thread's work")
        storage = SimStorage(machine.disk, self, machine.disk_faults, machine.disk_knobs, random)
        storage.on_full = partial(hooks.sometimes, "disk was full")
        self.env = Env(
            SimClock(machine.loop, self.owner, machine.wall),
            SimEntropy(random),
            storage,
            self.offload,
            hooks,
            process_id=number,
        )
        self.started_ns = machine.loop.now_ns
        self.result: object = None
        """What main returned, once it has."""
        self.error: BaseException | None = None
        """What main raised."""
        self.has_returned = False
        """Whether main came to its end; False while it runs, and after it was killed or raised."""
        self.ended: asyncio.Future[None] = machine.loop.create_future()

    @property
    def alive(self) -> bool:
        return self.owner.alive

    def check(self) -> None:
        if not self.owner.alive:
            raise NodeDead(self.owner.name)

    def spend(self, cost_ns: int) -> None:
        if self.offload.running is not None:
            self.offload.spend(cost_ns)
        else:
            self.machine.loop.charge(self.owner, cost_ns)


class Machine:
    """A computer: address, disk, clocks, and at most one process at a time."""

    def __init__(
        self,
        name: str,
        host: str,
        loop: SimLoop,
        network: SimNetwork,
        disk: SimDisk,
        random: Random,
        make_hooks: Callable[[Random], SimHooks],
        *,
        wall_ms: int,
        note: Callable[[str, str], None],
        disk_knobs: DiskKnobs | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.loop = loop
        self.network = network
        self.disk = disk
        self.disk_faults = DiskFaults()
        self.disk_knobs = disk_knobs or DiskKnobs()
        self.wall = WallClock(wall_ms)
        self.clock = MonotonicClock(random.randrange(UPTIME_MS_MAX) * 1_000_000)
        self.callback_cost_ns = CALLBACK_COST_NS
        self.threads_in_steps = False
        """Whether what threads do to files is interleaved with the loop (SimOffload)."""
        self.process: Process | None = None
        """The one that runs now."""
        self.started = 0
        """Processes so far."""
        self._random = random
        self._make_hooks = make_hooks
        self._note = note

    def start(self, main: Callable[[Env], Coroutine[Any, Any, object]]) -> Process:
        """Run `main` as a new process, with the machine's power on."""
        assert self.process is None, f"{self.name} runs a process already"
        self.started += 1
        random = Random(self._random.getrandbits(64))
        process = self.process = Process(self, self.started, random, self._make_hooks(random))
        self.network.place(process.owner, self.host)
        self._note(self.name, f"start #{process.number}")
        task = self.loop.start(process.owner, f"{self.name} main", main(process.env))
        task.add_done_callback(lambda done: self._on_exit(process, done), context=WORLD)
        return process

    def _on_exit(self, process: Process, task: asyncio.Task[object]) -> None:
        """Main is over: what else the process was doing goes with it."""
        if self.process is not process:
            return
        process.error = asyncio.CancelledError() if task.cancelled() else task.exception()
        process.result = None if process.error else task.result()
        process.has_returned = process.error is None
        self._note(self.name, f"exit #{process.number} {type(process.error).__name__ if process.error else ''}".strip())
        self._end(process, power=False)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self._note(self.name, "killed")
            self._end(self.process, power=False)

    def cut_power(self) -> None:
        """Pull the plug, whether a process runs or not."""
        if self.process is not None:
            self._end(self.process, power=True)
        self._note(self.name, f"power cut: {self.disk.cut_power()}")

    def signal(self, number: int) -> bool:
        """Send a signal. Whether there is a process that handles it."""
        return self.process is not None and self.loop.signal(self.process.owner, number)

    def pause(self) -> None:
        """SIGSTOP, or a machine that swaps: time goes on, the process does not. Its kernel goes on as well."""
        if self.process is not None:
            self.process.owner.paused = True
            self._note(self.name, "paused")

    def resume(self) -> None:
        if self.process is not None and self.process.owner.paused:
            self.process.owner.paused = False
            self._note(self.name, "resumed")

    def _end(self, process: Process, *, power: bool) -> None:
        self.process = None
        self.disk_faults.crash_in = None
        self.loop.bury(process.owner)
        for path, user in list(self.disk.locks.items()):
            if user is process:
                del self.disk.locks[path]
        self.network.leave(process.owner, power=power)
        if not process.ended.done():
            process.ended.set_result(None)
