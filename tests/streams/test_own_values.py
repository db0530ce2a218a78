"""Who changes a value in place changes their own: not another agent's event, a second attempt's, or a row."""

from __future__ import annotations

from typing import Any

import pytest

import streamlog
from tests.streams.harness import running


class Flat(streamlog.Record):
    n: int
    note: str = ""


class Deep(streamlog.Record):
    n: int
    tags: list[str]
    inner: Flat | None = None


class Frozen(streamlog.Record, frozen=True):
    n: int


FLAT, DEEP = '{"n":1}', '{"n":1,"tags":["a"],"inner":{"n":1}}'


def spoil(value: Any) -> None:
    """Change whatever can be changed."""
    if isinstance(value, dict):
        value["n"] = 100
        value["tags"].append("b")
        return
    value.n = 100
    if isinstance(value, Deep):
        value.tags.append("b")
        assert value.inner is not None
        value.inner.n = 100


def seen(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value["n"], *value["tags"]]
    if isinstance(value, Deep):
        assert value.inner is not None
        return [value.n, *value.tags, value.inner.n]
    return [value.n]


KINDS: dict[str, tuple[Any, str, list[Any]]] = {
    "flat": (Flat, FLAT, [1]),
    "deep": (Deep, DEEP, [1, "a", 1]),
    "dict": (dict[str, Any], DEEP, [1, "a"]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("holes", [False, True])
async def test_an_agent_that_changes_its_events_changes_nobody_elses(kind: str, holes: bool) -> None:
    """Three agents on one topic, one of them through a group_by by a function, one by a field."""
    value, data, expected = KINDS[kind]
    got: dict[str, list[Any]] = {"before": [], "after": [], "keys": []}
    app = streamlog.App("several")
    events = app.topic("events", key=str, value=value)

    def by_n(event: Any) -> str:
        got["keys"].append(seen(event))
        spoil(event)
        return "k"

    @app.agent(events, on_error="skip")
    async def before(stream: streamlog.Stream[str, Any]) -> None:
        async for event in stream:
            got["before"].append(seen(event))
            spoil(event)

    @app.agent(events.stream().group_by(by_n), on_error="skip")
    async def grouped(stream: streamlog.Stream[str, Any]) -> None:
        async for _ in stream:
            pass

    if kind != "dict":

        @app.agent(events.stream().group_by(value.n), on_error="skip")
        async def by_field(stream: streamlog.Stream[int, Any]) -> None:
            async for _ in stream:
                pass

    @app.agent(events, on_error="skip")
    async def after(stream: streamlog.Stream[str, Any]) -> None:
        async for event in stream:
            got["after"].append(seen(event))
            spoil(event)

    async with running(app, {"events": 1}) as harness:
        rows: list[tuple[Any, ...]] = [("k", data)] * 3
        harness.feed("events", [*rows, ("k", "no json"), *rows] if holes else rows * 2)
        await harness.settle()
        assert got == dict.fromkeys(("before", "after", "keys"), [expected] * 6)
        if kind != "dict":
            sent = harness.outbox.logs["several-by_field-n-repartition", 0]
            assert [one[0] for one in sent] == [b"1"] * 6


async def test_what_cannot_change_is_decoded_once_for_all() -> None:
    """The cost of several agents stays what it was."""
    got: list[Frozen] = []
    app = streamlog.App("several")
    events = app.topic("events", key=str, value=Frozen)

    for name in ("one", "two"):

        @app.agent(events, name=name)
        async def take(stream: streamlog.Stream[str, Frozen]) -> None:
            async for event in stream:
                got.append(event)

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [("k", FLAT)])
        await harness.settle()
        assert len(got) == 2
        assert got[0] is got[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["plain", "take", "steps", "concurrent"])
async def test_a_second_attempt_gets_what_the_first_one_got(kind: str, way: str) -> None:
    """However much of it the first one had changed when it failed."""
    value, data, expected = KINDS[kind]
    got: list[Any] = []
    failed = 0
    app = streamlog.App("again")
    stream_of = app.topic("events", key=str, value=value).stream()

    def change(event: Any) -> Any:
        if way == "steps":
            got.append(seen(event))
            spoil(event)
        return event

    def work(event: Any) -> None:
        nonlocal failed
        if way != "steps":
            got.append(seen(event))
        spoil(event)
        if failed < 3:
            failed += 1
            raise OSError("away for a moment")

    @app.agent(
        stream_of.map(change) if way == "steps" else stream_of,
        on_error=streamlog.Retry(backoff=0.001),
        concurrency=2 if way == "concurrent" else 1,
    )
    async def body(stream: streamlog.Stream[str, Any]) -> None:
        if way == "take":
            async for some in stream.take(2, within=60):
                for event in some:
                    work(event)
        else:
            async for event in stream:
                work(event)

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [("k", data)] * 4)
        while harness.task.committable()["events"] < 4:
            await harness.settle()
        assert len(got) >= 7
        assert got == [expected] * len(got)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_row_of_a_table_that_follows_a_topic_is_nobodys_to_change(kind: str) -> None:
    """Neither through the topic's events, nor through a join or a look-up; what is committed is what was sent."""
    value, data, expected = KINDS[kind]
    got: list[Any] = []
    app = streamlog.App("shop")
    rows = app.topic("rows", key=str, value=value)
    table = app.Table("table", key=str, value=value, source=rows)

    @app.agent(rows)
    async def change(stream: streamlog.Stream[str, Any]) -> None:
        async for row in stream:
            spoil(row)

    @app.agent(app.topic("orders", key=str, value=int).stream().join(table))
    async def join(stream: streamlog.Stream[str, tuple[int, Any]]) -> None:
        async for _, row in stream:
            for one in (row, table["k"], table.get("k"), *table.values(), *(row for _, row in table.items())):
                got.append(seen(one))
                spoil(one)

    async with running(app, {"orders": 1, "rows": 1}) as harness:
        harness.feed("rows", [("k", data, 1)])
        for time in (2, 3):
            harness.feed("orders", [("k", "1", time)])
            await harness.settle()
            assert harness.failures == []
            assert got == [expected] * 5
            got.clear()
            harness.commit()
        assert harness.task.store is not None
        stored = harness.task.store.get("table", b"k")
        assert stored is not None
        assert b'"n":1' in stored
        assert b"100" not in stored


async def test_a_value_for_several_windows_is_one_for_each() -> None:
    """`hops[key] = [0]` is a list for each window; changing the newest leaves the others alone."""
    app = streamlog.App("windows")
    hops = app.Table("hops", key=str, value=list[int]).hopping(60, 20)

    @app.agent(app.topic("events", key=str, value=int))
    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            hops["k"] = [0]
            hops["k"].current().append(1)

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [("k", "1", 100_000)])
        await harness.settle()
        for _ in range(2):
            state: Any = harness.task._states[0]
            assert {start: value for _, start, value in state.items()} == {60_000: [0], 80_000: [0], 100_000: [0, 1]}
            harness.commit()
