"""Producer ids for idempotent producers: unique in the cluster, for ever.

The broker gets a block of ids from the controller, durably, and hands them out one by one. What is left of a block
when the broker stops is never used. The next block is asked for only when the first request needs it.
"""

from __future__ import annotations

import asyncio

from streamlog.broker.controller_channel import ControllerChannel
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse


class ProducerIds:
    def __init__(self, channel: ControllerChannel, node_id: int) -> None:
        self._channel = channel
        self._node_id = node_id
        self.broker_epoch = -1
        """Of this incarnation, once it is registered."""
        self._block = range(0)
        self._lock = asyncio.Lock()  # one request for a block at a time

    def next_nowait(self) -> int | None:
        """An id, or None when a new block has to be fetched first."""
        if not self._block:
            return None
        producer_id, self._block = self._block[0], self._block[1:]
        return producer_id

    async def next(self) -> int:
        """An id. Raises KafkaError when the controller cannot store a new block."""
        while (producer_id := self.next_nowait()) is None:
            async with self._lock:
                if not self._block:
                    self._block = await self._allocate()
        return producer_id

    async def _allocate(self) -> range:
        response = await self._channel.request(
            AllocateProducerIdsRequest(broker_id=self._node_id, broker_epoch=self.broker_epoch)
        )
        assert isinstance(response, AllocateProducerIdsResponse), "the answer is of the request's API"
        if response.error_code:
            raise KafkaError(ErrorCode.of(response.error_code))
        return range(response.producer_id_start, response.producer_id_start + response.producer_id_len)
