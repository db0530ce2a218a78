"""Produce (API 0): append batches, answer when they are stored as their topic promises.

Appending is synchronous and in the order of arrival, so requests that are pipelined on one connection need not wait
for each other's disk: each is appended at once, and answered, in order, when its sync is done.

acks=0 wants no answer; what goes wrong can then only be said by closing the connection. acks=1 waits for this broker's
log alone, acks=all for every in-sync replica's, each as durably as the topic promises (`streamlog.flush`). A topic of
one replica makes no difference between them.

A request that takes long, for its partitions or for what a batch decompresses to, is appended in turns of the loop. Its
connection handles nothing else meanwhile, so the order stays what it was.
"""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from typing import Final, NamedTuple

from streamlog.broker.acknowledgement import Acknowledgement
from streamlog.broker.api import large
from streamlog.broker.broker import Broker
from streamlog.broker.context import Deferred, Exclusive, RequestContext
from streamlog.broker.log.refusal import AppendRefused
from streamlog.broker.log.validate import JudgeInThread, PreparedBatch
from streamlog.broker.metadata.topic_names import INTERNAL_TOPICS
from streamlog.broker.partition import Partition
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

FAILED_WITHOUT_ACKS: Final = "a produce request with acks=0 failed, and this is the only way to say so"

TOPIC_IDS_SINCE: Final = 13
ZSTD_SINCE: Final = 7

ALL_ACKS: Final = (-1, 0, 1)

TURN_NS: Final = 5_000_000
"""How long a request may append before others get their turn."""

ADMIN_CLIENT_ID: Final = "__admin_client"
"""Kafka lets this client, its own tool, write to internal topics."""

_ATTRIBUTES_LOW_BYTE: Final = 22
_COMPRESSION_MASK: Final = 0x07
_ZSTD: Final = 4
_TRANSACTIONAL: Final = 0x10


class _Turn(NamedTuple):
    """What one turn has appended."""

    response: ProduceResponse
    acknowledgement: Acknowledgement[Partition] | None
    failed: bool
    rest: ProduceRequest | None
    """What is left."""
    continues: bool
    """Its first topic is the rest of the last one here."""
    judge_first: bool
    """Its first batch has to be judged in a thread."""


def handle(
    broker: Broker, context: RequestContext, request: ProduceRequest
) -> ProduceResponse | Deferred | Exclusive | None:
    turn = _append(broker, context, request, None)
    response, acknowledgement, failed, rest, _, _ = turn
    if rest is not None:
        stored = _stored(acknowledgement)
        _keep_records(rest)
        return Exclusive(_go_on(broker, context, request.acks, turn, rest, stored))
    if request.acks == 0:
        if failed:
            raise RemoteProtocolError(FAILED_WITHOUT_ACKS)
        return None
    if acknowledgement is None:
        return response
    return Deferred(acknowledgement, partial(_finish, acknowledgement, response))


async def _go_on(
    broker: Broker,
    context: RequestContext,
    acks: int,
    turn: _Turn,
    rest: ProduceRequest | None,
    stored: asyncio.Future[None] | None,
) -> ProduceResponse | None:
    """Append what the first turn has left, and answer when all of it is stored."""
    turns = [(turn, stored)]
    while rest is not None:
        await asyncio.sleep(large.PAUSE_S)
        prepared = await _prepare(broker, context, acks, rest) if turn.judge_first else None
        turn = _append(broker, context, rest, prepared)
        turns.append((turn, _stored(turn.acknowledgement)))
        rest = turn.rest
    if acks == 0:
        if any(turn.failed for turn, _ in turns):
            raise RemoteProtocolError(FAILED_WITHOUT_ACKS)
        return None
    whole: list[TopicProduceResponse] = []
    continues = False
    for turn, stored in turns:
        response = turn.response
        if turn.acknowledgement is not None and stored is not None:
            await stored
            response = _finish(turn.acknowledgement, response)
        answers = response.responses
        if continues and whole and answers:
            whole[-1].partition_responses.extend(answers[0].partition_responses)
            answers = answers[1:]
        whole.extend(answers)
        continues = turn.continues or (continues and not response.responses)
    return ProduceResponse(responses=whole)


def _stored(acknowledgement: Acknowledgement[Partition] | None) -> asyncio.Future[None] | None:
    """Completes with the acknowledgement, which calls back once and at once, and may do so before anybody waits."""
    if acknowledgement is None:
        return None
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    acknowledgement.add_done_callback(lambda _: None if future.done() else future.set_result(None))
    return future


