"""Repartition topics shrink as they are processed, and never by more."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin
from streamlog.client.consumer import Consumer
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import real_env
from streamlog.state.query import TableReader
from streamlog.streams.worker import Worker
from tests.streams.live import live_broker
from tests.streams.words import until


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    async with live_broker(tmp_path / "broker") as running:
        yield running.address


async def bounds(broker: str, partition: TopicPartition) -> tuple[int, int]:
    async with Admin(broker, env=real_env()) as admin:
        start = (await admin.list_offsets({partition: -2}))[partition]
        end = (await admin.list_offsets({partition: -1}))[partition]
        return start.offset, end.offset


async def test_what_was_processed_is_deleted_and_nothing_else(broker: str, tmp_path: Path) -> None:
    """An agent that stands at an event keeps that event and all behind it, whatever other agents have done."""
    name = f"purge-{os.getpid()}-{random.getrandbits(32):08x}"
    repartition = TopicPartition(f"{name}-count-bit_length-repartition", 0)
    source = TopicPartition(f"{name}-numbers", 0)
    gate = asyncio.Event()

    def make() -> tuple[streamlog.App, streamlog.Topic[str, int]]:
        app = streamlog.App(name, commit_interval_ms=50)
        numbers = app.topic(source.topic, key=str, value=int, partitions=1)
        counts = app.Table("counts", key=int, value=int, default=int)

        @app.agent(numbers)
        async def count(stream: streamlog.Stream[str, int]) -> None:
            async for value in stream.group_by(int.bit_length, key=int):
                if value == 30:
                    await gate.wait()
                counts[value] += 1

        return app, numbers

    def rows(worker: Worker) -> dict[int, int]:
        readers = worker.query("counts").values()
        return {key: value for one in readers if isinstance(one, TableReader) for key, value in one.scan().rows}

    app, numbers = make()
    async with app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker:
        for value in range(40):
            await numbers.send(value, key="k")
        await until(lambda: len(rows(worker)) == 30)
        assert worker.purge is not None
        commits = worker.status().commits
        await until(lambda: worker.status().commits > commits + 2)
        await worker.purge.once()
        assert await bounds(broker, repartition) == (30, 40)
        assert await bounds(broker, source) == (0, 40)
        gate.set()
        await until(lambda: len(rows(worker)) == 40)
        commits = worker.status().commits
        await until(lambda: worker.status().commits > commits + 2)
        await worker.purge.once()
        assert await bounds(broker, repartition) == (40, 40)
    app, numbers = make()
    async with app.running(broker=broker, data_dir=str(tmp_path / "elsewhere")) as worker:
        await numbers.send(40, key="k")
        await until(lambda: len(rows(worker)) == 41)
        assert set(rows(worker).values()) == {1}


async def test_an_agents_own_topic_is_emptied_of_what_was_processed(broker: str, tmp_path: Path) -> None:
    """Unless another group reads there, or somebody has set how long it keeps records: then those decide."""
    name = f"purge-{os.getpid()}-{random.getrandbits(32):08x}"
    own = TopicPartition(f"{name}-count", 0)
    app = streamlog.App(name, commit_interval_ms=50, partitions=1)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent()
    async def count(stream: streamlog.Stream[str, int]) -> None:
        async for key, value in stream.items():
            counts[key] += value

    def committed(worker: Worker) -> list[int]:
        return [one.committed for task in worker.status().tasks for one in task.partitions]

    async with (
        app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker,
        Admin(broker, env=real_env()) as admin,
    ):
        assert worker.purge is not None

        async def cast_and_purge(until_offset: int) -> tuple[int, int]:
            assert worker.purge is not None
            for _ in range(10):
                await count.cast(1, key="k")
            commits = worker.status().commits
            await until(lambda: committed(worker) == [until_offset] and worker.status().commits > commits + 2)
            await worker.purge.once()
            return await bounds(broker, own)

        assert await cast_and_purge(10) == (10, 10)
        await admin.alter_group_offsets("others", {own: OffsetAndMetadata(13)})
        assert await cast_and_purge(20) == (13, 20)
        await admin.delete_groups(["others"])
        await worker.purge.once()
        assert await bounds(broker, own) == (20, 20)
        async with Consumer(broker, env=real_env(), group_id="newcomers", auto_offset_reset="earliest") as reader:
            reader.subscribe([own.topic])
            async with asyncio.timeout(20):
                while not reader.assignment():
                    await reader.fetch(timeout_ms=100)
            assert await cast_and_purge(30) == (20, 30)
        await admin.delete_groups(["newcomers"])
        await admin.incremental_alter_configs(own.topic, set={"retention.ms": "86400000"})
        assert await cast_and_purge(40) == (20, 40)
