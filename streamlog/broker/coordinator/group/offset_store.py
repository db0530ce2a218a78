"""Committed offsets as the fold of their records.

An offset committed inside a transaction is pending until the transaction's marker: then it becomes the group's
position if the transaction committed, unless a later record in the log has already set a newer one. "Later" is
decided by the place in the log, because compaction may have removed what was in between.

Source: KIP-98, KIP-447 (readers that require stable offsets are told while one is pending).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias
from uuid import UUID

from streamlog.broker.coordinator.group.records import ZERO_UUID, OffsetCommitted, OffsetForgotten
from streamlog.broker.coordinator.shard import NO_PRODUCER_ID


class CommittedOffset(NamedTuple):
    """A position and what was said with it."""

    offset: int
    leader_epoch: int
    metadata: str
    committed_at_ms: int
    expires_at_ms: int | None
    topic_id: UUID
    log_offset: int
    """Where its record is, to tell which of two is later."""


Positions: TypeAlias = dict[str, dict[int, CommittedOffset]]
"""Topic, then partition."""


@dataclass(slots=True)
class OffsetStore:
    """Positions of all groups of a shard. No empty inner dictionaries."""

    committed: dict[str, Positions] = field(default_factory=dict)
    """By group."""
    pending: dict[int, dict[str, Positions]] = field(default_factory=dict)
    """By producer id, then group: transactions that have neither committed nor aborted."""

    def apply(self, record: OffsetCommitted | OffsetForgotten, log_offset: int, producer_id: int) -> None:
        if isinstance(record, OffsetForgotten):
            _remove(self.committed, record)
            for groups in self.pending.values():
                _remove(groups, record)
            return
        position = CommittedOffset(
            record.offset,
            record.leader_epoch,
            record.metadata,
            record.committed_at_ms,
            record.expires_at_ms,
            record.topic_id,
            log_offset,
        )
        groups = self.committed if producer_id == NO_PRODUCER_ID else self.pending.setdefault(producer_id, {})
        groups.setdefault(record.group_id, {}).setdefault(record.topic, {})[record.partition] = position

    def apply_marker(self, producer_id: int, committed: bool) -> None:
        groups = self.pending.pop(producer_id, None)
        if groups is None or not committed:
            return
        for group_id, topics in groups.items():
            for topic, partitions in topics.items():
                current = self.committed.setdefault(group_id, {}).setdefault(topic, {})
                for partition, position in partitions.items():
                    known = current.get(partition)
                    if known is None or position.log_offset > known.log_offset:
                        current[partition] = position

    def get(self, group_id: str, topic: str, partition: int) -> CommittedOffset | None:
        return self.committed.get(group_id, {}).get(topic, {}).get(partition)

    def is_pending(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether an open transaction has a position for this partition."""
        return any(partition in groups.get(group_id, {}).get(topic, {}) for groups in self.pending.values())

    def has_open_transactions(self, group_id: str) -> bool:
        return any(group_id in groups for groups in self.pending.values())

    def positions(self, group_id: str) -> Iterator[tuple[str, int, CommittedOffset]]:
        """Committed positions of a group, ordered by topic and partition."""
        topics = self.committed.get(group_id, {})
        for topic in sorted(topics):
            for partition in sorted(topics[topic]):
                yield topic, partition, topics[topic][partition]

    def partitions(self, group_id: str) -> list[tuple[str, int]]:
        """Partitions with a committed or a pending position, ordered."""
        return sorted({(topic, partition): None for topic, partition, _ in self._all(group_id)})

    def partitions_of(self, group_id: str, topic: str, topic_id: UUID) -> list[int]:
        """Partitions of a topic with a position that was not committed for another topic of the same name."""
        return sorted(
            {
                partition: None
                for name, partition, position in self._all(group_id)
                if name == topic and not differ(position.topic_id, topic_id)
            }
        )

    def _all(self, group_id: str) -> Iterator[tuple[str, int, CommittedOffset]]:
        for groups in (self.committed, *self.pending.values()):
            for topic, partitions in groups.get(group_id, {}).items():
                for partition, position in partitions.items():
                    yield topic, partition, position

    def group_ids(self) -> list[str]:
        """Groups with a committed or a pending position, ordered."""
        found = dict.fromkeys(self.committed)
        for groups in self.pending.values():
            found.update(dict.fromkeys(groups))
        return sorted(found)


def differ(one: UUID, other: UUID) -> bool:
    """Whether these are the ids of two topics. An id that nobody knew at the time proves nothing."""
    return one != ZERO_UUID != other and one != other


def _remove(groups: dict[str, Positions], record: OffsetForgotten) -> None:
    topics = groups.get(record.group_id)
    partitions = topics.get(record.topic) if topics is not None else None
    if topics is None or partitions is None:
        return
    partitions.pop(record.partition, None)
    if not partitions:
        del topics[record.topic]
    if not topics:
        del groups[record.group_id]
