"""The values that callers of the client hand in and get back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

NO_OFFSET = -1
NO_EPOCH = -1
NO_TIMESTAMP = -1


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """One partition of one topic. Hashable, ordered by topic and then by partition number."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class OffsetAndMetadata:
    """A committed position: the next offset to process (exclusive end of what is done)."""

    offset: int
    leader_epoch: int = NO_EPOCH
    """Leader epoch of the last processed record, which lets a later owner notice a truncated log (KIP-320)."""
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class OffsetAndTimestamp:
    """An answer of ListOffsets. `timestamp_ms` is -1 for the ends of the log."""

    offset: int
    timestamp_ms: int
    leader_epoch: int


class RecordMetadata(NamedTuple):
    """Where a record was written. `offset` is -1 with acks=0, when nobody says."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class ConsumerRecord(NamedTuple):
    """One record, for callers who want them one by one."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """Who commits: what a transaction or a commit sends along, so that a member of the past is refused (KIP-447)."""

    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None


def partitions_by_topic(partitions: Sequence[TopicPartition]) -> dict[str, list[int]]:
    """The partitions grouped as requests want them: topics and numbers sorted."""
    grouped: dict[str, list[int]] = {}
    for one in sorted(partitions):
        grouped.setdefault(one.topic, []).append(one.partition)
    return grouped
