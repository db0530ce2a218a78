"""Features that need a log between their halves: asking, repartitioning, global tables, topics as tables, troubles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.producer import Producer
from streamlog.env import real_env
from streamlog.errors import EnvironmentFailure
from streamlog.state.query import TableReader
from streamlog.streams.worker import Worker
from tests.streams.live import LiveBroker, live_broker
from tests.streams.words import PARTITIONS, counts_in, send_lines, until, until_counted, word_count


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[LiveBroker]:
    async with live_broker(tmp_path / "broker") as running:
        yield running


class Order(streamlog.Record):
    account: str
    amount: int


async def test_ask_gets_what_the_agent_yields(broker: LiveBroker, tmp_path: Path) -> None:
    """A question goes through the agent's topic, its answer through the app's replies."""
    app = streamlog.App("calculator", partitions=2)

    @app.agent()
    async def double(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for number in stream:
            yield 2 * number

    @app.agent(on_error="skip")
    async def halve(stream: streamlog.Stream[str, int]) -> AsyncIterator[float]:
        async for number in stream:
            yield 1 / number

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")):
        assert await double.ask(21, key="a") == 42
        assert await double.join([1, 2, 3], key="b") == [2, 4, 6]
        with pytest.raises(streamlog.UserError, match="ZeroDivisionError"):
            await halve.ask(0, key="a")
        assert await halve.ask(2, key="a") == 0.5
        with pytest.raises(TimeoutError):
            await double.ask(1, key="a", timeout=0.0001)


async def test_an_ask_that_a_step_drops_is_answered_at_once(broker: LiveBroker, tmp_path: Path) -> None:
    """By the agent that was asked, wherever its stream drops it; other readers of its topic have no say."""
    app = streamlog.App("picky", partitions=2)
    known = app.GlobalTable("known", key=str, value=int)

    @app.agent()
    async def positive(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for number in stream.filter(lambda number: number > 0):
            yield number

    @app.agent(positive.topic)
    async def other(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for number in stream.filter(lambda number: number < 0):
            yield 100 * number

    @app.agent(name="lookup")
    async def look(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for _, row in stream.join(known):
            yield row

    @app.agent()
    async def regroup(stream: streamlog.Stream[str, Order]) -> AsyncIterator[int]:
        async for order in stream.filter(is_large).group_by(Order.amount):
            yield order.amount

    loop = asyncio.get_running_loop()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")):
        assert await positive.ask(1, key="a") == 1
        assert await other.ask(-2, key="a") == -200
        assert await regroup.ask(Order("a", 7), key="a") == 7
        began = loop.time()
        with pytest.raises(streamlog.UserError, match=r"no answer: filter\(lambda\) dropped the question"):
            await positive.ask(-1, key="a")
        with pytest.raises(streamlog.UserError, match=r"no answer: join\(known\) dropped the question"):
            await look.ask(1, key="a")
        with pytest.raises(streamlog.UserError, match=r"no answer: filter\(is_large\) dropped the question"):
            await regroup.ask(Order("a", 1), key="a")
        assert loop.time() - began < 10, "none of them waited for its timeout"


def is_large(order: Order) -> bool:
    return order.amount > 5


async def test_group_by_counts_by_the_new_key(broker: LiveBroker, tmp_path: Path) -> None:
    """Keyed by account, counted by amount, on the partition of the amount; the worker can be asked for the rows."""
    app = streamlog.App("orders", partitions=PARTITIONS)
    orders = app.topic("orders", key=str, value=Order, partitions=PARTITIONS)
    by_amount = app.Table("by_amount", key=int, value=int, default=int)

    @app.agent(orders)
    async def regroup(stream: streamlog.Stream[str, Order]) -> None:
        async for order in stream.group_by(Order.amount):
            by_amount[order.amount] += 1

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        for number in range(60):
            await orders.send(Order(f"account{number % 7}", number % 6), key=f"account{number % 7}")
        await until(lambda: rows_of(worker, "by_amount") == dict.fromkeys(range(6), 10))


async def test_global_tables_are_complete_on_every_worker_before_its_first_event(
    broker: LiveBroker, tmp_path: Path
) -> None:
    """Rows written by one worker are there when another starts, and it looks them up for any key."""
    results: list[tuple[str, int | None]] = []

    def make() -> tuple[streamlog.App, streamlog.Topic[str, str], streamlog.Topic[str, int]]:
        app = streamlog.App("rates", partitions=2)
        rates = app.topic("rates", key=str, value=int, partitions=2)
        asks = app.topic("asks", key=str, value=str, partitions=2)
        table = app.GlobalTable("rate", key=str, value=int, source=rates)

        @app.agent(asks)
        async def look(stream: streamlog.Stream[str, str]) -> None:
            async for currency in stream:
                results.append((currency, table.get(currency)))

        return app, asks, rates

    app, _, rates = make()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "one")):
        for currency, rate in {"usd": 1, "eur": 2, "chf": 3}.items():
            await rates.send(rate, key=currency)
    app, asks, _ = make()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "two")):
        for currency in ("usd", "eur", "chf", "xxx"):
            await asks.send(currency, key=currency)
        await until(lambda: len(results) == 4)
    assert dict(results) == {"usd": 1, "eur": 2, "chf": 3, "xxx": None}


async def test_what_agents_write_to_a_global_table_is_read_for_any_key(broker: LiveBroker, tmp_path: Path) -> None:
    """Written on one partition, read on all, and from outside agents; a write comes back through the changelog."""
    app = streamlog.App("shared", partitions=PARTITIONS)
    rates = app.topic("rates", key=str, value=int, partitions=PARTITIONS)
    rate = app.GlobalTable("rate", key=str, value=int, default=int)

    @app.agent(rates)
    async def keep(stream: streamlog.Stream[str, int]) -> None:
        async for currency, value in stream.items():
            rate[currency] = value

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")):
        for number in range(20):
            await rates.send(number, key=f"c{number}")
        await until(lambda: all(rate[f"c{number}"] == number for number in range(20)))
        del rate["c0"]
        await until(lambda: "c0" not in rate)


async def test_a_topic_as_table_is_there_again_on_an_empty_disk(broker: LiveBroker, tmp_path: Path) -> None:
    """The table's topic is its changelog: a new worker reads it up to the committed offset before it goes on."""
    results: list[tuple[str, int]] = []

    def make() -> tuple[streamlog.App, streamlog.Topic[str, str], streamlog.Topic[str, int]]:
        app = streamlog.App("prices", partitions=2)
        prices = app.topic("prices", key=str, value=int, partitions=2)
        sales = app.topic("sales", key=str, value=str, partitions=2)
        price = app.Table("price", key=str, value=int, source=prices)

        @app.agent(sales.stream().join(price))
        async def priced(stream: streamlog.Stream[str, tuple[str, int]]) -> None:
            async for name, found in stream:
                results.append((name, found))

        return app, sales, prices

    app, sales, prices = make()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "one")) as worker:
        for number in range(20):
            await prices.send(number, key=f"thing{number}")
        await until(lambda: sum(one.committed for task in worker.status().tasks for one in task.partitions) >= 20)
    app, sales, _ = make()
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "two")):
        for number in range(20):
            await sales.send(f"thing{number}", key=f"thing{number}")
        await until(lambda: len(results) == 20)
    assert dict(results) == {f"thing{number}": number for number in range(20)}


