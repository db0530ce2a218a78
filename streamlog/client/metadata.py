"""What a client knows of the cluster: brokers, topics, leaders. A pure value store; cluster.py keeps it fresh.

Brokers answer Metadata from their own copy of the cluster's state, and copies lag. Two rules keep a client from being
sent back in time: of one topic (same id) a partition's leader with a lower leader epoch than one already seen is
ignored, and a topic that comes back under another id is another topic, whose epochs start over. Produce and Fetch
answers that name a new leader (KIP-951) go through the same door.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from streamlog.client.config import Address
from streamlog.client.values import NO_EPOCH, TopicPartition
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages import MetadataResponse
from streamlog.wire.messages.metadata import MetadataResponseTopic
from streamlog.wire.schema import ZERO_UUID

NO_LEADER = -1

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_topic_name(name: object) -> bool:
    """Whether a topic can have this name. Brokers refuse others; some cannot even be said in a request."""
    return isinstance(name, str) and _TOPIC_NAME.fullmatch(name) is not None and name not in (".", "..")


@dataclass(frozen=True, slots=True)
class Broker:
    node_id: int
    address: Address
    rack: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition as last heard. `leader` is -1 while it has none."""

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...] = ()
    isr: tuple[int, ...] = ()
    offline_replicas: tuple[int, ...] = ()
    eligible_leader_replicas: tuple[int, ...] = ()
    """Out of sync, yet known to have everything below the high watermark (KIP-966). Empty where nobody was asked."""
    last_known_elr: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicInfo:
    name: str
    topic_id: UUID
    is_internal: bool
    partitions: tuple[PartitionInfo, ...] = field(default=())
    """Index i is partition i."""


class Metadata:
    """See the module's essay."""

    def __init__(self) -> None:
        self.brokers: dict[int, Broker] = {}
        self.cluster_id: str | None = None
        self.controller_id = -1
        self.topics: dict[str, TopicInfo] = {}
        self.errors: dict[str, ErrorCode] = {}  # why a topic that was asked for is not in `topics`
        self.version = 0  # raised by every change, so that readers can tell whether to look again
        self._names: dict[UUID, str] = {}  # topic id -> name, for `topics`

    def partition_count(self, topic: str) -> int:
        """Partitions of a topic; 0 while it is not known."""
        info = self.topics.get(topic)
        return len(info.partitions) if info is not None else 0

    def partition(self, one: TopicPartition) -> PartitionInfo | None:
        info = self.topics.get(one.topic)
        if info is None or not 0 <= one.partition < len(info.partitions):
            return None
        return info.partitions[one.partition]

    def leader(self, topic: str, partition: int) -> int | None:
        """The broker that leads a partition, if one is known and its address as well."""
        info = self.topics.get(topic)
        if info is None or not 0 <= partition < len(info.partitions):
            return None
        leader = info.partitions[partition].leader
        return leader if leader in self.brokers else None

    def leader_epoch(self, one: TopicPartition) -> int:
        info = self.partition(one)
        return info.leader_epoch if info is not None else NO_EPOCH

    def topic_id(self, topic: str) -> UUID:
        """The topic's id; the zero uuid when the topic or its id is not known."""
        info = self.topics.get(topic)
        return info.topic_id if info is not None else ZERO_UUID

    def topic_name(self, topic_id: UUID) -> str | None:
        return self._names.get(topic_id)

    def apply(self, response: MetadataResponse, asked: Iterable[str]) -> None:
        """Take in an answer to a question about the topics `asked`."""
        self.version += 1
        self.cluster_id = response.cluster_id
        self.controller_id = response.controller_id
        self.brokers = {
            one.node_id: Broker(one.node_id, Address(one.host, one.port), one.rack) for one in response.brokers
        }
        answered = set()
        for topic in response.topics:
            if topic.name is not None:
                answered.add(topic.name)
                self._apply_topic(topic.name, topic)
        for name in asked:
            if name not in answered:
                legal = is_topic_name(name)
                self._forget(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if legal else ErrorCode.INVALID_TOPIC_EXCEPTION)

    def _apply_topic(self, name: str, topic: MetadataResponseTopic) -> None:
        if topic.error_code:
            self._forget(name, ErrorCode.of(topic.error_code))
            return
        known = self.topics.get(name)
        same = known is not None and known.topic_id == topic.topic_id
        partitions: list[PartitionInfo] = []
        for one in sorted(topic.partitions, key=lambda one: one.partition_index):
            fresh = PartitionInfo(
                one.partition_index,
                one.leader_id,
                one.leader_epoch,
                tuple(one.replica_nodes),
                tuple(one.isr_nodes),
                tuple(one.offline_replicas),
            )
            if one.partition_index != len(partitions):
                break  # not what brokers send; numbers have to be positions, so what lies behind a gap is dropped
            if known is not None and same and len(partitions) < len(known.partitions):
                before = known.partitions[len(partitions)]
                if fresh.leader_epoch < before.leader_epoch and fresh.leader_epoch != NO_EPOCH:
                    fresh = before
            partitions.append(fresh)
        if known is not None and known.topic_id != topic.topic_id:
            self._names.pop(known.topic_id, None)
        self.errors.pop(name, None)
        self.topics[name] = TopicInfo(name, topic.topic_id, topic.is_internal, tuple(partitions))
        if topic.topic_id != ZERO_UUID:
            self._names[topic.topic_id] = name

    def apply_leader(
        self, one: TopicPartition, leader: int, leader_epoch: int, endpoints: Mapping[int, Broker]
    ) -> bool:
        """Take in a leader that a Produce or Fetch answer named. Whether it is news (KIP-951)."""
        info = self.topics.get(one.topic)
        before = self.partition(one)
        if info is None or before is None or leader < 0 or leader_epoch <= before.leader_epoch:
            return False
        if leader not in self.brokers:
            if leader not in endpoints:
                return False
            self.brokers[leader] = endpoints[leader]
        partitions = list(info.partitions)
        partitions[one.partition] = replace(before, leader=leader, leader_epoch=leader_epoch)
        self.topics[one.topic] = replace(info, partitions=tuple(partitions))
        self.version += 1
        return True

    def _forget(self, name: str, why: ErrorCode) -> None:
        gone = self.topics.pop(name, None)
        if gone is not None:
            self._names.pop(gone.topic_id, None)
        self.errors[name] = why
