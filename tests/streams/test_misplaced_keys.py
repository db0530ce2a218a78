"""Keys whose rows are on another partition than the task that asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import streamlog
from streamlog.client.partitioner import partition_for_key
from streamlog.state.memory import MemoryEngine
from tests.streams.harness import running

HERE, THERE = 0, 1
KEYS = [f"key{number}" for number in range(200)]
MINE = [key for key in KEYS if partition_for_key(key.encode(), 2) == HERE]
OTHERS = [key for key in KEYS if partition_for_key(key.encode(), 2) == THERE]

Feeds = Sequence[tuple[str, Sequence[tuple[str | None, str]]]]
"""By topic, what is fed: keys and values."""


class Order(streamlog.Record):
    customer: str


def order_of(customer: str) -> str:
    return f'{{"customer":"{customer}"}}'


async def failure_of(app: streamlog.App, feeds: Feeds) -> str | None:
    """What became of an app's task 0 of 2 after it was fed; None if nothing failed."""
    async with running(app, {topic: 2 for topic, _ in feeds}, number=HERE) as harness:
        for topic, rows in feeds:
            harness.feed(topic, rows)
        await harness.settle()
        return harness.failures[0].failure.what if harness.failures else None


READS: list[Callable[[Any, str], object]] = [
    lambda table, key: table[key],
    lambda table, key: table.get(key),
    lambda table, key: key in table,
    lambda table, key: table.setdefault(key, 1),
    lambda table, key: table.pop(key),
]


@pytest.mark.parametrize("read", READS)
async def test_reading_a_key_of_another_partition_says_where_it_is_and_what_to_do(
    read: Callable[[Any, str], object],
) -> None:
    """The row is on another worker, perhaps; the default would be a lie."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order, partitions=2)
    totals = app.Table("totals", key=str, value=int, default=int)

    @app.agent(orders)
    async def look(stream: streamlog.Stream[str, Order]) -> None:
        async for order in stream:
            read(totals, order.customer)

    what = await failure_of(app, [("orders", [(MINE[0], order_of(MINE[1])), (MINE[0], order_of(OTHERS[0]))])])
    assert what is not None
    for words in (
        "agent look",
        f"key '{OTHERS[0]}'",
        "table totals",
        "partition 1 of 2",
        "partition 0",
        "group_by",
        "GlobalTable",
        "streamlog.connect",
    ):
        assert words in what


WINDOW_READS: list[Callable[[Any, str], object]] = [
    lambda table, key: table[key].current(),
    lambda table, key: key in table,
    lambda table, key: table.of_key(key, 0, 10_000),
    lambda table, key: table.of_key(key, 0, 10_000_000),
]


@pytest.mark.parametrize("read", WINDOW_READS)
async def test_windows_of_a_key_of_another_partition_are_refused(read: Callable[[Any, str], object]) -> None:
    """As those of plain tables are, looked up one by one or scanned."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order, partitions=2)
    totals = app.Table("totals", key=str, value=int, default=int).tumbling(10)

    @app.agent(orders)
    async def look(stream: streamlog.Stream[str, Order]) -> None:
        async for order in stream:
            read(totals, order.customer)

    assert await failure_of(app, [("orders", [(MINE[0], order_of(MINE[1]))])]) is None
    what = await failure_of(app, [("orders", [(MINE[0], order_of(OTHERS[0]))])])
    assert what is not None
    assert f"looked up key '{OTHERS[0]}' in table totals" in what


def joining() -> tuple[streamlog.App, list[object]]:
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order, partitions=2)
    customers = app.Table("customers", key=str, value=str, source=app.topic("customers", key=str, value=str))
    rows: list[object] = []

    @app.agent(orders.stream().left_join(customers, on=Order.customer))
    async def look(stream: streamlog.Stream[str, tuple[Order, str | None]]) -> None:
        async for _, row in stream:
            rows.append(row)

    return app, rows


async def test_a_join_by_a_field_whose_rows_are_elsewhere_is_refused() -> None:
    """With some rows here that are where they belong, and with none."""
    some: list[tuple[str | None, str]] = [(key, '"somebody"') for key in MINE[:5]]
    for known in (some, []):
        app, rows = joining()
        feeds: Feeds = [("customers", known), ("orders", [(None, order_of(MINE[0])), (None, order_of(OTHERS[0]))])]
        what = await failure_of(app, feeds)
        assert rows == (["somebody"] if known else [None])
        assert what is not None
        assert f"looked up key '{OTHERS[0]}' in table customers" in what


async def test_a_topic_that_another_partitioner_filled_is_not_judged_by_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Its rows show that it is so, and then nobody can tell where a key that is missing would be: said once."""
    app, rows = joining()
    known: list[tuple[str | None, str]] = [(OTHERS[0], '"somebody"')]
    feeds: Feeds = [("customers", known), ("orders", [(None, order_of(key)) for key in OTHERS[:3]])]
    assert await failure_of(app, feeds) is None
    assert rows == ["somebody", None, None]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["table=customers partition=0"]


async def test_the_events_own_key_is_here_whoever_chose_its_partition() -> None:
    """Read, then written, then read for an event of another key."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order, partitions=2)
    totals = app.Table("totals", key=str, value=int, default=int)

    @app.agent(orders)
    async def count(stream: streamlog.Stream[str, Order]) -> None:
        async for order in stream:
            totals[order.customer] += 1

    rows: list[tuple[str | None, str]] = [(OTHERS[0], order_of(OTHERS[0])), (MINE[0], order_of(OTHERS[0]))]
    async with running(app, {"orders": 2}, number=HERE, engine=MemoryEngine()) as harness:
        harness.feed("orders", rows)
        await harness.settle()
        assert harness.failures == []
        assert harness.table("totals") == {OTHERS[0]: 2}


async def test_a_refused_read_is_refused_again() -> None:
    """An agent that skips what fails does not get the default the second time."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order, partitions=2)
    totals = app.Table("totals", key=str, value=int, default=int)
    refused: list[str] = []

    @app.agent(orders)
    async def look(stream: streamlog.Stream[str, Order]) -> None:
        async for order in stream:
            try:
                totals[order.customer]
            except streamlog.UserError:
                refused.append(order.customer)

    assert await failure_of(app, [("orders", [(MINE[0], order_of(OTHERS[0]))] * 3)]) is None
    assert refused == [OTHERS[0]] * 3
