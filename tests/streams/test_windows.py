"""Windowed tables against brute force, through an agent."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import streamlog
from streamlog.state.memory import MemoryEngine
from streamlog.streams.status import LateStatus, task_status
from tests.streams.harness import TaskHarness, running


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
    late = 0

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
            else:
                late += 1
        expected_currents.append(expected.get((key, max(starts)), 0))

    async with running(app, {"events": 1}) as harness:
        harness.feed("events", [(key, "1", timestamp_ms) for key, timestamp_ms in events])
        await harness.settle()
        assert harness.failures == []
        harness.commit()
        state: Any = harness.task._states[0]
        assert {(key, start): value for key, start, value in state.items()} == expected
        assert currents == expected_currents
        status = task_status(harness.task, restoring=(), error=None)
        assert status.late == ((LateStatus("counts", late),) if late else ())


Step = st.one_of(
    st.tuples(st.just("event"), st.sampled_from(["a", "aa", "b"]), st.integers(-80, 80)),
    st.tuples(st.sampled_from(["commit", "evict", "restart", "delete"]), st.just("a"), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(Step, max_size=40),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 3),
    st.one_of(st.none(), st.integers(0, 30)),
    st.one_of(st.none(), st.integers(0, 60)),
)
def test_windows_of_any_time_equal_brute_force_through_commits_and_restarts(
    steps: list[tuple[str, str, int]],
    overlap: int,
    step_ms: int,
    odd_ms: int,
    grace_ms: int | None,
    expires_ms: int | None,
) -> None:
    """Times on both sides of 1970, sizes that are no multiple of the step, expiry, evictions and new lives."""
    asyncio.run(_live_and_die(steps, overlap * step_ms + odd_ms, step_ms, grace_ms, expires_ms))


async def _live_and_die(
    steps: list[tuple[str, str, int]], size_ms: int, step_ms: int, grace_ms: int | None, expires_ms: int | None
) -> None:
    def seconds(ms: int | None) -> timedelta | None:
        return None if ms is None else timedelta(milliseconds=ms)

    app = streamlog.App("w")
    topic = app.topic("events", key=str, value=int)
    sums = app.Table("sums", key=str, value=int, default=int).hopping(
        size_ms / 1000, step_ms / 1000, grace=seconds(grace_ms), expires=seconds(expires_ms)
    )
    seen: list[int] = []

    @app.agent(topic)
    async def add(stream: streamlog.Stream[str, int]) -> None:
        async for event in stream.events():
            if event.value == 0:
                del sums[event.key]
                continue
            sums[event.key] += event.value
            seen.append(sums[event.key].current())

    model: dict[tuple[str, int], int] = {}
    expected_seen: list[int] = []
    stream_time_ms: int | None = None
    keep_ms = None if grace_ms is None and expires_ms is None else max(grace_ms or 0, expires_ms or 0)
    engine = MemoryEngine()
    harness = TaskHarness(app, {"events": 1}, engine=engine)
    harness.start()
    await harness.settle(3)
    newest_ms = 0
    for what, key, at_ms in steps:
        if what in ("event", "delete"):
            newest_ms = at_ms if what == "event" else newest_ms
            time_ms = at_ms if what == "event" else newest_ms
            stream_time_ms = time_ms if stream_time_ms is None else max(stream_time_ms, time_ms)
            wait_ms = keep_ms if grace_ms is None else grace_ms
            starts = windows_around(time_ms, size_ms, step_ms)
            for start in starts:
                if wait_ms is None or start + size_ms + wait_ms > stream_time_ms:
                    if what == "event":
                        model[key, start] = model.get((key, start), 0) + 1
                    else:
                        model.pop((key, start), None)
            if keep_ms is not None:
                model = {one: n for one, n in model.items() if one[1] + size_ms + keep_ms > stream_time_ms}
            if what == "event":
                expected_seen.append(model.get((key, max(starts)), 0))
            harness.feed("events", [(key, "1" if what == "event" else "0", time_ms)])
            await harness.settle(20)
        elif what == "commit":
            harness.commit()
        elif what == "evict":
            state: Any = harness.task._states[0]
            state.table._turn()
            state.table._turn()
        else:
            harness.commit()
            await harness.stop()
            harness = TaskHarness(app, {"events": 1}, engine=engine)
            harness.start()
            await harness.settle(3)
        rows: Any = harness.task._states[0]
        assert {(key, start): value for key, start, value in rows.items()} == model
        for key in ("a", "aa", "b"):
            of_key = [(start, value) for (other, start), value in sorted(model.items()) if other == key]
            assert list(rows.of_key(key)) == of_key
            assert list(rows.of_key(key, -20, 21)) == [one for one in of_key if -20 <= one[0] < 21]
    assert harness.failures == []
    assert seen == expected_seen
    await harness.stop()


def windows_around(timestamp_ms: int, size_ms: int, step_ms: int) -> list[int]:
    """By trying every start there could be, on both sides of zero."""
    return [
        start
        for start in range(timestamp_ms - size_ms, timestamp_ms + 1)
        if start % step_ms == 0 and timestamp_ms < start + size_ms
    ]


async def test_a_closed_window_is_not_changed_in_place_either() -> None:
    """What `+= 1` may not do to a late window, append() may not do behind its back; it used to."""
    app = streamlog.App("w")
    topic = app.topic("events", key=str, value=int)
    ints = app.Table("ints", key=str, value=int, default=int).tumbling(10, grace=5, expires=3600)
    lists = app.Table("lists", key=str, value=list[int], default=list).tumbling(10, grace=5, expires=3600)
    late: list[list[int]] = []

    @app.agent(topic)
    async def work(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            ints["k"] += 1
            lists["k"].current().append(number)
            late.append(lists["k"].current())

    async with running(app, {"events": 1}) as harness:
        for number, at_ms in [(1, 1000), (2, 100_000), (3, 2000), (4, 3000)]:
            harness.feed("events", [("k", str(number), at_ms)])
            await harness.settle()
            harness.commit()
        found = [{row[1]: row[2] for row in harness.task.state_of(table.table).items()} for table in (ints, lists)]
        assert found == [{0: 1, 100_000: 1}, {0: [1], 100_000: [2]}]
        assert late == [[1], [2], [1], [1]]
