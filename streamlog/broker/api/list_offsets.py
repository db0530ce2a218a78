"""ListOffsets (API 2): offsets by timestamp, and where a partition begins and ends."""

from __future__ import annotations

from collections import Counter
from typing import Final

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.log.lookup import TimestampOffset
from streamlog.broker.partition import ISOLATION_LEVELS, Partition
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from streamlog.wire.records import NO_LEADER_EPOCH

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3
EARLIEST_LOCAL: Final = -4
LATEST_TIERED: Final = -5
EARLIEST_PENDING_UPLOAD: Final = -6

SINCE: Final = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING_UPLOAD: 11}
"""The version of the request from which on a special timestamp has its meaning."""

OFFSET_NOT_AVAILABLE_SINCE: Final = 5

NOTHING: Final = (-1, -1, -1)


def handle(broker: Broker, context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse:
    times = Counter((topic.name, asked.partition_index) for topic in request.topics for asked in topic.partitions)
    answers: dict[str, list[ListOffsetsPartitionResponse]] = {}
    twice: set[tuple[str, int]] = set()
    for topic in request.topics:
        for asked in topic.partitions:
            place = topic.name, asked.partition_index
            if place in twice:
                continue
            if times[place] > 1:
                twice.add(place)
                answer = ListOffsetsPartitionResponse(
                    partition_index=asked.partition_index, error_code=ErrorCode.INVALID_REQUEST
                )
            else:
                answer = _answer(broker, context, request, topic.name, asked)
            answers.setdefault(topic.name, []).append(answer)
    return ListOffsetsResponse(
        topics=[ListOffsetsTopicResponse(name=name, partitions=found) for name, found in answers.items()]
    )


def _answer(
    broker: Broker, context: RequestContext, request: ListOffsetsRequest, topic: str, asked: ListOffsetsPartition
) -> ListOffsetsPartitionResponse:
    try:
        if request.isolation_level not in ISOLATION_LEVELS:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"there is no isolation level {request.isolation_level}")
        partition = broker.partitions.lead(topic, asked.partition_index, asked.current_leader_epoch)
        if asked.current_leader_epoch < NO_LEADER_EPOCH:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH, "an epoch from before the first one")
        timestamp_ms, offset, leader_epoch = _look_up(partition, context, request, asked.timestamp)
    except KafkaError as error:
        return ListOffsetsPartitionResponse(partition_index=asked.partition_index, error_code=error.code)
    answer = ListOffsetsPartitionResponse(partition_index=asked.partition_index, timestamp=timestamp_ms, offset=offset)
    if context.version >= 4:
        answer.leader_epoch = leader_epoch
    return answer


def _look_up(
    partition: Partition, context: RequestContext, request: ListOffsetsRequest, timestamp_ms: int
) -> tuple[int, int, int]:
    """(timestamp, offset, leader epoch), -1 where there is none. Raises KafkaError."""
    log = partition.log
    if timestamp_ms < EARLIEST and context.version < SINCE.get(timestamp_ms, 0x7FFF):
        raise KafkaError(
            ErrorCode.UNSUPPORTED_VERSION, f"timestamp {timestamp_ms} means nothing in version {context.version}"
        )
    if request.replica_id >= 0:
        end_offset = log.log_end_offset  # a follower wants to know what it can fetch
    else:
        end_offset = partition.readable_end_offset(request.isolation_level)
    found: TimestampOffset | None
    match timestamp_ms:
        case -1:
            if request.replica_id < 0:
                _check_end_is_known(partition, context)
            return -1, end_offset, partition.leader_epoch
        case -2 | -4:
            start_offset = log.log_start_offset
            # Nothing lies at the start of an empty log; what comes there comes from the leader of today.
            is_empty = start_offset == log.log_end_offset
            return -1, start_offset, partition.leader_epoch if is_empty else log.epochs.epoch_at(start_offset)
        case -5 | -6:
            return NOTHING  # nothing is tiered, nothing waits to be
        case -3:
            found = log.max_timestamp()
        case _:
            found = log.offset_for_timestamp(timestamp_ms, end_offset=end_offset)
    if found is None or found.offset >= end_offset:
        _check_end_is_known(partition, context)
        return NOTHING
    return found.timestamp_ms, found.offset, found.leader_epoch


def _check_end_is_known(partition: Partition, context: RequestContext) -> None:
    """Raise while a new leader does not know how far the one before had committed: the answer could be too low, and
    a client may have seen a higher one (KIP-207)."""
    if not partition.is_high_watermark_known:
        old = context.version < OFFSET_NOT_AVAILABLE_SINCE
        raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE if old else ErrorCode.OFFSET_NOT_AVAILABLE)
