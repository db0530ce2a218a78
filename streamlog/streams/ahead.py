"""Says when one event moves stream time far beyond the clock on the wall.

Windows close by stream time, the latest time of any event that was counted, and it never goes back. So one record with
a wrong time, of a producer whose clock jumped or that counts in microseconds, closes the windows of all events that
come after it, in every life of the app: they are late, and dropped. That is what windows with grace= promise, but
nobody means it to happen, and whoever looks for the cause needs the record's place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from streamlog.env import Clock
from streamlog.streams.cursor import current
from streamlog.streams.timestamps import AFTER, AFTER_MS_DEFAULT, date_of

log = logging.getLogger(__name__)

AHEAD_MS_MAX = 24 * 60 * 60 * 1000
"""More than clocks are ever wrong by honestly, time zones mixed up included."""

NOT_AGAIN_MS = 2**63
"""After every time there is."""


class TimeJumps:
    """Of one task. Each event that is to blame is named once, however many tables count it."""

    def __init__(self, partition: int, clock: Clock) -> None:
        self._partition, self._clock = partition, clock
        self._told: list[tuple[str, int] | None] = []

    def listener(self, table: str) -> Callable[[int], int]:
        """Told when stream time of `table` passes what it gave before. Returns: what is worth telling next."""

        def on_ahead(stream_time_ms: int) -> int:
            ahead_ms = stream_time_ms - self._clock.wall_ms()
            if ahead_ms <= AHEAD_MS_MAX:
                return stream_time_ms - ahead_ms + AHEAD_MS_MAX
            cursor = current.get(None)
            place = None if cursor is None or not cursor.has_event else (cursor.feed.source.topic, cursor.offset)
            if place not in self._told:
                self._told.append(place)
                self._tell(table, place, stream_time_ms, ahead_ms)
            return NOT_AGAIN_MS

        return on_ahead

    def _tell(self, table: str, place: tuple[str, int] | None, stream_time_ms: int, ahead_ms: int) -> None:
        whose = "an event of an earlier run" if place is None else f"the event at topic={place[0]} offset={place[1]}"
        log.warning(
            "table=%s partition=%d %s has the time %d ms%s, %.1f days ahead of this machine's clock. Windows close by "
            "the latest time that was seen, so events of now come too late for theirs from here on, and are dropped. "
            "If that time is wrong: let the producer send ms since 1970, or filter() such events out; the broker "
            "refuses them with `streamlog topics alter TOPIC --config %s=%d`. Then stop the workers and begin with "
            "empty tables: `streamlog -A MODULE reset`, with --to-latest to leave out the records that are there",
            table,
            self._partition,
            whose,
            stream_time_ms,
            date_of(stream_time_ms),
            ahead_ms / AHEAD_MS_MAX,
            AFTER,
            AFTER_MS_DEFAULT,
        )
