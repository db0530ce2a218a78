"""Faults as values, and the one who brings them about.

A fault has a time, a kind and a target, so a schedule is a list that can be printed, edited, replayed and shrunk. What
a fault draws (which connection, how a disk tears) comes from streams of chance that other faults do not disturb.

    1200 power broker for=500            the power of the broker's machine goes at 1.2 s, and comes back 0.5 s later
    2000 cut node1+node2 for=900         a link between these two and all others, both ways, is cut for 0.9 s
    3000 kill_in broker amount=7         kill -9 at the seventh disk operation from then on
"""

from __future__ import annotations

import asyncio
import signal
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from random import Random
from typing import Any, Final

from streamlog.broker.log.refusal import PartitionOffline
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure
from streamlog.testing.simulator.disk import CAPACITY_BYTES, SimDisk
from streamlog.testing.simulator.machine import CALLBACK_COST_NS, Machine, Process
from streamlog.testing.simulator.owner import WORLD
from streamlog.testing.simulator.world import World

RESTART_MS: Final = 500
"""How long a service manager waits before it starts a program again that has ended."""

EXPECTED: Final = (EnvironmentFailure, PartitionOffline)
"""What a program may end with when its machine is at fault."""

TERM_PATIENCE_MS: Final = 20_000
"""After SIGTERM comes SIGKILL."""

ENTRY_BYTES: Final = {"index": 8, "timeindex": 12, "txnindex": 34}

DERIVED: Final = (".index", ".timeindex", ".txnindex", ".snapshot", "leader-epoch-checkpoint")

ROOM_BYTES: Final = 3_000
"""What a disk has left when it becomes full, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. What `for_ms` and `amount` mean is the kind's."""

    at_ms: int
    kind: str
    on: str
    for_ms: int = 0
    amount: int = 0

    def __str__(self) -> str:
        text = f"{self.at_ms} {self.kind} {self.on}"
        return text + (f" for={self.for_ms}" if self.for_ms else "") + (f" amount={self.amount}" if self.amount else "")

    @classmethod
    def parse(cls, line: str) -> Fault:
        """The inverse of `str`. Raises ValueError."""
        at_ms, kind, on, *rest = line.split()
        if kind not in KINDS:
            raise ValueError(f"there is no fault '{kind}'; there are {', '.join(KINDS)}")
        options = dict(part.split("=") for part in rest)
        return cls(int(at_ms), kind, on, int(options.get("for", 0)), int(options.get("amount", 0)))


def is_expected(error: BaseException) -> bool:
    """Whether a program may end with this: its machine is at fault, and no bug that a broker ended for."""
    cause = error.__cause__
    return isinstance(error, EXPECTED) and (cause is None or isinstance(cause, (*EXPECTED, OSError, TimeoutError)))


def told(error: BaseException) -> str:
    cause = error.__cause__
    if cause is None:
        return repr(error)
    *_, last = traceback.extract_tb(cause.__traceback__)
    return f"{error!r}, for {cause!r} in {last.name}"


class Service:
    """A program that is kept running on a machine: started again whenever it has ended, however it ended."""

    def __init__(self, world: World, machine: Machine, main: Callable[[Env], Coroutine[Any, Any, object]]) -> None:
        self.world = world
        self.machine = machine
        self.main = main
        self.is_wanted = True
        """Whether it is to be started again."""
        self.down_until_ms = 0
        """Nobody starts it before this time."""
        self.last: Process | None = None

    def run(self) -> None:
        self.world.scope.spawn(f"keep {self.machine.name} running", self._run())

    async def _run(self) -> None:
        while True:
            while self.world.now_ms < self.down_until_ms or not self.is_wanted:
                await asyncio.sleep(0.05)
            process = self.last = self.machine.start(self.main)
            await process.ended
            if process.error is not None and not is_expected(process.error):
                self.world.errors.append(f"{self.machine.name} ended with {told(process.error)}")
            self.down_until_ms = max(self.down_until_ms, self.world.now_ms + RESTART_MS)

    def start_now(self) -> None:
        self.down_until_ms = self.world.now_ms

    async def stop(self) -> Process | None:
        """Ask it to stop, and wait. Returns the process; None when none ran. Raises TimeoutError."""
        self.is_wanted = False
        process = self.machine.process
        if process is None:
            return None
        while not self.machine.signal(signal.SIGTERM) and process.alive:
            await asyncio.sleep(0.05)  # it is starting, and not listening yet
        async with asyncio.timeout(TERM_PATIENCE_MS / 1000):
            await process.ended
        return process


