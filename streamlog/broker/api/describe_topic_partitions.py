"""DescribeTopicPartitions (API 75): partitions of many topics, page by page (KIP-966).

Topics come sorted by name. A page ends after `response_partition_limit` partitions, and `next_cursor` says where the
next one begins.
"""

from __future__ import annotations

from streamlog.broker.api.metadata import describe_partition
from streamlog.broker.authorized_operations import TOPIC_OPERATIONS
from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.topic_names import INTERNAL_TOPICS, reason_against
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)


def handle(
    broker: Broker, context: RequestContext, request: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse:
    image = broker.image
    if _is_astray(request):
        return DescribeTopicPartitionsResponse(
            topics=[
                DescribeTopicPartitionsResponseTopic(error_code=ErrorCode.INVALID_REQUEST, name=topic.name)
                for topic in request.topics
            ],
            next_cursor=None,
        )
    names = sorted({topic.name for topic in request.topics}) if request.topics else sorted(image.topics)
    first_index = 0
    if request.cursor is not None:
        names = [name for name in names if name >= request.cursor.topic_name]
        if names and names[0] == request.cursor.topic_name:
            first_index = request.cursor.partition_index
    room = max(1, min(request.response_partition_limit, broker.config.integer("max.request.partition.size.limit")))
    response = DescribeTopicPartitionsResponse(next_cursor=None)
    for name in names:
        if room == 0:
            response.next_cursor = Cursor(topic_name=name, partition_index=0)
            break
        described, next_index = _describe(broker, context, name, first_index, room)
        response.topics.append(described)
        room -= len(described.partitions)
        first_index = 0
        if next_index is not None:
            response.next_cursor = Cursor(topic_name=name, partition_index=next_index)
            break
    return response


def _is_astray(request: DescribeTopicPartitionsRequest) -> bool:
    """Whether the cursor is at no partition, or at a topic that is not asked for."""
    cursor = request.cursor
    if cursor is None:
        return False
    named = {topic.name for topic in request.topics}
    return cursor.partition_index < 0 or bool(named and cursor.topic_name not in named)


def _describe(
    broker: Broker, context: RequestContext, name: str, first_index: int, room: int
) -> tuple[DescribeTopicPartitionsResponseTopic, int | None]:
    """A topic's partitions from `first_index` on, and where to go on if they are more than `room`."""
    image = broker.image
    topic = image.topics.get(name)
    if topic is None:
        invalid = reason_against(name) is not None
        code = ErrorCode.INVALID_TOPIC_EXCEPTION if invalid else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return DescribeTopicPartitionsResponseTopic(
            error_code=code, name=name, topic_authorized_operations=TOPIC_OPERATIONS
        ), None
    described: list[DescribeTopicPartitionsResponsePartition] = []
    for index in range(first_index, min(len(topic.partitions), first_index + room)):
        registration = topic.partitions[index]
        common = describe_partition(image, index, registration, context.listener)
        described.append(
            DescribeTopicPartitionsResponsePartition(
                error_code=common.error_code,
                partition_index=index,
                leader_id=common.leader_id,
                leader_epoch=common.leader_epoch,
                replica_nodes=common.replica_nodes,
                isr_nodes=common.isr_nodes,
                eligible_leader_replicas=list(registration.eligible_leader_replicas),
                last_known_elr=list(registration.last_known_elr),
                offline_replicas=common.offline_replicas,
            )
        )
    next_index = first_index + room if first_index + room < len(topic.partitions) else None
    return (
        DescribeTopicPartitionsResponseTopic(
            name=name,
            topic_id=topic.id,
            is_internal=name in INTERNAL_TOPICS,
            partitions=described,
            topic_authorized_operations=TOPIC_OPERATIONS,
        ),
        next_index,
    )