async def test_a_broker_that_goes_away_and_comes_back_loses_nothing(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker says so and goes on by itself."""
    caplog.set_level(logging.CRITICAL)
    name = "words"
    async with word_count(name).running(
        broker=broker.address, data_dir=str(tmp_path / "state"), session_timeout_ms=6000
    ):
        expected = await send_lines(broker.address, name, 500, seed=1)
        await broker.stop()
        await asyncio.sleep(1)
        await broker.start()
        expected += await send_lines(broker.address, name, 500, seed=2)
        found = await until_counted(broker.address, name, expected, 60)
        assert not expected - found
        assert (found - expected).total() <= expected.total(), "what was in flight may be counted twice, no more"


async def test_stopping_without_a_broker_takes_no_longer_than_it_may(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can be flushed or committed; the worker ends all the same, and its directory is free."""
    caplog.set_level(logging.CRITICAL)
    app = streamlog.App("cut-off", partitions=2, drain_timeout_s=0.5, stop_timeout_s=2)
    orders = app.topic("cut-off-orders", key=str, value=Order, partitions=2)
    totals = app.Table("totals", key=str, value=int, default=int)

    @app.agent(orders)
    async def count(stream: streamlog.Stream[str, Order]) -> None:
        async for order in stream:
            totals[order.account] += order.amount

    data_dir = str(tmp_path / "state")
    loop = asyncio.get_running_loop()
    async with app.running(broker=broker.address, data_dir=data_dir) as worker:
        await until(lambda: all(task.state == "running" for task in worker.status().tasks) and worker.leader)
        await orders.send(Order("a", 1), key="a")
        await until(lambda: rows_of(worker, "totals") == {"a": 1})
        await broker.stop()
        began = loop.time()
    assert loop.time() - began < 15
    await broker.start()
    async with app.running(broker=broker.address, data_dir=data_dir) as worker:
        assert worker.member_data().slot == 0
        await until(lambda: rows_of(worker, "totals").get("a", 0) in (1, 2))


async def test_a_rebalance_during_a_restore_counts_everything_once(broker: LiveBroker, tmp_path: Path) -> None:
    """Workers with empty disks come and go while tables are restored: restores are cancelled and begun elsewhere."""
    name = "words"
    async with word_count(name).running(broker=broker.address, data_dir=str(tmp_path / "first")):
        expected = await send_lines(broker.address, name, 2000, seed=1)
        assert await until_counted(broker.address, name, expected) == expected
    for number in range(3):
        runs = [
            word_count(name).running(broker=broker.address, data_dir=str(tmp_path / f"{number}-{which}"))
            for which in range(2)
        ]
        for run in runs:
            await run.__aenter__()
        expected += await send_lines(broker.address, name, 300, seed=10 + number)
        await asyncio.sleep(0.2 * number)
        for run in runs:
            await run.__aexit__(None, None, None)
    async with word_count(name).running(broker=broker.address, data_dir=str(tmp_path / "last")) as last:
        found = await until_counted(broker.address, name, expected)
        assert found == expected, last.status()
    assert await counts_in(broker.address, name) == expected


async def test_a_missing_topic_on_somebody_elses_broker_is_a_clear_mistake(broker: LiveBroker, tmp_path: Path) -> None:
    """Nobody said how many partitions it should have, so it is not ours to create."""
    app = streamlog.App("lost")
    topic = app.topic("nowhere", value=int)

    @app.agent(topic)
    async def reads(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            pass

    with pytest.raises(streamlog.UserError, match="streamlog topics create nowhere --partitions N"):
        async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")):
            pass


async def test_a_topic_of_another_size_is_a_clear_mistake(broker: LiveBroker, tmp_path: Path) -> None:
    """What exists is not changed silently."""
    async with Admin(broker.address, env=real_env()) as admin:
        await admin.create_topics([NewTopic("sized", 3)])
    app = streamlog.App("sizes")
    topic = app.topic("sized", value=int, partitions=5)

    @app.agent(topic)
    async def reads(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            pass

    with pytest.raises(streamlog.UserError, match="has 3 partitions, and the app declares partitions=5"):
        async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")):
            pass


async def test_a_key_of_another_partition_is_refused_and_names_group_by(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The mistake that would silently keep one key in several places stops the partition and shows in the status."""
    caplog.set_level(logging.CRITICAL)
    app = streamlog.App("misplaced", partitions=PARTITIONS)
    orders = app.topic("orders", key=str, value=Order, partitions=PARTITIONS)
    by_amount = app.Table("by_amount", key=int, value=int, default=int)

    @app.agent(orders)
    async def wrong(stream: streamlog.Stream[str, Order]) -> None:
        async for order in stream:
            by_amount[order.amount] += 1

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        for number in range(40):
            await orders.send(Order(f"account{number}", number), key=f"account{number}")
        await until(lambda: not worker.status().healthy)
        failures = [failure for task in worker.status().tasks for failure in task.failures]
        assert any("stream.group_by" in failure for failure in failures)


def rows_of(worker: Worker, table: str) -> dict[object, object]:
    """All rows of a table that this worker has."""
    rows: dict[object, object] = {}
    for reader in worker.query(table).values():
        rows.update(reader.scan().rows)
    return rows


async def test_a_producer_that_has_ended_is_replaced(broker: LiveBroker, tmp_path: Path) -> None:
    """Whatever ended it, the tasks begin again at what is committed, with another one."""
    app = streamlog.App("renewed", partitions=2, commit_interval_ms=50)
    numbers = app.topic("numbers", key=str, value=int, partitions=2)
    doubles = app.topic("doubles", key=str, value=int, partitions=2)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(numbers)
    async def double(stream: streamlog.Stream[str, int]) -> None:
        async for key, value in stream.items():
            counts[key] += 1
            await doubles.send(2 * value, key=key)

    def rows() -> dict[str, int]:
        readers = worker.query("counts").values()
        return {key: value for one in readers if isinstance(one, TableReader) for key, value in one.scan().rows}

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        for number in range(10):
            await numbers.send(number, key=str(number))
        await until(lambda: len(rows()) == 10)
        commits = worker.status().commits
        await until(lambda: worker.status().commits > commits + 1)
        outbox = worker._outbox
        assert outbox is not None
        ended = outbox.producer
        ended.end(EnvironmentFailure("something in it failed"))
        async with Producer(broker.address, env=real_env()) as other:
            for number in range(10, 20):
                await other.send("numbers", str(number).encode(), key=str(number).encode())
        await until(lambda: len(rows()) == 20)
        assert set(rows().values()) == {1}
        await until(lambda: worker.status().healthy)
        await numbers.send(20, key="20")
        await until(lambda: len(rows()) == 21)
        assert outbox.producer is not ended


async def test_what_a_task_sends_after_an_agent_lies_behind_it(broker: LiveBroker, tmp_path: Path) -> None:
    """They have producers of their own, of which the agents' lingers."""
    app = streamlog.App("ordered")
    jobs = app.topic("jobs", key=str, value=int, partitions=1)
    states = app.topic("states", key=str, value=str, partitions=1)
    opened: asyncio.Queue[int] = asyncio.Queue()
    found: list[str] = []

    @app.agent(jobs)
    async def opens(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            await states.send(f"{number} opened", key="k")
            opened.put_nowait(number)

    @app.task
    async def closes() -> None:
        while True:
            await states.send(f"{await opened.get()} closed", key="k")

    @app.agent(states)
    async def look(stream: streamlog.Stream[str, str]) -> None:
        async for state in stream:
            found.append(state)

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")):
        for number in range(5):
            await jobs.send(number, key="k")
        await until(lambda: len(found) == 10)
    for number in range(5):
        assert found.index(f"{number} opened") < found.index(f"{number} closed")
