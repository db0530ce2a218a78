"""Everything ever written to `__consumer_offsets` by this room; `record_codec` has the bytes.

Four records: a committed offset and its end, a group's last completed generation and its end. Compaction keeps the
last record of each key, so every record says everything about its key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

ZERO_UUID = UUID(int=0)
NO_LEADER_EPOCH = -1


@dataclass(frozen=True, slots=True)
class OffsetCommitted:
    """A group's position in one partition."""

    group_id: str
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    """Of the last consumed record, NO_LEADER_EPOCH when the client did not say."""
    metadata: str
    committed_at_ms: int
    expires_at_ms: int | None = None
    """Only for clients that chose their own retention (OffsetCommit v2 to v4)."""
    topic_id: UUID = ZERO_UUID


@dataclass(frozen=True, slots=True)
class OffsetForgotten:
    """The position is gone: deleted or expired."""

    group_id: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class MemberStored:
    """One member of a completed generation."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class GroupStored:
    """A group's last completed generation: all its members with their assignments, or none when it is empty."""

    group_id: str
    generation_id: int
    protocol_type: str | None
    protocol_name: str | None
    leader_id: str | None
    state_changed_at_ms: int | None
    members: tuple[MemberStored, ...]


@dataclass(frozen=True, slots=True)
class GroupForgotten:
    """The group is gone."""

    group_id: str


GroupRecord: TypeAlias = OffsetCommitted | OffsetForgotten | GroupStored | GroupForgotten
RecordKey: TypeAlias = tuple[str, str, int] | str


def key_of(record: GroupRecord) -> RecordKey:
    """The identity that compaction goes by: of two records with the same key only the later counts."""
    match record:
        case OffsetCommitted() | OffsetForgotten():
            return (record.group_id, record.topic, record.partition)
        case GroupStored() | GroupForgotten():
            return record.group_id
