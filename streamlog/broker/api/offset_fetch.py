"""OffsetFetch (API 9): how far groups have come.

Version 8 asks for several groups at once (KIP-709), and is the form everything is brought into; version 10 names
topics by id. A group without positions is no error.
"""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.group.requests import FetchOffsets
from streamlog.broker.coordinator.groups import wait_for
from streamlog.broker.metadata.image import MetadataImage
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from streamlog.wire.schema import ZERO_UUID

GROUP_ERROR_SINCE = 2
GROUPS_SINCE = 8
TOPIC_IDS_SINCE = 10
NO_OFFSET = -1


async def handle(broker: Broker, context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse:
    if context.version >= GROUPS_SINCE:
        asked = request.groups
    else:
        topics = request.topics
        asked = [
            OffsetFetchRequestGroup(
                group_id=request.group_id,
                topics=None
                if topics is None
                else [
                    OffsetFetchRequestTopics(name=topic.name, partition_indexes=topic.partition_indexes)
                    for topic in topics
                ],
            )
        ]
    groups = [await _fetch(broker, context, group, require_stable=request.require_stable) for group in asked]
    if context.version >= GROUPS_SINCE:
        return OffsetFetchResponse(groups=groups)
    return _old_response(context.version, asked[0], groups[0])


async def _fetch(
    broker: Broker, context: RequestContext, group: OffsetFetchRequestGroup, *, require_stable: bool
) -> OffsetFetchResponseGroup:
    def refuse(code: ErrorCode) -> OffsetFetchResponseGroup:
        # Consumers before 3.9 take COORDINATOR_NOT_AVAILABLE for a fatal error here.
        if code is ErrorCode.COORDINATOR_NOT_AVAILABLE:
            code = ErrorCode.NOT_COORDINATOR
        return OffsetFetchResponseGroup(group_id=group.group_id, error_code=code)

    by_id = context.version >= TOPIC_IDS_SINCE
    asked = group.topics
    if asked is not None:
        topics = _named(broker.image, asked) if by_id else _identified(broker.image, asked)
        group = OffsetFetchRequestGroup(group_id=group.group_id, topics=topics)
    future = broker.groups.ask(group.group_id, FetchOffsets(group, require_stable), context)
    response = await wait_for(future, OffsetFetchResponseGroup, refuse)
    if by_id and not response.error_code:
        response.topics = _with_ids(broker.image, asked, response.topics)
    return response


def _named(image: MetadataImage, topics: list[OffsetFetchRequestTopics]) -> list[OffsetFetchRequestTopics]:
    return [
        OffsetFetchRequestTopics(name=found.name, topic_id=found.id, partition_indexes=topic.partition_indexes)
        for topic in topics
        if (found := image.topics_by_id.get(topic.topic_id)) is not None
    ]


def _identified(image: MetadataImage, topics: list[OffsetFetchRequestTopics]) -> list[OffsetFetchRequestTopics]:
    """Topics that were asked for by name get the id they have now, those that do not exist none."""
    for topic in topics:
        found = image.topics.get(topic.name)
        topic.topic_id = ZERO_UUID if found is None else found.id
    return topics


def _with_ids(
    image: MetadataImage, asked: list[OffsetFetchRequestTopics] | None, answered: list[OffsetFetchResponseTopics]
) -> list[OffsetFetchResponseTopics]:
    """Asked for all: topics that are gone have no id and are left out. Asked for some: those are UNKNOWN_TOPIC_ID."""
    if asked is None:
        for topic in answered:
            found = image.topics.get(topic.name)
            if found is not None:
                topic.topic_id = found.id
        return [topic for topic in answered if topic.name in image.topics]
    known = {topic.topic_id for topic in answered}
    unknown = [
        OffsetFetchResponseTopics(
            topic_id=topic.topic_id,
            partitions=[
                OffsetFetchResponsePartitions(
                    partition_index=index, committed_offset=NO_OFFSET, error_code=ErrorCode.UNKNOWN_TOPIC_ID
                )
                for index in topic.partition_indexes
            ],
        )
        for topic in asked
        if topic.topic_id not in known
    ]
    return answered + unknown


def _old_response(version: int, asked: OffsetFetchRequestGroup, group: OffsetFetchResponseGroup) -> OffsetFetchResponse:
    """One group, without an entry of its own; before version 2 its error stands at every partition."""
    if group.error_code and version < GROUP_ERROR_SINCE:
        group.topics = [
            OffsetFetchResponseTopics(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartitions(
                        partition_index=index, committed_offset=NO_OFFSET, error_code=group.error_code
                    )
                    for index in topic.partition_indexes
                ],
            )
            for topic in asked.topics or []
        ]
    return OffsetFetchResponse(
        error_code=group.error_code,
        topics=[
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=one.partition_index,
                        committed_offset=one.committed_offset,
                        committed_leader_epoch=one.committed_leader_epoch,
                        metadata=one.metadata,
                        error_code=one.error_code,
                    )
                    for one in topic.partitions
                ],
            )
            for topic in group.topics
        ],
    )
