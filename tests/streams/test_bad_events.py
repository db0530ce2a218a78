"""Events that cannot be processed: the agent's policy decides about each of them, and nobody else notices."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import streamlog
from streamlog.streams.policies import DeadLetter, OnError
from streamlog.streams.record import to_timestamp_ms
from streamlog.streams.worker import Worker
from tests.streams.harness import running
from tests.streams.live import LiveBroker, live_broker
from tests.streams.words import until


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[LiveBroker]:
    async with live_broker(tmp_path / "broker") as running:
        yield running


class Birth(streamlog.Record):
    place: str
    at_ms: int


def birth(place: str, at_ms: int) -> tuple[str, str, int]:
    return "k", f'{{"place":"{place}","at_ms":{at_ms}}}', 5


BEFORE_1970 = [birth("a", 1000), birth("b", -5000), birth("c", 2000)]


@pytest.mark.parametrize("way", ["group_by", "send", "send_to", "sink"])
@pytest.mark.parametrize("on_error", ["skip", "stop"])
async def test_an_event_before_1970_that_is_sent_on_is_left_to_the_policy(way: str, on_error: OnError) -> None:
    """No record can carry its time, so it is refused when it is appended, in the hands of the body."""
    app = streamlog.App("registry")
    births = app.topic("births", key=str, value=Birth, timestamp=Birth.at_ms)
    copies = app.topic("copies", key=str, value=Birth)
    if way == "group_by":

        @app.agent(births.stream().group_by(Birth.place), on_error=on_error, name="copy")
        async def regroup(stream: streamlog.Stream[str, Birth]) -> None:
            async for _ in stream:
                pass

    elif way == "sink":

        @app.agent(births, sink=[copies], on_error=on_error, name="copy")
        async def pass_on(stream: streamlog.Stream[str, Birth]) -> AsyncIterator[Birth]:
            async for one in stream:
                yield one

    else:

        @app.agent(births, on_error=on_error, name="copy")
        async def send(stream: streamlog.Stream[str, Birth]) -> None:
            async for one in stream:
                await copies.send(one, key=one.place, partition=0 if way == "send_to" else None)

    target = "registry-copy-place-repartition" if way == "group_by" else "copies"
    async with running(app, {"births": 1, "copies": 1}) as harness:
        harness.feed("births", BEFORE_1970)
        await harness.settle()
        times = [sent[2] for sent in harness.outbox.logs[target, 0]]
        assert times == ([1000, 2000] if on_error == "skip" else [1000])
        assert [one.failure.offset for one in harness.failures] == [1]
        assert "before 1970" in harness.failures[0].failure.what
        assert harness.task.committable()["births"] == (3 if on_error == "skip" else 1)


async def test_the_time_before_1970_counts_where_nothing_is_sent() -> None:
    """Event time may be negative: windows of 1969 are windows like others."""
    app = streamlog.App("registry")
    births = app.topic("births", key=str, value=Birth, timestamp=Birth.at_ms)
    per_minute = app.Table("per_minute", key=str, value=int, default=int).tumbling(minutes=1)

    @app.agent(births)
    async def count(stream: streamlog.Stream[str, Birth]) -> None:
        async for _ in stream:
            per_minute["k"] += 1

    async with running(app, {"births": 1}) as harness:
        harness.feed("births", [birth("a", at_ms) for at_ms in (-60_001, -60_000, -1, 0)])
        await harness.settle()
        harness.commit()
        assert harness.failures == []
        state: Any = harness.task._states[0]
        assert {start: value for _, start, value in state.items()} == {-120_000: 1, -60_000: 2, 0: 1}


async def test_a_dead_letter_of_a_record_without_a_time_is_sent_all_the_same() -> None:
    """The last resort must not fail in its turn: -1 is what records without a timestamp have."""
    app = streamlog.App("registry")
    numbers = app.topic("numbers", key=str, value=int)
    dead = app.topic("dead", key=bytes, value=bytes)

    @app.agent(numbers, on_error=DeadLetter(dead))
    async def fail(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            raise ValueError(number)

    async with running(app, {"numbers": 1, "dead": 1}) as harness:
        harness.feed("numbers", [("k", "1", -1)])
        await harness.settle()
        assert [sent[:3] for sent in harness.outbox.logs["dead", 0]] == [(b"k", b"1", 0)]


async def test_an_event_of_no_time_there_is_is_left_to_the_policy() -> None:
    """Beyond what 64 bits hold there is no window, no order and no commit."""
    app = streamlog.App("registry")
    births = app.topic("births", key=str, value=Birth, timestamp=Birth.at_ms)
    per_minute = app.Table("per_minute", key=str, value=int, default=int).tumbling(minutes=1, grace=60)

    @app.agent(births, on_error="skip")
    async def count(stream: streamlog.Stream[str, Birth]) -> None:
        async for _ in stream:
            per_minute["k"] += 1

    async with running(app, {"births": 1}) as harness:
        harness.feed("births", [birth("a", 1), birth("b", 2**63 - 1), birth("c", -(2**63)), birth("d", 2)])
        await harness.settle()
        harness.commit()
        assert [one.failure.offset for one in harness.failures] == [1, 2]
        state: Any = harness.task._states[0]
        assert list(state.items()) == [("k", 0, 2)]


@pytest.mark.parametrize("timestamp_ms", [2**63 - 1, 2**62, -1, -(2**62), -(2**63)])
async def test_a_record_of_any_time_the_log_can_hold_is_processed(timestamp_ms: int) -> None:
    """Its producer made it up, and the lane that orders events by time must not wait for it for ever."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=int)
    prices = app.Table("prices", key=str, value=int, source=app.topic("prices", key=str, value=int))
    per_hour = app.Table("per_hour", key=str, value=int, default=int).tumbling(hours=1, grace=60)

    @app.agent(orders.stream().left_join(prices))
    async def total(stream: streamlog.Stream[str, tuple[int, int | None]]) -> None:
        async for amount, _ in stream:
            per_hour["k"] += amount

    async with running(app, {"orders": 1, "prices": 1}) as harness:
        harness.feed("prices", [("k", "5", timestamp_ms)])
        harness.feed("orders", [("k", "1", timestamp_ms)])
        await harness.settle()
        assert harness.failures == []
        assert harness.task.committable()["orders"] == 1
        assert harness.table("prices") == {"k": 5}
        harness.commit()
        assert harness.task.committed_offset("orders") == 1
        assert harness.outbox.logs["shop-per_hour-changelog", 0]  # which refuses what a topic would refuse


