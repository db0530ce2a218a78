"""One partition as its leader serves it: the log, who waits for it to reach the disk, who waits for it to grow.

Appending is synchronous. What a producer waits for comes afterwards, and in order: either nothing, or that the disk
has what it sent (`streamlog.flush`, which a topic of one replica does by default). Waiting producers share syncs: one
task per partition, alive while somebody waits, asks for everything appended so far to be flushed and then
acknowledges all of it.

The high watermark follows the durability that the topic promises. Where acknowledgements wait for the disk it moves
when the disk has the records, so no consumer reads what a power cut can still take back; elsewhere it moves with
the append. With several replicas the ISR will decide instead (replication/), and nothing else here changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final
from uuid import UUID

from streamlog.broker.disk_watch import DiskWatch
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.partition import AppendResult, Origin, PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.validate import PreparedBatch
from streamlog.env import Scope
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.records import WritableBuffer

READ_COMMITTED: Final = 1
"""Isolation level of fetches and lookups that do not see undecided transactions (KIP-98)."""

ISOLATION_LEVELS: Final = (0, READ_COMMITTED)
"""There are no others. Kafka calls one UNKNOWN_SERVER_ERROR, for want of a check; here it is an INVALID_REQUEST."""


class Acknowledgement:
    """What one produce request waits for, in one or more partitions. Completes when all of them have answered.

    It is a `Completion` (connection.py) and calls back at once: a future would cost every request a turn of the loop.
    """

    __slots__ = ("_callback", "_cancelled", "deadline_ms", "failures", "missing")

    def __init__(self, deadline_ms: int) -> None:
        self.deadline_ms = deadline_ms
        self.missing = 0
        self.failures: dict[Partition, ErrorCode] = {}
        self._callback: Callable[[object], object] | None = None
        self._cancelled = False

    def settle(self, partition: Partition, code: ErrorCode) -> None:
        self.missing -= 1
        if code is not ErrorCode.NONE:
            self.failures[partition] = code
        if self.missing == 0 and self._callback is not None:
            self._callback(self)

    def add_done_callback(self, callback: Callable[[object], object], /) -> None:
        assert self._callback is None, "one connection waits for an acknowledgement"
        self._callback = callback

    def cancel(self) -> bool:
        """The client has left. What was appended stays."""
        self._callback = None
        self._cancelled = True
        return True

    def cancelled(self) -> bool:
        return self._cancelled


class GrowthWait:
    """A fetch that waits for bytes, in any of its partitions."""

    __slots__ = ("done", "missing_bytes")

    def __init__(self, missing_bytes: int) -> None:
        self.missing_bytes = missing_bytes
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def grow(self, count: int) -> None:
        self.missing_bytes -= count
        if self.missing_bytes <= 0:
            self.wake()

    def wake(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Partition:
    """See the module's essay."""

    __slots__ = (
        "_flush_task_runs",
        "_flusher",
        "_is_overdue",
        "_scope",
        "_unflushed_since_ms",
        "_unseen_bytes",
        "_waiting",
        "_watch",
        "closed",
        "flush_before_ack",
        "growth_waits",
        "index",
        "leader_epoch",
        "log",
        "replica_count",
        "topic",
        "topic_id",
    )

    def __init__(
        self,
        topic: str,
        index: int,
        topic_id: UUID,
        log: PartitionLog,
        flusher: Flusher,
        scope: Scope,
        watch: DiskWatch,
        *,
        leader_epoch: int,
        replica_count: int,
    ) -> None:
        self.topic = topic
        self.index = index
        self.topic_id = topic_id
        self.log = log
        self.leader_epoch = leader_epoch
        self.replica_count = replica_count
        self.flush_before_ack = log.config.flushes_before_ack(replica_count)
        self.closed = False
        """Deleted or closed; whoever still holds it finds nothing."""
        self.growth_waits: dict[GrowthWait, None] = {}
        """In the order they came."""
        self._flusher = flusher
        self._scope = scope
        self._watch = watch
        self._waiting: deque[tuple[int, Acknowledgement]] = deque()  # rising end offsets
        self._flush_task_runs = False
        self._is_overdue = False  # flush.ms has passed since something was appended
        self._unflushed_since_ms: int | None = None  # monotonic time of the tick that saw it first; None: nothing is
        self._unseen_bytes = 0  # appended above the high watermark, and not told to growth_waits yet
        # What recovery left behind is what there is: with one replica nobody else could still disagree. But what a
        # killed process left in the page cache may be read only when it is on disk, where it goes now.
        if self.flush_before_ack and log.flushed_offset < log.log_end_offset:
            log.high_watermark = log.flushed_offset
            self._start_flushing()
        else:
            log.high_watermark = log.log_end_offset

    # -- appending --------------------------------------------------------------------------------------------

    def append(
        self,
        batches: WritableBuffer,
        now_ms: int,
        origin: Origin = Origin.CLIENT,
        prepared: PreparedBatch | None = None,
    ) -> AppendResult:
        """Append at once. Raises AppendRefused or PartitionOffline; nothing is visible then.

        `batches` is patched in place and may be reused afterwards.
        """
        log = self.log
        try:
            result = log.append(
                batches, leader_epoch=self.leader_epoch, now_ms=now_ms, origin=origin, prepared=prepared
            )
        except PartitionOffline as error:
            if log.failure is None:
                self._watch.refused(f"{self.topic}-{self.index}", error.message)
            raise
        if self._watch.is_refusing:
            self._watch.accepted()
        if not result.is_duplicate:
            self._unseen_bytes += len(batches)
            if self.flush_before_ack:
                self._start_flushing()
            else:
                self._advance(log.log_end_offset)
                if log.log_end_offset - log.flushed_offset >= log.config.flush_messages:
                    self._start_flushing()
        return result

    def is_stored(self, end_offset: int) -> bool:
        """Whether everything below `end_offset` is stored as the topic promises."""
        return not self.flush_before_ack or self.log.durability.flushed_offset >= end_offset

    def acknowledge_when_stored(self, end_offset: int, acknowledgement: Acknowledgement) -> None:
        """Settle `acknowledgement` when `is_stored(end_offset)`, which it is not yet."""
        acknowledgement.missing += 1
        self._waiting.append((end_offset, acknowledgement))
        self._start_flushing()

    async def stored(self, end_offset: int) -> None:
        """Return once everything below `end_offset` is stored as the topic promises. Raises PartitionOffline."""
        if self.flush_before_ack:
            await self._flusher.flushed(self.log, end_offset)
            self._on_flushed()

    def _start_flushing(self) -> None:
        if not self._flush_task_runs:
            self._flush_task_runs = True
            self._scope.spawn(f"acknowledge {self.topic}-{self.index}", self._flush_while_needed())

    async def _flush_while_needed(self) -> None:
        log = self.log
        try:
            while not self.closed and self._must_flush():
                self._is_overdue = False
                await self._flusher.flushed(log, log.log_end_offset)
                self._on_flushed()
        except PartitionOffline:
            self._fail_waiting(ErrorCode.KAFKA_STORAGE_ERROR)
        finally:
            self._flush_task_runs = False

    def _must_flush(self) -> bool:
        log = self.log
        unflushed = log.log_end_offset - log.flushed_offset
        somebody_waits = self.flush_before_ack or bool(self._waiting)
        return unflushed > 0 and (somebody_waits or self._is_overdue or unflushed >= log.config.flush_messages)

    def flush_overdue(self, now_ms: int) -> None:
        """Honour `flush.ms`, as exactly as this is called; nobody waits for it."""
        log = self.log
        if log.flushed_offset >= log.log_end_offset:
            self._unflushed_since_ms = None
        elif self._unflushed_since_ms is None:
            self._unflushed_since_ms = now_ms
        elif now_ms - self._unflushed_since_ms >= log.config.flush_ms:
            self._unflushed_since_ms = None
            self._is_overdue = True
            self._start_flushing()

    def _on_flushed(self) -> None:
        flushed_offset = self.log.flushed_offset
        if flushed_offset > self.log.high_watermark:
            # Where the high watermark follows the append it is ahead of the disk, and must not go back.
            self._advance(flushed_offset)
        waiting = self._waiting
        while waiting and waiting[0][0] <= flushed_offset:
            waiting.popleft()[1].settle(self, ErrorCode.NONE)

    def _fail_waiting(self, code: ErrorCode) -> None:
        waiting, self._waiting = self._waiting, deque()
        for _, acknowledgement in waiting:
            acknowledgement.settle(self, code)

    def expire(self, now_ms: int) -> None:
        """Answer REQUEST_TIMED_OUT to producers whose time is up; their records may still be stored."""
        if any(acknowledgement.deadline_ms <= now_ms for _, acknowledgement in self._waiting):
            kept: deque[tuple[int, Acknowledgement]] = deque()
            for entry in self._waiting:
                if entry[1].deadline_ms <= now_ms:
                    entry[1].settle(self, ErrorCode.REQUEST_TIMED_OUT)
                else:
                    kept.append(entry)
            self._waiting = kept

    # -- reading ----------------------------------------------------------------------------------------------

    def readable_end_offset(self, isolation_level: int) -> int:
        """Exclusive end of what a consumer may see."""
        return self.log.last_stable_offset if isolation_level == READ_COMMITTED else self.log.high_watermark

    def _advance(self, high_watermark: int) -> None:
        self.log.high_watermark = high_watermark
        if self._unseen_bytes and high_watermark == self.log.log_end_offset:
            grown, self._unseen_bytes = self._unseen_bytes, 0
            if self.growth_waits:
                for wait in list(self.growth_waits):
                    wait.grow(grown)
        elif self.growth_waits:
            # Part of what was appended is visible now. How many bytes is not known; let them look.
            for wait in list(self.growth_waits):
                wait.wake()

    # -- changes ----------------------------------------------------------------------------------------------

    def update_config(self, config: LogConfig) -> None:
        self.log.update_config(config)
        self.flush_before_ack = config.flushes_before_ack(self.replica_count)
        if not self.flush_before_ack:
            self._advance(self.log.log_end_offset)

    def on_log_start_moved(self) -> None:
        """Readers that wait below the new log start are to be told."""
        for wait in list(self.growth_waits):
            wait.wake()

    def close(self) -> None:
        """Nobody reads or writes here any more: producers that wait get an error, fetches look again."""
        self.closed = True
        self._fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        for wait in list(self.growth_waits):
            wait.wake()
        self.growth_waits.clear()
