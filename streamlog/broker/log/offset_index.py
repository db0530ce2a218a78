"""The sparse offset index of one segment (`.index`): which batch starts where.

An entry is `relative_offset i32 | position i32`, big-endian: the LAST offset of a batch, relative to the segment's
base offset, and the position where that batch starts in the `.log` file. So the entry with the greatest
offset not above a target names a place from which walking forward finds the target's batch.

In memory the entries are two arrays, because bisect over an array costs a third of a microsecond whatever the
size. The file is written in steps: the index is derivable from the log, so nothing waits for it.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise

ENTRY_BYTES = 8
RELATIVE_OFFSET_MAX = 2**31 - 1


class OffsetIndex:
    __slots__ = ("_positions", "_relative_offsets", "base_offset", "persisted_count")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self._relative_offsets = array("I")  # strictly rising
        self._positions = array("I")  # strictly rising, same length
        self.persisted_count = 0  # leading entries that the file already holds

    @classmethod
    def decode(cls, base_offset: int, data: bytes, log_size_bytes: int) -> OffsetIndex | None:
        """The index in `data`, or None when it cannot belong to a log file of that size: rebuild it then."""
        if len(data) % ENTRY_BYTES:
            return None
        numbers = array("I", data)
        if sys.byteorder == "little":
            numbers.byteswap()
        index = cls(base_offset)
        index._relative_offsets = numbers[0::2]
        index._positions = numbers[1::2]
        index.persisted_count = len(index._positions)
        if not (_rises(index._relative_offsets) and _rises(index._positions)):
            return None
        if len(index) and index._positions[-1] >= log_size_bytes:
            return None
        return index

    def __len__(self) -> int:
        return len(self._positions)

    def append(self, last_offset: int, position: int) -> None:
        """Add the batch that starts at `position` and ends with `last_offset`; both above every entry so far."""
        self._relative_offsets.append(last_offset - self.base_offset)
        self._positions.append(position)

    def entry(self, number: int) -> tuple[int, int]:
        """(last offset of the batch, its position)."""
        return self.base_offset + self._relative_offsets[number], self._positions[number]

    def floor(self, offset: int) -> tuple[int, int] | None:
        """The entry with the greatest offset not above `offset`; None: start at the segment's first byte."""
        number = (
            bisect_right(self._relative_offsets, offset - self.base_offset) - 1 if offset >= self.base_offset else -1
        )
        return None if number < 0 else self.entry(number)

    def count_below(self, offset: int) -> int:
        """How many of its batches end below `offset`."""
        return bisect_left(self._relative_offsets, max(offset - self.base_offset, 0))

    def floor_position(self, position: int) -> int:
        """The greatest indexed batch start not above `position`; 0 when there is none."""
        number = bisect_right(self._positions, position) - 1
        return 0 if number < 0 else self._positions[number]

    def truncate_to_position(self, position: int) -> bool:
        """Drop entries of batches that start at or after `position`. Says whether the file now holds too many."""
        keep = bisect_left(self._positions, position)
        del self._relative_offsets[keep:]
        del self._positions[keep:]
        shrunk = keep < self.persisted_count
        self.persisted_count = min(self.persisted_count, keep)
        return shrunk

    def encode_from(self, first: int) -> bytes:
        """File bytes of the entries from number `first` on."""
        numbers = array("I", bytes((len(self) - first) * ENTRY_BYTES))
        numbers[0::2] = self._relative_offsets[first:]
        numbers[1::2] = self._positions[first:]
        if sys.byteorder == "little":
            numbers.byteswap()
        return numbers.tobytes()


def _rises(numbers: array[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
