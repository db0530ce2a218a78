"""Reading whole batches out of a partition, as ranges of its files.

At the head, where followers and consumers that keep up read, `_Tail` remembers where the last batches of the active
segment start: such a read is two bisections and one pread. A reader further back finds its place through the
index once, and then goes on where its last read ended (`_cursors`). Nothing is decoded but the headers between
the last index entry and the end of the range.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from streamlog.broker.log.segment import Segment
from streamlog.broker.log.segments import SegmentList
from streamlog.env import Buffer
from streamlog.wire.records import HEADER_BYTES, CorruptBatch, NeedMoreData, decode_batch_header, iter_batch_headers

TAIL_BATCHES_MAX = 1024
"""Batch positions remembered at the head, 16 bytes each: 16 to 32 KiB for a busy partition, nothing for an idle one.
A reader that is further behind uses the index."""

CURSORS_MAX = 16
"""Readers behind the head whose place is remembered. One more than that pays an index lookup again."""


class ReadResult(NamedTuple):
    data: Buffer
    """Whole batches; the first one may begin below the offset that was asked for."""
    next_offset: int
    """Where to read on: the offset after the last batch, or the asked one when nothing is there."""


class Limit(NamedTuple):
    offset: int
    """Exclusive."""
    is_log_end: bool
    """The limit is the log end: then nobody has to look where it is."""


class _Tail:
    """Where the last batches of the active segment start."""

    __slots__ = ("first_offset", "last_offsets", "positions")

    def __init__(self, first_offset: int) -> None:
        self.first_offset = first_offset  # offsets from here on are covered
        self.last_offsets = array("q")  # last offset of each batch, rising
        self.positions = array("q")  # where each starts, same length

    def note(self, position: int, last_offset: int) -> None:
        self.last_offsets.append(last_offset)
        self.positions.append(position)
        if len(self.positions) > 2 * TAIL_BATCHES_MAX:
            self.first_offset = self.last_offsets[TAIL_BATCHES_MAX - 1] + 1
            del self.last_offsets[:TAIL_BATCHES_MAX], self.positions[:TAIL_BATCHES_MAX]


class LogReader:
    def __init__(self, segments: SegmentList, log_end_offset: int) -> None:
        self._segments = segments
        self._tail = _Tail(log_end_offset)
        self._cursors: dict[int, tuple[Segment, int]] = {}  # next offset of a reader -> where that is

    def note(self, position: int, last_offset: int) -> None:
        """A batch now stands at `position` of the active segment."""
        self._tail.note(position, last_offset)

    def start_tail(self, log_end_offset: int) -> None:
        """There is a new active segment."""
        self._tail = _Tail(log_end_offset)

    def forget(self, log_end_offset: int) -> None:
        """Positions have changed: after a truncation."""
        self._cursors.clear()
        self._tail = _Tail(log_end_offset)

    def forget_cursors(self) -> None:
        """Closed segments have gone or were replaced."""
        self._cursors.clear()

    def read(self, start_offset: int, bytes_max: int, limit: Limit, at_least_one_batch: bool) -> ReadResult:
        """PartitionLog.read, for a start below the limit. Raises DamagedLog, OSError."""
        if start_offset >= self._tail.first_offset:
            return self._read_tail(start_offset, bytes_max, limit, at_least_one_batch)
        return self._read_indexed(start_offset, bytes_max, limit, at_least_one_batch)

    def _read_tail(self, start_offset: int, bytes_max: int, limit: Limit, at_least_one_batch: bool) -> ReadResult:
        """At the head: positions of the batches are known."""
        segment = self._segments.active
        last_offsets, positions = self._tail.last_offsets, self._tail.positions
        first = bisect_left(last_offsets, start_offset)
        stop = len(last_offsets) if limit.is_log_end else bisect_left(last_offsets, limit.offset)
        if first >= stop:
            return ReadResult(b"", start_offset)
        position = positions[first]
        end_position = positions[stop] if stop < len(positions) else segment.size_bytes
        if end_position - position > bytes_max:
            stop = bisect_right(positions, position + bytes_max) - 1
            if stop <= first:
                if not at_least_one_batch:
                    return ReadResult(b"", start_offset)
                stop = first + 1
            end_position = positions[stop] if stop < len(positions) else segment.size_bytes
        return ReadResult(segment.read(position, end_position - position), last_offsets[stop - 1] + 1)

    def _read_indexed(self, start_offset: int, bytes_max: int, limit: Limit, at_least_one_batch: bool) -> ReadResult:
        """Behind the head: find the place through the index, or where the last read ended."""
        cursor = self._cursors.pop(start_offset, None)
        if cursor is None or cursor[1] >= cursor[0].size_bytes:  # the segment was closed where the reader stands
            cursor = self._find(start_offset)
        segment, position = cursor
        end_position = self._end_position(segment, limit)
        size_bytes = min(bytes_max, end_position - position)
        if size_bytes <= 0 and (end_position <= position or not at_least_one_batch):
            return ReadResult(b"", start_offset)
        data: Buffer = segment.read(position, size_bytes)
        cut, next_offset = self._last_whole(segment, data, position)
        if cut == 0:
            if not at_least_one_batch:
                return ReadResult(b"", start_offset)
            data, next_offset = self._read_one(segment, position)
            cut = len(data)
        self._remember(next_offset, segment, position + cut)
        return ReadResult(data if cut == len(data) else memoryview(data)[:cut], next_offset)

    def _find(self, offset: int) -> tuple[Segment, int]:
        """Where the first batch that ends at or after `offset` starts."""
        number = self._segments.number_at(offset)
        while number < len(self._segments):
            segment = self._segments[number]
            position, header = segment.locate(offset)
            if header is not None:
                return segment, position
            number += 1
        active = self._segments.active
        return active, active.size_bytes

    def _end_position(self, segment: Segment, limit: Limit) -> int:
        """Where in `segment` the batches below the limit end."""
        is_active = segment is self._segments.active
        if limit.is_log_end or (not is_active and limit.offset >= segment.next_offset):
            return segment.size_bytes
        if is_active and limit.offset >= self._tail.first_offset:
            stop = bisect_left(self._tail.last_offsets, limit.offset)
            return self._tail.positions[stop] if stop < len(self._tail.positions) else segment.size_bytes
        return segment.locate(limit.offset)[0]

    def _last_whole(self, segment: Segment, data: Buffer, position: int) -> tuple[int, int]:
        """(size of the whole batches in `data`, where to read on), looking only behind the last indexed batch.

        (0, -1) when not even the first one is whole.
        """
        floor = segment.offset_index.floor_position(position + len(data) - 1) - position
        if floor > 0:
            try:
                size_bytes, next_offset = _walk(data, floor)
                if next_offset >= 0:
                    return size_bytes, next_offset
                if len(data) - floor >= HEADER_BYTES:
                    return floor, decode_batch_header(data, floor).base_offset
            except CorruptBatch:
                pass  # the index may be wrong about where a batch starts; the batches themselves decide
        try:
            return _walk(data, 0)
        except CorruptBatch as error:
            raise segment.damage(error) from error

    def _read_one(self, segment: Segment, position: int) -> tuple[bytes, int]:
        """Exactly the batch at `position`, however large."""
        try:
            header = decode_batch_header(segment.file.pread(HEADER_BYTES, position))
        except (CorruptBatch, NeedMoreData) as error:
            raise segment.damage(error) from error
        return segment.read(position, header.size_bytes), header.next_offset

    def _remember(self, next_offset: int, segment: Segment, position: int) -> None:
        if position >= segment.size_bytes and segment is not self._segments.active:
            return  # the next read starts a segment, which is found at once
        if len(self._cursors) >= CURSORS_MAX:
            del self._cursors[next(iter(self._cursors))]
        self._cursors[next_offset] = (segment, position)


def _walk(data: Buffer, start: int) -> tuple[int, int]:
    """(end of the last whole batch from `start`, the offset after it); (start, -1) when there is none."""
    headers = iter_batch_headers(data, start)
    next_offset = -1
    for _, header in headers:
        next_offset = header.next_offset
    return headers.valid_bytes, next_offset
