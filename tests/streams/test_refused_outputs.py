"""Outputs and rows that the log does not take: whose events they are, and what is not counted twice for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import streamlog
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.consumer import Consumer
from streamlog.env import real_env
from streamlog.state.query import TableReader
from streamlog.streams.policies import DeadLetter, OnError
from streamlog.streams.worker import Worker
from tests.streams.live import LiveBroker, live_broker
from tests.streams.words import until

SIZE = "max.message.bytes"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[LiveBroker]:
    async with live_broker(tmp_path / "broker") as running:
        yield running


def growing(on_error: OnError | None = None, *, limit: int = 1000) -> streamlog.App:
    """An app that counts numbers, and yields as many characters; "out" takes no more than `limit` bytes in a record."""
    app = streamlog.App("growing", commit_interval_ms=50)
    numbers = app.topic("numbers", key=str, value=int, partitions=1)
    out = app.topic("out", key=str, value=str, partitions=1, configs={SIZE: str(limit)})
    bad = app.topic("bad", key=str, value=int, partitions=1)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(numbers, sink=[out], on_error=on_error or DeadLetter(bad))
    async def grow(stream: streamlog.Stream[str, int]) -> AsyncIterator[str]:
        async for key, number in stream.items():
            counts[key] += 1
            yield number * "x"

    return app


async def send(app: streamlog.App, *numbers: int) -> None:
    for number in numbers:
        await app.topics["numbers"].send(number, key="k")


async def lengths_in(broker: LiveBroker, topic: str) -> list[int]:
    """How long the values in a topic are, in order."""
    found: list[int] = []
    async with Consumer(broker.address, env=real_env()) as consumer:
        partitions = await consumer.partitions_for(topic)
        consumer.assign(partitions)
        for one in partitions:
            consumer.seek(one, 0)
        left = sum((await consumer.end_offsets(partitions)).values())
        while len(found) < left:
            for batch in await consumer.fetch(timeout_ms=1000):
                found += [len(value) - 2 * (topic == "out") for value in batch.columns.values if value is not None]
    return found


def committed(worker: Worker) -> int:
    """The offset of numbers below which all is committed."""
    tasks = worker.status().tasks
    return min((one.committed for task in tasks for one in task.partitions if one.topic == "numbers"), default=-1)


def failures(worker: Worker) -> list[str]:
    return [failure for task in worker.status().tasks for failure in task.failures]


def rows(worker: Worker, table: str = "counts") -> dict[object, Any]:
    readers = worker.query(table).values()
    return {key: value for one in readers if isinstance(one, TableReader) for key, value in one.scan().rows}


@pytest.mark.parametrize("on_error", ["skip", None])
async def test_an_output_that_is_too_large_for_its_topic_is_its_events_failure(
    on_error: OnError | None, broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is passed over or buried as on_error= says, with topic, key and size in the message, and counted once."""
    caplog.set_level(logging.CRITICAL)
    app = growing(on_error)
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await send(app, 10, 2000, 20)
        await until(lambda: committed(worker) == 3)
        assert rows(worker) == {"k": 3}
        assert worker.status().healthy
        assert worker.status().processed_again == 0
    assert await lengths_in(broker, "out") == [10, 20]
    assert await lengths_in(broker, "bad") == ([] if on_error else [4])


