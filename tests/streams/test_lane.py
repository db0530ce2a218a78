"""Agents on one task, fed by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

import streamlog
from tests.streams.harness import running


class Order(streamlog.Record):
    account: str
    amount: int


def order(account: str, amount: int) -> tuple[str, str]:
    return account, json.dumps({"account": account, "amount": amount})


async def test_counts_per_key_and_commits_what_is_processed() -> None:
    """The plainest stateful agent: rows in the table, offsets up to the last event."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    totals = app.Table("totals", key=str, value=int, default=int)

    @app.agent(orders)
    async def count(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            totals[one.account] += one.amount

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 1), order("b", 2), order("a", 3)])
        await harness.settle()
        assert harness.table("totals") == {"a": 4, "b": 2}
        commit = harness.commit()
        assert commit.offsets == {"orders": 3}
        assert len(harness.outbox.logs["shop-totals-changelog", 0]) == 2


async def test_yielded_values_go_to_sinks_with_key_and_time_of_the_event() -> None:
    """`yield` forwards; the key is the event's."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    big = app.topic("big", key=str, value=Order)

    @app.agent(orders, sink=[big])
    async def only_big(stream: streamlog.Stream[str, Order]) -> AsyncIterator[Order]:
        async for one in stream:
            if one.amount > 10:
                yield one

    async with running(app, {"orders": 1, "big": 1}) as harness:
        harness.feed("orders", [(*order("a", 1), 5), (*order("b", 20), 6)])
        await harness.settle()
        assert harness.outbox.logs["big", 0] == [(b"b", b'{"account":"b","amount":20}', 6, ())]


async def test_group_by_inside_the_body_goes_through_a_repartition_topic() -> None:
    """The rehearsal finds the group_by; the forwarding lane re-keys without touching the values' bytes."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    by_amount = app.Table("by_amount", key=int, value=int, default=int)

    @app.agent(orders)
    async def regroup(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream.group_by(Order.amount):
            by_amount[one.amount] += 1

    topic = "shop-regroup-amount-repartition"
    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 1), order("b", 2), order("a", 1)])
        await harness.settle()
        sent = harness.outbox.logs[topic, 0]
        assert [key for key, *_ in sent] == [b"1", b"2", b"1"]
        harness.feed(topic, [(key, value, timestamp_ms) for key, value, timestamp_ms, _ in sent])
        await harness.settle()
        assert harness.table("by_amount") == {1: 2, 2: 1}


async def test_events_without_a_new_key_are_dropped_and_the_first_of_them_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They have no partition to go to; whoever wonders where they are finds a line in the log."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    by_size = app.Table("by_size", key=str, value=int, default=int)

    def size(one: Order) -> str | None:
        return "big" if one.amount > 1 else None

    @app.agent(orders.stream().group_by(size, key=str))
    async def regroup(stream: streamlog.Stream[str, Order]) -> None:
        async for _ in stream:
            by_size["big"] += 1

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 2), order("b", 1), order("a", 1)])
        await harness.settle()
        assert len(harness.outbox.logs["shop-regroup-size-repartition", 0]) == 1
        assert harness.commit().offsets == {"orders": 3}
    (said,) = caplog.messages
    assert "agent=regroup-1 partition=0: group_by() found no key (None) in the event at offset 1" in said


async def test_an_offset_in_the_hands_of_a_waiting_body_is_held() -> None:
    """With concurrency 2 the second event ends first; the first holds the commit back."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    gate = asyncio.Event()
    seen: list[int] = []

    @app.agent(orders, concurrency=2)
    async def slow(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            if one.amount == 0:
                await gate.wait()
            seen.append(one.amount)

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 0), order("a", 1), order("a", 2)])
        await harness.settle()
        assert seen == [1, 2]
        assert harness.task.committable() == {"orders": 0}
        gate.set()
        await harness.settle()
        assert seen == [1, 2, 0]
        assert harness.task.committable() == {"orders": 3}


async def test_a_failing_event_stops_its_partition_and_holds_the_offset() -> None:
    """The default policy: one message with agent, place and line; nothing after the event is processed."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    seen: list[int] = []

    @app.agent(orders)
    async def fragile(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            seen.append(10 // one.amount)

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 1), order("a", 0), order("a", 2)])
        await harness.settle()
        assert seen == [10]
        assert harness.task.committable() == {"orders": 1}
        message = str(harness.failures[0].failure)
        assert "agent=fragile partition=orders-0 offset=1: ZeroDivisionError" in message
        assert "test_lane.py:" in message


async def test_skip_goes_on_with_the_next_event() -> None:
    """Both an error of the body and an unreadable value are stepped over."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    seen: list[int] = []

    @app.agent(orders, on_error="skip")
    async def fragile(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            seen.append(10 // one.amount)

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 1), order("a", 0), ("a", "no json"), ("a", None), order("a", 2)])
        await harness.settle()
        assert seen == [10, 5]
        assert [failed.failure.offset for failed in harness.failures] == [1, 2]
        assert harness.task.committable() == {"orders": 5}


async def test_retry_gives_the_same_event_again() -> None:
    """The event that failed is the next one the new body gets."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    seen: list[int] = []
    failed: list[int] = []

    @app.agent(orders, on_error=streamlog.Retry(backoff=0.001))
    async def flaky(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            if one.amount == 2 and len(failed) < 3:
                failed.append(one.amount)
                raise ConnectionError("away")
            seen.append(one.amount)

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 1), order("a", 2), order("a", 3)])
        async with asyncio.timeout(5):
            while len(seen) < 3:
                await asyncio.sleep(0.001)
        assert seen == [1, 2, 3]
        assert len(failed) == 3


