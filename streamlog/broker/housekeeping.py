"""What a broker does by the clock: retention, compaction, checkpoints, removing what was deleted, timing out producers.

Each duty is a loop of its own with its own pause. A duty that fails on one partition logs it and goes on: only the
disk can be the reason, and the partition is offline already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from streamlog.broker.broker import Broker
from streamlog.broker.log.cleaner import Cleanable, CleanResult, clean, find_cleanable, is_due
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.retention import delete_old_segments
from streamlog.broker.log.segment import DamagedLog
from streamlog.broker.partition import Partition

log = logging.getLogger(__name__)

TICK_MS: Final = 1_000
"""Producers' timeouts and `flush.ms` are kept this exactly."""

RETRY_OPENING_MS: Final = 5_000
"""How often partitions are opened that the disk had no room for: an operator who has made some sees it at once."""

REMOVE_MS: Final = 10_000
"""How often files that have waited out their delete delay are removed."""

RELEASE_MS: Final = 60_000
"""How often files and indexes of old segments that nobody read since the last time are let go."""

COMPACT_PAUSE_MS: Final = 1
"""Requests get at least this much between two slices of compaction."""

COMPLAIN_AGAIN_MS: Final = 60_000
"""A duty that goes on failing for the same reason says so again after this long: a full disk stays full for hours."""

YIELD_AFTER: Final = 64
"""Partitions that retention looks at before requests get a turn."""


