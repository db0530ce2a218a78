"""The named deadlines of one shard, of which a driver needs to watch only the earliest.

A session deadline moves with every heartbeat and fires almost never, so moving one later must cost nothing: the
heap keeps the old entry, and when that comes up it is put back at the time it now has.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

STALE_ENTRIES_MAX = 1_000
"""Entries of cancelled keys that may wait in the heap for their time, besides as many as there are live ones: a
client that joins and leaves all day, with a session of half an hour, would otherwise grow it without end."""


class Deadlines(Generic[K]):
    """At most one deadline per key. Times are monotonic milliseconds."""

    def __init__(self) -> None:
        self._due: dict[K, int] = {}
        """The truth: when each key is due."""
        self._heap: list[tuple[int, int, K]] = []
        """(time, number, key); the time is never later than the truth. The number keeps equal times in order."""
        self._entry: dict[K, int] = {}
        """The number of the one heap entry that counts for a key; its others are stale."""
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[K]:
        return iter(self._due)

    def get(self, key: K) -> int | None:
        return self._due.get(key)

    def set(self, key: K, at_ms: int) -> None:
        """Make `key` due at `at_ms`, whatever it was before."""
        before = self._due.get(key)
        self._due[key] = at_ms
        if before is None or at_ms < before:
            self._push(at_ms, key)

    def cancel(self, key: K) -> None:
        if self._due.pop(key, None) is not None:
            del self._entry[key]
            if len(self._heap) > STALE_ENTRIES_MAX + 2 * len(self._due):
                self._drop_stale()

    def next_ms(self) -> int | None:
        """When the earliest key is due, or None when there is none."""
        self._settle()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: int) -> K | None:
        """Take one key whose time has come, earliest first."""
        self._settle()
        if not self._heap or self._heap[0][0] > now_ms:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        del self._entry[key]
        return key

    def _drop_stale(self) -> None:
        self._heap = [entry for entry in self._heap if self._entry.get(entry[2]) == entry[1]]
        heapq.heapify(self._heap)

    def _push(self, at_ms: int, key: K) -> None:
        self._numbers += 1
        self._entry[key] = self._numbers
        heapq.heappush(self._heap, (at_ms, self._numbers, key))

    def _settle(self) -> None:
        """Bring an entry to the top that tells the truth."""
        while self._heap:
            at_ms, number, key = self._heap[0]
            if self._entry.get(key) != number:
                heapq.heappop(self._heap)
            elif self._due[key] != at_ms:
                heapq.heappop(self._heap)
                self._push(self._due[key], key)
            else:
                return
