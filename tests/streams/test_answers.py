"""Where answers go is written in a question, which anybody can send: it stops no worker and holds up no commit."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin
from streamlog.client.producer import Producer
from streamlog.env import real_env
from streamlog.streams.answers import ASKED, CORRELATION, REPLY_PARTITION, REPLY_TO
from tests.streams.harness import running
from tests.streams.live import LiveBroker, live_broker
from tests.streams.words import until


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[LiveBroker]:
    async with live_broker(tmp_path / "broker") as running_broker:
        yield running_broker


def doubling() -> tuple[streamlog.App, streamlog.Agent[str, int, int]]:
    app = streamlog.App("doubling", commit_interval_ms=50)
    numbers = app.topic("numbers", key=str, value=int, partitions=1)
    app.Table("sums", key=str, value=int, default=int)

    @app.agent(numbers)
    async def double(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for key, number in stream.items():
            app.tables["sums"][key] += number
            yield 2 * number

    return app, double


def question(topic: bytes, partition: bytes) -> list[tuple[str, bytes]]:
    return [(REPLY_TO, topic), (REPLY_PARTITION, partition), (CORRELATION, b"x"), (ASKED, b"double")]


@pytest.mark.parametrize(
    ("topic", "partition"),
    [
        (b"replies-of-last-year-replies", b"0"),
        (b"doubling-replies", b"7"),
        (b"doubling-replies", b"99999999999"),
        (b"no such/topic-replies", b"0"),
        (b"\xff\xfe", b"0"),
        (b"doubling-sums-changelog", b"0"),
    ],
)
async def test_a_question_whose_answer_cannot_be_delivered_is_processed_like_any_event(
    topic: bytes, partition: bytes, broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is committed at once and once, the next one is answered, and the worker stays healthy and stops quickly."""
    caplog.set_level(logging.ERROR)
    app, double = doubling()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        assert await double.ask(4, key="k") == 8
        async with Producer(broker.address, env=real_env()) as producer:
            await producer.send("numbers", b"1", key=b"k", headers=question(topic, partition))
            await producer.send("numbers", b"1", key=b"k")
        began = time.monotonic()
        await until(lambda: [one.committed for task in worker.status().tasks for one in task.partitions] == [3])
        assert time.monotonic() - began < 5
        assert worker.status().healthy
        assert worker.status().processed_again == 0
        assert await double.ask(5, key="k") == 10
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_answers_to_a_topic_that_was_deleted_are_dropped(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Commits go on; the next one who asks has a topic again."""
    caplog.set_level(logging.ERROR)
    app, double = doubling()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        assert await double.ask(4, key="k") == 8
        async with Admin(broker.address, env=real_env()) as admin:
            await admin.delete_topics(["doubling-replies"])
        async with Producer(broker.address, env=real_env()) as producer:
            for _ in range(20):
                await producer.send("numbers", b"1", key=b"k", headers=question(b"doubling-replies", b"0"))
        await until(lambda: [one.committed for task in worker.status().tasks for one in task.partitions] == [21], 10)
        assert worker.status().healthy


async def test_an_answer_goes_to_topics_for_answers_only() -> None:
    """A forged question cannot have a worker write into a changelog."""
    app, _ = doubling()
    async with running(app, {"numbers": 1}) as harness:
        for topic in (b"doubling-sums-changelog", b"numbers", b"my-replies"):
            harness.feed("numbers", [("k", "1", 0, question(topic, b"0"))])
            await harness.settle()
        assert [name for name, _ in harness.outbox.logs] == ["my-replies"]
