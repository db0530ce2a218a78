"""OffsetDelete (API 47): forget how far a group has come, in topics it does not consume (KIP-496)."""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.groups import wait_for
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)


async def handle(broker: Broker, context: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse:
    if not request.group_id:
        return _refuse(ErrorCode.INVALID_GROUP_ID)
    asked = request.topics
    request.topics = [_known(broker, topic) for topic in asked]
    future = broker.groups.ask(request.group_id, request, context)
    response = await wait_for(future, OffsetDeleteResponse, _refuse)
    if response.error_code:
        return response
    codes = {
        (topic.name, partition.partition_index): partition.error_code
        for topic in response.topics
        for partition in topic.partitions
    }
    response.topics = [
        OffsetDeleteResponseTopic(
            name=topic.name,
            partitions=[
                OffsetDeleteResponsePartition(
                    partition_index=one.partition_index,
                    error_code=codes.get((topic.name, one.partition_index), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
                )
                for one in topic.partitions
            ],
        )
        for topic in asked
    ]
    return response


def _known(broker: Broker, topic: OffsetDeleteRequestTopic) -> OffsetDeleteRequestTopic:
    """The topic with those of its partitions that exist."""
    return OffsetDeleteRequestTopic(
        name=topic.name,
        partitions=[
            one for one in topic.partitions if broker.image.partition(topic.name, one.partition_index) is not None
        ],
    )


def _refuse(code: ErrorCode) -> OffsetDeleteResponse:
    return OffsetDeleteResponse(error_code=code)
