"""A failed event: where it is, how often it failed, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from streamlog.errors import UserError
from streamlog.streams.cursor import Cursor


@dataclass(frozen=True, slots=True)
class LaneFailure:
    """Why a partition stands still."""

    agent: str
    topic: str
    partition: int
    offset: int
    what: str
    """Exception and place in the user's code."""
    at_ms: int
    at_event: bool = True
    """Whether the event at `offset` is to blame. False: the body failed between events."""

    def __str__(self) -> str:
        return f"agent={self.agent} partition={self.topic}-{self.partition} offset={self.offset}: {self.what}"


def place_of(cursor: Cursor) -> tuple[str, int] | None:
    """Topic and offset of the event the body is at: the first of its list; None when it had no event yet."""
    if not cursor.has_event:
        return None
    feed, batch, _, index = cursor.held[0] if cursor.held else cursor.place
    return feed.source.topic, batch.columns.offsets[index]


def count_failures(cursor: Cursor) -> int:
    """How often in a row the body failed at this event, or this list, this time included."""
    place = place_of(cursor)
    cursor.failures = cursor.failures + 1 if cursor.failed_at == place else 1
    cursor.failed_at = place
    return cursor.failures


def bury(cursor: Cursor, topic: str, failure: LaneFailure) -> None:
    """Send the failed records to the dead letter topic, with the words that KIP-1034 uses in its headers."""
    headers = [
        ("__streams.errors.message", failure.what.encode()),
        ("__streams.errors.topic", failure.topic.encode()),
        ("__streams.errors.partition", str(failure.partition).encode()),
        ("streamlog.agent", failure.agent.encode()),
    ]
    places = cursor.held or [cursor.place]
    for _, batch, _, index in places:
        columns = batch.columns
        place = ("__streams.errors.offset", str(columns.offsets[index]).encode())
        append = partial(cursor.lane.outbox.append, topic, None, columns.keys[index], columns.values[index])
        kept = [*columns.headers[index], *headers, place]
        try:
            append(max(columns.timestamps_ms[index], 0), kept)  # a record without a time has -1, and no new one may
        except UserError:  # the topic does not take this time
            append(cursor.lane.wall_ms(), kept)
