"""Fetched records on their way to the lanes: columns, and what each topic declaration reads out of them.

Several agents may read one partition. They share the batch; what they make of it is their own, so that one may change
an event in place and no other sees it. Only values that cannot change (scalars, frozen records) are decoded once for
all agents that share a topic declaration. Decoding goes a slice at a time, just before it is needed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamlog.streams.record import to_timestamp_ms
from streamlog.wire.records import RecordColumns

DECODE_EVENTS = 512
"""Values decoded at a time: enough to amortise the call, few enough to stay within a couple of hundred microseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """How one topic declaration reads records. Compared by identity: one declaration, one reader."""

    decode: Callable[[Any], Any]
    timestamp: Callable[[Any], Any] | None
    """Takes the event time out of the value; None for the record's own timestamp."""
    wants_tombstones: bool
    """Whether None is a value of the declared type; otherwise records without a value are passed over."""
    read: Callable[[Any], Any] | None = None
    """A quicker `decode` whose exceptions say less; None when there is none."""
    shares: bool = False
    """Whether values cannot be changed in place, so that everybody may have the same."""
    copy: Callable[[Any], Any] | None = None
    """Copies a value, quicker than decoding it once more; None when there is no such way."""


class Reading:
    """One reader's view of one batch. `values[i]` is valid for i < `count`, unless i is a hole."""

    __slots__ = ("_columns", "_original", "_reader", "count", "holes", "timestamps_ms", "values")

    def __init__(self, columns: RecordColumns, reader: Reader, original: Reading | None = None) -> None:
        """`original`: a reading whose values nobody changes, to be copied instead of decoding again."""
        self._columns = columns
        self._reader = reader
        self._original = original
        self.count = 0
        self.values: list[Any] = []
        self.timestamps_ms = columns.timestamps_ms if reader.timestamp is None else []  # event times
        if original is not None:
            self.timestamps_ms = original.timestamps_ms
        self.holes: dict[int, Exception | None] = {}  # index: why there is no value; None for a tombstone to pass over

    def ensure(self, stop: int) -> None:
        """Decode up to `stop`, exclusive, or a little further."""
        if self._original is not None and self.count < stop:
            self._copy_from(self._original, stop)
        while self.count < stop:
            start, end = self.count, min(self.count + DECODE_EVENTS, len(self._columns))
            raw = self._columns.values[start:end]
            try:
                fresh = [] if None in raw else list(map(self._reader.read or self._reader.decode, raw))
            except Exception:  # which one it was, and why, comes out one by one
                fresh = []
            if len(fresh) == len(raw):  # it may be shorter: a StopIteration of the user's ends `map`, and says nothing
                self.values += fresh
            else:
                self._decode_singly(start, raw)
            self.count = end
            if self._reader.timestamp is not None:
                self._take_timestamps(start, end)

    def first_hole(self, start: int, stop: int) -> int:
        """The first hole in [start, stop), or `stop`."""
        if self.holes:
            for index in range(start, stop):
                if index in self.holes:
                    return index
        return stop

    def _copy_from(self, original: Reading, stop: int) -> None:
        copy = self._reader.copy
        assert copy is not None, "otherwise values are decoded again"
        original.ensure(stop)
        start, self.count = self.count, original.count
        fresh = original.values[start:]
        if original.holes:
            self.holes.update((at, why) for at, why in original.holes.items() if at >= start)
            self.values += [None if value is None else copy(value) for value in fresh]
        else:
            self.values += map(copy, fresh)

    def renew(self, index: int) -> None:
        """Decode the value at `index` once more: it is given out again, and who had it may have changed it."""
        data = self._columns.values[index]
        if self._reader.shares or data is None or index in self.holes:
            return
        try:
            self.values[index] = self._reader.decode(data)
        except Exception as error:  # as in `_decode_singly`
            self.holes[index] = error

    def _decode_singly(self, start: int, raw: list[bytes | None]) -> None:
        for index, data in enumerate(raw, start):
            value = None
            if data is not None:
                try:
                    value = self._reader.decode(data)
                except Exception as error:  # what the user's types do in here may raise anything
                    self.holes[index] = error
            elif not self._reader.wants_tombstones:
                self.holes[index] = None
            self.values.append(value)

    def _take_timestamps(self, start: int, end: int) -> None:
        take = self._reader.timestamp
        assert take is not None, "only called with a timestamp function"
        for index in range(start, end):
            timestamp_ms = self._columns.timestamps_ms[index]
            if index not in self.holes:
                try:
                    moment = take(self.values[index])
                    if moment is not None:
                        timestamp_ms = to_timestamp_ms(moment)
                except Exception as error:  # the user's function may raise anything; the event gets the blame
                    self.holes[index] = error
            self.timestamps_ms.append(timestamp_ms)


class Batch:
    """The records of one fetch of one partition."""

    __slots__ = ("_readings", "_takers", "columns", "count", "next_offset")

    def __init__(self, columns: RecordColumns, next_offset: int) -> None:
        self.columns = columns
        self.count = len(columns)
        self.next_offset = next_offset  # exclusive end of what the fetch covered, gaps included
        self._readings: dict[Reader, Reading] = {}
        self._takers: dict[Reader, int] = {}

    def expect(self, reader: Reader) -> None:
        """One more will read it so."""
        self._takers[reader] = self._takers.get(reader, 0) + 1

    def own(self, reader: Reader) -> Reading:
        """A reading for somebody who may change the values."""
        if reader.copy is not None and self._takers.get(reader, 0) > 1:
            return Reading(self.columns, reader, self.shared(reader))
        return Reading(self.columns, reader)

    def shared(self, reader: Reader) -> Reading:
        """The reading of those who do not."""
        reading = self._readings.get(reader)
        if reading is None:
            reading = self._readings[reader] = Reading(self.columns, reader)
        return reading

    def since(self, offset: int) -> Batch:
        """The records from `offset` on, as a batch of its own."""
        columns = self.columns
        start = bisect_left(columns.offsets, offset)
        return Batch(columns.part(start, self.count), self.next_offset)

    def offset_at(self, index: int) -> int:
        """Offset of event `index`, or the end of the batch for `index == count`."""
        return self.columns.offsets[index] if index < self.count else self.next_offset


class Readings:
    """One agent's readings, or one table's, of the batches that wait for it."""

    __slots__ = ("_only_looks", "_own", "_reader")

    def __init__(self, reader: Reader, *, only_looks: bool = False) -> None:
        """`only_looks`: no code of the user gets the values."""
        self._reader = reader
        self._only_looks = only_looks or reader.shares
        self._own: dict[Batch, Reading] = {}

    def expect(self, batch: Batch) -> None:
        """The batch will be read."""
        if not self._reader.shares:
            batch.expect(self._reader)

    def of(self, batch: Batch) -> Reading:
        if self._only_looks:
            return batch.shared(self._reader)
        reading = self._own.get(batch)
        if reading is None:
            reading = self._own[batch] = batch.own(self._reader)
        return reading

    def forget(self, batch: Batch) -> None:
        """Nobody will read on in this batch."""
        self._own.pop(batch, None)

    def clear(self) -> None:
        self._own.clear()