async def test_a_partition_that_stops_for_a_large_output_names_topic_key_and_size(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is in the log and in the status; what was before it is committed."""
    caplog.set_level(logging.CRITICAL)
    app = growing("stop")
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await send(app, 10, 2000, 20)
        await until(lambda: committed(worker) == 1 and bool(failures(worker)))
        (failure,) = failures(worker)
        for words in ("out-0", "'k'", "2073 bytes", f"{SIZE} of 1000", "streamlog topics alter out", "offset=1"):
            assert words in failure
        assert not worker.status().healthy
    async with Admin(broker.address, env=real_env()) as admin:
        await admin.incremental_alter_configs("out", set={SIZE: "5000"})
    app = growing("stop", limit=5000)
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await until(lambda: committed(worker) == 3)
    assert await lengths_in(broker, "out") == [10, 2000, 20]


async def test_a_limit_that_is_lowered_while_a_worker_runs_costs_one_commit_and_counts_nothing_twice(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker refuses the output once; the tasks begin again, and then it is the event that fails."""
    caplog.set_level(logging.CRITICAL)
    app = growing("skip", limit=100_000)
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await send(app, 10)
        await until(lambda: committed(worker) == 1)
        async with Admin(broker.address, env=real_env()) as admin:
            await admin.incremental_alter_configs("out", set={SIZE: "1000"})
        await send(app, 2000, 20, 3000, 30)
        await until(lambda: committed(worker) == 5)
        assert rows(worker) == {"k": 5}
        assert 1 <= worker.status().processed_again <= 4
        await until(lambda: worker.status().healthy)
    found = await lengths_in(broker, "out")
    assert set(found) == {10, 20, 30}


async def test_a_row_that_is_too_large_holds_its_task_and_counts_nothing_twice(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of that commit is sent; the message says how to let the changelog take more, and then all is counted."""
    caplog.set_level(logging.CRITICAL)

    def keeping() -> streamlog.App:
        app = streamlog.App("keeping", commit_interval_ms=50)
        numbers = app.topic("numbers", key=str, value=int, partitions=1)
        counts = app.Table("counts", key=str, value=int, default=int)
        history = app.Table("history", key=str, value=list[str], default=list)

        @app.agent(numbers, on_error="skip")
        async def keep(stream: streamlog.Stream[str, int]) -> None:
            async for key, number in stream.items():
                counts[key] += 1
                history[key].append(number * "x")

        return app

    app = keeping()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        for _ in range(13):
            await send(app, 100_000)
        await until(lambda: bool(failures(worker)))
        (failure,) = failures(worker)
        for words in ("table history", "'k'", "keeping-history-changelog", f"--config {SIZE}="):
            assert words in failure
        held_at = committed(worker)
        await asyncio.sleep(0.5)
        assert committed(worker) == held_at <= 10
        assert rows(worker)["k"] <= 13
        began = time.monotonic()
    assert time.monotonic() - began < 5, "a clean stop does not wait for what cannot be written"
    app = keeping()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await until(lambda: bool(failures(worker)))  # the same again
    async with Admin(broker.address, env=real_env()) as admin:
        await admin.incremental_alter_configs("keeping-history-changelog", set={SIZE: str(4 << 20)})
    app = keeping()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await until(lambda: committed(worker) == 13)
        assert rows(worker) == {"k": 13}
        assert worker.status().healthy


async def test_an_agent_that_retries_waits_for_a_deleted_topic_of_its_outputs(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker says which topic is gone, and goes on when it is there again; nothing is counted twice."""
    caplog.set_level(logging.CRITICAL)
    app = growing("retry")
    async with (
        app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker,
        Admin(broker.address, env=real_env()) as admin,
    ):
        await send(app, 10, 20)
        await until(lambda: committed(worker) == 2)
        await admin.delete_topics(["out"])
        await send(app, 30, 40)
        await until(lambda: "topic out does not exist" in (worker.status().error or ""), 30)
        await asyncio.sleep(0.3)
        assert committed(worker) <= 2
        await admin.create_topics([NewTopic("out", 1)])
        await until(lambda: committed(worker) == 4, 40)
        assert rows(worker)["k"] >= 4  # each attempt of the body counts, as always
        await until(lambda: worker.status().healthy)
    assert await lengths_in(broker, "out") == [30, 40]


async def test_a_changelog_whose_limit_was_lowered_holds_the_task_as_well(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker refuses the row; no event is processed again for it, and the next commit finds it too large."""
    caplog.set_level(logging.CRITICAL)
    app = streamlog.App("lowered", commit_interval_ms=50)
    numbers = app.topic("numbers", key=str, value=int, partitions=1)
    history = app.Table("history", key=str, value=list[str], default=list)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(numbers, on_error="skip")
    async def keep(stream: streamlog.Stream[str, int]) -> None:
        async for key, number in stream.items():
            counts[key] += 1
            history[key].append(number * "x")

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await send(app, 10)
        await until(lambda: committed(worker) == 1)
        async with Admin(broker.address, env=real_env()) as admin:
            await admin.incremental_alter_configs("lowered-history-changelog", set={SIZE: "2000"})
        await send(app, 3000)
        await until(lambda: bool(failures(worker)))
        assert "table history" in failures(worker)[0]
        assert committed(worker) == 1
        assert rows(worker)["k"] == 2
        assert worker.status().processed_again == 0
