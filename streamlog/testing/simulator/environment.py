"""A node's `Env` in a simulated world: its clocks, its dice, its threads, and what it tells the campaign."""

from __future__ import annotations

import asyncio
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


@dataclass(slots=True)
class _Job:
    work: Callable[[], Any]
    done: asyncio.Future[Any]


class SimOffload:
    """Threads as events: work waits for a free one, runs at one instant, and is told of when its time has passed.

    As with `run_in_executor`, work that nobody waits for any more is dropped while it has no thread, and not after.
    """

    def __init__(self, loop: SimLoop, owner: Owner, random: Random, threads_max: int = OFFLOAD_THREADS_MAX) -> None:
        self.thread_cost_ns: int | None = None
        """What the work that runs now has cost; None while none does."""
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

    def _start_waiting(self) -> None:
        while self._threads_free and self._waiting:
            self._threads_free -= 1
            delay_ns = int(THREAD_HOP_NS * (0.5 + self._random.random()))
            self._loop.at_ns(self._loop.now_ns + delay_ns, self._perform, self._waiting.pop(0))

    def _perform(self, job: _Job) -> None:
        if not self._owner.alive:
            return
        if job.done.cancelled():
            self._threads_free += 1
            self._start_waiting()
            return
        error: BaseException | None = None
        result: Any = None
        self.thread_cost_ns = 0
        try:
            result = job.work()
        except NodeDead:
            return
        except BaseException as caught:
            error = caught
        finally:
            cost_ns, self.thread_cost_ns = self.thread_cost_ns, None
        self._loop.at_ns(self._loop.now_ns + cost_ns, self._tell, job, result, error)

    def _tell(self, job: _Job, result: Any, error: BaseException | None) -> None:
        if not self._owner.alive:
            return
        self._threads_free += 1
        self._start_waiting()
        self._loop.as_owner(self._owner, _settle, job.done, result, error)


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
        done.exception()  # nobody may be waiting any more, as with a real thread
