"""The producer, as lanes and topics see it: records placed by key, appended, and acknowledged before anything is
committed.

Outputs and rows of tables are kept apart: `flush` is about the outputs alone, `flush_rows` about the rows. What is sent
from outside of agents is its sender's affair and nobody's commit (`outside`), and so are answers (`answers`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from streamlog.client.delivery import Failed, OnAppendFailure
from streamlog.client.partitioner import partition_for_key
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import Clock
from streamlog.errors import StreamlogError, UserError
from streamlog.streams.answering import AnswerSender
from streamlog.streams.context import Sender
from streamlog.streams.outside import Outside
from streamlog.streams.refused import FOR_GOOD, TOO_LARGE, Bars
from streamlog.streams.timestamps import TIMESTAMP_MS_MAX, Setting, TimeBounds, refused_time
from streamlog.wire.error_codes import ErrorCode

log = logging.getLogger(__name__)

LEARN_TIMEOUT_S = 5.0
"""A commit does not wait longer for the settings of a topic: what is not known is found out the hard way."""

RECORD_BYTES_MAX = 96 << 20
"""What a topic's max.message.bytes is believed up to: brokers take no request beyond 100 MiB, by default."""

_NO_HEADERS: Sequence[tuple[str, bytes | None]] = ()

Ask = Callable[[str], Awaitable[Mapping[str, Setting]]]


