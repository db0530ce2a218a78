"""The task that keeps a data directory in order beside the requests: checkpoints, retention, compaction.

It wakes every second and does what is due. Anything that blocks goes to a thread; anything that computes runs in
slices of a few milliseconds, with pauses as long as the slices, so that a request never waits longer than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

from streamlog.broker.log.checkpoint import TopicPartition
from streamlog.broker.log.cleaner import Cleanable, CleanResult, Step, clean, find_cleanable, is_due
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.retention import delete_old_segments
from streamlog.broker.log.segment import DamagedLog
from streamlog.env import Env
from streamlog.errors import StreamlogError

logger = logging.getLogger(__name__)

TICK_S = 1.0

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""A partition is checkpointed when this much was appended since. Recovery walks at most that and what a tick adds:
about 0.3 s for records of 100 bytes sent one by one, 20 ms for full batches."""

CHECKPOINT_INTERVAL_MS = 60_000
"""log.flush.offset.checkpoint.interval.ms: a partition that changes slowly is checkpointed this often."""

RETENTION_INTERVAL_MS = 300_000
"""log.retention.check.interval.ms."""

CLEANER_INTERVAL_MS = 15_000
"""log.cleaner.backoff.ms: how often to look for something to compact when there was nothing."""

RELEASE_INTERVAL_MS = 60_000
"""How often files and indexes of segments nobody reads are let go."""

EXPIRE_INTERVAL_MS = 600_000
"""producer.id.expiration.check.interval.ms."""

SLICE_MS = 2
"""Longest stretch of compaction between two pauses."""


