"""Metadata (API 3): who leads what, and where to connect.

Asking for a topic that does not exist may create it (auto.create.topics.enable). Kafka answers such a request with an
error and the client asks again; here the answer waits for the topic and names its leaders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Final
from uuid import UUID

from streamlog.broker.api.auto_create import auto_create_topics
from streamlog.broker.api.large import PAUSE_S, SLICE_ELEMENTS, distinct
from streamlog.broker.authorized_operations import CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS
from streamlog.broker.broker import Broker
from streamlog.broker.context import Large, RequestContext
from streamlog.broker.metadata.image import NO_LEADER, MetadataImage, PartitionRegistration, TopicImage
from streamlog.broker.metadata.topic_names import INTERNAL_TOPICS, reason_against
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from streamlog.wire.schema import ZERO_UUID

DESCRIBED_AT_ONCE_MAX: Final = 2_000
"""Partitions that are described and encoded in one go: 2 ms. What is more is made in turns of the loop."""


def handle(
    broker: Broker, context: RequestContext, request: MetadataRequest
) -> MetadataResponse | Awaitable[MetadataResponse] | Large:
    if request.topics:
        request.topics = distinct(request.topics, lambda topic: (topic.name, topic.topic_id))
    missing = _missing_topics(broker, context, request)
    if missing:
        return _create_and_answer(broker, context, request, missing)
    if _wants_all(context, request):
        count = sum(len(topic.partitions) for topic in broker.image.topics.values())
        if count > DESCRIBED_AT_ONCE_MAX:
            return Large(_describe_all_in_turns(broker, context, request))
    return _answer(broker, context, request, {})


def _wants_all(context: RequestContext, request: MetadataRequest) -> bool:
    return request.topics is None or (context.version == 0 and not request.topics)


async def _describe_all_in_turns(broker: Broker, context: RequestContext, request: MetadataRequest) -> MetadataResponse:
    """Each topic as of its turn; one that is created meanwhile may be missing, as if it had been a little later."""
    described: list[MetadataResponseTopic] = []
    count = 0
    for name in list(broker.image.topics):
        topic = broker.image.topics.get(name)
        if topic is not None:
            described.append(_describe_topic(broker.image, topic, context.listener, _operations(request)))
            count += len(topic.partitions)
        if count >= SLICE_ELEMENTS:
            count = 0
            await asyncio.sleep(PAUSE_S)
    return _respond(broker, context, request, described)


def _operations(request: MetadataRequest) -> int:
    return TOPIC_OPERATIONS if request.include_topic_authorized_operations else NOT_ASKED


def _missing_topics(broker: Broker, context: RequestContext, request: MetadataRequest) -> list[str]:
    """Names that are asked for, do not exist, and may be created."""
    allowed = request.allow_auto_topic_creation if context.version >= 4 else True
    if not request.topics or not allowed or not broker.config.boolean("auto.create.topics.enable"):
        return []
    topics = broker.image.topics
    names = (topic.name for topic in request.topics if topic.topic_id == ZERO_UUID)
    return [name for name in dict.fromkeys(names) if name and name not in topics and reason_against(name) is None]


async def _create_and_answer(
    broker: Broker, context: RequestContext, request: MetadataRequest, missing: list[str]
) -> MetadataResponse:
    """Cancelling (the client has left) does not stop the creation."""
    errors = await auto_create_topics(broker, missing)
    return _answer(broker, context, request, errors)


def _answer(
    broker: Broker, context: RequestContext, request: MetadataRequest, errors: dict[str, ErrorCode]
) -> MetadataResponse:
    image = broker.image
    operations = _operations(request)
    if _wants_all(context, request):
        topics = [_describe_topic(image, topic, context.listener, operations) for topic in image.topics.values()]
    else:
        topics = [
            _describe_asked(image, topic.name, topic.topic_id, context, operations, errors)
            for topic in request.topics or ()
        ]
    return _respond(broker, context, request, topics)


def _respond(
    broker: Broker, context: RequestContext, request: MetadataRequest, topics: list[MetadataResponseTopic]
) -> MetadataResponse:
    asked_cluster = request.include_cluster_authorized_operations
    if broker.replication.is_cut_off:
        _disown(broker, topics)
        send_elsewhere(context)
    return MetadataResponse(
        brokers=list(describe_brokers(broker.image, context.listener)),
        cluster_id=broker.cluster_id,
        controller_id=broker.controller_id,
        topics=topics,
        cluster_authorized_operations=CLUSTER_OPERATIONS if asked_cluster else NOT_ASKED,
    )


def send_elsewhere(context: RequestContext) -> None:
    """Close the connection behind the answer: who looks for another leader asks, as long as it has a connection, nobody
    but us, and we do not know."""
    asyncio.get_running_loop().call_soon(context.connection.close)


def _disown(broker: Broker, topics: list[MetadataResponseTopic]) -> None:
    """Do not call ourselves the leader of what we are cut off from: a client that believes it would ask nobody else."""
    for topic in topics:
        opened = broker.partitions.opened(topic.name or "")
        for told in topic.partitions:
            if told.leader_id == broker.node_id:
                partition = opened.get(told.partition_index)
                if partition is not None and partition.is_cut_off:
                    told.leader_id, told.error_code = NO_LEADER, ErrorCode.LEADER_NOT_AVAILABLE


def describe_brokers(image: MetadataImage, listener: str) -> Iterable[MetadataResponseBroker]:
    """Brokers that are alive, as a client of this listener reaches them."""
    for node in image.brokers.values():
        endpoint = node.endpoint(listener)
        if endpoint is not None and not node.fenced:
            yield MetadataResponseBroker(node_id=node.id, host=endpoint.host, port=endpoint.port, rack=node.rack)


def describe_partition(
    image: MetadataImage, index: int, partition: PartitionRegistration, listener: str
) -> MetadataResponsePartition:
    code = ErrorCode.NONE
    leader = image.brokers.get(partition.leader)
    if partition.leader == NO_LEADER or leader is None:
        code = ErrorCode.LEADER_NOT_AVAILABLE
    elif leader.endpoint(listener) is None:
        code = ErrorCode.LISTENER_NOT_FOUND
    return MetadataResponsePartition(
        error_code=code,
        partition_index=index,
        leader_id=partition.leader,
        leader_epoch=partition.leader_epoch,
        replica_nodes=list(partition.replicas),
        isr_nodes=list(partition.isr),
        offline_replicas=offline_replicas(image, partition),
    )


def offline_replicas(image: MetadataImage, partition: PartitionRegistration) -> list[int]:
    """Replicas whose broker is not there."""
    brokers = image.brokers
    return [replica for replica in partition.replicas if replica not in brokers or brokers[replica].fenced]


def _describe_topic(image: MetadataImage, topic: TopicImage, listener: str, operations: int) -> MetadataResponseTopic:
    return MetadataResponseTopic(
        name=topic.name,
        topic_id=topic.id,
        is_internal=topic.name in INTERNAL_TOPICS,
        partitions=[
            describe_partition(image, index, partition, listener) for index, partition in topic.partitions.items()
        ],
        topic_authorized_operations=operations,
    )


def _describe_asked(
    image: MetadataImage,
    name: str | None,
    topic_id: UUID,
    context: RequestContext,
    operations: int,
    errors: dict[str, ErrorCode],
) -> MetadataResponseTopic:
    """One topic that a request names, by name or, from version 12 on, by id."""
    if topic_id != ZERO_UUID:
        topic = image.topics_by_id.get(topic_id)
        code = ErrorCode.UNKNOWN_TOPIC_ID
        if context.version < 12:
            topic, code = None, ErrorCode.INVALID_REQUEST
        name = name if context.version < 12 else None
    elif name is None:
        topic, code = None, ErrorCode.INVALID_REQUEST
    else:
        topic = image.topics.get(name)
        invalid = reason_against(name) is not None
        code = ErrorCode.INVALID_TOPIC_EXCEPTION if invalid else errors.get(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if topic is not None:
        return _describe_topic(image, topic, context.listener, operations)
    if name is None and context.version < 12:
        name = ""
    return MetadataResponseTopic(error_code=code, name=name, topic_id=topic_id)
