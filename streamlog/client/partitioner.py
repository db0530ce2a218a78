"""Which partition a record goes to: by its key as Java does, or sticky when it has none.

Keys hash with murmur2 (seed 0x9747b28c, the variant of Kafka's Java client), so that producers in any language and our
tables agree where a key lives. Records without a key stay with one partition until it got a batch worth of bytes
(KIP-794): full batches are the cheap ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct

_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF

_WORDS = [Struct(f"<{count}I") for count in range(65)]
"""Unpackers for keys of up to 256 bytes; longer ones build theirs."""

CACHED_KEYS_MAX = 65_536
"""Hashing costs a microsecond or more in Python; streams of events repeat their keys. 64 Ki entries are a few MB."""


def murmur2(key: bytes) -> int:
    """Kafka's 32-bit murmur2 of `key`, as Java's signed int."""
    length = len(key)
    count = length >> 2
    h = _SEED ^ length
    words = _WORDS[count] if count <= 64 else Struct(f"<{count}I")
    for k in words.unpack_from(key):
        k = k * _MULTIPLIER & _MASK
        h = (h * _MULTIPLIER & _MASK) ^ ((k ^ k >> 24) * _MULTIPLIER & _MASK)
    tail = length & 3
    if tail:
        h = (h ^ int.from_bytes(key[-tail:], "little")) * _MULTIPLIER & _MASK
    h = (h ^ h >> 13) * _MULTIPLIER & _MASK
    h ^= h >> 15
    return h - 0x100000000 if h & 0x80000000 else h


@lru_cache(maxsize=CACHED_KEYS_MAX)
def key_hash(key: bytes) -> int:
    """murmur2 with the sign bit cleared: never negative. A pure function, so the cache cannot go stale."""
    return murmur2(key) & 0x7FFFFFFF


def partition_for_key(key: bytes, partition_count: int) -> int:
    """The partition of `key`, the same that Java's default partitioner picks."""
    return key_hash(key) % partition_count if partition_count != 1 else 0


class StickyPartitioner:
    """Chooses partitions for records without a key: one at a time, a batch worth of bytes each (KIP-794)."""

    def __init__(self, batch_size_bytes: int, draw: Callable[[int], int]) -> None:
        self._batch_size_bytes = batch_size_bytes
        self._draw = draw
        self._current: dict[str, int] = {}  # topic -> partition in use
        self._left_bytes: dict[str, int] = {}  # topic -> bytes until the next switch; same keys as _current

    def partition(self, topic: str, size_bytes: int, available: Sequence[int]) -> int:
        """A partition out of `available` (sorted, not empty) for a record of `size_bytes`."""
        current = self._current.get(topic, -1)
        left_bytes = self._left_bytes.get(topic, 0) - size_bytes
        if left_bytes < 0 or current not in available:
            current = self._draw_other(current, available)
            self._current[topic] = current
            left_bytes = self._batch_size_bytes - size_bytes
        self._left_bytes[topic] = left_bytes
        return current

    def _draw_other(self, current: int, available: Sequence[int]) -> int:
        others = [partition for partition in available if partition != current]
        return others[self._draw(len(others))] if others else available[0]
