"""Spans of time as users write them: seconds, a timedelta, or hours= and minutes=."""

from __future__ import annotations

from datetime import timedelta

from streamlog.errors import UserError


def seconds_of(span: float | timedelta, what: str) -> float:
    """`span` in seconds. Raises UserError naming `what` when it is not a positive span of time."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise UserError(f"{what} is a number of seconds or a timedelta, not {span!r}")
    if not 0 < seconds < float("inf"):
        raise UserError(f"{what} has to be a positive span of time, not {span!r}")
    return float(seconds)


def milliseconds_of(span: float | timedelta, what: str) -> int:
    """`span` in whole milliseconds, at least 1."""
    return max(1, round(seconds_of(span, what) * 1000))


def window_milliseconds(size: float | timedelta | None, hours: float, minutes: float, seconds: float, what: str) -> int:
    """One span out of `size` or the words hours=, minutes=, seconds=. Raises UserError for none or both."""
    words = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if (size is None) == (not words):
        raise UserError(f"{what}: give its size either as seconds or a timedelta, or as hours=, minutes=, seconds=")
    return milliseconds_of(words if size is None else size, what)
