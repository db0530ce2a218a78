"""Windowed tables against brute force, through an agent."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import streamlog
from tests.streams.harness import running


def windows_containing(timestamp_ms: int, size_ms: int, step_ms: int) -> list[int]:
    """By trying every start there could be."""
    return [
        start
        for start in range(-size_ms, timestamp_ms + 1)
        if start % step_ms == 0 and start <= timestamp_ms < start + size_ms
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=30),
    st.integers(1, 4),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(0, 20)),
)
def test_counts_per_window_equal_brute_force(
    events: list[tuple[str, int]], steps: int, step_ms: int, grace_ms: int | None
) -> None:
    """Tumbling and hopping, in and out of order, with and without grace."""
    size_ms = steps * step_ms
    asyncio.run(_count(events, size_ms, step_ms, grace_ms))


async def _count(events: list[tuple[str, int]], size_ms: int, step_ms: int, grace_ms: int | None) -> None:
    app = streamlog.App("w")
    topic = app.topic("events", value=int)
    grace = None if grace_ms is None else grace_ms / 1000
    counts = app.Table("counts", key=str, value=int, default=int).hopping(
        size_ms / 1000, step_ms / 1000, grace=grace, expires=1000
    )
    currents: list[int] = []
    expected: dict[tuple[str, int], int] = defaultdict(int)
    expected_currents: list[int] = []
    stream_time_ms = -1

    @app.agent(topic)
    async def count(stream: streamlog.Stream[str, int]) -> None:
        async for event in stream.events():
            key = event.key
            counts[key] += 1
            currents.append(counts[key].current())

    for key, timestamp_ms in events:
        stream_time_ms = max(stream_time_ms, timestamp_ms)
        starts = windows_containing(timestamp_ms, size_ms, step_ms)
        for start in starts:
            if grace_ms is None or start + size_ms + grace_ms > stream_time_ms:
                expected[key, start] += 1
        expected_currents.append(expected.get((key, max(starts)), 0))

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [(key, "1", timestamp_ms) for key, timestamp_ms in events])
        await harness.settle()
        assert harness.failures == []
        harness.commit()
        state: Any = harness.task._states[0]
        assert {(key, start): value for key, start, value in state.items()} == expected
        assert currents == expected_currents