async def test_dead_letters_carry_the_record_and_what_happened() -> None:
    """The failed record goes to the topic unchanged, and the next event is processed."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    dead = app.topic("dead", value=bytes)
    seen: list[int] = []

    @app.agent(orders, on_error=streamlog.DeadLetter(dead))
    async def fragile(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            seen.append(10 // one.amount)

    async with running(app, {"orders": 1, "dead": 1}) as harness:
        harness.feed("orders", [order("a", 0), order("a", 5)])
        await harness.settle()
        assert seen == [2]
        ((key, value, _, headers),) = harness.outbox.logs["dead", 0]
        assert (key, value) == (b"a", order("a", 0)[1].encode())
        assert dict(headers)["__streams.errors.offset"] == b"0"


async def test_take_holds_the_whole_list_until_it_is_processed() -> None:
    """Events of a list are done together, when the body asks for the next list."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    lists: list[list[int]] = []
    gate = asyncio.Event()

    @app.agent(orders)
    async def bulk(stream: streamlog.Stream[str, Order]) -> None:
        async for some in stream.take(2, within=0.01):
            lists.append([one.amount for one in some])
            await gate.wait()

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", 1), order("a", 2), order("a", 3)])
        await harness.settle()
        assert lists == [[1, 2]]
        assert harness.task.committable() == {"orders": 0}
        gate.set()
        async with asyncio.timeout(5):
            while harness.task.committable() != {"orders": 3}:
                await asyncio.sleep(0.001)
        assert lists == [[1, 2], [3]]


async def test_a_broken_off_loop_goes_on_with_the_next_event() -> None:
    """`break` ends an iteration, not the agent; no event is lost or given twice."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    seen: list[Any] = []

    @app.agent(orders)
    async def breaks(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            seen.append(one.amount)
            if one.amount % 2:
                break
        async for key, one in stream.items():
            seen.append((key, one.amount))
            break

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", n) for n in range(6)])
        await harness.settle()
        assert seen == [0, 1, ("a", 2), 3, ("a", 4), 5]
        assert harness.task.committable() == {"orders": 6}


async def test_join_sees_the_row_as_of_the_event() -> None:
    """A table that follows a topic is advanced in event time."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    prices = app.topic("prices", key=str, value=int)
    price = app.Table("price", key=str, value=int, source=prices)
    seen: list[tuple[int, int | None]] = []

    @app.agent(orders.stream().left_join(price))
    async def joined(stream: streamlog.Stream[str, tuple[Order, int | None]]) -> None:
        async for one, row in stream:
            seen.append((one.amount, row))

    async with running(app, {"orders": 1, "prices": 1}) as harness:
        harness.feed("orders", [(*order("a", 1), 5), (*order("a", 2), 15), (*order("a", 3), 25)])
        harness.feed("prices", [("a", "100", 10), ("a", "200", 20), ("a", "300", 30)])
        await harness.settle()
        assert seen == [(1, None), (2, 100), (3, 200)]
        assert harness.task.committable() == {"orders": 3, "prices": 3}


async def test_join_waits_for_a_table_that_is_known_to_lag() -> None:
    """KIP-695: while records of the table's topic are known to be missing, no event is processed."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    prices = app.topic("prices", key=str, value=int)
    price = app.Table("price", key=str, value=int, source=prices)
    seen: list[tuple[int, int]] = []

    @app.agent(orders.stream().join(price))
    async def joined(stream: streamlog.Stream[str, tuple[Order, int]]) -> None:
        async for one, row in stream:
            seen.append((one.amount, row))

    async with running(app, {"orders": 1, "prices": 1}, ends={"orders": 0, "prices": 1}) as harness:
        harness.feed("orders", [(*order("a", 1), 50)])
        await harness.settle()
        assert seen == []
        harness.feed("prices", [("a", "100", 10)])
        await harness.settle()
        assert seen == [(1, 100)]


async def test_events_behind_one_that_is_tried_again_are_not_lost_with_several_bodies() -> None:
    """The body that tries again leaves the chunk to itself; what nobody took is still there."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    seen: list[int] = []
    failed: list[int] = []

    @app.agent(orders, concurrency=2, on_error=streamlog.Retry(backoff=0.001))
    async def flaky(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            if one.amount == 0 and not failed:
                failed.append(one.amount)
                raise ConnectionError("away")
            await asyncio.sleep(0.003)
            seen.append(one.amount)

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", amount) for amount in range(20)])
        async with asyncio.timeout(5):
            while harness.task.committable() != {"orders": 20}:
                await asyncio.sleep(0.001)
        assert sorted(seen) == list(range(20))


async def test_a_clean_stop_ends_several_bodies_at_their_current_events() -> None:
    """A stop does not wait for the rest of a chunk, which is processed after it."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=Order)
    seen: list[int] = []

    @app.agent(orders, concurrency=2)
    async def slow(stream: streamlog.Stream[str, Order]) -> None:
        async for one in stream:
            await asyncio.sleep(0.005)
            seen.append(one.amount)

    async with running(app, {"orders": 1}) as harness:
        harness.feed("orders", [order("a", amount) for amount in range(50)])
        await harness.settle(5)
        assert await harness.task.drain(5)
        assert sorted(seen) == [0, 1]
        assert harness.task.committable() == {"orders": 2}
