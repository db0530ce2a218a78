"""Records that cannot be read, by whatever exception: each is dealt with by itself; those around it are processed."""

from __future__ import annotations

import re
from typing import Any

import pytest

import streamlog
from streamlog.state.memory import MemoryEngine
from streamlog.streams.policies import DeadLetter, OnError
from tests.streams.harness import running

CODES = {"a": 1, "b": 2}


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
