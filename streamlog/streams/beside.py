"""What runs beside the streams of one worker: tasks, timers and the two hooks, on every worker or only on the leader.

The leader is the worker that owns task 0. The group gives that task to one worker at a time, so there is no election of
our own: leading begins when the group assigns partition 0, and what runs on the leader is over before the group may
give the partition to another worker. A worker that the group has thrown out learns of it late, as with every task; what
must not run twice even then has to be safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from streamlog.env import Clock, Scope, cancel_requests
from streamlog.streams.policies import blame
from streamlog.streams.timers import BackgroundTask, Timer, Work, run_task, run_timer

log = logging.getLogger(__name__)

END_S_MAX = 5.0
"""How long a function that is cancelled gets for its `finally`. The group waits while leading ends."""

HOOK_PATIENCE_S = 10.0
"""After so long a hook that holds up the first event is named."""


class Program(Protocol):
    """The part of an App that is needed here."""

    @property
    def id(self) -> str: ...
    @property
    def timers(self) -> Sequence[Timer]: ...
    @property
    def tasks(self) -> Sequence[BackgroundTask]: ...
    @property
    def started(self) -> Sequence[Work]: ...
    @property
    def stopping(self) -> Sequence[Work]: ...


class Beside:
    """See the module's essay. What user functions raise is logged here, and goes no further."""

    def __init__(self, program: Program, clock: Clock, on_crash: Callable[[BaseException], None]) -> None:
        self.leading = False
        self._program, self._clock = program, clock
        self._closed = False
        # Ended task by task and never closed: Scope.close would wait without end for a function that will not end.
        self._scope = Scope("beside", on_crash)
        self._everywhere: list[asyncio.Task[None]] = []
        self._on_leader: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Run what runs on every worker."""
        self._everywhere = self._spawn(on_leader=False)

    def lead(self) -> None:
        """This worker has task 0. Nothing happens if it leads already."""
        if self.leading or self._closed:
            return
        self.leading = True
        self._on_leader = self._spawn(on_leader=True)
        if self._on_leader:
            log.info("app=%s leader=yes", self._program.id)

    async def stop_leading(self) -> None:
        """End what runs on the leader. Cancelled meanwhile, it is all told to end, and not waited for."""
        if not self.leading:
            return
        self.leading = False
        works, self._on_leader = self._on_leader, []
        if works:
            log.info("app=%s leader=no", self._program.id)
        await self._end(works)

    async def close(self) -> None:
        """End everything. Idempotent."""
        self._closed, self.leading = True, False
        works, self._everywhere, self._on_leader = [*self._everywhere, *self._on_leader], [], []
        await self._end(works)

    async def run_started(self) -> None:
        """The `on_started` hooks, one after another."""
        loop = asyncio.get_running_loop()
        for work in self._program.started:
            what = "app=%s no event is processed before %s has ended"
            complaint = loop.call_later(HOOK_PATIENCE_S, log.warning, what, self._program.id, _name(work))
            try:
                await self._call(work)
            finally:
                complaint.cancel()

    async def run_stopping(self) -> None:
        """The `on_stopping` hooks, one after another."""
        for work in self._program.stopping:
            await self._call(work)

    def _spawn(self, *, on_leader: bool) -> list[asyncio.Task[None]]:
        works: list[tuple[str, Coroutine[Any, Any, None]]] = [
            *((one.name, run_timer(one, self._clock)) for one in self._program.timers if one.on_leader is on_leader),
            *((one.name, run_task(one)) for one in self._program.tasks if one.on_leader is on_leader),
        ]
        return [self._scope.spawn(name, work) for name, work in works]

    async def _end(self, works: Sequence[asyncio.Task[None]]) -> None:
        for work in works:
            work.cancel()
        if not works:
            return
        _, left = await asyncio.wait(works, timeout=END_S_MAX)
        for name in sorted(one.get_name() for one in left):
            log.error("app=%s %s was cancelled and does not end", self._program.id, name)

    async def _call(self, work: Work) -> None:
        requests = cancel_requests()  # a worker that is cancelled runs its stopping hooks in that very task
        try:
            await work()
        except Exception as error:  # the user's function may raise anything
            log.error("app=%s %s failed: %s", self._program.id, _name(work), blame(error))
        except asyncio.CancelledError as error:
            if cancel_requests() > requests:
                raise
            log.error("app=%s %s failed: %s", self._program.id, _name(work), blame(error))


def _name(work: Work) -> str:
    return getattr(work, "__name__", repr(work))
