"""Which offset of a partition may be committed.

The commit rule: an offset is committed only when every event below it is fully processed by everyone who reads the
partition, in whatever order they finish. Events of one partition are handed out in offset order; with `concurrency=N`
they end in any order. What lies between two handed-out offsets (compacted records, transaction markers, events that a
filter dropped) needs no
processing, so it must not hold the commit back either: the position moves over it, and never by guessing `offset + 1`:
batch ends come from the fetch.

    position   everything below was handed out or needs no processing; exclusive
    in flight  handed out, not done; all below position

The committable offset is the lowest in flight, or the position when nothing is.
"""

from __future__ import annotations


class OffsetTracker:
    """The progress of one reader (an agent) on one partition."""

    __slots__ = ("_in_flight", "position")

    def __init__(self, position: int) -> None:
        self.position = position  # exclusive; only grows
        self._in_flight: set[int] = set()  # offsets handed out and not done; each < position

    def hand_out(self, offset: int) -> None:
        """The event at `offset`, at or above the position, goes to a body."""
        assert offset >= self.position, f"offset {offset} was handed out already (position {self.position})"
        self._in_flight.add(offset)
        self.position = offset + 1

    def done(self, offset: int) -> None:
        """The body is finished with the event. Unknown offsets are a bug of the caller."""
        self._in_flight.remove(offset)

    def pass_to(self, position: int) -> None:
        """Nothing between the position and `position` needs processing (any more)."""
        if position > self.position:
            self.position = position

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def committable(self) -> int:
        """Exclusive end of what may be committed."""
        return min(self._in_flight) if self._in_flight else self.position
