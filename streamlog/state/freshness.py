"""Since when deletions may be missing from rows that follow a log.

A compacted topic shows for `delete.retention.ms` that a key was deleted; then nothing is left of the key. Whoever
reads on after a longer pause never hears of the deletion and keeps the row for ever. What counts is not when rows were
written last but when they were last all that the log had:

    asked for the log's end, at time T  -->  the rows reach that end  -->  they have all deletions from before T

Everything later can still be read, as long as that happens before T + delete.retention.ms. A log that is read from its
beginning has no rows yet that could be deleted, so T is when the reading begins. Should it take longer than deletions
are shown, nobody can do better: it is let through, once.
"""

from __future__ import annotations

SHOWN_FOR_EVER_MS = 2**62
"""Of topics that are not compacted: their deletions last, or go with all that is older (the log's start moves)."""

LOOK_MS_MIN = 1_000
LOOK_MS_MAX = 30_000
"""How often whoever follows a topic asks where it ends: four times before its deletions may be gone, within reason."""

LOOKS_MISSED_MAX = 4


def look_ms(shown_ms: int) -> int:
    """How often to ask for the end of a topic that shows deletions for so long."""
    return min(LOOK_MS_MAX, max(LOOK_MS_MIN, shown_ms // LOOKS_MISSED_MAX))


class Freshness:
    """Of one partition's rows, or of what was fetched of it."""

    __slots__ = ("_asked_at_ms", "_sought", "at_ms", "filling")

    def __init__(self, at_ms: int, *, filling: bool = False) -> None:
        self.at_ms = at_ms
        """Wall time: all that the log had then is here."""
        self.filling = filling
        """Whether reading began with nothing, and has not reached an end yet."""
        self._asked_at_ms: int | None = None  # the last time
        self._sought: tuple[int, int] | None = None  # an end that was not reached yet, and when the log had it

    def due(self, now_ms: int, shown_ms: int) -> bool:
        """Whether it is time to ask for the end of a log that shows deletions for `shown_ms`."""
        if shown_ms >= SHOWN_FOR_EVER_MS:
            return False
        return self._asked_at_ms is None or not 0 <= now_ms - self._asked_at_ms < look_ms(shown_ms)

    def saw_end(self, end_offset: int, asked_at_ms: int, position: int) -> None:
        """The log, asked at `asked_at_ms`, ended at `end_offset` (exclusive); what is here goes up to `position`."""
        self._asked_at_ms = asked_at_ms
        if position >= end_offset:
            self.at_ms, self.filling, self._sought = asked_at_ms, False, None
        elif self._sought is None:
            self._sought = end_offset, asked_at_ms

    def reached(self, position: int) -> int:
        """What is here goes up to `position` now. Returns `at_ms`."""
        if self._sought is not None and position >= self._sought[0]:
            self.at_ms, self.filling, self._sought = self._sought[1], False, None
        return self.at_ms

    def missed(self, now_ms: int, shown_ms: int) -> bool:
        """Whether a deletion may be missing from what the log brings next."""
        return not self.filling and now_ms - self.at_ms > max(shown_ms, LOOKS_MISSED_MAX * look_ms(shown_ms))
