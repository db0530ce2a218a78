"""Outputs whose time is far from now, into topics that take any time, and into those that do not."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.consumer import Consumer
from streamlog.env import real_env
from streamlog.streams.policies import OnError
from streamlog.streams.worker import Worker
from tests.streams.live import LiveBroker, live_broker
from tests.streams.words import until

AFTER = "message.timestamp.after.max.ms"
HOUR_MS = 60 * 60 * 1000
SOON_S = time.time() + 365 * 24 * 60 * 60
"""Far in the future, as far as brokers are concerned."""


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[LiveBroker]:
    async with live_broker(tmp_path / "broker") as running:
        yield running


def copying(on_error: OnError = "stop") -> streamlog.App:
    """An app that copies numbers, and gives those of a hundred and more a time in the future."""
    app = streamlog.App("copying", commit_interval_ms=50)
    numbers = app.topic("numbers", key=str, value=int, partitions=2)
    copies = app.topic("copies", key=str, value=int, partitions=2)

    @app.agent(numbers, on_error=on_error)
    async def copy(stream: streamlog.Stream[str, int]) -> None:
        async for key, number in stream.items():
            await copies.send(number, key=key, timestamp=SOON_S if number >= 100 else None)

    return app


async def send(app: streamlog.App, *numbers: int, partition: int) -> None:
    for number in numbers:
        await app.topics["numbers"].send(number, key=str(number), partition=partition)


async def copies_at(broker: LiveBroker) -> list[int]:
    """What is in the topic of copies, each number as often as it is there, sorted."""
    found: list[int] = []
    async with Consumer(broker.address, env=real_env()) as consumer:
        partitions = await consumer.partitions_for("copies")
        consumer.assign(partitions)
        for one in partitions:
            consumer.seek(one, 0)
        left = sum((await consumer.end_offsets(partitions)).values())
        while len(found) < left:
            for batch in await consumer.fetch(timeout_ms=1000):
                found += [int(value) for value in batch.columns.values if value is not None]
    return sorted(found)


def committed(worker: Worker, partition: int) -> int:
    """The offset of a partition of numbers below which all is committed."""
    tasks = [task for task in worker.status().tasks if task.number == partition]
    return min((one.committed for task in tasks for one in task.partitions), default=0)


def failures(worker: Worker) -> list[str]:
    return [failure for task in worker.status().tasks for failure in task.failures]


async def test_topics_that_an_app_creates_take_any_time(broker: LiveBroker, tmp_path: Path) -> None:
    """Its outputs carry the time of its events, which may be years from now; what it says itself about it stays."""
    app = copying()
    app.topic("strict", key=str, value=int, partitions=1, configs={AFTER: "5000"})
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await send(app, 1, 100, partition=0)
        await until(lambda: committed(worker, 0) == 2)
        async with Admin(broker.address, env=real_env()) as admin:
            assert int((await admin.describe_configs("copies"))[AFTER].value or 0) > 2**61
            assert (await admin.describe_configs("strict"))[AFTER].value == "5000"
    assert await copies_at(broker) == [1, 100]


async def test_a_time_that_a_topic_does_not_take_stops_its_own_partition_only(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The error names topic, time and setting; other tasks go on, and what was held back comes when it is allowed."""
    caplog.set_level(logging.CRITICAL)
    async with Admin(broker.address, env=real_env()) as admin:
        await admin.create_topics([NewTopic("copies", 2)])
        app = copying()
        async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
            await send(app, 1, 100, 2, partition=0)
            await send(app, 3, partition=1)
            await until(lambda: not worker.status().healthy)
            await send(app, 4, partition=1)
            await until(lambda: committed(worker, 1) == 2 and committed(worker, 0) == 1)
            (failure,) = failures(worker)
            for words in ("topic copies", str(round(SOON_S * 1000)), f"{AFTER}={HOUR_MS}", "streamlog topics alter"):
                assert words in failure
            assert worker.status().error is None
        assert await copies_at(broker) == [1, 3, 4]
        await admin.incremental_alter_configs("copies", set={AFTER: str(2**60)})
        async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
            await send(app, 5, partition=0)
            await until(lambda: committed(worker, 0) == 4)
    assert await copies_at(broker) == [1, 2, 3, 4, 5, 100]


async def test_a_bound_that_is_set_while_a_worker_runs_is_learned(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first record costs a commit, which is done again; after it the one event is refused, and no other."""
    caplog.set_level(logging.CRITICAL)
    app = copying("skip")
    async with Admin(broker.address, env=real_env()) as admin:
        async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
            await send(app, 1, partition=0)
            await admin.incremental_alter_configs("copies", set={AFTER: str(HOUR_MS)})
            await send(app, 100, 2, partition=0)
            await send(app, 3, partition=1)
            await until(lambda: committed(worker, 0) == 3 and committed(worker, 1) == 1)
        assert sorted(set(await copies_at(broker))) == [1, 2, 3]


async def test_a_dead_letter_is_kept_whatever_the_time_of_its_event(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the time of its burial, where the topic does not take its own: the event must not be lost, nor hold up."""
    caplog.set_level(logging.CRITICAL)
    app = streamlog.App("burying", commit_interval_ms=50)
    numbers = app.topic("numbers", key=str, value=int, partitions=2)
    copies = app.topic("copies", key=str, value=int, partitions=2)

    @app.agent(numbers, on_error=streamlog.DeadLetter(copies))
    async def fail(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            raise ValueError

    async with Admin(broker.address, env=real_env()) as admin:
        await admin.create_topics([NewTopic("copies", 2)])
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        for number in (1, 100):
            await numbers.send(number, key="a", timestamp=SOON_S if number == 100 else None, partition=0)
        await until(lambda: committed(worker, 0) == 2)
    assert await copies_at(broker) == [1, 100]
