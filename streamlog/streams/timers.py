"""What runs beside the streams: timers, crontabs and background tasks.

Deadlines are multiples of the interval from the start, never "now plus the interval": a timer that is late once is not
late for ever. Deadlines that passed while the function still ran are skipped, not made up for.

A crontab goes by the clock on the wall of its time zone, as Vixie cron does where that clock is changed. What falls
into an hour that is skipped in spring runs once, when the clock has jumped. The hour that comes twice in autumn is two
hours for lines that name no hour ("every 15 minutes"), and one for lines that do ("at 2:30"): these run the first time
only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streamlog.env import Clock
from streamlog.errors import UserError
from streamlog.streams.policies import blame, is_cancelled

log = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval."""

    interval_ms: int

    def __str__(self) -> str:
        return f"every {self.interval_ms / 1000:g} s"

    def next_after(self, start_ms: int, now_ms: int) -> int:
        """The first multiple of the interval from `start_ms` that is after `now_ms`."""
        return start_ms + ((now_ms - start_ms) // self.interval_ms + 1) * self.interval_ms


CRON_FIELDS = (5, 6)
"""Minute, hour, day, month, weekday; and seconds. croniter would also take a seventh, for years, after which a line may
name no more moments."""

WALL_CLOCK_STEP_S_MAX = 60.0
"""How long a crontab sleeps at a time: the clock on the wall may be set, and a machine may sleep, meanwhile."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A line of a crontab, in a time zone. Made by `cron`, which has seen that it names moments to come."""

    line: str
    zone: tzinfo

    def __str__(self) -> str:
        return f"{self.line} ({self.zone})"

    def next_after(self, start_ms: int, now_ms: int) -> int:
        """The first moment after `now_ms` that the line names."""
        from croniter import croniter

        moments = croniter(self.line, datetime.fromtimestamp(now_ms / 1000, self.zone))
        following: datetime = moments.get_next(datetime)
        while following.fold and self._names_hours:  # in the second of two equal hours, as long as that lasts
            following = moments.get_next(datetime)
        return round(following.timestamp() * 1000)

    @property
    def _names_hours(self) -> bool:
        fields = self.line.split()
        return fields[0] != "@hourly" if len(fields) == 1 else not fields[1].startswith("*")


@dataclass(frozen=True, slots=True)
class Timer:
    """A function and when it runs."""

    name: str
    work: Work
    schedule: Every | Cron
    on_leader: bool
    """Only on the worker that owns task 0, and only as long as it does."""

    def __str__(self) -> str:
        return f"{self.name}: {self.schedule}{', on the leader' if self.on_leader else ''}"


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """A function that runs once, beside the streams: from the worker's start, or whenever it becomes the leader."""

    name: str
    work: Work
    on_leader: bool
    """Only on the worker that owns task 0, and only as long as it does."""


def cron(line: object, timezone: str | tzinfo | None, name: str) -> Cron:
    """A checked crontab line. Raises: UserError: the line or the zone is not one, or its time never comes."""
    from croniter import CroniterBadDateError, croniter  # only who has crontabs waits for it

    what = f"crontab {line!r} of {name}"
    if not isinstance(line, str) or not croniter.is_valid(line) or not _is_of_known_length(line):
        raise UserError(
            f"{what} is not a cron line: five fields (minute hour day month weekday) as in '*/5 * * * *', a sixth for "
            f"seconds, or one of @hourly, @daily, @weekly, @monthly and @yearly"
        )
    try:
        croniter(line, 0).get_next()
    except CroniterBadDateError:
        raise UserError(f"{what} never comes: there is no such date in any year") from None
    if not isinstance(timezone, str | None):
        return Cron(line, timezone)
    try:
        return Cron(line, ZoneInfo(timezone or "UTC"))
    except (ZoneInfoNotFoundError, ValueError):
        raise UserError(
            f"crontab of {name}: time zone {timezone!r} is unknown; write it as in 'Europe/Berlin'"
        ) from None


def _is_of_known_length(line: str) -> bool:
    return line.startswith("@") or len(line.split()) in CRON_FIELDS


async def run_timer(timer: Timer, clock: Clock) -> None:
    """Run `timer` for ever. What its function raises is logged. Cancelling ends it, in the function or between."""
    is_cron = isinstance(timer.schedule, Cron)
    time_ms = clock.wall_ms if is_cron else clock.mono_ms
    start_ms = time_ms()
    due_ms = timer.schedule.next_after(start_ms, start_ms)
    while True:
        await _sleep_until(due_ms, time_ms, WALL_CLOCK_STEP_S_MAX if is_cron else None)
        try:
            await timer.work()
        except Exception as error:  # a timer may raise anything, and must not take the worker along
            log.error("timer=%s failed: %s", timer.name, blame(error))
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            log.error("timer=%s failed: %s", timer.name, blame(error))
        due_ms = timer.schedule.next_after(start_ms, max(due_ms, time_ms()))


async def _sleep_until(due_ms: int, time_ms: Callable[[], int], step_s_max: float | None) -> None:
    left_ms = due_ms - time_ms()
    while left_ms > 0:
        await asyncio.sleep(left_ms / 1000 if step_s_max is None else min(left_ms / 1000, step_s_max))
        left_ms = due_ms - time_ms()


async def run_task(task: BackgroundTask) -> None:
    """Run `task` once; what it raises is logged."""
    try:
        await task.work()
    except Exception as error:
        log.error("task=%s failed: %s", task.name, blame(error))
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        log.error("task=%s failed: %s", task.name, blame(error))
