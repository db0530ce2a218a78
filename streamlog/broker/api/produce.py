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
from streamlog.broker.partition import Acknowledgement
from streamlog.env import Buffer
from streamlog.errors import RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from streamlog.wire.records import HEADER_BYTES

NO_OFFSET: Final = -1

TOPIC_IDS_SINCE: Final = 13
ZSTD_SINCE: Final = 7

ALL_ACKS: Final = (-1, 0, 1)

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
    responses: list[TopicProduceResponse] = []
    failed = False
    for topic_data in request.topic_data:
        topic, refusal = _resolve(broker, context, acks, topic_data)
        answers: list[PartitionProduceResponse] = []
        for data in topic_data.partition_data:
            try:
                if refusal is not None:
                    raise refusal
                partition = broker.partitions.lead(topic, data.index)
                result = partition.append(_checked(data.records, context.version, request.transactional_id), now_ms)
            except KafkaError as error:
                answers.append(_refused(data.index, error))
                failed = True
                continue
            answers.append(
                PartitionProduceResponse(
                    index=data.index,
                    base_offset=result.base_offset,
                    log_append_time_ms=result.log_append_time_ms,
                    log_start_offset=result.log_start_offset,
                )
            )
            end_offset = result.last_offset + 1
            if acks and not partition.is_stored(end_offset):
                if acknowledgement is None:
                    acknowledgement = Acknowledgement(clock.mono_ms() + request.timeout_ms)
                partition.acknowledge_when_stored(end_offset, acknowledgement)
        responses.append(
            TopicProduceResponse(name=topic_data.name, topic_id=topic_data.topic_id, partition_responses=answers)
        )
    if acks == 0:
        if failed:
            raise RemoteProtocolError("a produce request with acks=0 failed, and this is the only way to say so")
        return None
    response = ProduceResponse(responses=responses)
    if acknowledgement is None:
        return response
    return Deferred(acknowledgement, partial(_finish, acknowledgement, response))


def _resolve(
    broker: Broker, context: RequestContext, acks: int, topic_data: TopicProduceData
) -> tuple[str, KafkaError | None]:
    """The topic's name, and why this request may not append to any of its partitions."""
    topic = topic_data.name
    if acks not in ALL_ACKS:
        return topic, KafkaError(ErrorCode.INVALID_REQUIRED_ACKS, f"acks is {acks}; it can be -1, 0 or 1")
    if context.version >= TOPIC_IDS_SINCE:
        image = broker.image.topics_by_id.get(topic_data.topic_id)
        if image is None:
            return topic, KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, "there is no topic with this id")
        topic = image.name
    if topic in INTERNAL_TOPICS and context.client_id != ADMIN_CLIENT_ID:
        return topic, KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic} is the cluster's own")
    return topic, None


def _checked(records: Buffer | None, version: int, transactional_id: str | None) -> memoryview:
    """The records of one partition, as far as an API's version and this broker's abilities decide about them."""
    if records is None or len(records) < HEADER_BYTES:
        raise KafkaError(ErrorCode.INVALID_RECORD, "there is no whole record batch")
    attributes = records[_ATTRIBUTES_LOW_BYTE]
    if attributes & _COMPRESSION_MASK == _ZSTD and version < ZSTD_SINCE:
        raise KafkaError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, "zstd needs version 7 of Produce")
    if attributes & _TRANSACTIONAL:
        if transactional_id is None:
            raise KafkaError(
                ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "a transactional batch needs the transactional id"
            )
        # Appending it would block read_committed consumers for ever: there is nobody here to end the transaction.
        raise KafkaError(ErrorCode.INVALID_TXN_STATE, "no transaction is open: this broker has no coordinator for them")
    # The receive buffer is a bytearray, so what a request carries can be patched where it lies.
    assert isinstance(records, memoryview), "records are a view of the receive buffer"
    return records


def _refused(index: int, error: KafkaError) -> PartitionProduceResponse:
    answer = PartitionProduceResponse(
        index=index, error_code=error.code, base_offset=NO_OFFSET, error_message=error.message or None
    )
    if isinstance(error, AppendRefused) and error.record_indexes:
        answer.record_errors = [
            BatchIndexAndErrorMessage(batch_index=number, batch_index_error_message=error.message)
            for number in error.record_indexes
        ]
    return answer


def _finish(acknowledgement: Acknowledgement, response: ProduceResponse) -> ProduceResponse:
    """The response, now that everything is stored, or is known not to be."""
    for partition, code in acknowledgement.failures.items():
        for topic in response.responses:
            if topic.name == partition.topic or topic.topic_id == partition.topic_id:
                for answer in topic.partition_responses:
                    if answer.index == partition.index and not answer.error_code:
                        answer.error_code, answer.base_offset = code, NO_OFFSET
    return response
