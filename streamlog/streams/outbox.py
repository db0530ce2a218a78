"""The producer, as lanes and topics see it: records placed by key, appended, and acknowledged before anything is
committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from streamlog.client.partitioner import partition_for_key
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.errors import StreamlogError, UserError
from streamlog.state.changelog import TIMESTAMP_DISTANCE_MS_MAX
from streamlog.streams.context import Sender

log = logging.getLogger(__name__)

_NO_HEADERS: Sequence[tuple[str, bytes | None]] = ()

TIMESTAMP_MS_MAX = TIMESTAMP_DISTANCE_MS_MAX
"""What a topic takes that takes any time."""


def refused_time(topic: str, timestamp_ms: int) -> UserError:
    """Why no record of this time is sent. Said to the body that wants to send it: its agent's policy decides about the
    one event. Were it found out when the batch is built, every output of the worker would suffer."""
    if timestamp_ms > TIMESTAMP_MS_MAX:
        return UserError(
            f"topic {topic}: no record can have the timestamp {timestamp_ms} ms: at most {TIMESTAMP_MS_MAX}"
        )
    return UserError(
        f"topic {topic}: a record's timestamp cannot be negative, and this one is {timestamp_ms} ms: before 1970. "
        f"Send it with a time of its own, as in send(value, timestamp=...); before a group_by, leave such events out "
        f"with filter(), or choose on_error= for the agent"
    )


class ProducerOutbox:
    """An `Outbox` over a producer. Topics have to be known before records are placed by key.

    A producer that has ended is replaced; who holds a `sender` needs a new one then.
    """

    def __init__(self, make: Callable[[], Producer]) -> None:
        """`make` gives a producer that is not open."""
        self._make = make
        self._producer = producer = make()
        self._append = producer.append
        self._counts: dict[str, int] = {}  # partitions of known topics
        self._senders: dict[str, Sender] = {}

    async def open(self) -> None:
        """Raises: BrokerUnreachable."""
        await self._producer.open()

    async def close(self) -> None:
        """Send what is left. Raises: what was not acknowledged."""
        await self._producer.close()

    async def renew(self) -> bool:
        """Replace the producer if it has ended; whether it had. What it did not send is lost.

        Raises: StreamlogError: no other can be had now; the old one stays.
        """
        ended = self._producer
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
        self._producer, self._append = fresh, fresh.append
        self._senders.clear()
        with suppress(StreamlogError):  # it says again why it ended
            await ended.close()
        return True

    async def know_topic(self, topic: str) -> int:
        """Learn how many partitions a topic has. Raises: KafkaError: it does not exist."""
        count = self._counts.get(topic)
        if count is None:
            count = self._counts[topic] = await self._producer.partitions(topic)
        return count

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
            if not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:
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
        append, choose = self._producer.appender, self._producer.partition_for
        pairs = [(topic, partition) for partition in range(count)]

        def send(
            key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes | None]]
        ) -> None:
            if not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:
                raise refused_time(topic, timestamp_ms)
            partition = choose(topic, None) if key is None else partition_for_key(key, count)
            append(pairs[partition], key, value, timestamp_ms, tuple(headers) if headers else ())

        self._senders[topic] = send
        return send

    def acked_offset(self, partition: TopicPartition) -> int | None:
        """See `Producer.acked_offset`."""
        return self._producer.acked_offset(partition)

    @property
    def full(self) -> bool:
        return self._producer.full

    async def room(self) -> None:
        await self._producer.room()

    async def flush(self) -> None:
        await self._producer.flush()
