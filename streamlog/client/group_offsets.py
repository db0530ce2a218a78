"""A group's committed offsets: stored with its coordinator and asked of it, one attempt at a time.

From version 10 on both requests name topics by id (KIP-848), so that what was read from a topic is never taken for
what was read from another that got its name later. They are used where the ids of all topics are known; a
group outlives topics, so whoever asks for everything it has still asks by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from streamlog.client.cluster import GROUP_COORDINATOR, Cluster, topic_error
from streamlog.client.connection import Connection
from streamlog.client.failures import LOST_COORDINATOR
from streamlog.client.values import GroupMetadata, OffsetAndMetadata, TopicPartition, partitions_by_topic
from streamlog.errors import StreamlogError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
)
from streamlog.wire.messages.offset_commit import OffsetCommitRequestPartition, OffsetCommitRequestTopic
from streamlog.wire.messages.offset_fetch import (
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
)
from streamlog.wire.schema import ZERO_UUID

STABLE_SINCE = 7
"""OffsetFetch can ask for offsets that no open transaction may still change."""

GROUPS_SINCE = 8
"""OffsetFetch asks for several groups (KIP-709), in other fields."""

NAMES_VERSION_MAX = 9
"""Of both: the last one that names topics by name."""


async def commit_offsets(
    cluster: Cluster,
    member: GroupMetadata,
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    topic_ids: Mapping[str, UUID],
) -> dict[TopicPartition, ErrorCode]:
    """Store `offsets` for a member, or for nobody when its member id is empty.

    Args:    topic_ids: of the topics that the offsets are of; a topic that is missing has only its name.
    Returns: what the coordinator says of each partition.
    Raises:  BrokerUnreachable, RemoteProtocolError: nobody knows whether it was stored; KafkaError.
    """
    connection = await _coordinator(cluster, member.group_id)
    topics = partitions_by_topic(list(offsets))
    version = _version(connection, ApiKey.OFFSET_COMMIT, topics, topic_ids)
    request = OffsetCommitRequest(
        group_id=member.group_id,
        generation_id_or_member_epoch=member.generation_id,
        member_id=member.member_id,
        group_instance_id=member.group_instance_id,
        topics=[
            OffsetCommitRequestTopic(
                name=topic,
                topic_id=topic_ids.get(topic, ZERO_UUID),
                partitions=[_partition(number, offsets[TopicPartition(topic, number)]) for number in numbers],
            )
            for topic, numbers in topics.items()
        ],
    )
    try:
        response = await connection.request(request, OffsetCommitResponse, version_max=version)
    except StreamlogError:
        cluster.forget_coordinator(GROUP_COORDINATOR, member.group_id)
        raise
    names = {topic_id: topic for topic, topic_id in topic_ids.items()}
    found: dict[TopicPartition, ErrorCode] = {}
    for topic in response.topics:
        name = topic.name or names.get(topic.topic_id, "")
        for one in topic.partitions:
            found[TopicPartition(name, one.partition_index)] = ErrorCode.of(one.error_code)
    if not LOST_COORDINATOR.isdisjoint(found.values()):
        cluster.forget_coordinator(GROUP_COORDINATOR, member.group_id)
    return {partition: found.get(partition, ErrorCode.UNKNOWN_SERVER_ERROR) for partition in offsets}


async def fetch_offsets(
    cluster: Cluster,
    group_id: str,
    partitions: Sequence[TopicPartition] | None,
    topic_ids: Mapping[str, UUID],
    *,
    stable: bool = True,
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What a group has committed of `partitions`, or of all it ever read; without those it has nothing of.

    Args:    stable: refuse, for a moment, offsets that an open transaction may still change (KIP-447).
    Raises: KafkaError: the group's or a partition's; BrokerUnreachable, RemoteProtocolError.
    """
    connection = await _coordinator(cluster, group_id)
    topics = None if partitions is None else partitions_by_topic(partitions)
    version = _version(connection, ApiKey.OFFSET_FETCH, topics, topic_ids)
    try:
        request = _fetch_request(group_id, topics, topic_ids, version, stable=stable and version >= STABLE_SINCE)
        response = await connection.request(request, OffsetFetchResponse, version_max=version)
    except StreamlogError:
        cluster.forget_coordinator(GROUP_COORDINATOR, group_id)
        raise
    error_code, answers = _fetch_answers(group_id, response, version, topic_ids)
    code = ErrorCode.of(error_code)
    if code in LOST_COORDINATOR:
        cluster.forget_coordinator(GROUP_COORDINATOR, group_id)
    if code:
        raise KafkaError(code, f"offsets of group '{group_id}'")
    found: dict[TopicPartition, OffsetAndMetadata] = {}
    for topic, one in answers:
        if one.error_code:
            raise _refusal(topic, one.partition_index, ErrorCode.of(one.error_code))
        if one.committed_offset >= 0:
            found[TopicPartition(topic, one.partition_index)] = OffsetAndMetadata(
                one.committed_offset, one.committed_leader_epoch, one.metadata or ""
            )
    return found


