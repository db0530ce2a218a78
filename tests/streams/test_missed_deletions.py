"""Tables that follow a compacted topic have no row that the topic deleted, however long nobody looked.

The topics show deletions for a moment only, so that seconds are what days are with Kafka's defaults.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.consumer import Consumer
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import RealClock, real_env
from streamlog.state.memory import MemoryEngine
from streamlog.state.query import TableReader
from streamlog.state.store import CommitBatch, Position
from streamlog.streams.worker import Worker
from tests.state.simulated_log import ManualClock
from tests.streams.harness import running
from tests.streams.live import live_broker
from tests.streams.words import until

COMPACTED = {
    "cleanup.policy": "compact",
    "delete.retention.ms": "100",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.001",
}

COMPACTION_TIMEOUT_S = 60.0


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    async with live_broker(tmp_path / "broker", ["log.cleaner.backoff.ms=50"]) as running:
        yield running.address


class ShiftedClock(RealClock):
    """The machine's, and so much later."""

    def __init__(self) -> None:
        self.later_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.later_ms


@dataclass
class Prices:
    """An app with a table and a global table of one topic, whose records it also counts."""

    broker: str
    data_dir: Path
    configs: dict[str, str] = field(default_factory=lambda: dict(COMPACTED))
    name: str = field(default_factory=lambda: f"prices-{os.getpid()}-{random.getrandbits(32):08x}")
    found: list[tuple[str, int | None, int | None]] = field(default_factory=list)
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    worker: Worker | None = None

    async def create(self) -> None:
        async with Admin(self.broker, env=real_env()) as admin:
            await admin.create_topics([NewTopic(self.name, 1, 1, self.configs), NewTopic(f"{self.name}-asks", 1, 1)])

    async def send(self, topic: str, *rows: tuple[str, int | None]) -> None:
        env = real_env()
        async with Producer(self.broker, env=env) as producer:
            for key, value in rows:
                data = None if value is None else str(value).encode()
                producer.append(topic, 0, key.encode(), data, env.clock.wall_ms())
        env.offload.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        app = streamlog.App(self.name, commit_interval_ms=50)
        prices = app.topic(self.name, key=str, value=int, partitions=1)
        asks = app.topic(f"{self.name}-asks", key=str, value=int, partitions=1)
        price = app.Table("price", key=str, value=int, source=prices)
        everywhere = app.GlobalTable("everywhere", key=str, value=int, source=prices)
        counts = app.Table("counts", key=str, value=int, default=int)

        @app.agent(prices)
        async def count(stream: streamlog.Stream[str, int]) -> None:
            async for event in stream.events():
                counts[event.key] += 1

        @app.agent(asks)
        async def look(stream: streamlog.Stream[str, int]) -> None:
            async for event in stream.events():
                self.found.append((event.key, price.get(event.key), everywhere.get(event.key)))

        env = replace(real_env(), clock=self.clock)
        async with app.running(broker=self.broker, data_dir=str(self.data_dir), env=env) as worker:
            await until(lambda: [task.state for task in worker.status().tasks] == ["running"])
            self.worker = worker
            yield worker
        env.offload.close()

    async def ask(self, key: str) -> tuple[int | None, int | None]:
        """What an agent finds in the table and in the global one."""
        before = len(self.found)
        await self.send(f"{self.name}-asks", (key, 1))
        await until(lambda: len(self.found) > before)
        return self.found[-1][1:]

    async def until_found(self, key: str, value: int | None) -> None:
        async with asyncio.timeout(30):
            while await self.ask(key) != (value, value):
                await asyncio.sleep(0.1)

    async def committed(self) -> None:
        worker = self.worker
        assert worker is not None
        commits = worker.status().commits
        await until(lambda: worker.status().commits > commits + 1)

    def count(self, key: str) -> int | None:
        """How many records of the key the agent has counted."""
        assert self.worker is not None
        reader = self.worker.query("counts").get(0)
        if reader is None:
            return None
        assert isinstance(reader, TableReader)
        value: int | None = reader.get(key).value
        return value

    async def forget(self, key: str) -> None:
        """Delete the key, and let the topic forget that it did."""
        await self.send(self.name, (key, None))
        async with asyncio.timeout(COMPACTION_TIMEOUT_S):
            number = 0
            while key.encode() in await self.keys():
                await self.send(self.name, ("other", number := number + 1))
                await asyncio.sleep(0.2)

    async def keys(self) -> set[bytes | None]:
        """Of all records that the topic holds."""
        env, one = real_env(), TopicPartition(self.name, 0)
        keys: set[bytes | None] = set()
        async with Consumer(self.broker, env=env) as consumer:
            end = (await consumer.end_offsets([one]))[one]
            consumer.assign([one])
            consumer.seek_to_beginning([one])
            while (consumer.position(one) or 0) < end:
                for batch in await consumer.fetch(timeout_ms=500):
                    keys.update(batch.columns.keys)
        env.offload.close()
        return keys


