"""A node's `Env` in a simulated world: its clocks, its dice, its threads, and what it tells the campaign."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from streamlog.env import OFFLOAD_THREADS_MAX
from streamlog.testing.simulator.loop import SimLoop
from streamlog.testing.simulator.owner import NodeDead, Owner

T = TypeVar("T")

THREAD_HOP_NS = 60_000
"""From the loop to a thread and back."""

STOPPED_LOOK_NS = 1_000_000
"""How often a thread of a stopped process is looked at."""


@dataclass(slots=True)
class WallClock:
    """A machine's wall clock. It may be set at any time."""

    offset_ms: int


class SimClock:
    def __init__(self, loop: SimLoop, owner: Owner, wall: WallClock) -> None:
        self._loop = loop
        self._owner = owner
        self._wall = wall

    def wall_ms(self) -> int:
        return self._wall.offset_ms + self._loop.now_ns // 1_000_000

    def mono_ms(self) -> int:
        return self._owner.clock.read(self._loop.now_ns) // 1_000_000

    def mono_ns(self) -> int:
        return self._owner.clock.read(self._loop.now_ns)


class SimEntropy:
    def __init__(self, random: Random) -> None:
        self._random = random

    def random(self) -> float:
        return self._random.random()

    def randrange(self, stop: int) -> int:
        return self._random.randrange(stop)

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


class SimHooks:
    """Takes the rare paths that this run has chosen, and counts what was reached."""

    def __init__(self, random: Random, sites: dict[str, float], reached: dict[str, int]) -> None:
        """`sites`: how likely each rare path is in this run. `reached`: how often each situation was, all nodes."""
        self._random = random
        self._sites = sites
        self._reached = reached

    def buggify(self, site: str) -> bool:
        chance = self._sites.get(site, 0.0)
        return chance > 0 and self._random.random() < chance

    def sometimes(self, name: str) -> None:
        self._reached[name] = self._reached.get(name, 0) + 1


class SimOffload:
    """Threads as events. Work waits for a free one, and what it does to files takes its time there.

    `steps`: file operations happen at instants of their own, and the loop goes on between them, as with real threads.
    Else all of the work happens at one instant, and only its answer comes when its time has passed.

    As with `run_in_executor`, work that nobody waits for any more is dropped while it has no thread, and not after.
    """

    def __init__(
        self,
        loop: SimLoop,
        owner: Owner,
        random: Random,
        *,
        steps: bool = False,
        threads_max: int = OFFLOAD_THREADS_MAX,
    ) -> None:
        self.running: _Job | None = None
        """The work that runs right now: what it spends is its own time, not the loop's."""
        self.on_interleaved: Callable[[], None] = lambda: None
        """Told whenever the process's loop has done something between two steps of a thread."""
        self._steps = steps
        self._loop = loop
        self._owner = owner
        self._random = random
        self._threads_free = threads_max
        self._waiting: list[_Job] = []

    async def run(self, work: Callable[[], T]) -> T:
        job = _Job(work, self._loop.create_future())
        self._waiting.append(job)
        self._start_waiting()
        result: T = await job.done
        return result

    def close(self) -> None:
        return None

    def spend(self, cost_ns: int) -> None:
        """The running work blocks for so long."""
        assert self.running is not None, "somebody's work is running"
        if self._steps:
            self.running.pause(cost_ns)
        else:
            self.running.cost_ns += cost_ns

    def _start_waiting(self) -> None:
        while self._threads_free and self._waiting:
            self._threads_free -= 1
            delay_ns = int(THREAD_HOP_NS * (0.5 + self._random.random()))
            self._loop.at_ns(self._loop.now_ns + delay_ns, self._begin, self._waiting.pop(0))

    def _begin(self, job: _Job) -> None:
        if not self._owner.alive:
            return
        if job.done.cancelled():
            self._threads_free += 1
            self._start_waiting()
            return
        self._go_on(job)

    def _go_on(self, job: _Job) -> None:
        """Let the work run to its end, or to its next pause. A dead process's work stays where it is, for ever."""
        if not self._owner.alive:
            return
        if self._owner.paused:  # all threads of a process are stopped
            self._loop.at_ns(self._loop.now_ns + STOPPED_LOOK_NS, self._go_on, job)
            return
        self.running, job.cost_ns = job, 0
        if job.turns_seen not in (-1, self._owner.turns):
            self.on_interleaved()
        job.turns_seen = self._owner.turns
        if self._steps:
            job.resume()
        else:
            job.perform()
        self.running = None
        if not isinstance(job.error, NodeDead):
            self._loop.at_ns(self._loop.now_ns + job.cost_ns, self._tell if job.is_over else self._go_on, job)

    def _tell(self, job: _Job) -> None:
        if not self._owner.alive:
            return
        self._threads_free += 1
        self._start_waiting()
        self._loop.as_owner(self._owner, _settle, job.done, job.result, job.error)


class _Job:
    """Work for a thread. With `resume` and `pause` it has a real one, and never both this and the loop's run."""

    def __init__(self, work: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        self.work = work
        self.done = done
        self.cost_ns = 0
        """What it has spent since it went on."""
        self.is_over = False
        self.turns_seen = -1
        """How many turns its process had when it last went on."""
        self.result: Any = None
        self.error: BaseException | None = None
        self._may_go = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def perform(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error
        self.is_over = True

    def resume(self) -> None:
        """In the loop's thread: returns when the work pauses or is over."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._perform_in_steps, daemon=True)
            self._thread.start()
        else:
            self._may_go.release()
        self._has_stopped.acquire()

    def pause(self, cost_ns: int) -> None:
        """In the work's thread."""
        self.cost_ns = cost_ns
        self._has_stopped.release()
        self._may_go.acquire()

    def _perform_in_steps(self) -> None:
        self.perform()
        self._has_stopped.release()


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
        done.exception()  # nobody may be waiting any more, as with a real thread
