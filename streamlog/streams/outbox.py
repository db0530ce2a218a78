"""The producer, as lanes and topics see it: records placed by key, appended, and acknowledged before anything is
committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from streamlog.client.partitioner import partition_for_key
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.errors import StreamlogError, UserError
from streamlog.streams.context import Sender
from streamlog.streams.timestamps import TIMESTAMP_MS_MAX, Setting, TimeBounds, refused_time
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)

_NO_HEADERS: Sequence[tuple[str, bytes | None]] = ()

Ask = Callable[[str], Awaitable[Mapping[str, Setting]]]


class ProducerOutbox:
    """An `Outbox` over a producer. Topics have to be known before records are placed by key.

    A producer that has ended is replaced; who holds a `sender` needs a new one then.
    """

    def __init__(self, make: Callable[[], Producer], wall_ms: Callable[[], int], ask: Ask) -> None:
        """`make` gives a producer that is not open, `ask` the settings of a topic."""
        self._make = make
        self.producer = producer = make()
        """The one in use; another one after `renew`."""
        self._append = producer.append
        self._counts: dict[str, int] = {}  # partitions of known topics
        self._senders: dict[str, Sender] = {}
        self._bounds: dict[str, TimeBounds] = {}  # of known topics
        self._wall_ms, self._ask = wall_ms, ask

    async def open(self) -> None:
        """Raises: BrokerUnreachable."""
        await self.producer.open()

    async def close(self) -> None:
        """Send what is left. Raises: what was not acknowledged."""
        await self.producer.close()

    async def renew(self) -> bool:
        """Replace the producer if it has ended; whether it had. What it did not send is lost.

        Raises: StreamlogError: no other can be had now; the old one stays.
        """
        ended = self.producer
        if ended.fatal is None:
            return False
        log.warning("the producer has ended and is replaced: %s", ended.fatal)
        fresh = self._make()
        await fresh.open()
        try:
            for topic in self._counts:
                await fresh.partitions(topic)
        except BaseException:
            await fresh.close()
            raise
        self.producer, self._append = fresh, fresh.append
        self._senders.clear()
        with suppress(StreamlogError):  # it says again why it ended
            await ended.close()
        return True

    async def know_topic(self, topic: str) -> int:
        """Learn how many partitions a topic has. Raises: KafkaError: it does not exist."""
        count = self._counts.get(topic)
        if count is None:
            count = await self.producer.partitions(topic)
            bounds = self._bounds.setdefault(topic, TimeBounds(topic, self._wall_ms))
            await self._learn(topic, bounds)
            self._counts[topic] = count
        return count

    async def _learn(self, topic: str, bounds: TimeBounds) -> bool:
        """Whether the topic's settings could be seen."""
        try:
            bounds.learn(await self._ask(topic))
        except StreamlogError as error:
            log.debug("topic=%s which times it takes cannot be seen: %s", topic, error)
            return False
        return True

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = _NO_HEADERS,
    ) -> None:
        if partition is not None:
            bounds = self._bounds.get(topic)
            if bounds is not None:
                if not bounds.oldest_ms <= timestamp_ms <= bounds.newest_ms:
                    bounds.check(timestamp_ms)
            elif not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:  # not a topic of this app
                raise refused_time(topic, timestamp_ms)
            self._append(topic, partition, key, value, timestamp_ms, tuple(headers))
        else:
            self.sender(topic)(key, value, timestamp_ms, headers)

    def sender(self, topic: str) -> Sender:
        found = self._senders.get(topic)
        if found is not None:
            return found
        count = self._counts.get(topic)
        if count is None:
            raise UserError(
                f"topic {topic} was not known when the worker started, so records cannot be placed: declare it with "
                f"app.topic({topic!r}) at module level"
            )
        bounds = self._bounds[topic]
        append, choose = self.producer.appender, self.producer.partition_for
        pairs = [(topic, partition) for partition in range(count)]

        def send(
            key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes | None]]
        ) -> None:
            if not bounds.oldest_ms <= timestamp_ms <= bounds.newest_ms:
                bounds.check(timestamp_ms)
            partition = choose(topic, None) if key is None else partition_for_key(key, count)
            append(pairs[partition], key, value, timestamp_ms, tuple(headers) if headers else ())

        self._senders[topic] = send
        return send

    def acked_offset(self, partition: TopicPartition) -> int | None:
        """See `Producer.acked_offset`."""
        return self.producer.acked_offset(partition)

    @property
    def full(self) -> bool:
        return self.producer.full

    async def room(self) -> None:
        await self.producer.room()

    async def flush(self) -> None:
        try:
            await self.producer.flush()
        except KafkaError as error:
            if error.code is ErrorCode.INVALID_TIMESTAMP:
                await self._learn_all_again()
            raise
        for topic, bounds in list(self._bounds.items()):
            if bounds.refused:
                await self._learn(topic, bounds)

    async def _learn_all_again(self) -> None:
        """The broker refused a time that we let pass. Next time we do not, and others' commits succeed."""
        known = list(self._bounds.items())
        seen = await asyncio.gather(*(self._learn(topic, bounds) for topic, bounds in known))
        for (_, bounds), found in zip(known, seen, strict=True):
            if not found:
                bounds.suspect_default()
