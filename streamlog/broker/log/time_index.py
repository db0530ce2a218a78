"""The sparse time index of one segment (`.timeindex`): up to which offset nothing is newer than a timestamp.

An entry is `timestamp i64 | relative_offset i32`, big-endian: the largest timestamp of the segment so far, and
the last offset of the batch that brought it. Timestamps rise strictly, offsets too. Everything at or before an
entry's offset is at most as new as its timestamp, so a search for timestamp t may start at the greatest entry
below t. When a segment is closed its largest timestamp is always the last entry: retention by time reads that.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from itertools import pairwise

ENTRY_BYTES = 12
NO_TIMESTAMP = -1

_ENTRY = struct.Struct(">qi")


class TimeIndex:
    __slots__ = ("_relative_offsets", "_timestamps_ms", "base_offset", "persisted_count")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self._timestamps_ms = array("q")  # strictly rising
        self._relative_offsets = array("I")  # strictly rising, same length
        self.persisted_count = 0  # leading entries that the file already holds

    @classmethod
    def decode(cls, base_offset: int, data: bytes) -> TimeIndex | None:
        """The index in `data`, or None when it is damaged: rebuild it then."""
        if len(data) % ENTRY_BYTES:
            return None
        index = cls(base_offset)
        for timestamp_ms, relative_offset in _ENTRY.iter_unpack(data):
            if relative_offset < 0:
                return None
            index._timestamps_ms.append(timestamp_ms)
            index._relative_offsets.append(relative_offset)
        index.persisted_count = len(index._timestamps_ms)
        rises = all(a < b for a, b in pairwise(index._timestamps_ms))
        rises = rises and all(a < b for a, b in pairwise(index._relative_offsets))
        return index if rises else None

    def __len__(self) -> int:
        return len(self._timestamps_ms)

    def maybe_append(self, timestamp_ms: int, offset: int) -> bool:
        """Add (largest timestamp so far, its batch's last offset) unless it says nothing new."""
        if timestamp_ms <= (self._timestamps_ms[-1] if self._timestamps_ms else NO_TIMESTAMP):
            return False
        self._timestamps_ms.append(timestamp_ms)
        self._relative_offsets.append(offset - self.base_offset)
        return True

    def entry(self, number: int) -> tuple[int, int]:
        """(timestamp, offset)."""
        return self._timestamps_ms[number], self.base_offset + self._relative_offsets[number]

    def last(self) -> tuple[int, int]:
        """The largest timestamp indexed and its offset; (-1, base offset) while empty, as in Kafka."""
        return self.entry(len(self) - 1) if self._timestamps_ms else (NO_TIMESTAMP, self.base_offset)

    def floor(self, timestamp_ms: int) -> tuple[int, int] | None:
        """The newest entry older than `timestamp_ms`: no record up to its offset is as new as that."""
        number = bisect_left(self._timestamps_ms, timestamp_ms) - 1
        return None if number < 0 else self.entry(number)

    def truncate_to_offset(self, offset: int) -> bool:
        """Drop entries at or after `offset`. Says whether the file now holds too many."""
        keep = bisect_left(self._relative_offsets, max(offset - self.base_offset, 0))
        del self._timestamps_ms[keep:]
        del self._relative_offsets[keep:]
        shrunk = keep < self.persisted_count
        self.persisted_count = min(self.persisted_count, keep)
        return shrunk

    def encode_from(self, first: int) -> bytes:
        """File bytes of the entries from number `first` on."""
        pairs = zip(self._timestamps_ms[first:], self._relative_offsets[first:], strict=True)
        return b"".join(_ENTRY.pack(timestamp_ms, relative) for timestamp_ms, relative in pairs)
