"""AllocateProducerIds (API 67): a broker gets a block of producer ids (KIP-730)."""

from __future__ import annotations

from functools import partial

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.registration import allocate_producer_ids
from streamlog.wire.messages.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse


async def handle(
    home: ControllerHome, request: AllocateProducerIdsRequest, context: ControllerContext
) -> AllocateProducerIdsResponse:
    block = await home.controller.write(
        partial(allocate_producer_ids, broker_id=request.broker_id, broker_epoch=request.broker_epoch)
    )
    return AllocateProducerIdsResponse(producer_id_start=block.start, producer_id_len=len(block))
