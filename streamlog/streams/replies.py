"""The asking side of `agent.ask`: questions carry a correlation id, answers come back through one topic of the app.

Every worker reads the whole topic, from its end, and takes what it asked for: answers are few and small, and one topic
is easier on a cluster than one per process. The reader starts with the first question.
"""

from __future__ import annotations

import asyncio
import logging

from streamlog.client.admin import Admin, NewTopic, SomeFailed
from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.values import TopicPartition
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure, StreamlogError, UserError
from streamlog.streams.answers import CORRELATION, REPLIES, REPLY_ERROR, question
from streamlog.streams.outbox import ProducerOutbox
from streamlog.wire.error_codes import ErrorCode

log = logging.getLogger(__name__)

RETENTION_MS = 60 * 60 * 1000
"""Nobody waits longer than this for an answer."""

FETCH_WAIT_MS = 500


class Replies:
    """Questions of one worker that wait for their answers."""

    def __init__(
        self, app_id: str, broker: str, env: Env, admin: Admin, outbox: ProducerOutbox, connection: ConnectionSettings
    ) -> None:
        self.topic = f"{app_id}{REPLIES}"
        self._broker, self._env, self._admin, self._outbox = broker, env, admin, outbox
        self._connection = connection
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}  # by correlation id
        self._consumer: Consumer | None = None
        self._opening = asyncio.Lock()
        self._scope = Scope("replies")

    async def ask(self, agent: str, topic: str, key: bytes | None, value: bytes, timeout_s: float) -> bytes:
        """Send a question and wait for its answer. Raises: TimeoutError. UserError: the agent has no answer to it."""
        async with asyncio.timeout(timeout_s):
            await self._open()
            await self._outbox.know_topic(topic)
            correlation = self._env.entropy.uuid4().hex.encode()
            answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting[correlation] = answer
            try:
                headers = question(self.topic, 0, correlation, agent)
                await self._outbox.outside.send(topic, None, key, value, self._env.clock.wall_ms(), headers)
                return await answer
            finally:
                del self._waiting[correlation]

    async def close(self) -> None:
        await self._scope.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EnvironmentFailure("the worker stopped before the answer came"))
        if self._consumer is not None:
            await self._consumer.close()

    async def _open(self) -> None:
        async with self._opening:
            if self._consumer is not None:
                return
            await self._create_topic()
            partition = TopicPartition(self.topic, 0)
            consumer = Consumer(self._broker, env=self._env, auto_offset_reset="latest", connection=self._connection)
            consumer.assign([partition])
            await consumer.open()
            try:
                end = (await consumer.end_offsets([partition]))[partition]
                consumer.seek(partition, end)  # before the question is sent: no answer can come earlier
            except BaseException:
                await consumer.close()
                raise
            self._consumer = consumer
            self._scope.spawn("read", self._read_forever(consumer))

    async def _create_topic(self) -> None:
        configs = {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS)}
        try:
            await self._admin.create_topics([NewTopic(self.topic, 1, configs=configs)])
        except SomeFailed as failed:
            if failed.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                raise

    async def _read_forever(self, consumer: Consumer) -> None:
        while True:
            try:
                batches = await consumer.fetch(timeout_ms=FETCH_WAIT_MS)
            except StreamlogError as error:
                log.warning("topic=%s cannot be read just now: %s", self.topic, error)
                await asyncio.sleep(FETCH_WAIT_MS / 1000)
                continue
            for batch in batches:
                for value, headers in zip(batch.columns.values, batch.columns.headers, strict=True):
                    self._on_answer(value, dict(headers))

    def _on_answer(self, value: bytes | None, headers: dict[str, bytes | None]) -> None:
        answer = self._waiting.get(headers.get(CORRELATION) or b"")
        if answer is None or answer.done():
            return  # somebody else's, or the second value of one question
        error = headers.get(REPLY_ERROR)
        if error is not None:
            answer.set_exception(UserError(f"the agent has no answer: {error.decode(errors='replace')}"))
        else:
            answer.set_result(value or b"")