class Stock(streamlog.Record):
    pieces: int


@pytest.mark.parametrize("way", ["table", "window", "send", "sink", "key", "table_key"])
@pytest.mark.parametrize("on_error", ["skip", "stop"])
async def test_a_value_of_another_type_is_left_to_the_policy(way: str, on_error: OnError) -> None:
    """It is refused before it is in a row or in the log; what other events did stays and is committed."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=int)
    out = app.topic("out", key=str, value=int)
    stock = app.Table("stock", key=str, value=Stock)
    counts = app.Table("counts", key=str, value=int, default=int)
    per_hour = app.Table("per_hour", key=str, value=int, default=int).tumbling(hours=1)
    wrong: Any = "two"
    places = {
        "table": r"table stock, key 'k': cannot write Stock\(pieces='two'\) as Stock: Expected `int`, got `str`",
        "window": r"table per_hour, key \('k', 0\): cannot write 'two' as int: wanted int, got str",
        "send": r"topic out: cannot write 'two' as json int: wanted int, got str.*key: 'k'",
        "sink": r"topic out: cannot write 'two' as json int: wanted int, got str",
        "key": r"topic out, key: cannot write 2 as str: wanted str, got int",
        "table_key": r"table counts, key: cannot write 2 as str: wanted str, got int",
    }

    async def work(number: int) -> Any:
        counts["k"] += 1
        match way if number == 2 else "":
            case "table":
                stock["k"] = Stock(wrong)
            case "window":
                per_hour["k"] = wrong
            case "send":
                await out.send(wrong, key="k")
            case "key":
                await out.send(number, key=number)  # type: ignore[arg-type]
            case "table_key":
                counts[number] += 1  # type: ignore[index]
            case "sink":
                return wrong
        return number

    @app.agent(orders, on_error=on_error, sink=[out] if way == "sink" else [])
    async def count(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for number in stream:
            yield await work(number)

    async with running(app, {"orders": 1, "out": 1}) as harness:
        harness.feed("orders", [("k", "1"), ("k", "2"), ("k", "3")])
        await harness.settle()
        harness.commit()
        assert [one.failure.offset for one in harness.failures] == [1]
        assert re.search(places[way], harness.failures[0].failure.what)
        assert harness.task.committable()["orders"] == (3 if on_error == "skip" else 1)
        assert harness.table("stock") == {}
        assert harness.table("counts")["k"] == (3 if on_error == "skip" else 2)
        harness.commit()
        assert all(value in (b"1", b"3") for value in harness.outbox.values("out"))


async def test_a_row_spoilt_in_place_stops_the_partition_and_commits_nothing() -> None:
    """No event can be blamed any more. Begun again, the task would come to the same end, for ever."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=int)
    stock = app.Table("stock", key=str, value=Stock)
    wrong: Any = "two"

    @app.agent(orders, on_error="skip")
    async def count(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            row = stock["k"] = Stock(number)
            if number == 2:
                row.pieces = wrong

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [("k", "1")])
        await harness.settle()
        assert not harness.commit().empty
        harness.feed("orders", [("k", "2")])
        await harness.settle()
        assert harness.commit().empty
        harness.feed("orders", [("k", "3")])
        await harness.settle()
        assert harness.commit().empty
        assert "table stock, key 'k'" in str(harness.task.failures[0])
        assert len(harness.failures) == 1
        assert harness.task.committed_offset("orders") == 1
        assert len(harness.outbox.logs["shop-stock-changelog", 0]) == 1


