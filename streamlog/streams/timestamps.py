"""Which timestamps a topic takes, asked before a record is sent.

A broker refuses a whole batch for one record whose time it does not take (KIP-937: by default, more than an hour ahead
of its clock). Found out there, it would fail the commit of all tasks, which would then do the same again, for ever. So
it is found out where the record is sent, in the hands of the body that sends it: its agent's policy decides about the
one event, and all others go on.

A topic's settings are asked for when the worker learns of the topic, and again when a record was refused, here or by
the broker: they may have been changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

from streamlog.errors import UserError
from streamlog.state.changelog import TIMESTAMP_DISTANCE_MS_MAX

TIMESTAMP_MS_MAX = TIMESTAMP_DISTANCE_MS_MAX
"""What a topic takes that takes any time."""

AFTER_MS_DEFAULT: Final = 60 * 60 * 1000
"""Kafka's default of message.timestamp.after.max.ms."""

AFTER: Final = "message.timestamp.after.max.ms"
BEFORE: Final = "message.timestamp.before.max.ms"
DIFFERENCE: Final = "message.timestamp.difference.max.ms"
"""What both were before Kafka 3.6."""


class Setting(Protocol):
    """What is needed of a ConfigEntry."""

    @property
    def value(self) -> str | None: ...


def refused_time(topic: str, timestamp_ms: int) -> UserError:
    """Why no record of this time is sent to any topic."""
    if timestamp_ms > TIMESTAMP_MS_MAX:
        return UserError(
            f"topic {topic}: no record can have the timestamp {timestamp_ms} ms: at most {TIMESTAMP_MS_MAX}"
        )
    return UserError(
        f"topic {topic}: a record's timestamp cannot be negative, and this one is {timestamp_ms} ms: before 1970. "
        f"Send it with a time of its own, as in send(value, timestamp=...); before a group_by, leave such events out "
        f"with filter(), or choose on_error= for the agent"
    )


class TimeBounds:
    """What one topic takes. Senders compare with `oldest_ms` and `newest_ms`, and ask `check` about what is beyond."""

    __slots__ = ("_after_ms", "_barred", "_before_ms", "_topic", "_wall_ms", "newest_ms", "oldest_ms", "refused")

    def __init__(self, topic: str, wall_ms: Callable[[], int]) -> None:
        self.refused = False  # something since the settings were learned: perhaps they are others by now
        self.oldest_ms = 0  # from here to newest_ms everything is taken, the clock unseen: time only moves them up
        self.newest_ms = TIMESTAMP_MS_MAX
        self._after_ms: int | None = None  # None: any
        self._before_ms: int | None = None
        self._barred: str | None = None
        self._topic, self._wall_ms = topic, wall_ms

    def learn(self, settings: Mapping[str, Setting]) -> None:
        """The topic's settings are these."""
        both = _milliseconds(settings, DIFFERENCE)
        after_ms, before_ms = _milliseconds(settings, AFTER, both), _milliseconds(settings, BEFORE, both)
        kind = settings.get("message.timestamp.type")
        if kind is not None and kind.value == "LogAppendTime":
            after_ms = before_ms = None  # the broker sets the time, whatever it was
        self._set(after_ms, before_ms)

    def bar(self, why: str | None) -> None:
        """Let no record pass, and say why; None: the topic takes records again."""
        self._barred = why
        self._set(self._after_ms, self._before_ms)

    def suspect_default(self) -> None:
        """The settings cannot be seen, and the broker refused a time."""
        self._set(AFTER_MS_DEFAULT, None)

    def _set(self, after_ms: int | None, before_ms: int | None) -> None:
        self.refused = False
        self._after_ms, self._before_ms = after_ms, before_ms
        self.newest_ms = TIMESTAMP_MS_MAX if after_ms is None else 0
        self.oldest_ms = 0 if before_ms is None else TIMESTAMP_MS_MAX  # what is taken gets less: look at the clock
        if self._barred is not None:
            self.oldest_ms, self.newest_ms = TIMESTAMP_MS_MAX + 1, -1

    def check(self, timestamp_ms: int) -> None:
        """Whether a record beyond the bounds is taken all the same. Raises: UserError: it is not."""
        if self._barred is not None:
            raise UserError(self._barred)
        if not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:
            raise refused_time(self._topic, timestamp_ms)
        now_ms = self._wall_ms()
        if self._after_ms is not None:
            self.newest_ms = min(now_ms + self._after_ms, TIMESTAMP_MS_MAX)
            if timestamp_ms > self.newest_ms:
                raise self._refused(timestamp_ms, AFTER, self._after_ms, "ahead of")
        if self._before_ms is not None and timestamp_ms < now_ms - self._before_ms:
            raise self._refused(timestamp_ms, BEFORE, self._before_ms, "behind")

    def _refused(self, timestamp_ms: int, setting: str, bound_ms: int, side: str) -> UserError:
        self.refused = True
        return UserError(
            f"topic {self._topic}: the broker takes no record that is more than {_span(bound_ms)} {side} its clock "
            f"({setting}={bound_ms}), and this one has the timestamp {timestamp_ms} ms{date_of(timestamp_ms)}. Let the "
            f"topic take it: streamlog topics alter {self._topic} --config {setting}={TIMESTAMP_DISTANCE_MS_MAX}; or "
            f"send it with another time: send(value, timestamp=...)"
        )


def _milliseconds(settings: Mapping[str, Setting], name: str, default: int | None = None) -> int | None:
    entry = settings.get(name)
    if entry is None or entry.value is None or not entry.value.isdecimal():
        return default
    bound_ms = int(entry.value)
    return None if bound_ms >= TIMESTAMP_DISTANCE_MS_MAX else bound_ms


def _span(duration_ms: int) -> str:
    hours = duration_ms / 3_600_000
    return "an hour" if hours == 1 else f"{hours:.3g} hours" if hours > 1 else f"{duration_ms / 1000:g} seconds"


def date_of(timestamp_ms: int) -> str:
    """As text behind a number of ms."""
    try:
        return f" ({datetime.fromtimestamp(timestamp_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC)"
    except (OverflowError, ValueError):  # no year that a calendar has
        return ""
