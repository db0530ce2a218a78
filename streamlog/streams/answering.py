"""Sends answers, on a producer of their own.

Where an answer goes is written in a question, which anybody can send: the topic may be gone by now, may never have
been there, or may have no such partition. So nothing waits for an answer but its asker. A commit gives answers a moment
to arrive, for a crash would take them along; what cannot be delivered is dropped, with one message for a place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from streamlog.client.producer import Producer
from streamlog.client.values import RecordMetadata, TopicPartition
from streamlog.env import Clock, Scope
from streamlog.errors import StreamlogError

log = logging.getLogger(__name__)

MISSING_TOPIC_TIMEOUT_MS = 3_000
"""The asker made its topic before it asked; brokers tell each other within moments."""

DELIVERY_TIMEOUT_MS = 30_000
"""The default timeout of a question: nobody waits for later answers."""

SETTLE_TIMEOUT_S = 0.5
"""What a commit waits for answers at most, and once for each."""

DROP_MS = 30_000
"""How long answers to a place are dropped, unsent, after one could not be delivered there."""

WAITING_MAX = 1_000
"""Answers that wait for the connection: more askers at once than that have none."""

PLACES_MAX = 1_000
"""Places that are remembered so: questions can name ever others."""


class _Answer(NamedTuple):
    to: TopicPartition
    value: bytes
    timestamp_ms: int
    headers: Sequence[tuple[str, bytes | None]]


class AnswerSender:
    """See the module's essay. Connects with the first answer."""

    def __init__(self, make: Callable[[], Producer], clock: Clock) -> None:
        """`make` gives a producer that is not open, with the timeouts above."""
        self._make, self._clock = make, clock
        self._producer: Producer | None = None  # open
        self._waiting: list[_Answer] = []  # for the producer to open
        self._opening: asyncio.Task[None] | None = None
        self._pending: dict[asyncio.Future[RecordMetadata], None] = {}  # that no commit has waited for
        self._dropped_until_ms: dict[TopicPartition, int] = {}
        self._closed = False
        self._scope = Scope("answers")

    def send(
        self,
        topic: str,
        partition: int,
        value: bytes,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        """Send an answer, or drop it. Never raises, whatever the topic is."""
        if self._closed or self._clock.mono_ms() < self._dropped_until_ms.get(TopicPartition(topic, partition), 0):
            return
        answer = _Answer(TopicPartition(topic, partition), value, timestamp_ms, headers)
        if self._producer is not None:
            self._send(self._producer, answer)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(answer)
            if self._opening is None:
                self._opening = self._scope.spawn("open", self._open())

    async def settle(self) -> None:
        """Give what was sent a moment to arrive."""
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                if self._opening is not None:
                    await asyncio.wait([self._opening])
                if self._producer is not None and self._pending:
                    self._producer.hurry()
                    await asyncio.wait(self._pending)
        except TimeoutError:
            self._pending.clear()

    async def close(self) -> None:
        await self.settle()
        self._closed = True
        await self._scope.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.abandon()

    async def _open(self) -> None:
        producer = self._make()
        try:
            await producer.open()
        except StreamlogError as error:
            for answer in self._waiting:
                self._drop(answer.to, error)
        else:
            self._producer = producer
            for answer in self._waiting:
                self._send(producer, answer)
        self._waiting.clear()
        self._opening = None

    def _send(self, producer: Producer, answer: _Answer) -> None:
        if producer.fatal is not None:
            self._drop(answer.to, producer.fatal)
            return
        try:
            sent = producer.send_nowait(
                answer.to.topic,
                answer.value,
                partition=answer.to.partition,
                timestamp_ms=answer.timestamp_ms,
                headers=answer.headers,
            )
        except StreamlogError as error:
            self._drop(answer.to, error)
            return
        self._pending[sent] = None
        sent.add_done_callback(partial(self._on_done, answer.to))

    def _on_done(self, to: TopicPartition, sent: asyncio.Future[RecordMetadata]) -> None:
        self._pending.pop(sent, None)
        if not sent.cancelled() and (error := sent.exception()) is not None and not self._closed:
            self._drop(to, error)

    def _drop(self, to: TopicPartition, error: BaseException) -> None:
        now_ms = self._clock.mono_ms()
        if now_ms >= self._dropped_until_ms.get(to, 0):
            if len(self._dropped_until_ms) >= PLACES_MAX:
                self._dropped_until_ms.clear()
            self._dropped_until_ms[to] = now_ms + DROP_MS
            log.warning("answers to %s are dropped, because one could not be delivered: %s", to, error)
