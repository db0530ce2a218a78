"""A failed event: where it is, how often it failed, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from streamlog.errors import StreamlogError
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


def bury(cursor: Cursor, topic: str, failure: LaneFailure) -> StreamlogError | None:
    """Send the failed records to the dead letter topic, with the words that KIP-1034 uses in its headers.

    Returns: why the topic does not take one of them, not even without headers. Those before it are in there then.
    """
    headers = [
        ("__streams.errors.topic", failure.topic.encode()),
        ("__streams.errors.partition", str(failure.partition).encode()),
        ("streamlog.agent", failure.agent.encode()),
    ]
    message = ("__streams.errors.message", failure.what.encode(errors="backslashreplace"))
    places = cursor.held or [cursor.place]
    for _, batch, _, index in places:
        columns = batch.columns
        place = ("__streams.errors.offset", str(columns.offsets[index]).encode())
        append = partial(cursor.lane.outbox.append, topic, None, columns.keys[index], columns.values[index])
        own, now_ms = columns.headers[index], cursor.lane.wall_ms()
        time_ms = max(columns.timestamps_ms[index], 0)  # a record without a time has -1, and no new one may
        # What may be in the way, one after another: its time; in a record as large as one may be, what we add to it.
        attempts = [
            (time_ms, [*own, message, *headers, place]),
            (now_ms, [*own, message, *headers, place]),
            (time_ms, [*own, *headers, place]),
            (time_ms, own),
            (now_ms, own),
        ]
        refusal: StreamlogError | None = None
        for at_ms, kept in attempts:
            try:
                append(at_ms, kept)
            except StreamlogError as error:
                refusal = refusal or error
            else:
                break
        else:
            return refusal
    return None