@pytest.mark.parametrize("moment", [math.nan, math.inf, -math.inf, 1e300, 10**30, -(10**30)])
def test_what_is_no_time_is_no_timestamp(moment: float) -> None:
    """Refused where it is given, with what it was."""
    with pytest.raises(ValueError, match="is no timestamp"):
        to_timestamp_ms(moment)


async def test_an_event_before_1970_or_of_tomorrow_does_not_stop_the_others(broker: LiveBroker, tmp_path: Path) -> None:
    """Through a repartition topic on a broker: the one is passed over, the other arrives, commits go on."""
    app = streamlog.App("registry", partitions=2, commit_interval_ms=50)
    births = app.topic("births", key=str, value=Birth, partitions=2, timestamp=Birth.at_ms)
    per_place = app.Table("per_place", key=str, value=int, default=int)

    @app.agent(births.stream().group_by(Birth.place), on_error="skip")
    async def count(stream: streamlog.Stream[str, Birth]) -> None:
        async for one in stream:
            per_place[one.place] += 1

    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await births.send(Birth("a", -5000), key="k")
        await births.send(Birth("b", worker.env.clock.wall_ms() + 48 * 60 * 60 * 1000), key="k")
        await births.send(Birth("c", 1000), key="k")
        await until(lambda: rows_of(worker, "per_place") == {"b": 1, "c": 1})
        commits = worker.status().commits
        await until(lambda: worker.status().commits > commits + 2)
        assert worker.status().error is None


def rows_of(worker: Worker, table: str) -> dict[object, object]:
    return {key: value for reader in worker.query(table).values() for key, value in reader.scan().rows}


async def test_several_bodies_that_fail_name_the_lowest_offset() -> None:
    """Once for the partition; again only to correct it, when a body fails at an earlier event after another has."""
    app = streamlog.App("together")
    first, second, third = asyncio.Event(), asyncio.Event(), asyncio.Event()
    gates = {0: second, 1: first, 2: third}

    @app.agent(app.topic("numbers", key=str, value=int), concurrency=3)
    async def fail(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            await gates[number].wait()
            raise ValueError(number)

    async with running(app, {"numbers": 1}) as harness:
        harness.feed("numbers", [("k", str(number), 5) for number in range(3)])
        await harness.settle()
        for gate, offsets in ((first, [1]), (second, [1, 0]), (third, [1, 0])):
            gate.set()
            await harness.settle()
            assert [one.failure.offset for one in harness.failures] == offsets
        assert [one.offset for one in harness.task.failures] == [0]
        assert harness.task.committable()["numbers"] == 0
