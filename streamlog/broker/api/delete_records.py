"""DeleteRecords (API 21): move a partition's log start up; -1 means to its high watermark (KIP-107).

The answer is the lowest log start of the replicas that live. Followers learn it with their next fetch, and tell with
the one after that they have followed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.topic_names import INTERNAL_TOPICS
from streamlog.broker.partition import Partition
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)

log = logging.getLogger(__name__)

NO_WATERMARK = -1


def handle(
    broker: Broker, context: RequestContext, request: DeleteRecordsRequest
) -> DeleteRecordsResponse | Awaitable[DeleteRecordsResponse]:
    behind: list[tuple[Partition, DeleteRecordsPartitionResult]] = []
    topics = [
        DeleteRecordsTopicResult(
            name=topic.name, partitions=[_delete(broker, topic.name, asked, behind) for asked in topic.partitions]
        )
        for topic in request.topics
    ]
    try:
        # Apache Kafka writes this file once a minute, and what was deleted since comes back after a crash.
        broker.logs.save_log_starts()
    except OSError as error:
        log.error("log starts could not be saved: %s", error)
        for topic in topics:
            for result in topic.partitions:
                result.error_code = result.error_code or ErrorCode.KAFKA_STORAGE_ERROR
    response = DeleteRecordsResponse(topics=topics)
    return _wait(response, behind, request.timeout_ms) if behind else response


async def _wait(
    response: DeleteRecordsResponse, behind: list[tuple[Partition, DeleteRecordsPartitionResult]], timeout_ms: int
) -> DeleteRecordsResponse:
    """Wait for followers. What was deleted stays so when the time is over, or the client has left."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            for partition, result in behind:
                await partition.log_starts_reached(result.low_watermark)
    except TimeoutError:
        pass  # who has not come so far is found below
    for partition, result in behind:
        low_watermark = partition.low_watermark
        if not partition.is_leader:
            result.error_code, result.low_watermark = ErrorCode.NOT_LEADER_OR_FOLLOWER, NO_WATERMARK
        elif low_watermark < result.low_watermark:
            result.error_code, result.low_watermark = ErrorCode.REQUEST_TIMED_OUT, low_watermark
        else:
            result.low_watermark = low_watermark
    return response


def _delete(
    broker: Broker,
    topic: str,
    asked: DeleteRecordsPartition,
    behind: list[tuple[Partition, DeleteRecordsPartitionResult]],
) -> DeleteRecordsPartitionResult:
    """Delete on the leader. `behind` gets what followers have still to do: until they have, `low_watermark` is what
    they have to reach."""
    result = DeleteRecordsPartitionResult(partition_index=asked.partition_index, low_watermark=NO_WATERMARK)
    try:
        partition = broker.partitions.lead(topic, asked.partition_index)
        if topic in INTERNAL_TOPICS:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic} is the cluster's own")
        if not partition.log.config.delete:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, f"{topic} is compacted and not deleted from")
        result.low_watermark = partition.log.delete_records_before(asked.offset)
        partition.on_log_start_moved()
        if partition.low_watermark < result.low_watermark:
            behind.append((partition, result))
    except KafkaError as error:
        result.error_code = error.code
    return result
