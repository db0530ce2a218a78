"""Where a consumer stands in each of its partitions: one state machine per partition, pure.

    ASSIGNED   the application was not told yet; nothing is fetched
    COMMITTED  the group's committed offset is being looked up
    RESET      there is no usable position; the reset policy is being carried out
    CHECK      the leader changed; does the log still hold what we read (KIP-320)?
    FETCHING   a position is known

    ASSIGNED -> COMMITTED (or RESET without a group) -> FETCHING, or -> RESET -> FETCHING
    FETCHING -> CHECK on a new leader epoch -> FETCHING, or -> RESET/seek when the log was truncated
    FETCHING -> RESET on OFFSET_OUT_OF_RANGE;  seek: any state -> FETCHING

Two offsets matter. `position` is the next offset the application gets, `fetch_offset` the next that is asked of a
broker; what lies between is buffered in chunks. Every seek, reset and assignment raises `epoch`, and an answer that
was asked for under another epoch is dropped: buffers of an old life never reach a new one.

`processed` is what may be committed without being told: positions as of the moment when the application last came for
more, because by then it was done with what it had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from uuid import UUID

from streamlog.client.fetch_chunk import Chunk
from streamlog.client.values import NO_EPOCH, NO_OFFSET, OffsetAndMetadata, TopicPartition
from streamlog.errors import StreamlogError, UserError
from streamlog.wire.schema import ZERO_UUID

EARLIEST_TIMESTAMP = -2
LATEST_TIMESTAMP = -1


class Phase(Enum):
    ASSIGNED = "assigned"
    COMMITTED = "committed"
    RESET = "reset"
    CHECK = "check"
    FETCHING = "fetching"


class Position:
    """The state of one partition; see the module's essay."""

    __slots__ = (
        "assigned_epoch",
        "buffered_bytes",
        "chunks",
        "committed",
        "epoch",
        "error",
        "fetch_offset",
        "held",
        "high_watermark",
        "last_stable_offset",
        "leader_epoch",
        "log_start_offset",
        "offset_epoch",
        "partition",
        "paused",
        "phase",
        "position",
        "processed",
        "processed_epoch",
        "read_replica",
        "read_replica_until_ms",
        "reset_timestamp",
        "retry_at_ms",
        "topic_id",
    )

    def __init__(self, partition: TopicPartition, epoch: int) -> None:
        self.partition = partition
        self.assigned_epoch = epoch  # of the assignment
        self.epoch = epoch  # of the last assignment, seek or reset; unique in the consumer
        self.phase = Phase.ASSIGNED
        self.position = NO_OFFSET  # valid when FETCHING or CHECK
        self.offset_epoch = NO_EPOCH  # leader epoch of the record before `position`, if known
        self.fetch_offset = NO_OFFSET  # >= position, valid with it
        self.processed = NO_OFFSET  # <= position
        self.processed_epoch = NO_EPOCH
        self.committed = NO_OFFSET  # what auto commit committed last
        self.leader_epoch = NO_EPOCH  # the leader we fetch from, as of the last check
        self.topic_id: UUID = ZERO_UUID  # of the topic this position is in
        self.chunks: deque[Chunk] = deque()
        self.buffered_bytes = 0  # sum over chunks
        self.paused = False  # by the application
        self.held = False  # about to be revoked: nothing is handed out
        self.reset_timestamp: int | None = None  # asked for by seek_to_*; None: the policy decides
        self.retry_at_ms = 0  # no request about this partition before
        self.error: StreamlogError | None = None  # for the application, at its next fetch
        self.high_watermark = NO_OFFSET
        self.last_stable_offset = NO_OFFSET
        self.log_start_offset = NO_OFFSET
        self.read_replica: int | None = None  # a follower near us that the leader named (KIP-392)
        self.read_replica_until_ms = 0

    def place(self, offset: int, leader_epoch: int, epoch: int) -> None:
        """Stand at `offset`; everything buffered belongs to another life."""
        self.epoch = epoch
        self.phase = Phase.FETCHING
        self.position = self.fetch_offset = self.processed = offset
        self.offset_epoch = self.processed_epoch = leader_epoch
        self.drop_chunks()
        self.retry_at_ms = 0
        self.error = None

    def lose(self, epoch: int, timestamp: int | None) -> None:
        """The position is of no use: find another, by `timestamp` or by the policy."""
        self.epoch = epoch
        self.phase = Phase.RESET
        self.reset_timestamp = timestamp
        self.drop_chunks()
        self.retry_at_ms = 0

    def drop_chunks(self) -> None:
        self.chunks.clear()
        self.buffered_bytes = 0

    def fetchable(self, now_ms: int, buffer_bytes_max: int) -> bool:
        """Whether a broker should be asked for more."""
        return (
            self.phase is Phase.FETCHING
            and not self.paused
            and not self.held
            and self.error is None
            and self.buffered_bytes < buffer_bytes_max
            and self.retry_at_ms <= now_ms
        )

    def add_chunk(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.buffered_bytes += chunk.size_bytes
        self.fetch_offset = chunk.end_offset

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        """Records of the first chunk were handed out, up to `next_offset`."""
        self.position = next_offset
        self.offset_epoch = chunk.leader_epoch
        if chunk.used_up:
            self.chunks.popleft()
            self.buffered_bytes -= chunk.size_bytes


class Positions:
    """All partitions of one consumer."""

    def __init__(self) -> None:
        self.by_partition: dict[TopicPartition, Position] = {}
        self.unsettled: dict[TopicPartition, None] = {}  # superset of the partitions that are not FETCHING
        self._advanced: list[Position] = []  # whose position moved since mark_processed
        self._epoch = 0

    def next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def add(self, partitions: Iterable[TopicPartition]) -> list[Position]:
        """Take over partitions that are not there yet; they wait in ASSIGNED."""
        added = []
        for partition in partitions:
            if partition not in self.by_partition:
                one = self.by_partition[partition] = Position(partition, self.next_epoch())
                self.unsettled[partition] = None
                added.append(one)
        return added

    def remove(self, partitions: Iterable[TopicPartition]) -> list[Position]:
        """Give partitions up, with everything that is buffered of them."""
        removed = [self.by_partition.pop(one) for one in partitions if one in self.by_partition]
        for one in removed:
            self.unsettled.pop(one.partition, None)
        return removed

    def get(self, partition: TopicPartition) -> Position:
        """Raises UserError when the partition is not assigned to this consumer."""
        found = self.by_partition.get(partition)
        if found is None:
            raise UserError(f"{partition} is not assigned to this consumer")
        return found

    def current(self, partition: TopicPartition, epoch: int) -> Position | None:
        """The partition's state, if it still lives the life in which somebody asked."""
        found = self.by_partition.get(partition)
        return found if found is not None and found.epoch == epoch else None

    def release(self, partitions: Iterable[TopicPartition], *, with_group: bool) -> None:
        """The application knows of its new partitions: those it did not place itself now find their position."""
        for partition in partitions:
            found = self.by_partition.get(partition)
            if found is not None and found.phase is Phase.ASSIGNED:
                found.phase = Phase.COMMITTED if with_group else Phase.RESET

    def in_phase(self, phase: Phase, now_ms: int) -> list[Position]:
        """Partitions that something can be done about now."""
        found = []
        for partition in list(self.unsettled):
            one = self.by_partition.get(partition)
            if one is None or one.phase is Phase.FETCHING:
                del self.unsettled[partition]
            elif one.phase is phase and one.retry_at_ms <= now_ms and one.error is None:
                found.append(one)
        return found

    def lose(self, one: Position, timestamp: int | None = None) -> None:
        """The position is of no use: find another, by `timestamp` or by the policy."""
        one.lose(self.next_epoch(), timestamp)
        self.unsettled[one.partition] = None

    def move_to(self, one: Position, topic_id: UUID) -> None:
        """Under the partition's name there is another log now: nothing that was read counts in it."""
        one.topic_id = topic_id
        one.position = one.fetch_offset = one.processed = one.committed = NO_OFFSET
        self.lose(one)
        if one in self._advanced:
            self._advanced.remove(one)

    def check(self, one: Position) -> None:
        """The leader changed: ask it whether it has what we read."""
        one.phase = Phase.CHECK
        one.retry_at_ms = 0
        self.unsettled[one.partition] = None

    def place(self, one: Position, offset: int, leader_epoch: int = NO_EPOCH) -> None:
        """Stand at `offset`."""
        one.place(offset, leader_epoch, self.next_epoch())

    def advance(self, one: Position, chunk: Chunk, next_offset: int) -> None:
        """Records of the partition's first chunk were handed out, up to `next_offset`."""
        one.advance(chunk, next_offset)
        self._advanced.append(one)

    def mark_processed(self, less: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """The application comes for more: it is done with what it had, or with as much as `less` says."""
        for one in self._advanced:
            one.processed, one.processed_epoch = one.position, one.offset_epoch
            if one.partition in less:
                one.processed, one.processed_epoch = less[one.partition].offset, less[one.partition].leader_epoch
        self._advanced.clear()

    def processed(self, partitions: Iterable[TopicPartition] | None = None) -> dict[TopicPartition, OffsetAndMetadata]:
        """What auto commit may commit and has not yet."""
        wanted = self.by_partition if partitions is None else partitions
        found = [self.by_partition[one] for one in wanted if one in self.by_partition]
        return {
            one.partition: OffsetAndMetadata(one.processed, one.processed_epoch)
            for one in found
            if one.processed not in (NO_OFFSET, one.committed)
        }

    def mark_committed(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """These offsets were committed by the clock; it need not do so again."""
        for partition, committed in offsets.items():
            one = self.by_partition.get(partition)
            if one is not None:
                one.committed = committed.offset
