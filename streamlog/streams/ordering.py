"""Tables that follow a topic, advanced in event time against the streams that read them.

An event of time t has to see the rows as of t: all table records with timestamps up to t applied, and none after it. So
the lanes of a task are held back at the next table record, and a table record is applied once no lane stands before an
event that is earlier. What is not here yet counts as early: while a table's topic is known to have records that were
not fetched, its lanes wait (KIP-695); so do its records while a stream's topic has.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

from streamlog.errors import StreamlogError
from streamlog.serde import SerdeError
from streamlog.state.freshness import Freshness
from streamlog.state.store import Position
from streamlog.streams.batches import Batch, Readings
from streamlog.streams.feed import NEVER_MS, LaneTopic, Source
from streamlog.streams.lane import Lane
from streamlog.streams.policies import blame

log = logging.getLogger(__name__)


class TableFeed:
    """The records of one table's topic that were not applied yet."""

    def __init__(
        self, source: Source, topic: LaneTopic, state: Any, stored: Position | None, fresh: Freshness, known_until: int
    ) -> None:
        """The feed of one table.

        Args: state: a ReadOnly, whose table is written here and nowhere else.
              stored: where its rows stand; None when there are none.
              fresh: of its rows.
              known_until: the records below were applied before, here or on another worker: they are applied at once.
        """
        self.source = source
        self.table: str = state.state.name
        self.position = 0 if stored is None else stored.offset  # exclusive end of what is applied
        self.fresh = fresh
        self.committed = self.stands() if stored is None else stored  # what of it is in the store
        self.known_until = known_until
        self._topic = topic
        self._table = state.state
        self._batches: deque[Batch] = deque()
        self._readings = Readings(topic.reader, only_looks=True)  # who looks up a row gets one of its own
        self._head = 0  # index of the next record in _batches[0]

    def stands(self) -> Position:
        """How far its rows go, and since when they may miss something."""
        return Position(self.position, self.source.topic_id, at_ms=self.fresh.reached(self.position))

    def append(self, batch: Batch) -> None:
        if batch.columns.offsets and batch.columns.offsets[0] < self.position:
            batch = batch.since(self.position)
        self._batches.append(batch)
        self._readings.expect(batch)
        self._drop_used()
        while self._batches and self.position < self.known_until:
            self._step(self._batches[0])

    def head_ms(self) -> int | None:
        """Time of the next record; None while it is not here; NEVER_MS when there is none for now."""
        if not self._batches:
            return None if self.source.lagging or self.position < self.known_until else NEVER_MS
        reading = self._readings.of(self._batches[0])
        reading.ensure(self._head + 1)
        return reading.timestamps_ms[self._head]

    def apply_until(self, last_ms: int) -> None:
        """Apply the leading records with timestamps up to `last_ms`, included."""
        while self._batches:
            batch = self._batches[0]
            reading = self._readings.of(batch)
            reading.ensure(self._head + 1)
            if reading.timestamps_ms[self._head] > last_ms:
                return
            self._step(batch)

    def _step(self, batch: Batch) -> None:
        self._apply(batch, self._head)
        self._head += 1
        self.position = batch.offset_at(self._head)
        self._drop_used()

    def _apply(self, batch: Batch, index: int) -> None:
        """Make the record a row. One that cannot be read is passed over: a table has no agent whose policy could say
        otherwise, and the records behind it are good."""
        key_bytes = batch.columns.keys[index]
        if key_bytes is None:
            return  # a row needs a key; Kafka Streams passes over such records too
        reading = self._readings.of(batch)
        reading.ensure(index + 1)
        key, error = self._read_key(key_bytes)
        error = reading.holes.get(index) or error
        if error is None:
            try:
                if batch.columns.values[index] is None:
                    self._table.delete(key)
                else:
                    self._table.set(key, reading.values[index])
                return
            except SerdeError as unfit:
                error = unfit
        place = f"{self.source.topic}-{self.source.partition} offset={batch.columns.offsets[index]}"
        what = error if isinstance(error, StreamlogError) else blame(error)
        log.error("table=%s partition=%s: record passed over: %s", self._table.name, place, what)

    def _read_key(self, data: bytes) -> tuple[Any, Exception | None]:
        """The key, or why there is none: it has to be readable, and of a type that a dict takes."""
        try:
            key = self._topic.key_decode(data)
            hash(key)
        except Exception as error:  # the user's types may raise anything
            return None, SerdeError(f"its key: {error if isinstance(error, SerdeError) else blame(error)}")
        return key, None

    def _drop_used(self) -> None:
        while self._batches and self._head >= self._batches[0].count:
            self.position = self._batches[0].next_offset
            self._readings.forget(self._batches.popleft())
            self._head = 0


class TableGate:
    """Lets the lanes of one task run up to the next table record, and applies it when all have come so far."""

    def __init__(self, feeds: Sequence[TableFeed], lanes: Sequence[Lane]) -> None:
        """`lanes`: the task's, filled later."""
        self.feeds = feeds
        self._lanes = lanes

    def on_data(self, source: Source, batch: Batch) -> None:
        """The batch belongs to a table's topic, or streams moved on: apply what nobody has to wait for."""
        for feed in self.feeds:
            if feed.source is source:
                feed.append(batch)
        self._advance(None)

    def open_until(self, lane: Lane, head_ms: int) -> int:
        """See `Gate`. Called by a lane that stands at an event boundary."""
        bound_ms = self._bound_ms()
        if bound_ms > head_ms:
            return bound_ms
        self._advance(lane)
        return self._bound_ms()

    def _bound_ms(self) -> int:
        """Events before this may run: the time of the next table record, or nothing while one may be missing."""
        bound_ms = NEVER_MS
        for feed in self.feeds:
            head_ms = feed.head_ms()
            if head_ms is None:
                return -NEVER_MS
            bound_ms = min(bound_ms, head_ms)
        return bound_ms

    def _advance(self, asking: Lane | None) -> None:
        """Apply the table records that are not after any lane's next event, if every lane is between events."""
        earliest_ms = NEVER_MS
        for lane in self._lanes:
            if lane.failure is not None:
                continue
            if not lane.between_events:
                return
            head_ms = lane.head_ms()
            if head_ms is None:
                return
            earliest_ms = min(earliest_ms, head_ms)
        before = [feed.position for feed in self.feeds]
        for feed in self.feeds:
            feed.apply_until(earliest_ms)
        if before != [feed.position for feed in self.feeds]:
            for lane in self._lanes:
                if lane is not asking:
                    lane.on_data()
