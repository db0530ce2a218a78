"""Topics: create, grow, delete. Decides; changes nothing.

Each topic of a request stands for itself: one that is refused does not stop the others. The records of those that
are not refused form one batch, so a crash leaves all of them or none.

Sources: KIP-4 (CreateTopics), KIP-195 (CreatePartitions), KIP-516 (topic ids), KIP-525 (configs in the response),
and the controller of Kafka 4.3 for which error wins when several apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from uuid import UUID

from streamlog.broker.metadata.changes import default_directory
from streamlog.broker.metadata.decision import PARTITIONS_PER_REQUEST_MAX, ControllerSettings, Decision, refuse
from streamlog.broker.metadata.image import (
    RESOURCE_TOPIC,
    KnownRecord,
    MetadataImage,
    PartitionRegistration,
    TopicImage,
    new_partition_record,
)
from streamlog.broker.metadata.placement import place_replicas
from streamlog.broker.metadata.topic_names import CLUSTER_METADATA, INTERNAL_TOPICS, reason_against
from streamlog.broker.topic_configs import InvalidConfig, effective_values, validate_topic_configs
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.metadata import ConfigRecord, RemoveTopicRecord, TopicRecord
from streamlog.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)
from streamlog.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from streamlog.wire.messages.delete_topics import DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse
from streamlog.wire.schema import ZERO_UUID

USE_DEFAULT: Final = -1


def create_topics(
    image: MetadataImage, settings: ControllerSettings, request: CreateTopicsRequest, new_uuid: Callable[[], UUID]
) -> Decision[CreateTopicsResponse]:
    """Decide a CreateTopics request; each topic once in the response, in the request's order."""
    counts = Counter(topic.name for topic in request.topics)
    asked = sum(_partition_count(topic, settings) for topic in request.topics)
    records: list[KnownRecord] = []
    results: dict[str, CreatableTopicResult] = {}
    taken: dict[str, str] = {}  # names this request creates, by their collision form
    for topic in request.topics:
        if topic.name in results:
            continue
        try:
            if counts[topic.name] > 1:
                raise refuse(ErrorCode.INVALID_REQUEST, f"topic {topic.name} is named twice in one request")
            if asked > PARTITIONS_PER_REQUEST_MAX:
                raise refuse(
                    ErrorCode.POLICY_VIOLATION,
                    f"{asked} partitions in one request; at most {PARTITIONS_PER_REQUEST_MAX} are created at a time",
                )
            _check_name(image, taken, topic.name)
            made, result = _create_topic(image, settings, topic, new_uuid)
            taken[_collision_form(topic.name)] = topic.name
            records += made
            results[topic.name] = result
        except KafkaError as error:
            results[topic.name] = CreatableTopicResult(
                name=topic.name, error_code=error.code, error_message=error.message
            )
    response = CreateTopicsResponse(topics=list(results.values()))
    return Decision(() if request.validate_only else tuple(records), response)


def _partition_count(topic: CreatableTopic, settings: ControllerSettings) -> int:
    if topic.assignments:
        return len(topic.assignments)
    return settings.num_partitions if topic.num_partitions == USE_DEFAULT else max(0, topic.num_partitions)


def _collision_form(name: str) -> str:
    return name.replace(".", "_")


