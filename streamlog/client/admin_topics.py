"""Topics: made, grown, described, deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from streamlog.client.admin_values import (
    BROKER_DEFAULT,
    NewTopic,
    SomeFailed,
)
from streamlog.client.asking import Asking, error_of
from streamlog.client.cluster import topic_error
from streamlog.client.metadata import Metadata, PartitionInfo, TopicInfo, is_topic_name
from streamlog.errors import RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    MetadataRequest,
    MetadataResponse,
)
from streamlog.wire.messages.create_partitions import CreatePartitionsTopic
from streamlog.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
)
from streamlog.wire.messages.delete_topics import DeleteTopicState
from streamlog.wire.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsResponsePartition,
    TopicRequest,
)
from streamlog.wire.messages.metadata import MetadataRequestTopic


async def create_topics(asking: Asking, topics: Iterable[NewTopic], *, validate_only: bool = False) -> None:
    """Create topics. Raises SomeFailed; TOPIC_ALREADY_EXISTS for one that is there."""
    wanted = {one.name: one for one in topics}

    async def attempt(names: Sequence[str]) -> dict[str, KafkaError | None]:
        request = CreateTopicsRequest(
            topics=[_creatable(wanted[name]) for name in names],
            timeout_ms=asking.timeout_ms,
            validate_only=validate_only,
        )
        answer = await asking.controller(request, CreateTopicsResponse)
        return {one.name: error_of(one.error_code, one.error_message) for one in answer.topics}

    await asking.each("creating topics", wanted, attempt)
    await _seen(asking, wanted if not validate_only else ())


async def delete_topics(asking: Asking, names: Iterable[str]) -> None:
    """Delete topics with everything in them. Raises SomeFailed."""

    async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
        request = DeleteTopicsRequest(
            topics=[DeleteTopicState(name=name) for name in left], timeout_ms=asking.timeout_ms
        )
        answer = await asking.controller(request, DeleteTopicsResponse)
        return {one.name or "": error_of(one.error_code, one.error_message) for one in answer.responses}

    await asking.each("deleting topics", names, attempt)


async def create_partitions(asking: Asking, counts: Mapping[str, int], *, validate_only: bool = False) -> None:
    """Grow topics to these partition counts. Raises SomeFailed."""

    async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
        request = CreatePartitionsRequest(
            topics=[CreatePartitionsTopic(name=name, count=counts[name], assignments=None) for name in left],
            timeout_ms=asking.timeout_ms,
            validate_only=validate_only,
        )
        answer = await asking.controller(request, CreatePartitionsResponse)
        return {one.name: error_of(one.error_code, one.error_message) for one in answer.results}

    await asking.each("creating partitions", counts, attempt)


async def list_topics(asking: Asking, *, internal: bool = False) -> list[str]:
    """All topics this client may see, sorted."""
    metadata = await _metadata(asking, None)
    return sorted(name for name, one in metadata.topics.items() if internal or not one.is_internal)


async def describe_topics(asking: Asking, names: Iterable[str]) -> dict[str, TopicInfo]:
    """Ids, partitions, leaders, replicas. Raises SomeFailed, UNKNOWN_TOPIC_OR_PARTITION for what is not there."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    try:
        topics, codes = await _described(asking, [name for name in wanted if is_topic_name(name)])
        codes |= {name: ErrorCode.INVALID_TOPIC_EXCEPTION for name in wanted if not is_topic_name(name)}
    except KafkaError as refusal:
        if refusal.code is not ErrorCode.UNSUPPORTED_VERSION:
            raise
        metadata = await _metadata(asking, wanted)  # older than Kafka 3.7, which has no eligible leader replicas
        topics, codes = metadata.topics, metadata.errors
    missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    errors = {name: topic_error(name, codes.get(name, missing)) for name in wanted if name not in topics}
    refused = {name: error for name, error in errors.items() if isinstance(error, KafkaError)}
    if refused:
        raise SomeFailed(refused)
    for error in errors.values():
        raise error
    return {name: topics[name] for name in wanted}


async def _described(asking: Asking, names: Sequence[str]) -> tuple[dict[str, TopicInfo], dict[str, ErrorCode]]:
    """These topics page by page, and why others are missing. Pages of one topic follow each other (KIP-966)."""
    partitions: dict[str, list[PartitionInfo]] = {}
    topics: dict[str, TopicInfo] = {}
    errors: dict[str, ErrorCode] = {}
    cursor: Cursor | None = None
    left = sorted(names)
    while left:
        request = DescribeTopicPartitionsRequest(topics=[TopicRequest(name=name) for name in left], cursor=cursor)
        answer = await asking.any("describing topics", request, DescribeTopicPartitionsResponse)
        for topic in answer.topics:
            name = topic.name or ""
            if topic.error_code:
                errors[name] = ErrorCode.of(topic.error_code)
                continue
            known = topics.get(name)
            if known is not None and known.topic_id != topic.topic_id:
                return await _described(asking, names)  # made anew between two pages
            found = partitions.setdefault(name, [])
            found += map(_partition_info, topic.partitions)
            topics[name] = TopicInfo(name, topic.topic_id, topic.is_internal, tuple(found))
        cursor = answer.next_cursor
        if cursor is None:
            break
        at = cursor.topic_name
        if at < left[0] or (at == left[0] and at in partitions and cursor.partition_index < len(partitions[at])):
            raise RemoteProtocolError("a broker's page of topics leads back to what it has described")
        left = [name for name in left if name >= at]
    return topics, errors


def _partition_info(one: DescribeTopicPartitionsResponsePartition) -> PartitionInfo:
    return PartitionInfo(
        one.partition_index,
        one.leader_id,
        one.leader_epoch,
        tuple(one.replica_nodes),
        tuple(one.isr_nodes),
        tuple(one.offline_replicas),
        tuple(one.eligible_leader_replicas or ()),
        tuple(one.last_known_elr or ()),
    )


async def _metadata(asking: Asking, names: Sequence[str] | None) -> Metadata:
    topics = None if names is None else [MetadataRequestTopic(name=name) for name in names]
    request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
    answer = await asking.any("asking for metadata", request, MetadataResponse)
    metadata = Metadata()
    metadata.apply(answer, names or ())
    return metadata


async def _seen(asking: Asking, names: Iterable[str]) -> None:
    """Wait until the brokers know of new topics: a client that uses one right away should find it."""

    async def attempt() -> None:
        metadata = await _metadata(asking, list(names))
        missing = [name for name in names if not _led(metadata, name)]
        if missing:
            raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic '{missing[0]}' has no leader yet")

    if names:
        await asking.cluster.retrying("waiting for new topics", attempt, timeout_ms=asking.timeout_ms)


def _creatable(topic: NewTopic) -> CreatableTopic:
    by_hand = topic.replicas is not None
    return CreatableTopic(
        name=topic.name,
        num_partitions=BROKER_DEFAULT if by_hand else topic.partitions,
        replication_factor=BROKER_DEFAULT if by_hand else topic.replication_factor,
        assignments=[
            CreatableReplicaAssignment(partition_index=number, broker_ids=list(brokers))
            for number, brokers in sorted((topic.replicas or {}).items())
        ],
        configs=[CreatableTopicConfig(name=name, value=value) for name, value in sorted(topic.configs.items())],
    )


def _led(metadata: Metadata, topic: str) -> bool:
    info = metadata.topics.get(topic)
    return info is not None and bool(info.partitions) and all(one.leader >= 0 for one in info.partitions)
