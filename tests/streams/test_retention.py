"""Old records in topics that forget: who is warned, and who is not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin
from streamlog.env import real_env
from streamlog.streams.retention import DAY_MS, RetentionWatch
from tests.streams.live import live_broker
from tests.streams.words import until

YEAR_2013_MS = 1_357_000_000_000


@dataclass(frozen=True)
class Entry:
    value: str | None


@pytest.mark.parametrize(
    ("settings", "age_days", "warned"),
    [
        ({"retention.ms": str(7 * DAY_MS), "segment.ms": str(7 * DAY_MS)}, 15, True),
        ({"retention.ms": str(7 * DAY_MS), "segment.ms": str(7 * DAY_MS)}, 10, False),
        ({"retention.ms": "-1"}, 9000, False),
        ({"retention.ms": str(DAY_MS), "cleanup.policy": "compact"}, 9000, False),
        ({"retention.ms": str(DAY_MS), "cleanup.policy": "compact,delete"}, 9000, True),
    ],
)
async def test_records_are_judged_by_what_their_topic_keeps(
    settings: Mapping[str, str], age_days: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A segment's worth of older records is the usual course of things; more is not, unless nothing is deleted."""
    asked = []

    async def ask(topic: str) -> Mapping[str, Entry]:
        asked.append(topic)
        return {name: Entry(value) for name, value in settings.items()}

    clock = real_env().clock
    watch = RetentionWatch("app", clock, ask)
    timestamps_ms = [clock.wall_ms() - age_days * DAY_MS]
    for _ in range(3):
        if watch.suspects("t", timestamps_ms):
            await watch.look("t", timestamps_ms[0])
    assert asked == ["t"], "the broker is asked once"
    assert caplog.text.count("To keep them") == warned


async def test_a_worker_that_reads_2013_from_a_topic_that_keeps_a_week_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the command that helps; and not when the topic keeps everything, nor for an agent's own topic."""
    caplog.set_level(logging.WARNING)
    app = streamlog.App("old", partitions=1)
    kept = app.topic("kept", value=int, partitions=1, configs={"retention.ms": "-1"})
    lost = app.topic("lost", value=int, partitions=1)
    seen: list[int] = []

    @app.agent(kept)
    async def pass_on(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            await lost.send(number)

    @app.agent(lost)
    async def cast(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            await last.cast(number)

    @app.agent()
    async def last(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            seen.append(number)

    async with (
        live_broker(tmp_path / "broker") as broker,
        app.running(broker=broker.address, data_dir=str(tmp_path / "state")),
        Admin(broker.address, env=real_env()) as admin,
    ):
        for number in range(20):
            await kept.send(number, timestamp=YEAR_2013_MS)
        await until(lambda: len(seen) == 20)
        await until(lambda: "retention" in caplog.text)
        assert (await admin.describe_configs("old-last"))["retention.ms"].value == "-1"
    warnings = [record.getMessage() for record in caplog.records if "retention" in record.getMessage()]
    assert len(warnings) == 1
    assert "topic=lost has records of 2013-01-01, and retention.ms=604800000 (7 days)" in warnings[0]
    assert "streamlog topics alter lost --config retention.ms=-1" in warnings[0]
