"""One event with everything that is known about it, for bodies that need more than the value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from streamlog.streams.record import to_moment

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Event(Generic[K, V]):
    """What `Stream.events()` yields."""

    key: K
    """None when the record had no key, whatever type the topic declares."""
    value: V
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int
    """Event time, ms since the epoch: what the topic's `timestamp=` took from the value, or the record's own."""
    topic: str
    partition: int
    offset: int

    @property
    def timestamp(self) -> datetime:
        """Event time as an aware datetime in UTC. Beyond the years 1 to 9999 it is the edge of them, and `timestamp_ms`
        alone is exact."""
        return to_moment(self.timestamp_ms)
