"""Producer ids for idempotent producers: unique in the cluster, for ever.

The broker gets a block of ids from the controller, durably, and hands them out one by one. What is left of a block
when the broker stops is never used. The next block is asked for only when the first request needs it.
"""

from __future__ import annotations

import asyncio
from functools import partial

from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.registration import allocate_producer_ids


class ProducerIds:
    def __init__(self, controller: Controller, node_id: int) -> None:
        self._controller = controller
        self._node_id = node_id
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
                    broker = self._controller.image.brokers[self._node_id]
                    self._block = await self._controller.write(
                        partial(allocate_producer_ids, broker_id=self._node_id, broker_epoch=broker.epoch)
                    )
        return producer_id
