"""Produce (API 0): append batches, answer when they are stored as their topic promises.

Appending is synchronous and in the order of arrival, so requests that are pipelined on one connection need not wait
for each other's disk: each is appended at once, and answered, in order, when its sync is done.

acks=0 wants no answer; what goes wrong can then only be said by closing the connection. acks=1 and acks=all mean the
same to a topic of one replica: stored (`streamlog.flush`).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from streamlog.broker.broker import Broker
from streamlog.broker.context import Deferred, RequestContext
from streamlog.broker.log.refusal import AppendRefused
from streamlog.broker.metadata.topic_names import INTERNAL_TOPICS
from streamlog.broker.partition import Acknowledgement, Partition
from streamlog.errors import RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from streamlog.wire.records import HEADER_BYTES

NO_OFFSET: Final = -1

TOPIC_IDS_SINCE: Final = 13
ZSTD_SINCE: Final = 7

ADMIN_CLIENT_ID: Final = "__admin_client"
"""Kafka lets this client, its own tool, write to internal topics."""

_ATTRIBUTES_LOW_BYTE: Final = 22
_COMPRESSION_MASK: Final = 0x07
_ZSTD: Final = 4
_TRANSACTIONAL: Final = 0x10


def handle(broker: Broker, context: RequestContext, request: ProduceRequest) -> ProduceResponse | Deferred | None:
    clock = broker.env.clock
    now_ms = clock.wall_ms()
    acks = request.acks
    acknowledgement: Acknowledgement | None = None
    response = ProduceResponse(responses=[])
    failed = False
    for topic_data in request.topic_data:
        if context.version >= TOPIC_IDS_SINCE:
            image = broker.image.topics_by_id.get(topic_data.topic_id)
            topic = "" if image is None else image.name
            missing = ErrorCode.UNKNOWN_TOPIC_ID
            topic_response = TopicProduceResponse(topic_id=topic_data.topic_id, partition_responses=[])
        else:
            topic = topic_data.name
            missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            topic_response = TopicProduceResponse(name=topic, partition_responses=[])
        response.responses.append(topic_response)
        for data in topic_data.partition_data:
            answer = PartitionProduceResponse(index=data.index, base_offset=NO_OFFSET)
            topic_response.partition_responses.append(answer)
            try:
                partition = _find(broker, context, request, topic, data, missing)
                end_offset = _append(partition, data, answer, now_ms)
            except KafkaError as error:
                _refuse(answer, error)
                failed = True
                continue
            if acks and not partition.is_stored(end_offset):
                if acknowledgement is None:
                    acknowledgement = Acknowledgement(clock.mono_ms() + request.timeout_ms)
                partition.acknowledge_when_stored(end_offset, acknowledgement)
    if acks == 0:
        if failed:
            raise RemoteProtocolError("a produce request with acks=0 failed, and this is the only way to say so")
        return None
    if acknowledgement is None:
        return response
    return Deferred(acknowledgement.done, partial(_finish, acknowledgement, response))


def _find(
    broker: Broker,
    context: RequestContext,
    request: ProduceRequest,
    topic: str,
    data: PartitionProduceData,
    missing: ErrorCode,
) -> Partition:
    """The partition a batch is for. Raises KafkaError unless this request may append to it."""
    if request.acks not in (-1, 0, 1):
        raise KafkaError(ErrorCode.INVALID_REQUIRED_ACKS, f"acks is {request.acks}; it can be -1, 0 or 1")
    if not topic:
        raise KafkaError(missing, "there is no such topic")
    partition = broker.partitions.lead(topic, data.index)
    if topic in INTERNAL_TOPICS and context.client_id != ADMIN_CLIENT_ID:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic} is the cluster's own")
    records = data.records
    if records is None or len(records) < HEADER_BYTES:
        raise KafkaError(ErrorCode.INVALID_RECORD, "there is no whole record batch")
    attributes = records[_ATTRIBUTES_LOW_BYTE]
    if attributes & _COMPRESSION_MASK == _ZSTD and context.version < ZSTD_SINCE:
        raise KafkaError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, "zstd needs version 7 of Produce")
    if attributes & _TRANSACTIONAL:
        # Appending it would block read_committed consumers for ever: there is nobody here to end the transaction.
        raise KafkaError(ErrorCode.INVALID_TXN_STATE, "no transaction is open: this broker has no coordinator for them")
    return partition


def _append(partition: Partition, data: PartitionProduceData, answer: PartitionProduceResponse, now_ms: int) -> int:
    """Append, and say in `answer` where. Returns the end offset that has to be stored. Raises KafkaError."""
    records = data.records
    # The receive buffer is a bytearray, so what a request carries can be patched where it lies.
    assert isinstance(records, memoryview), "records are a view of the receive buffer"
    result = partition.append(records, now_ms)
    answer.base_offset = result.base_offset
    answer.log_append_time_ms = result.log_append_time_ms
    answer.log_start_offset = result.log_start_offset
    return result.last_offset + 1


def _refuse(answer: PartitionProduceResponse, error: KafkaError) -> None:
    answer.error_code = error.code
    answer.error_message = error.message or None
    if isinstance(error, AppendRefused) and error.record_indexes:
        answer.record_errors = [
            BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=error.message)
            for index in error.record_indexes
        ]


def _finish(acknowledgement: Acknowledgement, response: ProduceResponse) -> ProduceResponse:
    """The response, now that everything is stored, or is known not to be."""
    for partition, code in acknowledgement.failures.items():
        for topic in response.responses:
            if topic.name == partition.topic or topic.topic_id == partition.topic_id:
                for answer in topic.partition_responses:
                    if answer.index == partition.index and not answer.error_code:
                        answer.error_code, answer.base_offset = code, NO_OFFSET
    return response
