"""Joins with a table that follows a topic, against brute force."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

import streamlog
from streamlog.state.memory import MemoryEngine
from tests.streams.harness import TaskHarness

Times = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-6, 6)), max_size=12).map(
    lambda rows: sorted(rows, key=lambda row: row[1])
)


@settings(max_examples=150, deadline=None)
@given(Times, Times, st.data())
def test_an_event_sees_the_row_as_of_its_time_however_the_two_arrive(
    events: list[tuple[str, int]], rows: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Rows of the same moment included; through chunks of any size in any order, commits and new lives; a row of every
    third number deletes."""
    cuts = data.draw(st.lists(st.sampled_from(["orders", "prices", "commit", "restart"]), max_size=12))
    sizes = [data.draw(st.integers(1, 5)) for _ in cuts]
    asyncio.run(_join(events, rows, list(zip(cuts, sizes, strict=True))))


async def _join(events: list[tuple[str, int]], rows: list[tuple[str, int]], cuts: list[tuple[str, int]]) -> None:
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=int)
    prices = app.Table("prices", key=str, value=int, source=app.topic("prices", key=str, value=int))
    joined: dict[int, int | None] = {}

    @app.agent(orders.stream().left_join(prices))
    async def join(stream: streamlog.Stream[str, tuple[int, int | None]]) -> None:
        async for number, price in stream:
            joined.update({number: price})

    expected: dict[int, int | None] = {}
    for number, (key, at_ms) in enumerate(events):
        seen = [n for n, (other, row_ms) in enumerate(rows) if other == key and row_ms <= at_ms]
        expected[number] = seen[-1] if seen and seen[-1] % 3 else None

    logs: dict[str, list[tuple[str, str | None, int]]] = {
        "orders": [(key, str(number), at_ms) for number, (key, at_ms) in enumerate(events)],
        "prices": [(key, str(n) if n % 3 else None, at_ms) for n, (key, at_ms) in enumerate(rows)],
    }
    ends = {name: len(log) for name, log in logs.items()}
    engine = MemoryEngine()
    harness = TaskHarness(app, {"orders": 1, "prices": 1}, engine=engine)
    harness.start(ends=ends)
    fed = dict.fromkeys(ends, 0)
    for what, size in [*cuts, ("orders", 99), ("prices", 99)]:
        if what == "restart":
            harness.commit()
            await harness.stop()
            harness = TaskHarness(app, {"orders": 1, "prices": 1}, engine=engine)
            harness.start(ends=ends)
            fed = {name: harness.task.sources[name].position for name in ends}
            harness.offsets.update(fed)
        elif what == "commit":
            harness.commit()
        else:
            harness.feed(what, logs[what][fed[what] : fed[what] + size], end=ends[what])
            fed[what] = min(fed[what] + size, ends[what])
        await harness.settle(20)
    assert harness.failures == []
    assert joined == expected
    await harness.stop()
