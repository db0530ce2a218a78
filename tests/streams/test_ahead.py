"""One event far in the future: said once, with its place."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

import streamlog
from streamlog.state.memory import MemoryEngine
from tests.streams.harness import running

DAY_MS = 24 * 60 * 60 * 1000


def _app() -> streamlog.App:
    app = streamlog.App("w")
    events = app.topic("events", key=str, value=int)
    grace = timedelta(minutes=5)
    ones = app.Table("ones", key=str, value=int, default=int).tumbling(minutes=1, grace=grace)
    threes = app.Table("threes", key=str, value=int, default=int).hopping(
        timedelta(minutes=3), timedelta(minutes=1), grace=grace
    )
    kept = app.Table("kept", key=str, value=int, default=int).tumbling(minutes=1)

    @app.agent(events)
    async def count(stream: streamlog.Stream[str, int]) -> None:
        async for event in stream.events():
            for table in (ones, threes, kept):
                table[event.key] += 1

    return app


async def test_an_event_that_closes_the_windows_of_all_others_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """With topic, partition, offset and time, and again in each later life; what it makes late is counted."""
    engine = MemoryEngine()
    async with running(_app(), {"events": 1}, engine=engine) as harness:
        now_ms = harness.env.clock.wall_ms()
        microseconds = now_ms * 1000
        times = [now_ms, now_ms - 30 * DAY_MS, now_ms + DAY_MS // 2, microseconds, now_ms, microseconds + 60_000]
        harness.feed("events", [("k", "1", time_ms) for time_ms in times])
        await harness.settle()
        assert harness.task.late.counts == {"ones": 2, "threes": 6}
        (said,) = [one for one in caplog.messages if "clock" in one]
        assert said.startswith(
            f"table=ones partition=0 the event at topic=events offset=3 has the time {microseconds} ms,"
        )
        assert re.search(r", \d{8}\.\d days ahead of this machine's clock\.", said)
        harness.commit()
    caplog.clear()
    async with running(_app(), {"events": 1}, engine=engine):
        (said,) = caplog.messages
        assert said.startswith(
            f"table=ones partition=0 an event of an earlier run has the time {microseconds + 60_000} ms,"
        )


async def test_events_of_the_past_and_of_the_next_hours_are_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """Time zones get mixed up, and backlogs are replayed."""
    async with running(_app(), {"events": 1}) as harness:
        now_ms = harness.env.clock.wall_ms()
        harness.feed("events", [("k", "1", now_ms + hours * 3_600_000) for hours in (-1000, -1, 0, 1, 14, 23)])
        await harness.settle()
        assert harness.failures == []
        assert [one for one in caplog.messages if "clock" in one] == []
