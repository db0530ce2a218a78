"""Records of the topic __consumer_offsets: groups and their offsets are their fold. A key without a value is a
tombstone.

Types 0 to 2 are the classic protocol's and the offsets of every kind of group; 3 to 8 and 16 belong to consumer
groups of the new protocol (KIP-848). Type 0 is what brokers before 0.9 wrote. Value versions from 4 on, and all of
KIP-848's, are flexible and grow by tagged fields only (KIP-915).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from streamlog.wire.internal.framing import CoordinatorKey, CoordinatorRecords, CoordinatorValue
from streamlog.wire.schema import ZERO_UUID, Int8, Int32, Int64, Struct, between, since


class LegacyOffsetCommitKey(CoordinatorKey):
    record_type = 0

    group: str = ""
    topic: str = ""
    partition: Int32 = 0


class LegacyOffsetCommitValue(CoordinatorValue):
    record_type = 0

    offset: Int64 = 0
    metadata: str = ""
    commit_timestamp: Int64 = 0


class OffsetCommitKey(CoordinatorKey):
    record_type = 1

    group: str = ""
    topic: str = ""
    partition: Int32 = 0


class OffsetCommitValue(CoordinatorValue):
    """A committed offset. Version 1 alone expires by itself; 3 adds the leader epoch (KIP-320), 4 the topic id."""

    record_type = 1
    max_version = 4
    flexible_since = 4

    offset: Int64 = 0
    leader_epoch: Annotated[Int32, since(3, ignorable=True)] = -1
    metadata: str = ""
    commit_timestamp: Int64 = 0
    expire_timestamp: Annotated[Int64, between(1, 1, ignorable=True)] = -1
    topic_id: Annotated[UUID, since(4, tag=0, ignorable=True)] = ZERO_UUID


class GroupMetadataKey(CoordinatorKey):
    record_type = 2

    group: str = ""


class MemberMetadata(Struct):
    member_id: str = ""
    group_instance_id: Annotated[str | None, since(3, ignorable=True)] = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout: Annotated[Int32, since(1, ignorable=True)] = -1
    session_timeout: Int32 = 0
    subscription: bytes = b""
    assignment: bytes = b""


class GroupMetadataValue(CoordinatorValue):
    """A generation of a classic group. Version 2 adds the state's timestamp, 3 static members (KIP-345)."""

    record_type = 2
    max_version = 4
    flexible_since = 4

    protocol_type: str = ""
    generation: Int32 = 0
    protocol: str | None = ""
    leader: str | None = ""
    current_state_timestamp: Annotated[Int64, since(2, ignorable=True)] = -1
    members: list[MemberMetadata] = []


class ConsumerGroupMetadataKey(CoordinatorKey):
    record_type = 3

    group_id: str = ""


class ConsumerGroupMetadataValue(CoordinatorValue):
    """The group's epoch, and a hash of the topics that it was computed from."""

    record_type = 3
    flexible_since = 0

    epoch: Int32 = 0
    metadata_hash: Annotated[Int64, since(0, tag=0)] = 0


class ConsumerGroupPartitionMetadataKey(CoordinatorKey):
    record_type = 4

    group_id: str = ""


class PartitionMetadata(Struct):
    partition: Int32 = 0
    racks: list[str] = []


class TopicMetadata(Struct):
    topic_id: UUID = ZERO_UUID
    topic_name: str = ""
    num_partitions: Int32 = 0
    partition_metadata: list[PartitionMetadata] = []


class ConsumerGroupPartitionMetadataValue(CoordinatorValue):
    """Partitions of the subscribed topics; newer brokers write tombstones here and a hash above."""

    record_type = 4
    flexible_since = 0

    topics: list[TopicMetadata] = []


class ConsumerGroupMemberMetadataKey(CoordinatorKey):
    record_type = 5

    group_id: str = ""
    member_id: str = ""


class ClassicProtocol(Struct):
    name: str = ""
    metadata: bytes = b""


class ClassicMemberMetadata(Struct):
    session_timeout_ms: Int32 = 0
    supported_protocols: list[ClassicProtocol] = []


