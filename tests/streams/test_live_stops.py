"""Stops of all kinds against a real broker and RocksDB: what was processed, after the worker has come back."""

from __future__ import annotations

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


@pytest.fixture
def name() -> str:
    return f"stops-{os.getpid()}-{random.getrandbits(32):08x}"


def lists_app(name: str, seen: list[int]) -> tuple[streamlog.App, streamlog.Topic[str, int]]:
    """Lists of ten, counted in a table."""
    app = streamlog.App(name, commit_interval_ms=50)
    numbers = app.topic(f"{name}-numbers", key=str, value=int, partitions=1)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(numbers)
    async def tens(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.take(10, within=600):
            for value in values:
                counts[str(value)] += 1
            seen.extend(values)

    return app, numbers


async def test_a_clean_stop_loses_and_repeats_nothing_of_an_unfinished_list(
    broker: str, name: str, tmp_path: Path
) -> None:
    """The list is given out when the worker stops, and committed with its rows."""
    seen: list[int] = []
    topic = f"{name}-numbers"
    for first, end in ((0, 25), (25, 31), (31, 40)):
        app, numbers = lists_app(name, seen)
        async with app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker:
            for value in range(first, end):
                await numbers.send(value, key="k")
            await until_fed(worker, topic, end)
        async with Admin(broker, env=real_env()) as admin:
            offsets = await admin.list_group_offsets(name)
        assert offsets[TopicPartition(topic, 0)].offset == end
    assert seen == list(range(40))
    app, _ = lists_app(name, seen)
    async with app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker:
        await until(lambda: [task.state for task in worker.status().tasks] == ["running"])
        rows = worker.query("counts")[0]
        assert isinstance(rows, TableReader)
        assert {value: rows.get(str(value)).value for value in range(40)} == dict.fromkeys(range(40), 1)


async def until_fed(worker: Worker, topic: str, end: int) -> None:
    """Until the task has records up to `end`."""

    def fed() -> bool:
        partitions = [one for task in worker.status().tasks for one in task.partitions]
        return any(one.topic == topic and one.position == end for one in partitions)

    await until(fed)
