"""An example's app on a worker process and an embedded log of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlog
from examples.driving import Progress, SendRecord, Workers, opened, send_all
from streamlog.client.admin import Admin
from streamlog.client.consumer import Consumer
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import real_env


class Running:
    """One worker of an app."""

    def __init__(self, app: streamlog.App, address: str, admin: Admin, producer: Producer, progress: Progress) -> None:
        self.app, self.address = app, address
        self.progress = progress
        self._admin, self._producer = admin, producer

    async def send(self, topic: streamlog.Topic[Any, Any], records: Iterable[SendRecord]) -> None:
        await send_all(self._producer, topic, records)

    async def table(self, name: str) -> dict[Any, Any]:
        """Rows as a program outside sees them."""
        async with streamlog.connect_async(self.address, app=self.app) as live:
            return {key: value async for key, value in live.table(name).items()}

    async def records(self, topic: streamlog.Topic[Any, Any]) -> list[tuple[Any, Any]]:
        """Everything in a topic, as (key, value), partition by partition."""
        count = len((await self._admin.describe_topics([topic.name]))[topic.name].partitions)
        partitions = [TopicPartition(topic.name, number) for number in range(count)]
        ends = {one: end.offset for one, end in (await self._admin.list_offsets(dict.fromkeys(partitions, -1))).items()}
        found: dict[int, list[tuple[Any, Any]]] = {number: [] for number in range(count)}
        async with Consumer(self.address, env=real_env(), auto_offset_reset="earliest") as consumer:
            consumer.assign(partitions)
            while any((consumer.position(one) or 0) < end for one, end in ends.items()):
                for batch in await consumer.fetch(timeout_ms=500):
                    for key, value in zip(batch.columns.keys, batch.columns.values, strict=True):
                        assert key is not None, "these examples key everything"
                        assert value is not None, "these examples delete nothing"
                        found[batch.partition].append((topic.key_serde.decode(key), topic.value_serde.decode(value)))
        return [record for _, records in sorted(found.items()) for record in records]


@asynccontextmanager
async def running(app: streamlog.App, module: str, data_dir: Path) -> AsyncIterator[Running]:
    """A worker of the app in `examples.<module>`, its topics made; nothing is left of it afterwards."""
    workers = Workers(f"examples.{module}", data_dir)
    try:
        workers.start("A")
        address = await workers.address()
        async with opened(address) as (admin, producer):
            progress = Progress(app, admin, workers)
            await progress.topics_made()
            await progress.until_members(1)
            yield Running(app, address, admin, producer, progress)
            await workers.stop("A")
    finally:
        await asyncio.to_thread(workers.stop_all)
