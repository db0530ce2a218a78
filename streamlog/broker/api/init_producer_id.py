"""InitProducerId (API 22): an id for an idempotent producer.

A request with a transactional id is refused for good: there is no transaction coordinator here (no_transactions.py).
"""

from __future__ import annotations

from collections.abc import Awaitable

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.no_transactions import refuse_transactions
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse


def handle(
    broker: Broker, context: RequestContext, request: InitProducerIdRequest
) -> InitProducerIdResponse | Awaitable[InitProducerIdResponse]:
    if request.transactional_id is not None:
        refusal = ErrorCode.INVALID_REQUEST  # Kafka's answer to an empty id
        if request.transactional_id:
            refusal = refuse_transactions(context, request.transactional_id).code
        return InitProducerIdResponse(error_code=refusal, producer_epoch=-1)
    if (request.producer_id < 0) != (request.producer_epoch < 0):
        return InitProducerIdResponse(error_code=ErrorCode.INVALID_REQUEST, producer_epoch=-1)
    producer_id = broker.producer_ids.next_nowait()
    if producer_id is not None:
        return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)
    return _answer_later(broker)


async def _answer_later(broker: Broker) -> InitProducerIdResponse:
    return InitProducerIdResponse(producer_id=await broker.producer_ids.next(), producer_epoch=0)