class Nemesis:
    """Brings faults about, and undoes all of them in the end."""

    def __init__(self, world: World, services: dict[str, Service]) -> None:
        self.world = world
        self.services = services
        self.counts: dict[str, int] = {}
        """Faults that really happened, by kind."""
        self._undo: list[Callable[[], None]] = []
        self._over = False
        self._failed_disks: dict[str, None] = {}
        self._unfelt_cuts: dict[tuple[str, tuple[tuple[str, str], ...]], None] = {}
        """(kind, ways) of cuts that have held nothing back yet."""
        world.network.on_held_back = self._on_held_back

    def run(self, faults: Sequence[Fault]) -> None:
        """Have the faults happen at their times, from now on."""
        for fault in faults:
            self.world.scope.spawn(str(fault), self._bring(fault))

    async def _bring(self, fault: Fault) -> None:
        await asyncio.sleep(max(fault.at_ms - self.world.now_ms, 0) / 1000)
        if self._over:
            return
        self.world.note("nemesis", str(fault))
        undo = KINDS[fault.kind](self, fault)
        if undo is None:
            return
        self._undo.append(undo)
        await asyncio.sleep(fault.for_ms / 1000)
        if undo in self._undo:
            self._undo.remove(undo)
            undo()

    def end(self) -> None:
        """No faults from now on, and what is still wrong is put right."""
        self._over = True
        self.world.note("nemesis", "heals everything")
        while self._undo:
            self._undo.pop()()
        for service in self.services.values():
            service.machine.disk_faults.crash_in = None
            service.machine.disk_faults.errors.clear()
            if service.machine.name in self._failed_disks:
                service.machine.kill()  # a disk that failed is taken out of service until somebody restarts the node
            service.start_now()

    def count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.world.sometimes(f"fault: {kind}")

    def machine(self, fault: Fault) -> Machine:
        return self.services[fault.on].machine

    def machines(self, fault: Fault) -> list[Machine]:
        """`on` names several machines for some kinds: "node1+node3"."""
        return [self.services[name].machine for name in fault.on.split("+")]

    # -- kinds: bring it about; return how to undo it ----------------------------------------------------------

    def kill(self, fault: Fault) -> None:
        """kill -9; started again after for_ms."""
        self._end_process(fault, "kill")

    def power(self, fault: Fault) -> None:
        """The machine goes dark for for_ms; what was not synced is lost, partly."""
        self._end_process(fault, "power")

    def _end_process(self, fault: Fault, kind: str) -> None:
        for name in fault.on.split("+"):
            service = self.services[name]
            service.down_until_ms = max(service.down_until_ms, self.world.now_ms + fault.for_ms)
            if service.machine.process is not None:
                self.count(kind)
            if kind == "power":
                service.machine.cut_power()
            else:
                service.machine.kill()

    def spoil(self, fault: Fault) -> None:
        """kill -9, and amount files that can be derived are gone, cut short or wrong when it starts again."""
        self._end_process(fault, "kill")
        disk, random = self.machine(fault).disk, self.world.random(f"spoil {fault}")
        derived = [path for path, inode in disk.walk() if path.endswith(DERIVED) and "metadata-0" not in path]
        for path in random.sample(derived, min(max(fault.amount, 1), len(derived))):
            self.count("spoil")
            self._spoil(disk, path, random)

    def _spoil(self, disk: SimDisk, path: str, random: Random) -> None:
        inode = disk.file(path)
        entry_bytes = ENTRY_BYTES.get(path.rpartition(".")[2])
        hows = ("gone", "short", "nonsense", "mixed up", "shifted") if entry_bytes else ("gone", "short", "nonsense")
        how = random.choice(hows)
        self.world.note("nemesis", f"{path} is {how}")
        if how == "gone":
            disk.remove(path)
        elif how == "short":
            inode.truncate(random.randrange(len(inode.content) + 1))
        elif how == "mixed up" and entry_bytes:
            inode.write(_mixed_up(random, bytes(inode.content), entry_bytes), 0)
        elif how == "shifted" and entry_bytes:
            shifted = _shifted(bytes(inode.content), entry_bytes)
            inode.truncate(0)
            inode.write(shifted, 0)
        else:
            inode.write(random.randbytes(len(inode.content)), 0)

    def kill_in(self, fault: Fault) -> None:
        """kill -9 at the amount-th disk operation from now."""
        self._arm(fault, "kill")

    def power_in(self, fault: Fault) -> None:
        """A power cut at the amount-th disk operation from now."""
        self._arm(fault, "power")

    def power_at_sync(self, fault: Fault) -> None:
        """A power cut at the amount-th sync from now, before it has done anything."""
        self._arm(fault, "power", "sync")

    def _arm(self, fault: Fault, kind: str, at: str = "") -> None:
        machine = self.machine(fault)
        machine.disk_faults.crash_in = fault.amount
        machine.disk_faults.crash_at = at
        machine.disk_faults.on_crash = partial(self._end_process, fault, kind)

    def stop(self, fault: Fault) -> None:
        """SIGTERM, and SIGKILL when that is not enough; started again after for_ms."""
        service = self.services[fault.on]
        process = service.machine.process
        if process is None or not service.machine.signal(signal.SIGTERM):
            return
        self.count("stop")
        service.down_until_ms = max(service.down_until_ms, self.world.now_ms + fault.for_ms)

        def insist() -> None:
            if service.machine.process is process:
                service.machine.kill()

        loop = self.world.loop
        loop.at_ns(loop.now_ns + TERM_PATIENCE_MS * 1_000_000, insist)

    def stop_dark(self, fault: Fault) -> None:
        """SIGTERM, and when the process has ended the power goes: a clean stop leaves nothing to lose."""
        service = self.services[fault.on]
        process = service.machine.process
        self.stop(fault)

        def darken(_: object) -> None:
            if not self._over:
                self._end_process(fault, "power")

        if process is not None:
            process.ended.add_done_callback(darken, context=WORLD)

    def pause(self, fault: Fault) -> Callable[[], None] | None:
        """SIGSTOP for for_ms."""
        machine = self.machine(fault)
        if machine.process is None:
            return None
        self.count("pause")
        machine.pause()
        return machine.resume

    def cut(self, fault: Fault) -> Callable[[], None]:
        """No link between the targets and the others."""
        here, there = self._sides(fault)
        return self._cut("cut", [*product(here, there), *product(there, here)])

    def cut_to(self, fault: Fault) -> Callable[[], None]:
        """Nothing gets from the targets to the others; the other way is open."""
        return self._cut("cut_to", [*product(*self._sides(fault))])

    def cut_from(self, fault: Fault) -> Callable[[], None]:
        """Nothing gets from the others to the targets: requests arrive, answers do not."""
        here, there = self._sides(fault)
        return self._cut("cut_from", [*product(there, here)])

    def link(self, fault: Fault) -> Callable[[], None]:
        """Two machines do not reach each other; everybody else reaches both."""
        here, there = (machine.host for machine in self.machines(fault))
        return self._cut("link", [(here, there), (there, here)])

    def _sides(self, fault: Fault) -> tuple[list[str], list[str]]:
        """The hosts of the targets, and of all others."""
        inside = [machine.host for machine in self.machines(fault)]
        hosts = [service.machine.host for service in self.services.values()]
        return inside, [host for host in hosts if host not in inside]

    def _cut(self, kind: str, ways: list[tuple[str, str]]) -> Callable[[], None]:
        for source, target in ways:
            self.world.network.cut(source, target)
        self._unfelt_cuts[kind, tuple(ways)] = None

        def heal() -> None:
            self._unfelt_cuts.pop((kind, tuple(ways)), None)
            for source, target in ways:
                self.world.network.heal(source, target)

        return heal

    def _on_held_back(self, source: str, target: str) -> None:
        """A cut has happened when it holds something back between two that run."""
        felt = [key for key in self._unfelt_cuts if (source, target) in key[1]]
        if felt and all(self._runs_on(host) for host in (source, target)):
            for key in felt:
                del self._unfelt_cuts[key]
                self.count(key[0])

    def _runs_on(self, host: str) -> bool:
        return any(one.machine.host == host and one.machine.process is not None for one in self.services.values())

    def reset(self, fault: Fault) -> None:
        """Every connection of the target is reset."""
        host = self.machine(fault).host
        for endpoint in self.world.network.connections():
            if endpoint.local[0] == host and endpoint.is_open:
                self.count("reset")
                self.world.network.reset(endpoint)

    def slow_disk(self, fault: Fault) -> Callable[[], None]:
        """The disk takes amount times as long."""
        faults = self.machine(fault).disk_faults
        faults.slow_factor = fault.amount
        faults.felt["slow"] = partial(self.count, "slow_disk")

        def recover() -> None:
            faults.slow_factor = 1
            faults.felt.pop("slow", None)

        return recover

    def sync_fails(self, fault: Fault) -> None:
        """The next sync reports an error, and its pages are lost."""
        self._fail(fault, "sync")

    def write_fails(self, fault: Fault) -> None:
        """The next amount writes report an error."""
        self._fail(fault, "write")

    def read_fails(self, fault: Fault) -> None:
        """The next amount reads report an error."""
        self._fail(fault, "read")

    def _fail(self, fault: Fault, step: str) -> None:
        self._failed_disks[fault.on] = None
        faults = self.machine(fault).disk_faults
        faults.errors[step] = max(fault.amount, 1)
        faults.felt[step] = partial(self.count, fault.kind)

    def disk_full(self, fault: Fault) -> Callable[[], None]:
        """The disk has next to nothing left, amount bytes, for for_ms."""
        disk, faults = self.machine(fault).disk, self.machine(fault).disk_faults
        disk.capacity_bytes = disk.used_bytes + (fault.amount or ROOM_BYTES)
        faults.felt["full"] = partial(self.count, "disk_full")

        def recover() -> None:
            disk.capacity_bytes = CAPACITY_BYTES
            faults.felt.pop("full", None)

        return recover

    def clock_jump(self, fault: Fault) -> None:
        """The wall clock is set forward by amount ms, or back if that is negative. When nothing runs it is set all the
        same, and nobody sees it jump."""
        if self.machine(fault).process is not None:
            self.count("clock_jump")
        self.machine(fault).wall.offset_ms += fault.amount

    def drift(self, fault: Fault) -> Callable[[], None]:
        """The clocks run fast by amount parts in a million, or slow."""
        machine = self.machine(fault)
        started = machine.started if machine.process is None else machine.started - 1
        machine.clock.set_drift(fault.amount, self.world.loop.now_ns)

        def recover() -> None:
            if machine.started > started:  # something ran meanwhile
                self.count("drift")
            machine.clock.set_drift(0, self.world.loop.now_ns)

        return recover

    def slow_node(self, fault: Fault) -> Callable[[], None] | None:
        """Everything the process does takes amount times as long."""
        process = self.machine(fault).process
        if process is None:
            return None
        self.count("slow_node")
        owner = process.owner
        owner.cost_ns = CALLBACK_COST_NS * fault.amount

        def recover() -> None:
            owner.cost_ns = CALLBACK_COST_NS

        return recover


