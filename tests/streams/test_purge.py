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
from streamlog.client.values import TopicPartition
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