def freeze_while_others_send(broker: str, topic: str, lines: str) -> None:
    """Blocks the event loop, and the worker on it, until the records are in the topic."""
    command = [sys.executable, "-m", "streamlog", "produce", topic, "-s", ":", "--null", "none", "-p", "0", "-q"]
    subprocess.run([*command, "--broker", broker], input=lines.encode(), check=True)


async def test_a_deletion_that_the_topic_has_forgotten_is_found_after_a_restart(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both kinds of table are read from the beginning, and no agent that reads the topic sees an event again."""
    prices = Prices(broker, tmp_path / "state")
    await prices.create()
    await prices.send(prices.name, ("a", 1), ("b", 2), ("c", 3))
    async with prices.running():
        await prices.until_found("a", 1)
        await prices.committed()
    await prices.forget("a")
    async with prices.running():
        assert await prices.ask("a") == (None, None)
        assert await prices.ask("b") == (2, 2)
        await prices.send(prices.name, ("b", 4))
        await prices.until_found("b", 4)
        await until(lambda: prices.count("b") == 2)
        assert prices.count("c") == 1
    assert caplog.text.count("it was away for longer than the topic shows deletions") == 2


async def test_a_topic_that_is_not_compacted_is_not_read_again(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It deletes what is old, deletions last; what went so is noticed by the log's start."""
    prices = Prices(broker, tmp_path / "state", {"cleanup.policy": "delete", "delete.retention.ms": "100"})
    await prices.create()
    await prices.send(prices.name, ("a", 1), ("b", 2))
    async with prices.running():
        await prices.until_found("a", 1)
        await prices.committed()
    await prices.send(prices.name, ("a", None))
    prices.clock.later_ms += 3_600_000
    async with prices.running():
        await prices.until_found("a", None)
        assert await prices.ask("b") == (2, 2)
    assert "rebuilding" not in caplog.text


async def test_a_worker_that_stood_still_for_long_reads_its_tables_again(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Frozen, or without a broker: what it missed may have been a deletion. Its other tables count nothing twice."""
    caplog.set_level(logging.WARNING)
    prices = Prices(broker, tmp_path / "state", {"cleanup.policy": "compact", "delete.retention.ms": "3000000"})
    await prices.create()
    await prices.send(prices.name, ("a", 1), ("b", 2))
    async with prices.running():
        await prices.until_found("a", 1)
        freeze_while_others_send(broker, prices.name, "a:none\nb:3\n")
        prices.clock.later_ms += 3_600_000
        await prices.until_found("b", 3)
        assert await prices.ask("a") == (None, None)
        await until(lambda: prices.count("b") == 2)
        await until(lambda: caplog.text.count("state=rebuilding") == 2)
        assert prices.count("a") == 1


# --- one task, without a broker ---------------------------------------------------------------------------------------

DAY_MS = 24 * 3_600_000


def shop() -> streamlog.App:
    """Orders look up a price."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=int)
    price = app.Table("price", key=str, value=int, source=app.topic("prices", key=str, value=int))

    @app.agent(orders.stream().left_join(price))
    async def join(stream: streamlog.Stream[str, tuple[int, int | None]]) -> None:
        async for _ in stream:
            pass

    return app


SHOP = {"orders": 1, "prices": 1}


async def test_a_table_is_as_old_as_the_last_end_of_its_topic_that_it_reached() -> None:
    """Not as its last row, which may be far from the end; nor as what was fetched, which may wait for streams."""
    clock, engine = ManualClock(), MemoryEngine()
    began_at_ms = clock.now_ms
    async with running(shop(), SHOP, engine=engine, clock=clock, ends={"orders": 2, "prices": 3}) as harness:
        clock.now_ms += 10
        harness.feed("prices", [("a", "1", 5), ("b", "2", 6)], end=3)
        harness.feed("orders", [("a", "1", 5)], end=2)
        await harness.settle()
        assert harness.commit().followed["price"] == Position(1, at_ms=began_at_ms)
        harness.feed("prices", [("c", "3", 7)], end=3)
        harness.feed("orders", [("a", "2", 6)], end=2)
        await harness.settle()
        assert harness.commit().followed["price"] == Position(3, at_ms=began_at_ms)
        clock.now_ms += DAY_MS
        assert harness.task.ends_due() == ["prices"]
        harness.task.saw_end("prices", 4, clock.now_ms)
        assert not harness.task.ends_due()
        assert harness.commit().empty
        harness.feed("prices", [("c", "4", 8)])
        await harness.settle()
        assert harness.commit().followed["price"] == Position(4, at_ms=clock.now_ms)
        seen_at_ms = clock.now_ms
        clock.now_ms += DAY_MS
        harness.task.saw_end("prices", 4, clock.now_ms)
        assert harness.commit().followed["price"] == Position(4, at_ms=clock.now_ms)
        assert clock.now_ms > seen_at_ms


async def test_what_comes_after_a_long_pause_is_not_fed_into_rows_that_may_have_missed_something() -> None:
    """The intake asks before it feeds: a day without a look at the end is too long, less is not."""
    clock, engine = ManualClock(), MemoryEngine()
    async with running(shop(), SHOP, engine=engine, clock=clock) as harness:
        harness.feed("prices", [("a", "1")])
        clock.now_ms += DAY_MS
        assert not harness.task.missed("prices")
        clock.now_ms += 1
        assert harness.task.missed("prices")
        assert not harness.task.missed("orders")
        harness.task.saw_end("prices", 1, clock.now_ms)
        assert not harness.task.missed("prices")


async def test_lanes_that_are_far_behind_do_not_make_a_complete_table_old() -> None:
    """It was at the end when the task was opened, however long before that its last row came."""
    clock, engine = ManualClock(), MemoryEngine()
    store = engine.open("store")
    store.commit(CommitBatch(positions={"price": Position(100, at_ms=clock.now_ms)}))
    store.close()
    clock.now_ms += 3 * DAY_MS
    positions, ends = {"prices": 10}, {"orders": 0, "prices": 100}
    async with running(shop(), SHOP, engine=engine, clock=clock, positions=positions, ends=ends) as harness:
        assert harness.task.sources["prices"].position == 10
        assert not harness.task.missed("prices")
        assert harness.commit().followed["price"] == Position(100, at_ms=clock.now_ms)


async def test_a_table_that_was_away_is_as_old_as_its_store_says() -> None:
    """Until it has caught up, which it has to in time."""
    clock, engine = ManualClock(), MemoryEngine()
    store = engine.open("store")
    store.commit(CommitBatch(positions={"price": Position(1, at_ms=clock.now_ms)}))
    store.close()
    clock.now_ms += DAY_MS - 5
    positions, ends = {"prices": 1}, {"orders": 0, "prices": 3}
    async with running(shop(), SHOP, engine=engine, clock=clock, positions=positions, ends=ends) as harness:
        harness.feed("prices", [("a", "1")], end=3)
        assert not harness.task.missed("prices")
        clock.now_ms += 6
        assert harness.task.missed("prices")


async def test_a_table_that_is_filled_from_the_beginning_may_take_its_time() -> None:
    """There is nothing in it that could have been deleted."""
    clock = ManualClock()
    async with running(shop(), SHOP, clock=clock, ends={"orders": 0, "prices": 5}) as harness:
        clock.now_ms += 3 * DAY_MS
        assert not harness.task.missed("prices")
        harness.feed("prices", [(key, "1") for key in "abcde"], end=5)
        assert harness.task.missed("prices")
