"""How state reads logs: the seam between restoring and the consumer that fetches.

One group-less consumer serves any number of partitions; who follows one gets its batches as values. A simulated log of
the same shape stands in for it in tests of the rules above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from streamlog.state.store import Position
from streamlog.wire.records import RecordColumns


@dataclass(frozen=True, slots=True)
class LogState:
    """One partition's log as of now."""

    start_offset: int
    end_offset: int
    """Exclusive; the last stable offset, so that nothing of an open transaction is counted."""
    topic_id: UUID | None = None
    epoch_end_offset: int | None = None
    """Where the leader epoch that was asked about ends in this log (exclusive); None: the log does not know it."""


class Records(Protocol):
    """Records of one partition, in order, and the range of offsets they are all there is of.

    Offsets in the range without a record were compacted away, belong to aborted transactions or are control records.
    """

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def columns(self) -> RecordColumns: ...
    @property
    def start_offset(self) -> int: ...
    @property
    def next_offset(self) -> int:
        """Exclusive end."""
        ...

    @property
    def leader_epoch(self) -> int: ...


class LogReader(Protocol):
    """Reads committed records of partitions, without a group. One caller of `fetch` at a time."""

    async def describe(self, topic: str, partition: int, leader_epoch: int = -1) -> LogState:
        """The log's bounds; with a leader epoch also where that ends. Waits for a leader as long as a client does.

        Raises: KafkaError: the topic does not exist, or may not be read. EnvironmentFailure: nobody answers.
        """
        ...

    async def ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Where partitions end now, as `describe` says it. Raises: as `describe`."""
        ...

    async def partition_count(self, topic: str) -> int: ...

    def follow(self, topic: str, partition: int, offset: int) -> None:
        """Fetch this partition from `offset` on."""
        ...

    def unfollow(self, topic: str, partition: int) -> None:
        """Fetch it no more; nothing of it is returned from now on."""
        ...

    def pause(self, topic: str, partition: int) -> None: ...

    def resume(self, topic: str, partition: int) -> None: ...

    async def fetch(self, timeout_ms: int) -> Sequence[Records]:
        """What is here, at most one batch of a partition; or what comes first within the time; or nothing."""
        ...


AWAY = "it was away for longer than the topic shows deletions"
"""A reason to rebuild: a key may have been deleted in between, and nothing of it be left in the log."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to begin reading a log into a store."""

    start_offset: int
    rebuild: str | None = None
    """Why what the store has is dropped first; None: it is kept."""


def plan(position: Position | None, log: LogState, now_ms: int, delete_retention_ms: int) -> Plan:
    """Whether the rows up to `position` are still those of the log, and where to go on.

    Dropping them is always right and costs time; keeping them is right only if the log is the one they came from, still
    holds every deletion since, and continues where they end.
    """
    if position is None:
        return Plan(log.start_offset, "it has no position")
    if position.topic_id is not None and log.topic_id is not None and position.topic_id != log.topic_id:
        return Plan(
            log.start_offset, f"the topic was deleted and made again ({position.topic_id} is {log.topic_id} now)"
        )
    if position.offset > log.end_offset:
        return Plan(log.start_offset, f"its position {position.offset} is beyond the log's end {log.end_offset}")
    if position.offset < log.start_offset:
        return Plan(log.start_offset, f"its position {position.offset} is before the log's start {log.start_offset}")
    if log.epoch_end_offset is not None and position.offset > log.epoch_end_offset:
        return Plan(
            log.start_offset,
            f"the log was cut: leader epoch {position.leader_epoch} ends at {log.epoch_end_offset}, before its "
            f"position {position.offset}",
        )
    behind = position.offset < log.end_offset
    if behind and position.at_ms >= 0 and now_ms - position.at_ms > delete_retention_ms:
        return Plan(log.start_offset, AWAY)
    return Plan(position.offset)
