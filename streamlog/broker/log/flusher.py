"""Group commit: many acknowledgements wait for one fdatasync.

A produce request to a topic that flushes before ack appends, then awaits `flushed`. While a thread syncs, whatever
else is appended collects, and the next sync takes all of it. So one writer pays one sync per append, and a thousand
writers share one among them. One sync at a time for each partition; partitions sync beside each other.

This is the only place that lets a partition's durability work run in a thread, so flushes and checkpoints of one
partition never overlap.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from streamlog.broker.log.flush import CheckpointWork, DerivedFileFailed, FlushWork, run_together
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.waiters import OffsetWaiters
from streamlog.env import OFFLOAD_THREADS_MAX, Env, Scope

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Flusher:
    """Flushes and checkpoints the logs of one directory, in threads."""

    def __init__(self, env: Env, scope: Scope) -> None:
        self._env = env
        self._scope = scope
        self._queues: dict[PartitionLog, _Queue] = {}
        self._has_complained = False  # of checkpoints that could not be written; one line until one can be

    async def flushed(self, log: PartitionLog, offset: int) -> None:
        """Return when everything below `offset` is on disk.

        Raises PartitionOffline: the sync failed; the record may or may not be there. Cancelling leaves the sync
        running for the others.
        """
        if log.flushed_offset >= offset:
            return
        if log.failure is not None:
            raise PartitionOffline(log.failure)
        queue = self._queues.get(log)
        if queue is None:
            queue = self._queues[log] = _Queue(log.flushed_offset)
        queue.waiters.advance(log.flushed_offset)  # lower than before where the log was cut
        if not queue.is_running:
            queue.is_running = True
            self._scope.spawn(f"flush {log.directory}", self._run(log, queue))
        await queue.waiters.reached(offset)

    async def _run(self, log: PartitionLog, queue: _Queue) -> None:
        """Sync until nobody waits."""
        try:
            while len(queue.waiters):
                if len(queue.waiters) > 1:
                    self._env.hooks.sometimes("sync shared by several appends")
                async with queue.lock:
                    await self._sync(log, log.begin_flush())
                queue.waiters.advance(log.flushed_offset)
                if log.flushed_offset < log.log_end_offset:
                    self._env.hooks.sometimes("append during a sync")
                    continue
                # A truncation may have taken what somebody waits for; it will not come back.
                queue.waiters.fail_above(log.log_end_offset, PartitionOffline(f"{log.directory} was truncated"))
        except PartitionOffline as error:
            logger.error("partition=%s state=offline reason=%s", log.directory, error.message)
            queue.waiters.fail(error)
            self._queues.pop(log, None)
        finally:
            queue.is_running = False

    async def checkpoint(self, log: PartitionLog) -> bool:
        """Make everything recovery needs durable. Says whether `log.recovery_point` moved.

        Raises PartitionOffline. Cancelled, it ends when the thread has.
        """
        queue = self._queues.get(log)
        if queue is None:
            queue = self._queues[log] = _Queue(log.flushed_offset)
        async with queue.lock:
            before = log.recovery_point
            work = log.begin_checkpoint()
            if work is None:
                return False
            await self._sync(log, work)
        queue.waiters.advance(log.flushed_offset)
        return log.recovery_point != before

    async def checkpoint_all(self, logs: Iterable[PartitionLog]) -> None:
        """Checkpoint these, as many at a time as there are threads to wait for the disk.

        A file system makes neighbouring syncs durable together, so several at a time take less than their sum. What
        fails is offline then, with the reason in its `failure`.
        """
        pending = iter(list(logs))

        async def work_off() -> None:
            for log in pending:  # all of them take from the same iterator
                with suppress(PartitionOffline):
                    await self.checkpoint(log)

        async with asyncio.TaskGroup() as group:
            for _ in range(OFFLOAD_THREADS_MAX):
                group.create_task(work_off())

    async def flush_opened(self, logs: Iterable[PartitionLog]) -> None:
        """Flush logs that were just opened and that nobody else uses yet, all with one way to a thread and back.

        That way takes longer than most of their syncs. What fails is offline then, with the reason in its `failure`.
        """
        grown = [log for log in logs if log.flushed_offset < log.log_end_offset]
        begun = [(log, work) for log in grown if (work := log.begin_flush()) is not None]
        if begun:
            errors, was_cancelled = await self._finished(lambda: run_together(work for _, work in begun))
            for (log, work), error in zip(begun, errors, strict=True):
                with suppress(PartitionOffline):
                    log.end_flush(work, error)
            if was_cancelled:
                raise asyncio.CancelledError

    async def _sync(self, log: PartitionLog, work: FlushWork | CheckpointWork | None) -> None:
        if work is None:
            return
        error, was_cancelled = await self._finished(lambda: _error_of(work))
        if isinstance(error, DerivedFileFailed):
            self._env.hooks.sometimes("checkpoint not written")
            if not self._has_complained:
                self._has_complained = True
                logger.warning("partition=%s no checkpoint: %s (further ones are not listed)", log.directory, error)
        elif error is None and isinstance(work, CheckpointWork):
            self._has_complained = False
        try:
            if isinstance(work, CheckpointWork):
                log.end_checkpoint(work, error)
            else:
                log.end_flush(work, error)
        finally:
            if was_cancelled:
                raise asyncio.CancelledError

    async def _finished(self, work: Callable[[], T]) -> tuple[T, bool]:
        """What `work` returns from its thread, and whether we were cancelled meanwhile: we wait all the same.

        A kernel tells of a failed sync once. Whoever closes the log next would sync again, hear that all is well, and
        call clean what the disk does not have.
        """
        running = asyncio.ensure_future(self._env.offload.run(work))  # noqa: TID251  # it ends before we do
        was_cancelled = False
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                was_cancelled = True
        return running.result(), was_cancelled

    def forget(self, log: PartitionLog) -> None:
        """The partition is closed or deleted here: nobody waits for it any longer."""
        queue = self._queues.pop(log, None)
        if queue is not None:
            queue.waiters.fail(PartitionOffline(f"{log.directory} was closed"))


def _error_of(work: FlushWork | CheckpointWork) -> OSError | None:
    try:
        work.run()
    except OSError as error:
        return error
    return None


class _Queue:
    __slots__ = ("is_running", "lock", "waiters")

    def __init__(self, flushed_offset: int) -> None:
        self.waiters = OffsetWaiters(flushed_offset)
        self.lock = asyncio.Lock()  # one sync of this partition at a time
        self.is_running = False  # a task syncs until nobody waits