async def _coordinator(cluster: Cluster, group_id: str) -> Connection:
    node_id = await cluster.coordinator(GROUP_COORDINATOR, group_id)
    try:
        return await cluster.connection(node_id)
    except StreamlogError:
        cluster.forget_coordinator(GROUP_COORDINATOR, group_id)
        raise


def _version(
    connection: Connection, api_key: int, topics: Mapping[str, object] | None, topic_ids: Mapping[str, UUID]
) -> int:
    by_id = topics is not None and all(topic_ids.get(one, ZERO_UUID) != ZERO_UUID for one in topics)
    return connection.version_of(api_key, None if by_id else NAMES_VERSION_MAX)


def _partition(number: int, one: OffsetAndMetadata) -> OffsetCommitRequestPartition:
    return OffsetCommitRequestPartition(
        partition_index=number,
        committed_offset=one.offset,
        committed_leader_epoch=one.leader_epoch,
        committed_metadata=one.metadata,
    )


def _fetch_request(
    group_id: str,
    topics: Mapping[str, Sequence[int]] | None,
    topic_ids: Mapping[str, UUID],
    version: int,
    *,
    stable: bool,
) -> OffsetFetchRequest:
    if version < GROUPS_SINCE:
        named = None
        if topics is not None:
            named = [OffsetFetchRequestTopic(name=name, partition_indexes=list(of)) for name, of in topics.items()]
        return OffsetFetchRequest(group_id=group_id, topics=named, require_stable=stable)
    wanted = None
    if topics is not None:
        wanted = [
            OffsetFetchRequestTopics(
                name=name, topic_id=topic_ids.get(name, ZERO_UUID), partition_indexes=list(numbers)
            )
            for name, numbers in topics.items()
        ]
    return OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group_id, topics=wanted)], require_stable=stable)


def _fetch_answers(
    group_id: str, response: OffsetFetchResponse, version: int, topic_ids: Mapping[str, UUID]
) -> tuple[int, list[tuple[str, OffsetFetchResponsePartition | OffsetFetchResponsePartitions]]]:
    """The group's error code, and what is said of each partition, whichever fields the version has."""
    if version < GROUPS_SINCE:
        return response.error_code, [(topic.name, one) for topic in response.topics for one in topic.partitions]
    group = next((one for one in response.groups if one.group_id == group_id), None)
    if group is None:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "the broker's answer does not mention the group")
    names = {topic_id: topic for topic, topic_id in topic_ids.items()}
    return group.error_code, [
        (topic.name or names.get(topic.topic_id, ""), one) for topic in group.topics for one in topic.partitions
    ]


def _refusal(topic: str, partition: int, code: ErrorCode) -> StreamlogError:
    if code in (ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
        return topic_error(topic, code)
    return KafkaError(code, f"committed offset of {topic}-{partition}")
