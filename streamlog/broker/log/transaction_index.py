"""Aborted transactions of one segment (`.txnindex`): what a read_committed consumer has to skip.

An entry is `version i16 | producer_id i64 | first_offset i64 | last_offset i64 | last_stable_offset i64`, big-endian,
34 bytes. `last_offset` is the abort marker; entries stand in the segment that holds the marker, in its order.
Aborts are rare, so the entries are written at once and kept in a plain list. A closed segment always has the
file, though often empty, so that a lost one is noticed and rebuilt.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

ENTRY_BYTES = 34
ENTRY_VERSION = 0

_ENTRY = struct.Struct(">hqqqq")


class AbortedTransaction(NamedTuple):
    producer_id: int
    first_offset: int
    """Of the transaction's first record in this partition."""
    last_offset: int
    """Of its abort marker."""
    last_stable_offset: int
    """What the last stable offset became by this abort: readers below it need no later entry."""

    def encode(self) -> bytes:
        return _ENTRY.pack(ENTRY_VERSION, *self)


def decode_aborted(data: bytes, base_offset: int, end_offset: int) -> list[AbortedTransaction] | None:
    """The entries of a file, or None when they cannot be those of a segment with these offsets: rebuild it then."""
    if len(data) % ENTRY_BYTES:
        return None
    entries: list[AbortedTransaction] = []
    for version, producer_id, first_offset, last_offset, last_stable_offset in _ENTRY.iter_unpack(data):
        if version != ENTRY_VERSION or not base_offset <= last_offset < end_offset:
            return None
        if not 0 <= first_offset <= last_offset or not first_offset <= last_stable_offset <= last_offset + 1:
            return None
        if entries and last_offset <= entries[-1].last_offset:
            return None
        entries.append(AbortedTransaction(producer_id, first_offset, last_offset, last_stable_offset))
    return entries