class Housekeeper:
    def __init__(self, env: Env, directory: LogDirectory, flusher: Flusher) -> None:
        self._env = env
        self._directory = directory
        self._flusher = flusher
        self.uncleanable: dict[TopicPartition, str] = {}
        """Compacted partitions that cannot be compacted, and why. Looked at by health checks."""
        now_ms = env.clock.mono_ms()
        self._checkpointed_at_ms = now_ms
        self._chores = [
            _Chore(self._apply_retention, RETENTION_INTERVAL_MS, now_ms + RETENTION_INTERVAL_MS),
            _Chore(self._release, RELEASE_INTERVAL_MS, now_ms + RELEASE_INTERVAL_MS),
            _Chore(self._expire, EXPIRE_INTERVAL_MS, now_ms + EXPIRE_INTERVAL_MS),
        ]

    async def run(self) -> None:
        """Work until cancelled, which can happen between any two steps."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """Whatever is due now, except compaction, which `run_cleaner` does."""
        now_ms = self._env.clock.mono_ms()
        for chore in self._chores:
            if now_ms >= chore.due_at_ms:
                chore.due_at_ms = now_ms + chore.interval_ms
                chore.work()
        everything = now_ms - self._checkpointed_at_ms >= CHECKPOINT_INTERVAL_MS
        if everything:
            self._checkpointed_at_ms = now_ms
        await self.checkpoint(everything=everything)
        await self.remove_doomed()

    # --- checkpoints ---

    async def checkpoint(self, *, everything: bool = True) -> None:
        """Checkpoint the partitions that have grown enough, or all that have grown, then the files that say so."""
        moved = False
        for log in list(self._directory.logs.values()):
            grown_bytes = log.appended_bytes - log.checkpointed_bytes
            if grown_bytes >= CHECKPOINT_BYTES or (everything and log.failure is None):
                try:
                    await self._flusher.checkpoint(log)
                except PartitionOffline as error:
                    if log in self._directory.logs.values():  # and not deleted meanwhile
                        logger.error("partition=%s state=offline reason=%s", log.directory, error.message)
                moved = True
        if everything or moved:
            await self.save_checkpoints()

    async def save_checkpoints(self) -> None:
        """Write the checkpoint files that have changed; DeleteRecords waits for this before it answers."""
        for name, offsets in self._directory.unsaved().items():
            await self._env.offload.run(partial(self._directory.write_checkpoint, name, offsets))
            self._directory.note_saved(name, offsets)

    async def remove_doomed(self) -> None:
        """Remove files and directories whose delay has passed."""
        files, directories = self._directory.take_doomed(self._env.clock.wall_ms())
        if files or directories:
            await self._env.offload.run(partial(self._directory.remove, files, directories))

    # --- quick work, inline ---

    def _apply_retention(self) -> None:
        now_ms = self._env.clock.wall_ms()
        for log in list(self._directory.logs.values()):
            try:
                deleted = delete_old_segments(log, now_ms)
            except (PartitionOffline, DamagedLog, OSError) as error:
                logger.error("partition=%s retention failed: %s", log.directory, error)
                continue
            if deleted:
                logger.info(
                    "partition=%s deleted segments=%d log_start=%d", log.directory, deleted, log.log_start_offset
                )

    def _release(self) -> None:
        for log in self._directory.logs.values():
            log.release_idle()

    def _expire(self) -> None:
        now_ms = self._env.clock.wall_ms()
        for log in self._directory.logs.values():
            log.producers.expire(now_ms)

    # --- compaction ---

    async def run_cleaner(self) -> None:
        """Compact whatever is due, the dirtiest first, until cancelled."""
        while True:
            if not await self.clean_one():
                await asyncio.sleep(CLEANER_INTERVAL_MS / 1000)

    async def clean_one(self) -> bool:
        """One round on the partition that needs it most. Says whether there was one."""
        found = self._dirtiest()
        if found is None:
            return False
        key, log, cleanable = found
        try:
            result = await self._drive(clean(log, self._env.storage, cleanable, self._env.clock.wall_ms()))
        except (StreamlogError, OSError) as error:
            if not isinstance(error, OSError):  # a full disk may have room again, damage stays
                self.uncleanable[key] = str(error)
            logger.error("partition=%s-%d cannot be compacted: %s", key[0], key[1], error)
            return False
        if not result.was_interrupted and self._directory.logs.get(key) is log:
            self._directory.cleaner_offsets[key] = result.end_offset
        logger.info(
            "partition=%s-%d compacted to=%d read_bytes=%d kept_bytes=%d",
            key[0],
            key[1],
            result.end_offset,
            result.bytes_read,
            result.bytes_kept,
        )
        return not result.was_interrupted

    def _dirtiest(self) -> tuple[TopicPartition, PartitionLog, Cleanable] | None:
        now_ms = self._env.clock.wall_ms()
        best: tuple[TopicPartition, PartitionLog, Cleanable] | None = None
        for key, log in self._directory.logs.items():
            if not log.config.compact or log.failure is not None or key in self.uncleanable:
                continue
            try:
                cleanable = find_cleanable(log, self._directory.cleaner_offsets.get(key, 0), now_ms)
            except (DamagedLog, OSError) as error:
                self.uncleanable[key] = str(error)
                continue
            if cleanable is None or not is_due(log, cleanable):
                continue
            if best is None or cleanable.dirty_ratio > best[2].dirty_ratio:
                best = (key, log, cleanable)
        return best

    async def _drive(self, work: Generator[Step, None, CleanResult]) -> CleanResult:
        """Run a round in slices."""
        started_ns = self._env.clock.mono_ns()
        while True:
            try:
                step = next(work)
            except StopIteration as stop:
                result: CleanResult = stop.value
                return result
            if step is not None:
                await self._env.offload.run(step)
                started_ns = self._env.clock.mono_ns()
            elif self._env.clock.mono_ns() - started_ns > SLICE_MS * 1_000_000:
                await asyncio.sleep(SLICE_MS / 1000)
                started_ns = self._env.clock.mono_ns()


@dataclass(slots=True)
class _Chore:
    """Something quick that is done inline now and then."""

    work: Callable[[], None]
    interval_ms: int
    due_at_ms: int
