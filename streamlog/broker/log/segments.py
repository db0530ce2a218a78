"""The segments of one partition in offset order, and which one holds an offset."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from streamlog.broker.log.segment import OFFSET_MAX, Segment


class SegmentList:
    """Never empty once a partition is open; the last one is active."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = sorted(segments, key=lambda segment: segment.base_offset)
        self._base_offsets = [segment.base_offset for segment in self._segments]
        for number in range(len(self._segments)):
            self._bound(number)

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def __getitem__(self, number: int) -> Segment:
        return self._segments[number]

    @property
    def active(self) -> Segment:
        return self._segments[-1]

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments)

    def number_at(self, offset: int) -> int:
        """Index of the segment whose range `offset` falls in; the first one for offsets below it."""
        return max(bisect_right(self._base_offsets, offset) - 1, 0)

    def end_of(self, number: int) -> int:
        """Where the range of a segment ends, exclusive: the next one's base offset, or its own end."""
        if number + 1 < len(self._base_offsets):
            return self._base_offsets[number + 1]
        return self._segments[number].next_offset

    def between(self, start_offset: int, end_offset: int) -> list[Segment]:
        """Segments that may hold offsets in [start_offset, end_offset)."""
        first = self.number_at(start_offset)
        return [segment for segment in self._segments[first:] if segment.base_offset < end_offset]

    def add(self, segment: Segment) -> None:
        assert not self._base_offsets or segment.base_offset > self._base_offsets[-1], "segments are added at the end"
        self._segments.append(segment)
        self._base_offsets.append(segment.base_offset)
        self._bound(len(self._segments) - 1)
        self._bound(len(self._segments) - 2)

    def remove(self, segment: Segment) -> None:
        number = self._segments.index(segment)
        del self._segments[number], self._base_offsets[number]
        self._bound(number - 1)

    def replace(self, old: list[Segment], new: Segment) -> None:
        """Put `new` where the run of `old` segments stood; it has the first one's base offset."""
        first = self._segments.index(old[0])
        assert self._segments[first : first + len(old)] == old, "compaction replaces a run of neighbours"
        assert new.base_offset == old[0].base_offset, "a cleaned segment keeps the base offset of its first source"
        self._segments[first : first + len(old)] = [new]
        self._base_offsets[first : first + len(old)] = [new.base_offset]
        self._bound(first)

    def _bound(self, number: int) -> None:
        """Tell a segment where its range ends."""
        if 0 <= number < len(self._segments):
            is_last = number + 1 == len(self._segments)
            self._segments[number].end_offset_max = OFFSET_MAX if is_last else self._base_offsets[number + 1]
