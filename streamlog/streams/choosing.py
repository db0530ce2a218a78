"""Which events a lane processes next: the earliest of its feeds, as far as the tables beside them have come.

Several topics are read in the order of event time. What is not here yet counts as early: while records of one feed are
known to be missing, the lane waits (KIP-695).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamlog.streams.batches import Batch, Reading
from streamlog.streams.feed import NEVER_MS, Feed


class Chooser:
    """Of one lane."""

    def __init__(self, feeds: Sequence[Feed], open_until: Callable[[int], int] | None) -> None:
        """`open_until`: the gate, asked with the time of the next event; None when there is none."""
        self._feeds, self._open_until = feeds, open_until

    def next_run(self, events_max: int) -> tuple[Feed, Batch, Reading, int, int] | None:
        """Events that may be processed now, earliest first: a run of one batch, and at most so many."""
        while True:
            feed, bound_ms = self._earliest()
            if feed is None:
                return None
            batch = feed.batch()
            assert batch is not None, "the earliest feed has an event"
            reading = feed.readings.of(batch)
            start = feed.head
            stop = min(start + events_max, batch.count)
            reading.ensure(stop)
            if bound_ms is not None:
                stop = _before(reading.timestamps_ms, start, stop, bound_ms)
            stop = reading.first_hole(start, stop)
            if stop > start:
                return feed, batch, reading, start, stop
            if reading.holes[start] is not None:
                return feed, batch, reading, start, start + 1
            feed.head += 1  # a tombstone, and the type has no None
            feed.tracker.pass_to(batch.offset_at(feed.head))

    def _earliest(self) -> tuple[Feed | None, int | None]:
        """The feed whose next event is the earliest, and the exclusive bound up to which it remains so."""
        if len(self._feeds) == 1 and self._open_until is None:
            feed = self._feeds[0]
            return (None if feed.source.stopped or feed.batch() is None else feed), None
        best: Feed | None = None
        best_ms = second_ms = NEVER_MS
        for feed in self._feeds:
            feed.batch()  # lets go of what is used up: the fetching of this partition may wait for that
            head_ms = feed.head_ms()
            if head_ms is None:
                return None, None  # what comes may be earlier than all we have: wait for it (KIP-695)
            if head_ms < best_ms:
                best, best_ms, second_ms = feed, head_ms, best_ms
            else:
                second_ms = min(second_ms, head_ms)
        if best is None:
            if self._open_until is not None:
                self._open_until(NEVER_MS)  # no event of ours holds table records back any more
            return None, None
        bound_ms = second_ms + 1
        if self._open_until is not None:
            bound_ms = min(bound_ms, self._open_until(best_ms))
        return (best, bound_ms) if bound_ms > best_ms else (None, None)

    def head_ms(self) -> int | None:
        """Event time of the lane's next event; None when it is not known yet; NEVER_MS when there is none for now."""
        heads = [feed.head_ms() for feed in self._feeds]
        return None if None in heads else min(head for head in heads if head is not None)


def _before(timestamps_ms: list[int], start: int, stop: int, bound_ms: int) -> int:
    """End of the leading run of [start, stop) whose timestamps are below `bound_ms`."""
    for index in range(start, stop):
        if timestamps_ms[index] >= bound_ms:
            return index
    return stop
