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
from streamlog.client.metadata import Metadata, TopicInfo
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
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
    metadata = await _metadata(asking, wanted)
    errors = {name: topic_error(name, metadata.errors[name]) for name in wanted if name not in metadata.topics}
    refused = {name: error for name, error in errors.items() if isinstance(error, KafkaError)}
    if refused:
        raise SomeFailed(refused)
    for error in errors.values():
        raise error
    return {name: metadata.topics[name] for name in wanted}


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