def _keep_records(request: ProduceRequest) -> None:
    """Copy the records: the receive buffer is another request's as soon as the handler returns."""
    for topic in request.topic_data:
        for data in topic.partition_data:
            if data.records is not None:
                data.records = memoryview(bytearray(data.records))


async def _prepare(
    broker: Broker, context: RequestContext, acks: int, request: ProduceRequest
) -> PreparedBatch | KafkaError | None:
    """Have the first batch of a request judged in a thread; None where the partition is gone meanwhile."""
    topic_data = request.topic_data[0]
    topic, refusal = _resolve(broker, context, acks, topic_data)
    data = topic_data.partition_data[0]
    try:
        if refusal is not None:
            raise refusal
        partition_log = broker.partitions.lead(topic, data.index).log
        records = _checked(data.records, context.version, request.transactional_id)
        now_ms = broker.env.clock.wall_ms()
        return await broker.env.offload.run(lambda: partition_log.prepare(records, now_ms))
    except KafkaError as error:
        return error


def _append(
    broker: Broker, context: RequestContext, request: ProduceRequest, first: PreparedBatch | KafkaError | None
) -> _Turn:
    """Append as much of a request as there is time for. `first` is what became of judging its first batch."""
    clock = broker.env.clock
    now_ms = clock.wall_ms()
    stop_at_ns = clock.mono_ns() + TURN_NS
    count = 0
    acks = request.acks
    acknowledgement: Acknowledgement[Partition] | None = None
    responses: list[TopicProduceResponse] = []
    failed = False
    for topic_number, topic_data in enumerate(request.topic_data):
        topic, refusal = _resolve(broker, context, acks, topic_data)
        answers: list[PartitionProduceResponse] = []
        for number, data in enumerate(topic_data.partition_data):
            count += 1
            judge_first = False
            try:
                if refusal is not None:
                    raise refusal
                if count > 1:
                    first = None
                    if count > large.SLICE_ELEMENTS or clock.mono_ns() > stop_at_ns:
                        raise _TurnOver
                elif isinstance(first, KafkaError):
                    raise first
                partition = broker.partitions.lead(topic, data.index)
                if acks < 0:
                    partition.check_can_commit()
                records = _checked(data.records, context.version, request.transactional_id)
                result = partition.append(records, now_ms, prepared=first)
            except (JudgeInThread, _TurnOver) as reason:
                judge_first = isinstance(reason, JudgeInThread)
                rest = _rest_of(request, topic_number, number)
                if answers:
                    responses.append(_answer_topic(topic_data, answers))
                return _Turn(
                    ProduceResponse(responses=responses), acknowledgement, failed, rest, bool(answers), judge_first
                )
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
            if acks and not partition.is_stored(end_offset, acks):
                if acknowledgement is None:
                    acknowledgement = Acknowledgement(clock.mono_ms() + request.timeout_ms)
                partition.acknowledge_when_stored(end_offset, acknowledgement, acks)
        responses.append(_answer_topic(topic_data, answers))
    return _Turn(ProduceResponse(responses=responses), acknowledgement, failed, None, False, False)


class _TurnOver(Exception):
    """Others are to get their turn."""


def _answer_topic(topic_data: TopicProduceData, answers: list[PartitionProduceResponse]) -> TopicProduceResponse:
    return TopicProduceResponse(name=topic_data.name, topic_id=topic_data.topic_id, partition_responses=answers)


def _rest_of(request: ProduceRequest, topic_number: int, number: int) -> ProduceRequest:
    """What a request asks for from one partition of one of its topics on."""
    topic = copy.copy(request.topic_data[topic_number])
    topic.partition_data = topic.partition_data[number:]
    rest = copy.copy(request)
    rest.topic_data = [topic, *request.topic_data[topic_number + 1 :]]
    return rest


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


def _finish(acknowledgement: Acknowledgement[Partition], response: ProduceResponse) -> ProduceResponse:
    """The response, now that everything is stored, or is known not to be."""
    for partition, code in acknowledgement.failures.items():
        for topic in response.responses:
            if topic.name == partition.topic or topic.topic_id == partition.topic_id:
                for answer in topic.partition_responses:
                    if answer.index == partition.index and not answer.error_code:
                        answer.error_code, answer.base_offset = code, NO_OFFSET
    return response
