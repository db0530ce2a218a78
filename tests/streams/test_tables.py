"""Tables as dicts: what looks as if it worked has to work, or say in one sentence why not."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

import streamlog
from streamlog.serde import table_value_serde_for
from tests.streams.harness import running

Body = Callable[[Any, int], Any]


@dataclass
class Processed:
    """What became of the events."""

    what: list[str]
    """The failures."""
    tables: dict[str, dict[Any, Any]]
    """Rows by table; those of windows under (key, start in ms)."""


async def processed(table: Any, app: streamlog.App, body: Body, events: int = 1) -> Processed:
    """An agent calls `body(table, number of the event)` for each event, at 0, 1, 2... s, with a commit after each."""
    topic = app.topic("events", key=str, value=int)

    @app.agent(topic, on_error="skip")
    async def work(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            body(table, number)

    async with running(app, {"events": 1}) as harness:
        for number in range(events):
            harness.feed("events", [("k", str(number), number * 1000)])
            await harness.settle(50)
            harness.commit()
        tables: dict[str, dict[Any, Any]] = {}
        for name, one in app.tables.items():
            state: Any = harness.task.state_of(one)
            rows = state.items()
            tables[name] = {row[:-1] if len(row) > 2 else row[0]: row[-1] for row in rows}
        return Processed([one.failure.what for one in harness.failures], tables)


async def test_windows_are_not_assigned_to_windows() -> None:
    """Which of the values? It was a silent no-op."""
    app = streamlog.App("w")
    a = app.Table("a", key=str, value=int, default=int).tumbling(1)
    b = app.Table("b", key=str, value=int, default=int).tumbling(1)

    def body(_: object, number: int) -> None:
        b["k"] += 5
        if number == 0:
            a["k"] = b["k"]
        elif number == 1:
            b["other"] = b["k"]
        elif number == 2:
            a["k"] = b["k"].current()

    done = await processed(a, app, body, events=3)
    assert done.what == [
        "table a: a['k'] = ... was given the windows of 'k' in table b, not a value: write .current() behind them",
        "table b: b['other'] = ... was given the windows of 'k' in table b, not a value: write .current() behind them",
    ]
    assert done.tables["a"] == {("k", 2000): 5}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda w: w.__iadd__(3), 10),
        (lambda w: w.__isub__(3), 4),
        (lambda w: w.__imul__(3), 21),
        (lambda w: w.__itruediv__(7), 1),
        (lambda w: w.__ifloordiv__(2), 3),
        (lambda w: w.__imod__(4), 3),
        (lambda w: w.__ipow__(2), 49),
        (lambda w: w.__iand__(3), 3),
        (lambda w: w.__ior__(8), 15),
        (lambda w: w.__ixor__(1), 6),
        (lambda w: w.__ilshift__(1), 14),
        (lambda w: w.__irshift__(1), 3),
    ],
)
async def test_every_augmented_assignment_works_on_windows(change: Callable[[Any], Any], wanted: int) -> None:
    """As it does on the values of plain tables."""
    app = streamlog.App("w")
    number: Any = int | float
    table = app.Table("t", key=str, value=number).tumbling(1)

    def body(table: Any, _: int) -> None:
        table["k"] = 7
        change(table["k"])

    done = await processed(table, app, body)
    assert done.what == []
    assert done.tables["t"] == {("k", 0): wanted}


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda t: t["k"] == 5, r"compare a value: t\['k'\]\.current\(\)"),
        (lambda t: t["k"] != 5, r"compare a value: t\['k'\]\.current\(\)"),
        (lambda t: bool(t["k"]), r"compare a value: t\['k'\]\.current\(\)"),
        (list, r"table t has windows: iterate over its items\(\)"),
        (lambda t: t["k"].apply(lambda value: None), r"table t: the function given to apply\(\) returned None"),
        (lambda t: t.tumbling(1), "has no attribute 'tumbling'"),
        (lambda t: t.table["k"], r"table t has windows: use what tumbling\(\) or hopping\(\) returned"),
        (lambda t: t.table.__setitem__("k", 1), r"table t has windows: use what tumbling\(\) or hopping\(\) returned"),
        (lambda t: t.table.items(), r"table t has windows: use what tumbling\(\) or hopping\(\) returned"),
        (lambda t: t.table.__delitem__("k"), r"table t has windows: use what tumbling\(\) or hopping\(\) returned"),
    ],
)
async def test_what_means_nothing_on_windows_says_so(use: Callable[[Any], Any], words: str) -> None:
    """A comparison that is always false, a loop that never ends: both are silent."""
    app = streamlog.App("w")
    table = app.Table("t", key=str, value=int, default=int).tumbling(1)
    done = await processed(table, app, lambda table, _: use(table))
    assert len(done.what) == 1
    assert re.search(words, done.what[0])


async def test_in_asks_for_the_window_of_the_event() -> None:
    """Without it Python would ask for t[0], t[1], t[2] and so on, for ever."""
    app = streamlog.App("w")
    table = app.Table("t", key=str, value=int, default=int).tumbling(2)
    found: list[bool] = []

    def body(table: Any, number: int) -> None:
        found.append("k" in table)
        table["k"] += 1

    done = await processed(table, app, body, events=4)
    assert done.what == []
    assert found == [False, True, False, True]


async def test_none_deletes_in_windows_as_in_tables() -> None:
    """A tombstone either way."""
    app = streamlog.App("w")
    table = app.Table("t", key=str, value=int).hopping(2, 1)

    def body(table: Any, number: int) -> None:
        table["k"] = 1
        if number == 1:
            table["k"] = None

    done = await processed(table, app, body, events=3)
    assert done.what == []
    assert done.tables["t"] == {("k", -1000): 1, ("k", 1000): 1, ("k", 2000): 1}


async def test_a_table_is_iterated_like_a_dict() -> None:
    """By keys. Without it Python would ask for t[0], t[1] and so on: with a default, for ever."""
    app = streamlog.App("w")
    table = app.Table("t", key=str, value=int, default=int)

    def body(table: Any, _: int) -> None:
        table["a"], table["b"] = 1, 2
        assert list(table) == ["a", "b"]
        assert dict(table.items()) == {"a": 1, "b": 2}
        del table["missing"]
        assert table.pop("missing", 5) == 5
        table["a"] = None
        assert list(table) == ["b"]
        table.setdefault("a", 3)

    done = await processed(table, app, body)
    assert done.what == []
    assert done.tables["t"] == {"a": 3, "b": 2}


async def test_tables_that_cannot_have_windows_say_so() -> None:
    """Not later, by behaving like something else."""
    app = streamlog.App("w")
    with pytest.raises(streamlog.UserError, match="table g is global: declare another table for these windows"):
        app.GlobalTable("g", key=str, value=int).tumbling(1)


@pytest.mark.parametrize("use", ["read", "write", "items", "contains", "in", "iterate", "delete", "of_key"])
def test_tables_outside_an_agent_say_where_to_read(use: str) -> None:
    """Plain and windowed."""
    app = streamlog.App("w")
    plain: Any = app.Table("t", key=str, value=int, default=int)
    windowed: Any = app.Table("u", key=str, value=int, default=int).tumbling(1)
    uses: dict[str, Callable[[Any], Any]] = {
        "read": lambda t: t["k"],
        "write": lambda t: t.__setitem__("k", 1),
        "items": lambda t: t.items(),
        "in": lambda t: "k" in t,
        "iterate": list,
        "delete": lambda t: t.__delitem__("k"),
        "of_key": lambda t: t.of_key("k", 0, 1) if t is windowed else t.get("k"),
        "contains": lambda t: t["k"].current() if t is windowed else t.pop("k"),
    }
    for table in (plain, windowed):
        with pytest.raises(streamlog.UserError, match=r"used outside an agent|has windows: iterate"):
            uses[use](table)


async def test_values_may_be_changed_in_place() -> None:
    """As those of a defaultdict; the change used to be lost when the row left the cache."""
    app = streamlog.App("w")
    table = app.Table("t", key=str, value=list[int], default=list)
    windowed = app.Table("u", key=str, value=list[int], default=list).tumbling(2)

    def body(table: Any, number: int) -> None:
        table["k"].append(number)
        windowed["k"].current().append(number)
        table.setdefault("other", []).append(number)
        assert not table["never"]
        assert "never" not in table

    done = await processed(table, app, body, events=4)
    assert done.what == []
    assert done.tables == {
        "t": {"k": [0, 1, 2, 3], "other": [0, 1, 2, 3]},
        "u": {("k", 0): [0, 1], ("k", 2000): [2, 3]},
    }


@pytest.mark.parametrize("form", ["one by one", "two at a time", "lists"])
async def test_a_row_may_be_changed_in_place_as_long_as_its_event_lasts(form: str) -> None:
    """However many commits pass meanwhile: what was changed behind an await longer than a commit used to be lost."""
    app = streamlog.App("w")
    table = app.Table("t", key=str, value=list[str], default=list)
    windowed = app.Table("u", key=str, value=list[str], default=list).tumbling(2)
    written = app.Table("v", key=str, value=list[str])
    topic = app.topic("events", key=str, value=int)
    goes_on = asyncio.Event()

    async def process(number: int) -> None:
        rows: list[list[str]] = [table["k"], windowed["k"].current()]
        written["k"] = []
        rows.append(written["k"])
        if number == 1:
            for row in rows:
                row.append("before")
        await goes_on.wait()
        for row in rows:
            row.append(f"after {number}")

    @app.agent(topic, concurrency=2 if form == "two at a time" else 1)
    async def work(stream: streamlog.Stream[str, int]) -> None:
        if form == "lists":
            async for numbers in stream.take(2, within=60):
                for number in numbers:
                    await process(number)
        else:
            async for number in stream:
                await process(number)

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [("k", "0", 0), ("k", "1", 0)])
        for _ in range(3):
            await harness.settle(50)
            harness.commit()
        goes_on.set()
        await harness.settle(50)
        harness.commit()
        assert harness.task.committable()["events"] == 2 or form == "lists"
        decode = table_value_serde_for(list[str]).decode
        kept = {name: decode(harness.outbox.logs[f"w-{name}-changelog", 0][-1][1] or b"") for name in "tuv"}
        both = ["before", "after 0", "after 1"] if form == "two at a time" else ["after 0", "before", "after 1"]
        assert kept == {"t": both, "u": both, "v": both[1:] if form != "two at a time" else ["before", "after 1"]}


class Identical(streamlog.Record, eq=False):
    n: int = 0


async def test_a_row_that_is_equal_to_nothing_keeps_every_change() -> None:
    """NaN, or a Record that compares by identity: it may look changed to whoever compares it, and stays one object."""
    app = streamlog.App("w")
    numbers = app.Table("t", key=str, value=list[float], default=list)
    records = app.Table("u", key=str, value=Identical, default=Identical)
    topic = app.topic("events", key=str, value=int)
    goes_on = asyncio.Event()

    @app.agent(topic)
    async def work(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            row, record = numbers["k"], records["k"]
            row.append(math.nan)
            record.n += 1
            assert len(dict(numbers.items())) == 1
            numbers["k"].append(1.0)
            await goes_on.wait()
            row.append(2.0)
            numbers["k"].append(3.0)
            record.n += 1
            records["k"].n += 1

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [("k", "0", 0)])
        await harness.settle(50)
        harness.commit()
        goes_on.set()
        await harness.settle(50)
        harness.commit()
        logs = harness.outbox.logs
        kept = table_value_serde_for(list[float]).decode(logs["w-t-changelog", 0][-1][1] or b"")
        assert kept[1:] == [1.0, 2.0, 3.0]
        assert table_value_serde_for(Identical).decode(logs["w-u-changelog", 0][-1][1] or b"").n == 3


async def test_what_is_changed_in_place_to_another_type_stops_the_partition() -> None:
    """At the commit no event can be blamed; the message says table, key and field."""
    app = streamlog.App("w")
    table: Any = app.Table("t", key=str, value=list[int], default=list)
    topic = app.topic("events", key=str, value=int)

    @app.agent(topic, on_error="skip")
    async def work(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            table["k"].append("one")

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [("k", "1")])
        await harness.settle()
        assert harness.commit().empty
        assert len(harness.failures) == 1
        assert re.search(
            r"table t, key 'k': cannot write \['one'\].*Expected `int`, got `str` - at `\$\[0\]`",
            harness.failures[0].failure.what,
        )


class Changing(streamlog.Record):
    name: str


class Listing(msgspec.Struct, frozen=True):
    names: list[str]


class Fixed(msgspec.Struct, frozen=True):
    names: tuple[str, ...]


@pytest.mark.parametrize("key", [Changing, Listing, list[int], dict[str, int], tuple[int, set[str]], Changing | None])
def test_keys_that_can_change_are_refused_where_the_table_is_declared(key: Any) -> None:
    """Not when the first task opens, on some worker, in a log."""
    app = streamlog.App("shop")
    for declare in (app.Table, app.GlobalTable, app.SetTable):
        with pytest.raises(
            streamlog.UserError, match=r"table t: .* cannot be a key, because it can change.*frozen=True"
        ):
            declare("t", key=key, value=int)
    with pytest.raises(streamlog.UserError, match=r"table t: .* cannot be a key"):
        app.Table("t", key=key, value=int, source=app.topic("source", key=key, value=int))
    for number, good in enumerate((Fixed, tuple[int, str], frozenset[int], str)):
        app.Table(f"t{number}", key=good, value=int)
