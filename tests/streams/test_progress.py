"""Agents that read one topic at different paces."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

import streamlog
from streamlog.state.memory import MemoryEngine
from streamlog.streams.progress import METADATA_BYTES_MAX, Progress, decode_progress, encode_progress
from tests.streams.harness import running


async def test_a_lane_ahead_of_the_committed_offset_gets_no_event_twice() -> None:
    """The group keeps one offset per partition, the slowest agent's; the rows of the faster one are committed too."""
    engine = MemoryEngine()
    rows = [("k", str(number)) for number in range(10)]
    for life in range(2):
        app = streamlog.App("shop")
        orders = app.topic("orders", key=str, value=int)
        fast_seen = app.Table("fast_seen", key=str, value=int, default=int)
        slow_seen = app.Table("slow_seen", key=str, value=int, default=int)
        gate = asyncio.Event()

        @app.agent(orders)
        async def fast(stream: streamlog.Stream[str, int], seen: streamlog.Table[str, int] = fast_seen) -> None:
            async for _ in stream:
                seen["k"] += 1

        @app.agent(orders)
        async def slow(
            stream: streamlog.Stream[str, int],
            seen: streamlog.Table[str, int] = slow_seen,
            gate: asyncio.Event = gate,
        ) -> None:
            async for value in stream:
                if value == 4:
                    await gate.wait()
                seen["k"] += 1

        async with running(app, {"orders": 1}, engine=engine) as harness:
            if life == 0:
                harness.feed("orders", rows)
                await harness.settle()
                commit = harness.commit()
                assert commit.offsets == {"orders": 4}
                assert commit.ahead == {"orders": {"fast": 10}}
                assert harness.commit().empty
            else:
                gate.set()
                harness.feed("orders", rows[4:])
                await harness.settle()
                assert harness.table("fast_seen") == {"k": 10}
                assert harness.table("slow_seen") == {"k": 10}
                assert harness.commit().offsets == {"orders": 10}


async def test_a_lane_that_gets_ahead_of_a_standing_offset_is_a_commit() -> None:
    """Only the fast agent has moved, and it keeps no rows: without the commit its outputs would be sent again."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=int)
    copies = app.topic("copies", key=str, value=int)
    gate = asyncio.Event()

    @app.agent(orders)
    async def fast(stream: streamlog.Stream[str, int]) -> None:
        async for value in stream:
            copies.append(value)

    @app.agent(orders)
    async def slow(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            await gate.wait()

    async with running(app, {"orders": 1, "copies": 1}) as harness:
        harness.feed("orders", [("k", "0"), ("k", "1")])
        await harness.settle()
        assert harness.commit().ahead == {"orders": {"fast": 2}}
        harness.feed("orders", [("k", "2")])
        await harness.settle()
        assert harness.commit().ahead == {"orders": {"fast": 3}}
        gate.set()


@given(st.dictionaries(st.text(max_size=20), st.integers(0, 2**62), max_size=5))
def test_the_lanes_ahead_come_back_as_they_were(ahead: dict[str, int]) -> None:
    """Few lanes always fit."""
    progress = Progress("me", "them", "topic", ahead)
    assert decode_progress(encode_progress(progress)) == progress


def test_lanes_without_room_are_those_with_least_to_repeat() -> None:
    """More than a broker would take is never sent: it would refuse the whole commit."""
    ahead = {f"an_agent_with_a_long_name_{number:04}": 1_000_000 + number for number in range(500)}
    text = encode_progress(Progress("me", ahead=ahead))
    kept = decode_progress(text).ahead
    assert decode_progress(text).by == "me"
    assert len(text.encode()) <= METADATA_BYTES_MAX
    assert 50 < len(kept) < 500
    assert min(kept.values()) > max(at for lane, at in ahead.items() if lane not in kept)


def test_metadata_of_somebody_else_says_nothing() -> None:
    """Offsets can be committed by any tool, with any text."""
    for text in ("", "by hand", "[1]", '{"a": "b"}', "\ud800"):
        assert decode_progress(text) == Progress()