class ConsumerGroupMemberMetadataValue(CoordinatorValue):
    """What a member subscribes to.

    `classic_member_metadata` None: a member of the new protocol. That null has to be on the wire, as Kafka takes a
    record without the field for a member of the classic protocol.
    """

    record_type = 5
    flexible_since = 0

    instance_id: str | None = ""
    rack_id: str | None = ""
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: list[str] = []
    subscribed_topic_regex: str | None = ""
    rebalance_timeout_ms: Int32 = -1
    server_assignor: str | None = ""
    classic_member_metadata: Annotated[ClassicMemberMetadata | None, since(0, nullable=0, tag=0)] = msgspec.field(
        default_factory=ClassicMemberMetadata
    )


class ConsumerGroupTargetAssignmentMetadataKey(CoordinatorKey):
    record_type = 6

    group_id: str = ""


class ConsumerGroupTargetAssignmentMetadataValue(CoordinatorValue):
    """The epoch that the target assignment was computed for."""

    record_type = 6
    flexible_since = 0

    assignment_epoch: Int32 = 0
    assignment_timestamp: Annotated[Int64, since(0, tag=0)] = 0


class ConsumerGroupTargetAssignmentMemberKey(CoordinatorKey):
    record_type = 7

    group_id: str = ""
    member_id: str = ""


class TopicPartition(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[Int32] = []


class ConsumerGroupTargetAssignmentMemberValue(CoordinatorValue):
    """What a member is to own."""

    record_type = 7
    flexible_since = 0

    topic_partitions: list[TopicPartition] = []


class ConsumerGroupCurrentMemberAssignmentKey(CoordinatorKey):
    record_type = 8

    group_id: str = ""
    member_id: str = ""


class TopicPartitions(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[Int32] = []
    assignment_epochs: Annotated[list[Int32] | None, since(0, tag=0)] = []


class ConsumerGroupCurrentMemberAssignmentValue(CoordinatorValue):
    """What a member owns, and what it has yet to give up. `state`: 0 stable, 1 unrevoked, 2 unreleased."""

    record_type = 8
    flexible_since = 0

    member_epoch: Int32 = 0
    previous_member_epoch: Int32 = 0
    state: Int8 = 0
    assigned_partitions: list[TopicPartitions] = []
    partitions_pending_revocation: list[TopicPartitions] = []


class ConsumerGroupRegularExpressionKey(CoordinatorKey):
    record_type = 16

    group_id: str = ""
    regular_expression: str = ""


class ConsumerGroupRegularExpressionValue(CoordinatorValue):
    """Topics that a regular expression stood for, at a version of the metadata."""

    record_type = 16
    flexible_since = 0

    topics: list[str] = []
    version: Int64 = 0
    timestamp: Int64 = 0


GROUP_RECORDS: CoordinatorRecords = {
    LegacyOffsetCommitKey.record_type: (LegacyOffsetCommitKey, LegacyOffsetCommitValue),
    OffsetCommitKey.record_type: (OffsetCommitKey, OffsetCommitValue),
    GroupMetadataKey.record_type: (GroupMetadataKey, GroupMetadataValue),
    ConsumerGroupMetadataKey.record_type: (ConsumerGroupMetadataKey, ConsumerGroupMetadataValue),
    ConsumerGroupPartitionMetadataKey.record_type: (
        ConsumerGroupPartitionMetadataKey,
        ConsumerGroupPartitionMetadataValue,
    ),
    ConsumerGroupMemberMetadataKey.record_type: (ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue),
    ConsumerGroupTargetAssignmentMetadataKey.record_type: (
        ConsumerGroupTargetAssignmentMetadataKey,
        ConsumerGroupTargetAssignmentMetadataValue,
    ),
    ConsumerGroupTargetAssignmentMemberKey.record_type: (
        ConsumerGroupTargetAssignmentMemberKey,
        ConsumerGroupTargetAssignmentMemberValue,
    ),
    ConsumerGroupCurrentMemberAssignmentKey.record_type: (
        ConsumerGroupCurrentMemberAssignmentKey,
        ConsumerGroupCurrentMemberAssignmentValue,
    ),
    ConsumerGroupRegularExpressionKey.record_type: (
        ConsumerGroupRegularExpressionKey,
        ConsumerGroupRegularExpressionValue,
    ),
}