def _check_name(image: MetadataImage, taken: dict[str, str], name: str) -> None:
    reason = reason_against(name)
    if reason is not None:
        raise refuse(ErrorCode.INVALID_TOPIC_EXCEPTION, reason)
    if name == CLUSTER_METADATA:
        raise refuse(ErrorCode.INVALID_REQUEST, f"{name} is the cluster's own and cannot be created")
    if name in image.topics:
        raise refuse(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    colliding = next(iter(image.names_by_collision.get(_collision_form(name), ())), taken.get(_collision_form(name)))
    if colliding is not None:
        raise refuse(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"topic {name} collides with {colliding}: metrics cannot tell '.' from '_'",
        )


def _create_topic(
    image: MetadataImage, settings: ControllerSettings, topic: CreatableTopic, new_uuid: Callable[[], UUID]
) -> tuple[list[KnownRecord], CreatableTopicResult]:
    configs = {config.name: config.value for config in topic.configs if config.value is not None}
    try:
        validate_topic_configs(configs)
    except InvalidConfig as error:
        raise refuse(ErrorCode.INVALID_CONFIG, str(error)) from None
    if len(configs) < len(topic.configs):
        nulls = [config.name for config in topic.configs if config.value is None]
        raise refuse(ErrorCode.INVALID_CONFIG, f"config {nulls[0]} has no value")
    topic_id = new_uuid()
    if topic.assignments:
        assigned = _manual_assignment(image, topic)
    else:
        assigned = _automatic_assignment(image, settings, topic, topic_id)
    records: list[KnownRecord] = [TopicRecord(name=topic.name, topic_id=topic_id)]
    records += [
        ConfigRecord(resource_type=RESOURCE_TOPIC, resource_name=topic.name, name=name, value=value)
        for name, value in sorted(configs.items())
    ]
    records += [
        new_partition_record(topic_id, index, _new_partition(image, replicas))
        for index, replicas in enumerate(assigned)
    ]
    result = CreatableTopicResult(
        name=topic.name,
        topic_id=topic_id,
        error_message=None,
        num_partitions=len(assigned),
        replication_factor=len(assigned[0]),
        configs=[
            CreatableTopicConfigs(name=name, value=found.value, config_source=int(found.source))
            for name, found in effective_values(configs, settings.topic_defaults).items()
        ],
    )
    return records, result


def _new_partition(image: MetadataImage, replicas: tuple[int, ...]) -> PartitionRegistration:
    """A partition nobody has written to yet: every active replica is in sync, the first of them leads."""
    isr = tuple(replica for replica in replicas if image.brokers[replica].is_active)
    assert isr, "placement and the check of manual assignments leave an active replica"
    directories = tuple(default_directory(image, replica) for replica in replicas)
    return PartitionRegistration(replicas, directories, isr, leader=isr[0], leader_epoch=0, partition_epoch=0)


def _automatic_assignment(
    image: MetadataImage, settings: ControllerSettings, topic: CreatableTopic, topic_id: UUID
) -> list[tuple[int, ...]]:
    if topic.replication_factor != USE_DEFAULT and topic.replication_factor <= 0:
        raise refuse(ErrorCode.INVALID_REPLICATION_FACTOR, "a replication factor is positive, or -1 for the default")
    if topic.num_partitions != USE_DEFAULT and topic.num_partitions <= 0:
        raise refuse(ErrorCode.INVALID_PARTITIONS, "a number of partitions is positive, or -1 for the default")
    factor = topic.replication_factor
    if factor == USE_DEFAULT:
        factor = settings.default_replication_factor
    # The topic's id is drawn, and serves as the entropy of where its leaders begin.
    return place_replicas(image.brokers.values(), topic_id.int, _partition_count(topic, settings), factor)


def _manual_assignment(image: MetadataImage, topic: CreatableTopic) -> list[tuple[int, ...]]:
    if topic.replication_factor != USE_DEFAULT:
        raise refuse(ErrorCode.INVALID_REQUEST, "with a manual assignment the replication factor has to be -1")
    if topic.num_partitions != USE_DEFAULT:
        raise refuse(ErrorCode.INVALID_REQUEST, "with a manual assignment the number of partitions has to be -1")
    assigned: dict[int, tuple[int, ...]] = {}
    factor: int | None = None
    for assignment in topic.assignments:
        if assignment.partition_index in assigned:
            raise refuse(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"partition {assignment.partition_index} is assigned twice"
            )
        _check_manual(image, assignment.broker_ids, factor)
        factor = len(assignment.broker_ids)
        assigned[assignment.partition_index] = tuple(assignment.broker_ids)
    if sorted(assigned) != list(range(len(assigned))):
        raise refuse(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions are numbered from 0 without gaps")
    return [assigned[index] for index in range(len(assigned))]


def _check_manual(image: MetadataImage, replicas: Sequence[int], factor: int | None) -> None:
    code = ErrorCode.INVALID_REPLICA_ASSIGNMENT
    if not replicas:
        raise refuse(code, "the assignment has a partition without replicas")
    for replica in replicas:
        if replica not in image.brokers:
            raise refuse(code, f"the assignment names broker {replica}, which is not registered")
    if len(set(replicas)) < len(replicas):
        raise refuse(code, f"the assignment {list(replicas)} names a broker more than once")
    if factor is not None and len(replicas) != factor:
        raise refuse(code, f"the assignment {list(replicas)} has {len(replicas)} replicas where others have {factor}")
    if not any(image.brokers[replica].is_active for replica in replicas):
        raise refuse(code, f"all brokers of the assignment {list(replicas)} are fenced or shutting down")


def create_partitions(image: MetadataImage, request: CreatePartitionsRequest) -> Decision[CreatePartitionsResponse]:
    """Decide a CreatePartitions request."""
    counts = Counter(topic.name for topic in request.topics)
    records: list[KnownRecord] = []
    results: dict[str, CreatePartitionsTopicResult] = {}
    for topic in request.topics:
        if topic.name in results:
            continue
        try:
            if counts[topic.name] > 1:
                raise refuse(ErrorCode.INVALID_REQUEST, f"topic {topic.name} is named twice in one request")
            made = _create_partitions(image, topic)
            if len(records) + len(made) > PARTITIONS_PER_REQUEST_MAX:
                raise refuse(
                    ErrorCode.POLICY_VIOLATION, f"at most {PARTITIONS_PER_REQUEST_MAX} partitions are created at a time"
                )
            records += made
            results[topic.name] = CreatePartitionsTopicResult(name=topic.name, error_message=None)
        except KafkaError as error:
            results[topic.name] = CreatePartitionsTopicResult(
                name=topic.name, error_code=error.code, error_message=error.message
            )
    response = CreatePartitionsResponse(results=list(results.values()))
    return Decision(() if request.validate_only else tuple(records), response)


def _create_partitions(image: MetadataImage, topic: CreatePartitionsTopic) -> list[KnownRecord]:
    existing = image.topics.get(topic.name)
    if existing is None:
        raise refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {topic.name}")
    before = len(existing.partitions)
    if topic.count <= before:
        raise refuse(
            ErrorCode.INVALID_PARTITIONS,
            f"Topic already has {before} partition(s)."
            if topic.count == before
            else f"topic {topic.name} has {before} partitions; {topic.count} would not be an increase",
        )
    more = topic.count - before
    if more > PARTITIONS_PER_REQUEST_MAX:
        raise refuse(
            ErrorCode.POLICY_VIOLATION, f"at most {PARTITIONS_PER_REQUEST_MAX} partitions are created at a time"
        )
    factor = len(existing.partitions[0].replicas) - len(existing.partitions[0].adding_replicas)
    if topic.assignments is None:
        assigned = place_replicas(image.brokers.values(), existing.id.int + before, more, factor)
    else:
        if len(topic.assignments) != more:
            raise refuse(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"{more} partitions are to be added, and {len(topic.assignments)} assignments are given",
            )
        for assignment in topic.assignments:
            _check_manual(image, assignment.broker_ids, factor)
        assigned = [tuple(assignment.broker_ids) for assignment in topic.assignments]
    return [
        new_partition_record(existing.id, before + index, _new_partition(image, replicas))
        for index, replicas in enumerate(assigned)
    ]


def delete_topics(
    image: MetadataImage, settings: ControllerSettings, request: DeleteTopicsRequest
) -> Decision[DeleteTopicsResponse]:
    """Decide a DeleteTopics request: topics by name, or by id from version 6 on."""
    if not settings.delete_topic_enable:
        raise refuse(ErrorCode.TOPIC_DELETION_DISABLED, "delete.topic.enable is false")
    results: list[DeletableTopicResult] = []
    records: list[KnownRecord] = []
    asked = [(name, ZERO_UUID) for name in request.topic_names] + [(t.name, t.topic_id) for t in request.topics]
    counts = Counter(topic.id for topic in _find_all(image, asked))
    repeated = Counter(asked)
    named = {name for name, _ in asked if name is not None}
    for name, topic_id in dict.fromkeys(asked):
        if name is None and topic_id in image.topics_by_id and image.topics_by_id[topic_id].name in named:
            continue  # its name is answered
        try:
            if repeated[name, topic_id] > 1:
                raise refuse(ErrorCode.INVALID_REQUEST, "the topic is named twice in one request")
            topic = _find(image, name, topic_id)
            if counts[topic.id] > 1:
                raise refuse(ErrorCode.INVALID_REQUEST, "the topic is given by name and by id")
            if topic.name in INTERNAL_TOPICS:
                raise refuse(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic.name} is the cluster's own")
            records.append(RemoveTopicRecord(topic_id=topic.id))
            results.append(DeletableTopicResult(name=topic.name, topic_id=topic.id, error_message=None))
        except KafkaError as error:
            results.append(
                DeletableTopicResult(name=name, topic_id=topic_id, error_code=error.code, error_message=error.message)
            )
    return Decision(tuple(records), DeleteTopicsResponse(responses=results))


def _find(image: MetadataImage, name: str | None, topic_id: UUID) -> TopicImage:
    if name is not None and topic_id != ZERO_UUID:
        raise refuse(ErrorCode.INVALID_REQUEST, "a topic is given by name or by id, not by both")
    if name is None and topic_id == ZERO_UUID:
        raise refuse(ErrorCode.INVALID_REQUEST, "a topic is given by name or by id")
    topic = image.topics_by_id.get(topic_id) if name is None else image.topics.get(name)
    if topic is None:
        if name is None:
            raise refuse(ErrorCode.UNKNOWN_TOPIC_ID, "there is no topic with this id")
        raise refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name}")
    return topic


def _find_all(image: MetadataImage, asked: Iterable[tuple[str | None, UUID]]) -> Iterable[TopicImage]:
    for name, topic_id in asked:
        topic = image.topics_by_id.get(topic_id) if name is None else image.topics.get(name)
        if topic is not None:
            yield topic
