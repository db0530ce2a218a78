"""Schedules: when a crontab fires, where clocks are changed, and which lines are refused."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import streamlog
from streamlog.streams.timers import cron


def fires(line: str, zone: str, since: str, count: int) -> list[str]:
    """The first `count` times after `since`, on the wall and with the offset of that moment."""
    schedule = cron(line, zone, "f")
    now_ms = int(datetime.fromisoformat(since).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
    found = []
    for _ in range(count):
        following_ms = schedule.next_after(now_ms, now_ms)
        assert following_ms > now_ms
        now_ms = following_ms
        moment = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone))
        found.append(f"{moment:%d %H:%M}{moment:%z}"[:-2])
    return found


def test_a_time_that_spring_skips_runs_once_after_the_jump() -> None:
    """In Berlin, 29 March 2026 has no 02:30."""
    assert fires("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", 3) == ["28 02:30+01", "29 03:00+02", "30 02:30+02"]
    assert fires("*/20 2 * * *", "Europe/Berlin", "2026-03-28T02:30", 4) == [
        "28 02:40+01",
        "29 03:00+02",
        "30 02:00+02",
        "30 02:20+02",
    ]


def test_a_time_that_autumn_repeats_runs_once() -> None:
    """In Berlin, 25 October 2026 has two 02:30; the first is meant."""
    assert fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == ["25 02:30+02", "26 02:30+01"]
    assert fires("0 1-3 * * *", "Europe/Berlin", "2026-10-25T00:00", 4) == [
        "25 01:00+02",
        "25 02:00+02",
        "25 03:00+01",
        "26 01:00+01",
    ]


def test_lines_that_name_no_hour_go_by_the_time_that_passes() -> None:
    """Every half an hour is every half an hour, whatever the clock says."""
    assert fires("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:45", 5) == [
        "25 02:00+02",
        "25 02:30+02",
        "25 02:00+01",
        "25 02:30+01",
        "25 03:00+01",
    ]
    assert fires("@hourly", "Europe/Berlin", "2026-10-25T01:45", 3) == ["25 02:00+02", "25 02:00+01", "25 03:00+01"]
    assert fires("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:15", 3) == [
        "29 01:30+01",
        "29 03:00+02",
        "29 03:30+02",
    ]


def test_a_worker_that_starts_in_the_second_of_two_equal_hours_waits_for_the_next_day() -> None:
    """The line's time has passed an hour ago."""
    schedule = cron("30 2 * * *", "Europe/Berlin", "f")
    now = datetime(2026, 10, 25, 2, 10, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    now_ms = int(now.timestamp() * 1000)
    following = datetime.fromtimestamp(schedule.next_after(now_ms, now_ms) / 1000, ZoneInfo("Europe/Berlin"))
    assert following.isoformat() == "2026-10-26T02:30:00+01:00"


def test_a_sixth_field_is_seconds() -> None:
    """At the end, as croniter has it."""
    assert cron("* * * * * */10", None, "f").next_after(0, 1_000) == 10_000


@pytest.mark.parametrize("line", ["* * * *", "61 * * * *", "* * * * * * 2030", "@reboot", "H * * * *", "", None, 5])
def test_what_is_no_cron_line_is_refused_with_what_would_be_one(line: object) -> None:
    """Five fields, six, or a name."""
    with pytest.raises(streamlog.UserError, match=r"of f is not a cron line: five fields .*, a sixth for seconds, or"):
        cron(line, None, "f")


def test_a_line_whose_time_never_comes_is_refused_where_it_is_declared(tmp_path: Path) -> None:
    """With the function's name and the line of the file, instead of a worker that fails."""
    (tmp_path / "never.py").write_text(
        "import streamlog\n"
        "app = streamlog.App('never')\n"
        "\n"
        "@app.crontab('0 0 30 2 *')\n"
        "async def cleaning() -> None:\n"
        "    pass\n"
    )
    command = [sys.executable, "-m", "streamlog", "-A", "never", "worker"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "streamlog: never.py, line 4: crontab '0 0 30 2 *' of cleaning never comes: there is no such date in any year\n"
    )
