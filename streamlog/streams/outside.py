"""Sends what comes from outside of agents: web handlers, timers, hooks, questions.

On a producer of its own. What tasks send may have to wait until it is known whether they are still this worker's
(`client/lease.py`), and fails when they are not; a web handler belongs to no task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from streamlog.client.producer import Producer
from streamlog.errors import StreamlogError

log = logging.getLogger(__name__)

_NO_HEADERS: Sequence[tuple[str, bytes | None]] = ()


class Known(Protocol):
    """What is known of topics."""

    def check(self, topic: str, partition: int, key: bytes | None, timestamp_ms: int) -> None:
        """Raises: UserError: what the broker would refuse."""
        ...

    def place(self, topic: str, key: bytes | None) -> int | None:
        """Where a record goes, if its key decides. Raises: UserError: the topic is not known."""
        ...

    async def settle(self, topic: str, partition: int) -> None:
        """Return when what tasks have sent there until now is answered."""
        ...


class Outside:
    """See the module's essay."""

    def __init__(self, make: Callable[[], Producer], known: Known) -> None:
        """`make` gives a producer that is not open."""
        self._make, self._known = make, known
        self._producer = make()
        self._limits: dict[str, int | None] = {}  # of known topics: the largest record that they take, if that is known
        self._renewing = asyncio.Lock()

    async def open(self) -> None:
        """Raises: BrokerUnreachable."""
        await self._producer.open()

    async def close(self) -> None:
        """Send what is left. Raises: what was not acknowledged."""
        await self._producer.close()

    async def know_topic(self, topic: str) -> None:
        """Raises: KafkaError: it does not exist."""
        await self._producer.partitions(topic)
        self._limits.setdefault(topic, None)

    def limit_topic(self, topic: str, record_bytes_max: int) -> None:
        self._limits[topic] = record_bytes_max
        self._producer.limit_topic(topic, record_bytes_max)

    async def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = _NO_HEADERS,
    ) -> None:
        """Send one record of a known topic, and return when it is acknowledged. Raises: why it is not."""
        if self._producer.fatal is not None:
            await self._renew()
        producer = self._producer
        await producer.room()
        if partition is None:
            partition = self._known.place(topic, key)
        if partition is not None:
            self._known.check(topic, partition, key, timestamp_ms)
            await self._known.settle(topic, partition)  # what comes later goes behind it, also by another producer
        answer = producer.send_nowait(
            topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers
        )
        producer.hurry()
        await answer

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = _NO_HEADERS,
    ) -> None:
        """Take one record of a known topic; nobody says whether it arrived, but for the log.

        Raises: UserError: no such record can be written there.
        """
        if partition is None:
            partition = self._known.place(topic, key)
        if partition is None:
            partition = self._producer.partition_for(topic, None)
        self._known.check(topic, partition, key, timestamp_ms)
        self._producer.append(topic, partition, key, value, timestamp_ms, tuple(headers))

    async def _renew(self) -> None:
        """Replace a producer that has ended. Raises: StreamlogError: no other can be had now."""
        async with self._renewing:
            ended = self._producer
            if ended.fatal is None:
                return
            log.warning("the producer for what no task sends has ended and is replaced: %s", ended.fatal)
            fresh = self._make()
            await fresh.open()
            for topic, limit in self._limits.items():
                if limit is not None:
                    fresh.limit_topic(topic, limit)
            self._producer = fresh
            with suppress(StreamlogError):  # it says again why it ended
                await ended.close()
