"""What a command of an app can do: send to topics and ask agents, without being a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streamlog.cli.invocation import TIMEOUT_MS, Invocation
from streamlog.client.admin import Admin
from streamlog.client.config import ConnectionSettings
from streamlog.client.delivery import OnAppendFailure
from streamlog.client.producer import Producer
from streamlog.embedded import EmbeddedLog
from streamlog.env import Env, real_env
from streamlog.errors import UserError
from streamlog.streams.answering import AnswerSender
from streamlog.streams.app import App
from streamlog.streams.outbox import ProducerOutbox
from streamlog.streams.replies import Replies
from streamlog.wire.error_codes import ErrorCode, KafkaError


class SenderRuntime:
    """The `Runtime` (streams/context.py) of a program that only sends and asks."""

    def __init__(self, app_id: str, broker: str, env: Env, outbox: ProducerOutbox, replies: Replies) -> None:
        self.outbox = outbox.outside
        self._know_topic = outbox.know_topic
        self._app_id, self._broker = app_id, broker
        self._env, self._replies = env, replies

    def wall_ms(self) -> int:
        return self._env.clock.wall_ms()

    async def know_topic(self, topic: str) -> None:
        try:
            await self._know_topic(topic)
        except KafkaError as error:
            if error.code is not ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise
            raise UserError(
                f"topic {topic} does not exist at {self._broker}: no worker of app {self._app_id} has run there yet. "
                f"Start one (streamlog -A ... worker), or name another log with --broker or --data-dir"
            ) from error

    async def ask(self, agent: str, topic: str, key: bytes | None, value: bytes, timeout_s: float) -> bytes:
        await self.know_topic(topic)
        return await self._replies.ask(agent, topic, key, value, timeout_s)

    def global_state(self, table: str) -> Any:
        raise UserError(f"global table {table} is only on workers: read it with streamlog.connect(..., app=...)")


@asynccontextmanager
async def brokers_of(app: App, invocation: Invocation, env: Env) -> AsyncIterator[str]:
    """Addresses of the brokers that the app's workers use, given the same command line."""
    named = invocation.broker or app.settings.broker or invocation.broker_named()
    if named is not None:
        yield named
        return
    async with EmbeddedLog(env, invocation.data_directory(app.settings.data_dir)) as embedded:
        yield embedded.address


@asynccontextmanager
async def sending(app: App, invocation: Invocation) -> AsyncIterator[None]:
    """While the block lasts, `topic.send` and `agent.ask` of the app work in this process."""
    env = real_env()
    connection = ConnectionSettings(client_id=f"streamlog-{app.id}-command", api_timeout_ms=TIMEOUT_MS)
    async with (
        brokers_of(app, invocation, env) as bootstrap,
        Admin(bootstrap, env=env, timeout_ms=TIMEOUT_MS, connection=connection) as admin,
    ):

        def producer(on_append_failure: OnAppendFailure | None = None) -> Producer:
            return Producer(
                bootstrap,
                env=env,
                auto_create_topics=False,
                max_block_ms=TIMEOUT_MS,
                on_append_failure=on_append_failure,
                connection=connection,
            )

        answers = AnswerSender(producer, env.clock)
        outbox = ProducerOutbox(producer, env.clock, admin.describe_configs, answers, producer)
        await outbox.open()
        replies = Replies(app.id, bootstrap, env, admin, outbox, connection)
        before = app.cell.runtime
        app.cell.runtime = SenderRuntime(app.id, bootstrap, env, outbox, replies)
        try:
            yield
        finally:
            app.cell.runtime = before
            await replies.close()
            await outbox.close()
