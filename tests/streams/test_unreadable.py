"""Records that cannot be read, by whatever exception: each is dealt with by itself; those around it are processed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

import streamlog
from streamlog.state.memory import MemoryEngine
from streamlog.streams.policies import DeadLetter, OnError
from tests.streams.harness import running

CODES = {"a": 1, "b": 2}


class Found(streamlog.Record):
    """Whose own code raises what ends loops without a word."""

    name: str
    code: int = 0

    def __post_init__(self) -> None:
        self.code = next(code for name, code in CODES.items() if name == self.name)


class Coded(streamlog.Record):
    """What the user's own code does with a record may raise anything."""

    name: str
    code: int = 0

    def __post_init__(self) -> None:
        self.code = CODES[self.name]


def coded(name: str) -> tuple[str, str]:
    return "k", f'{{"name":"{name}"}}'


@pytest.mark.parametrize("on_error", ["skip", "stop", "dead"])
@pytest.mark.parametrize("take", [False, True])
async def test_a_value_whose_own_code_raises_is_left_to_the_policy(on_error: str, take: bool) -> None:
    """The record is named, and what is decoded together with it is processed."""
    app = streamlog.App("codes")
    orders, dead = app.topic("orders", key=str, value=Coded), app.topic("dead", key=bytes, value=bytes)
    total = app.Table("total", key=str, value=int, default=int)
    policy: Any = DeadLetter(dead) if on_error == "dead" else on_error

    @app.agent(orders, on_error=policy)
    async def count(stream: streamlog.Stream[str, Coded]) -> None:
        if take:
            async for some in stream.take(2, within=60):
                total["k"] += sum(one.code for one in some)
        else:
            async for one in stream:
                total["k"] += one.code

    async with running(app, {"orders": 1, "dead": 1}) as harness:
        harness.feed("orders", [coded("a"), coded("b"), coded("zzz"), coded("b"), coded("a")] * 2)
        await harness.settle()
        bad = [2, 7] if on_error != "stop" else [2]
        assert [one.failure.offset for one in harness.failures] == bad
        assert "KeyError: 'zzz'" in harness.failures[0].failure.what
        assert harness.table("total")["k"] == (12 if on_error != "stop" else 3)
        assert harness.task.committable()["orders"] == (10 if on_error != "stop" else 2)
        assert [sent[1] for sent in harness.outbox.logs["dead", 0]] == (
            [b'{"name":"zzz"}'] * 2 if on_error == "dead" else []
        )


async def test_a_stop_iteration_in_a_value_shifts_no_other() -> None:
    """Each event has its own value."""
    app = streamlog.App("codes")
    got: list[tuple[str, int]] = []

    @app.agent(app.topic("orders", key=str, value=Found), on_error="skip")
    async def count(stream: streamlog.Stream[str, Found]) -> None:
        async for key, one in stream.items():
            got.append((key, one.code))

    async with running(app, {"orders": 1}) as harness:
        names = ["a", "zzz", "b", "a"]
        harness.feed("orders", [(str(number), f'{{"name":"{name}"}}') for number, name in enumerate(names)])
        await harness.settle()
        assert got == [("0", 1), ("2", 2), ("3", 1)]
        assert [one.failure.offset for one in harness.failures] == [1]
        assert "StopIteration" in harness.failures[0].failure.what
        assert harness.task.committable()["orders"] == 4


