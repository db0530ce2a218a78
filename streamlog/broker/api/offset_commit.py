"""OffsetCommit (API 8): remember how far a group has come.

Topics and partitions that do not exist are refused one by one; the rest goes to the group's coordinator. From version
10 on topics are named by id (KIP-848), before that by name; records hold both.
"""

from __future__ import annotations

from collections.abc import Awaitable

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.group.offsets import commit_response
from streamlog.broker.coordinator.groups import answer, wait_for
from streamlog.broker.metadata.image import MetadataImage, TopicImage
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

TOPIC_IDS_SINCE = 10


def handle(
    broker: Broker, context: RequestContext, request: OffsetCommitRequest
) -> OffsetCommitResponse | Awaitable[OffsetCommitResponse]:
    asked = request.topics
    refused = _refuse_unknown(broker.image, request, by_id=context.version >= TOPIC_IDS_SINCE)
    if refused and not request.topics:
        return OffsetCommitResponse(topics=refused)

    def refuse(code: ErrorCode) -> OffsetCommitResponse:
        return commit_response(request, code)

    future = broker.groups.ask(request.group_id, request, context)
    if not refused:
        return answer(future, OffsetCommitResponse, refuse)

    async def merged() -> OffsetCommitResponse:
        response = await wait_for(future, OffsetCommitResponse, refuse)
        return OffsetCommitResponse(topics=_merge(asked, response.topics + refused))

    return merged()


def _refuse_unknown(
    image: MetadataImage, request: OffsetCommitRequest, *, by_id: bool
) -> list[OffsetCommitResponseTopic]:
    """Take out of the request what does not exist, and fill in names and ids of what does."""
    refused: list[OffsetCommitResponseTopic] = []
    known: list[OffsetCommitRequestTopic] = []
    for topic in request.topics:
        found = image.topics_by_id.get(topic.topic_id) if by_id else image.topics.get(topic.name)
        if found is None:
            code = ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            refused.append(_refusal(topic, topic.partitions, code))
            continue
        topic.name, topic.topic_id = found.name, found.id
        missing = [one for one in topic.partitions if not _exists(found, one)]
        if missing:
            refused.append(_refusal(topic, missing, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            topic = OffsetCommitRequestTopic(
                name=found.name, topic_id=found.id, partitions=[one for one in topic.partitions if _exists(found, one)]
            )
        if topic.partitions:
            known.append(topic)
    request.topics = known
    return refused


def _exists(topic: TopicImage, partition: OffsetCommitRequestPartition) -> bool:
    return partition.partition_index in topic.partitions


def _refusal(
    topic: OffsetCommitRequestTopic, partitions: list[OffsetCommitRequestPartition], code: ErrorCode
) -> OffsetCommitResponseTopic:
    return OffsetCommitResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=[
            OffsetCommitResponsePartition(partition_index=one.partition_index, error_code=code) for one in partitions
        ],
    )


def _merge(
    asked: list[OffsetCommitRequestTopic], parts: list[OffsetCommitResponseTopic]
) -> list[OffsetCommitResponseTopic]:
    """One entry per topic and partition, in the order of the request."""
    codes = {
        (part.name, part.topic_id, partition.partition_index): partition.error_code
        for part in parts
        for partition in part.partitions
    }
    return [
        OffsetCommitResponseTopic(
            name=topic.name,
            topic_id=topic.topic_id,
            partitions=[
                OffsetCommitResponsePartition(
                    partition_index=one.partition_index,
                    error_code=codes[topic.name, topic.topic_id, one.partition_index],
                )
                for one in topic.partitions
            ],
        )
        for topic in asked
    ]