def _mixed_up(random: Random, data: bytes, size_bytes: int) -> bytes:
    """The same entries in another order."""
    entries = [data[at : at + size_bytes] for at in range(0, len(data), size_bytes)]
    random.shuffle(entries)
    return b"".join(entries)


def _shifted(data: bytes, size_bytes: int) -> bytes:
    """Every entry but the last leads where the next one should, and the one before the last is gone: it still rises."""
    entries = [data[at : at + size_bytes] for at in range(0, len(data), size_bytes)]
    wrong = [one[:-4] + after[-4:] for one, after in pairwise(entries[:-1])]
    return b"".join([*wrong, *entries[-1:]])


KINDS: Final[dict[str, Callable[[Nemesis, Fault], Callable[[], None] | None]]] = {
    kind.__name__: kind
    for kind in (
        Nemesis.kill,
        Nemesis.power,
        Nemesis.kill_in,
        Nemesis.power_in,
        Nemesis.power_at_sync,
        Nemesis.spoil,
        Nemesis.stop,
        Nemesis.stop_dark,
        Nemesis.pause,
        Nemesis.cut,
        Nemesis.cut_to,
        Nemesis.cut_from,
        Nemesis.link,
        Nemesis.reset,
        Nemesis.slow_disk,
        Nemesis.sync_fails,
        Nemesis.write_fails,
        Nemesis.read_fails,
        Nemesis.disk_full,
        Nemesis.clock_jump,
        Nemesis.drift,
        Nemesis.slow_node,
    )
}