WAYS = [
    "filter",
    "map",
    "group_by",
    "on",
    "timestamp",
    "default",
    "window default",
    "apply",
    "sink",
    "async sink",
    "send",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("raised", [KeyError, TypeError, StopIteration, RecursionError, AssertionError, ExceptionGroup])
@pytest.mark.parametrize("on_error", ["skip", "stop"])
async def test_a_function_of_the_user_that_raises_fails_its_event_only(
    way: str, raised: type[Exception], on_error: OnError
) -> None:
    """Wherever the function was given; with its record named, and nothing of the others lost."""
    app = streamlog.App("raising")

    def raise_at_two(value: int) -> int:
        if value % 100 == 2:
            if raised is ExceptionGroup:
                raise ExceptionGroup("of the user", [ValueError("one"), ValueError("two")])
            raise raised("of the user")
        return value

    def in_way(name: str, value: int) -> int:
        return raise_at_two(value) if name == way else value

    async def async_sink(value: int) -> None:
        in_way("async sink", value)

    at = 0

    def applied(_: int) -> int:
        return in_way("apply", at)

    numbers = app.topic(
        "numbers", key=str, value=int, timestamp=(lambda one: in_way("timestamp", one)) if way == "timestamp" else None
    )
    rows = app.Table("rows", key=int, value=int, source=app.topic("rows", key=int, value=int))
    table = app.Table("table", key=int, value=int, default=lambda: in_way("default", at))
    windows = app.Table("windows", key=int, value=int, default=lambda: in_way("window default", at)).tumbling(60)
    done = app.Table("done", key=str, value=list[int], default=list)
    out = app.topic("out", key=str, value=int)
    stream_of = numbers.stream()
    if way == "filter":
        stream_of = stream_of.filter(lambda one: in_way("filter", one) is not None)
    elif way == "map":
        stream_of = stream_of.map(lambda one: in_way("map", one))
    elif way == "on":
        stream_of = stream_of.left_join(rows, on=lambda one: in_way("on", one)).map(lambda pair: pair[0])
    elif way == "group_by":
        stream_of = stream_of.group_by(lambda one: str(in_way("group_by", one)), key=str, name="g")

    @app.agent(stream_of, on_error=on_error, sink=[lambda one: in_way("sink", one), async_sink, out])
    async def body(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        nonlocal at
        async for one in stream:
            at = one
            if way == "default":
                table[one] += 1
            if way == "window default":
                windows[one] += 1
            if way == "apply":
                windows[1000] = 1
                windows[1000].apply(applied)
            if way == "send":
                await out.send(in_way("send", one), key="k")
            done["k"].append(one)
            yield one

    async with running(app, {"numbers": 1, "out": 1, "rows": 1}) as harness:
        harness.feed("numbers", [("k", str(number), number) for number in (1, 2, 3, 102, 5)])
        await harness.settle()
        bad = [1, 3] if on_error == "skip" else [1]
        assert [one.failure.offset for one in harness.failures] == bad
        assert harness.failures[0].failure.topic == "numbers"
        assert harness.task.committable()["numbers"] == (5 if on_error == "skip" else 1)
        if way != "group_by":
            processed = harness.table("done")["k"]
            assert set(processed) >= ({1, 3, 5} if on_error == "skip" else {1})
        harness.commit()


@pytest.mark.parametrize("on_error", ["skip", "stop"])
async def test_a_key_that_cannot_be_read_is_left_to_the_policy(on_error: OnError) -> None:
    """Of agents that ask for keys; others do not mind."""
    app = streamlog.App("keys")
    numbers = app.topic("numbers", key=int, value=int)
    total = app.Table("total", key=int, value=int, default=int)
    seen: list[int] = []

    @app.agent(numbers, on_error=on_error)
    async def count(stream: streamlog.Stream[int, int]) -> None:
        async for key, number in stream.items():
            total[key] += number

    @app.agent(numbers)
    async def see(stream: streamlog.Stream[int, int]) -> None:
        async for number in stream:
            seen.append(number)

    async with running(app, {"numbers": 1}) as harness:
        harness.feed("numbers", [("7", "1"), ("abc", "2"), ("7", "3")])
        await harness.settle()
        assert [one.failure.offset for one in harness.failures] == [1]
        assert "not an int" in harness.failures[0].failure.what
        assert harness.table("total") == {7: 4 if on_error == "skip" else 1}
        if on_error == "skip":  # otherwise the partition stands still for all its readers
            assert seen == [1, 2, 3]
            assert harness.task.committable()["numbers"] == 3


class Stubborn(streamlog.Record):
    """Can be read once: what is written of it cannot be read again."""

    name: str

    def __post_init__(self) -> None:
        if self.name == "bad":
            self.name = "worse"
        elif self.name == "worse":
            raise RuntimeError("too late")


BAD_ROWS: dict[str, tuple[Any, Any, Any, str]] = {
    "key": (int, int, ("abc", "1"), "its key: not an int"),
    "key not utf-8": (str, int, (b"\xff", "1"), "its key: not a str"),
    "key of a tombstone": (int, int, ("abc", None), "its key: not an int"),
    "key that can change": (Any, int, (b"[1]", "1"), "its key: TypeError: unhashable"),
    "value": (int, int, ("7", '"x"'), "not json int"),
    "value whose own code raises": (int, Coded, ("7", '{"name":"zzz"}'), "KeyError: 'zzz'"),
    "value that cannot be written": (int, Stubborn, ("7", '{"name":"bad"}'), "too late"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
@pytest.mark.parametrize("known", [True, False], ids=["caught up with", "live"])
async def test_a_table_that_follows_a_topic_passes_over_what_cannot_be_read(
    what: str, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With a message that names the record; rows before and after it are there, and a new life has them too."""
    key, value, (bad_key, bad_value), message = BAD_ROWS[what]
    good_value = "5" if value is int else '{"name":"a"}'
    rows = [("1", good_value, 10), (bad_key, bad_value, 20), ("2", good_value, 30)]
    engine, joined = MemoryEngine(), []
    app = streamlog.App("shop")
    prices = app.Table("prices", key=key, value=value, source=app.topic("prices", key=key, value=value))

    @app.agent(app.topic("orders", key=key, value=int).stream().left_join(prices), on_error="stop")
    async def join(stream: streamlog.Stream[Any, tuple[int, Any]]) -> None:
        async for number, row in stream:
            joined.append((number, row is not None))

    for life in range(2):
        caplog.clear()
        positions = {"prices": 3} if known else {}
        async with running(app, {"orders": 1, "prices": 1}, engine=engine, positions=positions) as harness:
            if known and life == 0:
                harness.offsets["prices"] = 0
            if life == 0:
                harness.feed("prices", rows)
            harness.feed("orders", [("1", "1", 40), ("2", "2", 50)])
            await harness.settle()
            assert harness.failures == []
            assert list(harness.table("prices")) == (["1", "2"] if key is str else [1, 2])
            assert joined[-2:] == [(1, True), (2, True)]
            if life == 0:
                assert re.search(
                    f"table=prices partition=prices-0 offset=1: record passed over: .*{message}", caplog.text
                )
            assert caplog.text.count("passed over") == 1 - life
            harness.commit()
