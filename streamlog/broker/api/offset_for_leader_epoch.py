"""OffsetForLeaderEpoch (API 23): where an epoch ends, so that a reader finds out whether its past is ours (KIP-320)."""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)


def handle(
    broker: Broker, context: RequestContext, request: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderTopicResult(
                topic=topic.topic,
                partitions=[_answer(broker, topic.topic, asked, request.replica_id) for asked in topic.partitions],
            )
            for topic in request.topics
        ]
    )


def _answer(broker: Broker, topic: str, asked: OffsetForLeaderPartition, replica_id: int) -> EpochEndOffset:
    try:
        partition = broker.partitions.lead(topic, asked.partition, asked.current_leader_epoch)
    except KafkaError as error:
        return EpochEndOffset(error_code=error.code, partition=asked.partition)
    if asked.leader_epoch == partition.leader_epoch and replica_id < 0:
        # The current epoch has no end yet; a consumer gets what it may read.
        return EpochEndOffset(
            partition=asked.partition, leader_epoch=asked.leader_epoch, end_offset=partition.log.high_watermark
        )
    epoch, end_offset = partition.log.end_offset_for_epoch(asked.leader_epoch)
    return EpochEndOffset(partition=asked.partition, leader_epoch=epoch, end_offset=end_offset)
