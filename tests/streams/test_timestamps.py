"""Which times a topic takes, by its settings and the clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from streamlog.errors import UserError
from streamlog.streams.timestamps import AFTER, BEFORE, DIFFERENCE, TIMESTAMP_MS_MAX, TimeBounds

HOUR_MS = 60 * 60 * 1000
NOW_MS = 1_700_000_000_000


@dataclass
class Clock:
    now_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@dataclass(frozen=True)
class Value:
    value: str | None


def bounds(clock: Clock | None = None, /, **settings: str | None) -> TimeBounds:
    """Of a topic that says this of itself: `after`, `before`, `difference`, `type`."""
    names = {"after": AFTER, "before": BEFORE, "difference": DIFFERENCE, "type": "message.timestamp.type"}
    found = TimeBounds("ticks", clock or Clock())
    found.learn({names[name]: Value(value) for name, value in settings.items()})
    return found


def takes(one: TimeBounds, timestamp_ms: int) -> bool:
    """As senders ask: the clock only beyond the bounds."""
    if one.oldest_ms <= timestamp_ms <= one.newest_ms:
        return True
    try:
        one.check(timestamp_ms)
    except UserError:
        return False
    return True


def test_what_is_older_than_before_allows_is_refused() -> None:
    """Up to the very millisecond; the message names the setting, and how to let the topic take it."""
    one = bounds(before=str(HOUR_MS))
    assert takes(one, NOW_MS - HOUR_MS)
    assert takes(one, NOW_MS + 1000 * HOUR_MS)
    assert not takes(one, NOW_MS - HOUR_MS - 1)
    assert one.refused
    with pytest.raises(
        UserError, match=rf"more than an hour behind its clock \({BEFORE}={HOUR_MS}\).*topics alter ticks"
    ):
        one.check(0)


def test_what_before_allows_gets_less_as_time_goes_by() -> None:
    """A time that was taken is not taken an hour later: nothing about the past may be remembered."""
    clock = Clock()
    one = bounds(clock, before=str(HOUR_MS))
    assert takes(one, NOW_MS)
    clock.now_ms += HOUR_MS
    assert takes(one, NOW_MS)
    clock.now_ms += 1
    assert not takes(one, NOW_MS)


def test_what_after_allows_moves_with_the_clock() -> None:
    """What was refused is taken when its hour has come."""
    clock = Clock()
    one = bounds(clock, after=str(HOUR_MS))
    assert takes(one, NOW_MS + HOUR_MS)
    assert not takes(one, NOW_MS + HOUR_MS + 1)
    clock.now_ms += 1
    assert takes(one, NOW_MS + HOUR_MS + 1)


def test_topics_with_log_append_time_take_any_time() -> None:
    """Their broker writes its own time, and compares nothing."""
    one = bounds(type="LogAppendTime", after="1000", before="1000")
    assert takes(one, 0)
    assert takes(one, TIMESTAMP_MS_MAX)
    assert not takes(one, -1)
    assert not takes(one, TIMESTAMP_MS_MAX + 1)


def test_the_one_bound_of_older_brokers_counts_for_both_sides() -> None:
    """Where the newer names are there as well, those count."""
    old = bounds(difference=str(HOUR_MS))
    assert [takes(old, NOW_MS + far) for far in (-HOUR_MS - 1, -HOUR_MS, HOUR_MS, HOUR_MS + 1)] == [
        False,
        True,
        True,
        False,
    ]
    new = bounds(difference="0", after=str(HOUR_MS), before=str(HOUR_MS))
    assert takes(new, NOW_MS - HOUR_MS)
    assert takes(new, NOW_MS + HOUR_MS)


@pytest.mark.parametrize("settings", [{}, {"after": None, "before": None}, {"after": "soon", "before": "-1"}])
def test_settings_that_cannot_be_read_bound_nothing_until_a_broker_refuses(settings: dict[str, str | None]) -> None:
    """Then Kafka's default is taken for granted: an hour ahead, and any time behind."""
    one = bounds(**settings)
    assert takes(one, 0)
    assert takes(one, NOW_MS + 1000 * HOUR_MS)
    one.suspect_default()
    assert takes(one, 0)
    assert takes(one, NOW_MS + HOUR_MS)
    assert not takes(one, NOW_MS + HOUR_MS + 1)
    one.learn({AFTER: Value(str(2 * HOUR_MS))})
    assert (one.refused, takes(one, NOW_MS + 2 * HOUR_MS)) == (False, True)


def test_a_bound_is_exact_where_the_clock_stands_near_the_end_of_time() -> None:
    """No sum of clock and bound goes beyond what any topic takes."""
    one = bounds(Clock(TIMESTAMP_MS_MAX - 5), after="1000")
    assert takes(one, TIMESTAMP_MS_MAX)
    assert not takes(one, TIMESTAMP_MS_MAX + 1)
