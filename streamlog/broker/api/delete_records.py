"""DeleteRecords (API 21): move a partition's log start up; -1 means to its high watermark (KIP-107)."""

from __future__ import annotations

import logging

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.topic_names import INTERNAL_TOPICS
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


def handle(broker: Broker, context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse:
    topics = [
        DeleteRecordsTopicResult(
            name=topic.name, partitions=[_delete(broker, topic.name, asked) for asked in topic.partitions]
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
    return DeleteRecordsResponse(topics=topics)


def _delete(broker: Broker, topic: str, asked: DeleteRecordsPartition) -> DeleteRecordsPartitionResult:
    result = DeleteRecordsPartitionResult(partition_index=asked.partition_index, low_watermark=NO_WATERMARK)
    try:
        partition = broker.partitions.lead(topic, asked.partition_index)
        if topic in INTERNAL_TOPICS:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic} is the cluster's own")
        if not partition.log.config.delete:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, f"{topic} is compacted and not deleted from")
        result.low_watermark = partition.log.delete_records_before(asked.offset)
        partition.on_log_start_moved()
    except KafkaError as error:
        result.error_code = error.code
    return result