class ProducerOutbox:
    """An `Outbox` over a producer. Topics have to be known before records are placed by key.

    A producer that has ended is replaced; who holds a `sender` needs a new one then.
    """

    def __init__(
        self,
        make: Callable[[OnAppendFailure], Producer],
        clock: Clock,
        ask: Ask,
        answers: AnswerSender,
        make_outside: Callable[[], Producer],
    ) -> None:
        """
        Args: make: gives a producer that is not open, for outputs and rows.
              ask: for the settings of a topic.
              make_outside: gives a producer that is not open, for what no task sends.
        """
        self.answers = answers
        self.outside = Outside(make_outside, self)
        """What `Topic.send` outside of agents uses."""
        self._make = make
        self.producer = producer = make(self._on_failure)
        """The one in use; another one after `renew`."""
        self._append = producer.append
        self._counts: dict[str, int] = {}  # partitions of known topics
        self._senders: dict[str, Sender] = {}
        self._bounds: dict[str, TimeBounds] = {}  # of known topics
        self._keyless: dict[str, str] = {}  # topics that are compacted: why they take no record without a key
        self._failures: dict[str, Failed] = {}  # by topic: what was refused first, and nobody was told
        self._row_topics: dict[str, None] = {}  # changelogs that got rows
        self._bars = Bars()
        self._clock, self._ask = clock, ask

    async def open(self) -> None:
        """Raises: BrokerUnreachable."""
        await self.producer.open()
        try:
            await self.outside.open()
        except BaseException:
            await self.producer.abandon()
            raise

    async def close(self) -> None:
        """Send what is left. Raises: what was not acknowledged."""
        await self.answers.close()
        try:
            await self.outside.close()
        finally:
            await self.producer.close()
        self._tell()

    async def renew(self) -> bool:
        """Replace the producer if it has ended; whether it had. What it did not send is lost.

        Raises: StreamlogError: no other can be had now; the old one stays.
        """
        ended = self.producer
        if ended.fatal is None:
            return False
        log.warning("the producer has ended and is replaced: %s", ended.fatal)
        fresh = self._make(self._on_failure)
        await fresh.open()
        try:
            for topic in self._counts:
                if topic not in self._bars:
                    await fresh.partitions(topic)
                fresh.limit_topic(topic, ended.record_bytes_max(topic))
        except BaseException:
            await fresh.close()
            raise
        self.producer, self._append = fresh, fresh.append
        self._senders.clear()
        with suppress(StreamlogError):  # it says again why it ended
            await ended.close()
        self._failures.clear()
        return True

    def forget_failures(self) -> None:
        """Whose outputs and rows failed so far is gone, and begins again elsewhere."""
        self._failures.clear()

    # --- what topics take ---------------------------------------------------------------------------------------

    async def know_topic(self, topic: str) -> int:
        """Learn how many partitions a topic has. Raises: KafkaError: it does not exist."""
        count = self._counts.get(topic)
        if count is None:
            count = await self.producer.partitions(topic)
            await self.outside.know_topic(topic)
            self._bounds.setdefault(topic, TimeBounds(topic, self._clock.wall_ms))
            await self._learn(topic)
            self._counts[topic] = count
        return count

    async def _learn(self, topic: str) -> bool:
        """Whether the topic's settings could be seen."""
        try:
            async with asyncio.timeout(LEARN_TIMEOUT_S):
                settings = await self._ask(topic)
        except (StreamlogError, TimeoutError) as error:
            log.debug("topic=%s what it takes cannot be seen: %s", topic, error)
            return False
        self._bounds[topic].learn(settings)
        limit, policy = settings.get("max.message.bytes"), settings.get("cleanup.policy")
        if limit is not None and limit.value is not None and limit.value.isdecimal():
            self._limit(topic, min(int(limit.value), RECORD_BYTES_MAX))
        if policy is not None and "compact" in (policy.value or ""):
            self._keyless[topic] = f"topic {topic} is compacted (cleanup.policy={policy.value}): its records need a key"
        else:
            self._keyless.pop(topic, None)
        return True

    def _limit(self, topic: str, record_bytes_max: int) -> None:
        self.producer.limit_topic(topic, record_bytes_max)
        self.outside.limit_topic(topic, record_bytes_max)

    def row_bytes_max(self, topic: str) -> int:
        """The largest row that a changelog takes, with what a batch adds to it."""
        return self.producer.record_bytes_max(topic)

    @property
    def trouble(self) -> str | None:
        """Which topics take no outputs just now, and why."""
        return self._bars.trouble

    # --- records out ----------------------------------------------------------------------------------------------

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
            self.check(topic, partition, key, timestamp_ms)
            self._append(topic, partition, key, value, timestamp_ms, tuple(headers))
        else:
            self.sender(topic)(key, value, timestamp_ms, headers)

    def check(self, topic: str, partition: int, key: bytes | None, timestamp_ms: int) -> None:
        """What the broker would refuse. Raises: UserError."""
        bounds = self._bounds.get(topic)
        if bounds is not None:
            if not bounds.oldest_ms <= timestamp_ms <= bounds.newest_ms:
                bounds.check(timestamp_ms)
        elif not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:  # not a topic of this app
            raise refused_time(topic, timestamp_ms)
        if key is None and topic in self._keyless:
            raise UserError(self._keyless[topic])
        count = self._counts.get(topic)
        if count is not None and partition >= count and partition >= self.producer.partition_count(topic):
            raise UserError(f"topic {topic} has {count} partitions, there is no partition {partition}")

    def answer(
        self,
        topic: str,
        partition: int,
        value: bytes,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        self.answers.send(topic, partition, value, timestamp_ms, headers)

    def append_rows(self, topic: str, partition: int, rows: Iterable[tuple[bytes, bytes | None, int]]) -> None:
        self._row_topics[topic] = None
        append, place = self.producer.appender, (topic, partition)
        for key, value, timestamp_ms in rows:
            append(place, key, value, timestamp_ms, ())

    def sender(self, topic: str) -> Sender:
        found = self._senders.get(topic)
        if found is not None:
            return found
        count = self._counts.get(topic)
        if count is None:
            raise _unknown(topic)
        bounds, keyless = self._bounds[topic], self._keyless
        append, choose = self.producer.appender, self.producer.partition_for
        pairs = [(topic, partition) for partition in range(count)]

        def send(
            key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes | None]]
        ) -> None:
            if not bounds.oldest_ms <= timestamp_ms <= bounds.newest_ms:
                bounds.check(timestamp_ms)
            if key is not None:
                partition = partition_for_key(key, count)
            elif topic in keyless:
                raise UserError(keyless[topic])
            else:
                partition = choose(topic, None)
            append(pairs[partition], key, value, timestamp_ms, tuple(headers) if headers else ())

        self._senders[topic] = send
        return send

    async def settle(self, topic: str, partition: int) -> None:
        """Return when what tasks have sent there until now is answered."""
        if not self.producer.is_settled(topic, partition):
            await self.producer.flush()

    def place(self, topic: str, key: bytes | None) -> int | None:
        """Where a record of a known topic goes, if its key decides. Raises: UserError."""
        count = self._counts.get(topic)
        if count is None:
            raise _unknown(topic)
        return None if key is None else partition_for_key(key, count)

    def acked_offset(self, partition: TopicPartition) -> int | None:
        """See `Producer.acked_offset`."""
        return self.producer.acked_offset(partition)

    @property
    def full(self) -> bool:
        return self.producer.full

    async def room(self) -> None:
        await self.producer.room()

    # --- acknowledgements ---------------------------------------------------------------------------------------

    def _on_failure(self, failed: Failed) -> None:
        self._failures.setdefault(failed.topic, failed)

    async def flush(self) -> None:
        await self.producer.flush()
        await self.answers.settle()
        await self._look_again()
        refused = [failed for topic, failed in self._failures.items() if topic not in self._row_topics]
        for failed in refused:
            del self._failures[failed.topic]
        for failed in refused:
            await self._take_note(failed)
        if refused:
            raise refused[0].failure

    async def flush_rows(self) -> None:
        await self.producer.flush()
        refused = [failed for topic, failed in self._failures.items() if topic in self._row_topics]
        for failed in refused:
            del self._failures[failed.topic]
        for failed in refused:
            await self._relearn_size(failed)
        if refused:
            raise refused[0].failure

    async def _take_note(self, failed: Failed) -> None:
        """The broker refused what we let pass. Next time we do not, and others' commits succeed."""
        topic = failed.topic
        if failed.code is ErrorCode.INVALID_TIMESTAMP:
            await self._learn_all_again()
        elif failed.code in TOO_LARGE:
            await self._relearn_size(failed)
        elif failed.code in FOR_GOOD and topic in self._bounds:
            bar = self._bars.put(topic, failed.code, str(failed.failure), self._clock.mono_ms())
            self._bounds[topic].bar(bar.why)
            log.warning(
                "%s: agents that write to it fail at the event, and their on_error= decides, until %s",
                bar.why,
                "it is there again" if bar.gone else f"it is tried again in {bar.pause_ms / 1000:g} s",
            )

    async def _relearn_size(self, failed: Failed) -> None:
        if failed.code not in TOO_LARGE or failed.topic not in self._bounds:
            return
        await self._learn(failed.topic)
        size_bytes = failed.record_bytes
        if size_bytes is not None and size_bytes <= self.producer.record_bytes_max(failed.topic):
            self._limit(failed.topic, size_bytes - 1)  # whatever the settings say

    async def _look_again(self) -> None:
        """Learn what may have changed: bounds that refused something, topics that were barred."""
        for topic, bounds in list(self._bounds.items()):
            if bounds.refused:
                await self._learn(topic)
        for topic in self._bars.due(self._clock.mono_ms()):
            if not self._bars.gone(topic):
                self._lift(topic)
            elif (count := self.producer.look_for(topic)) and await self._learn(topic):
                self._counts[topic] = count
                self._senders.pop(topic, None)
                self._lift(topic)
                log.info("topic=%s is there again", topic)

    def _lift(self, topic: str) -> None:
        self._bars.lift(topic)
        self._bounds[topic].bar(None)

    def _tell(self) -> None:
        """Raises: what was refused, and nobody was told yet."""
        refused = list(self._failures.values())
        self._failures.clear()
        if refused:
            raise refused[0].failure

    async def _learn_all_again(self) -> None:
        known = list(self._bounds)
        seen = await asyncio.gather(*(self._learn(topic) for topic in known))
        for topic, found in zip(known, seen, strict=True):
            if not found:
                self._bounds[topic].suspect_default()


def _unknown(topic: str) -> UserError:
    return UserError(
        f"topic {topic} was not known when the worker started, so records cannot be placed: declare it with "
        f"app.topic({topic!r}) at module level"
    )