class Housekeeping:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def start(self) -> None:
        config = self._broker.config
        self._every("expire producers' waits", TICK_MS, self.expire)
        self._every("watch the disk", TICK_MS, self.watch_disk)
        self._every("open what had no room", RETRY_OPENING_MS, self.retry_opening)
        self._every("flush what is overdue", TICK_MS, self.flush_overdue)
        self._every("retention", config.integer("log.retention.check.interval.ms"), self.apply_retention)
        self._every("checkpoint", config.integer("log.flush.offset.checkpoint.interval.ms"), self.checkpoint)
        self._every("checkpoint what has grown", TICK_MS, self.checkpoint_grown)
        self._every("remove deleted files", REMOVE_MS, self.remove_deleted)
        self._every("release idle segments", RELEASE_MS, self.release_idle)
        if config.boolean("log.cleaner.enable"):
            self._every("compact", config.integer("log.cleaner.backoff.ms"), self.compact)

    def _every(self, name: str, pause_ms: int, duty: Callable[[], Awaitable[None]]) -> None:
        clock = self._broker.env.clock

        async def run() -> None:
            complaint, complained_at_ms = "", 0
            while True:
                await asyncio.sleep(pause_ms / 1000)
                try:
                    await duty()
                    complaint = ""
                except (OSError, PartitionOffline) as error:
                    if str(error) != complaint or clock.mono_ms() - complained_at_ms >= COMPLAIN_AGAIN_MS:
                        complaint, complained_at_ms = str(error), clock.mono_ms()
                        log.error("%s failed, and is tried again: %s", name, error)

        self._broker.scope.spawn(name, run())

    async def expire(self) -> None:
        self._broker.partitions.expire_acknowledgements(self._broker.env.clock.mono_ms())

    async def watch_disk(self) -> None:
        self._broker.partitions.disk_watch.tick()

    async def retry_opening(self) -> None:
        await self._broker.partitions.retry_refused()

    async def flush_overdue(self) -> None:
        self._broker.partitions.flush_overdue(self._broker.env.clock.mono_ms())

    async def apply_retention(self) -> None:
        """Delete segments that are too old or too many, and whatever lies below a log start."""
        for number, partition in enumerate(list(self._broker.partitions), 1):
            if number % YIELD_AFTER == 0:
                await asyncio.sleep(0.001)
            if partition.closed:
                continue
            now_ms = self._broker.env.clock.wall_ms()
            try:
                deleted = delete_old_segments(partition.log, now_ms)
                partition.log.expire_producers(self._broker.env.clock.mono_ms())
            except PartitionOffline as error:
                log.error("partition=%s-%d state=offline reason=%s", partition.topic, partition.index, error.message)
                continue
            if deleted:
                log.info(
                    "partition=%s-%d deleted_segments=%d log_start=%d",
                    partition.topic,
                    partition.index,
                    deleted,
                    partition.log.log_start_offset,
                )

    async def compact(self) -> None:
        """Clean the partitions that need it, the dirtiest first, in slices between requests."""
        worth_it = [found for found in map(self._find_due, self._compacted()) if found is not None]
        if await self._make_durable(worth_it):
            worth_it = [found for found in map(self._find_due, self._compacted()) if found is not None]
        for partition, found in sorted(worth_it, key=lambda entry: -entry[1].dirty_ratio):
            if not partition.closed and found.end_offset <= partition.log.recovery_point:
                await self._compact_one(partition, found)

    def _compacted(self) -> Iterator[Partition]:
        return (partition for partition in self._broker.partitions if partition.log.config.compact)

    def _find_due(self, partition: Partition) -> tuple[Partition, Cleanable] | None:
        """What is worth cleaning in a partition, also above its recovery point."""
        clean_offset = self._broker.logs.cleaner_offsets.get((partition.topic, partition.index), 0)
        now_ms = self._broker.env.clock.wall_ms()
        found = find_cleanable(partition.log, clean_offset, now_ms, above_recovery_point=True)
        return None if found is None or not is_due(partition.log, found) else (partition, found)

    async def _make_durable(self, worth_it: list[tuple[Partition, Cleanable]]) -> bool:
        """Checkpoint what is to be cleaned and may not be yet (cleaner.py says why). Says whether it took time."""
        behind = [partition for partition, found in worth_it if found.end_offset > partition.log.recovery_point]
        for partition in behind:
            if not partition.closed:
                await self._checkpoint_one(partition.log)
        if behind:
            self._broker.logs.save_recovery_points()
        return bool(behind)

    async def _compact_one(self, partition: Partition, found: Cleanable) -> None:
        broker = self._broker
        round_ = clean(partition.log, broker.env.storage, found, broker.env.clock.wall_ms())
        try:
            while not partition.closed:
                step = next(round_)
                if step is None:
                    await asyncio.sleep(COMPACT_PAUSE_MS / 1000)
                else:
                    await broker.env.offload.run(step)
        except StopIteration as finished:
            result: CleanResult = finished.value
            if result.was_interrupted:
                return  # retention took segments away meanwhile; the next round starts from what is left
            broker.env.hooks.sometimes("compaction done")
            broker.logs.cleaner_offsets[partition.topic, partition.index] = result.end_offset
            log.info(
                "partition=%s-%d compacted_end=%d read=%d kept=%d",
                partition.topic,
                partition.index,
                result.end_offset,
                result.bytes_read,
                result.bytes_kept,
            )
        except (DamagedLog, OSError) as error:
            log.error("partition=%s-%d not compacted: %s", partition.topic, partition.index, error)
        finally:
            round_.close()

    async def checkpoint(self) -> None:
        """Move recovery points up, so that the next start reads less, and write the checkpoint files."""
        for opened in list(self._broker.logs.logs.values()):
            if opened.recovery_point < opened.log_end_offset:
                await self._checkpoint_one(opened)
        self._broker.logs.save_checkpoints()

    async def checkpoint_grown(self) -> None:
        """The same for the partitions that a restart would take long to walk."""
        grown = [opened for opened in self._broker.logs.logs.values() if opened.is_checkpoint_due]
        for opened in grown:
            await self._checkpoint_one(opened)
        if grown:
            self._broker.logs.save_recovery_points()

    async def _checkpoint_one(self, opened: PartitionLog) -> None:
        try:
            await self._broker.flusher.checkpoint(opened)
        except PartitionOffline as error:
            log.error("partition=%s state=offline reason=%s", opened.directory, error.message)

    async def release_idle(self) -> None:
        for opened in self._broker.logs.logs.values():
            opened.release_idle()

    async def remove_deleted(self) -> None:
        logs = self._broker.logs
        files, directories = logs.take_doomed(self._broker.env.clock.wall_ms())
        if files or directories:
            await self._broker.env.offload.run(lambda: logs.remove(files, directories))
