"""Which partition of an internal topic a group or a transactional id belongs to.

Clients never compute this, but every broker of a cluster must agree, and a log written by Apache Kafka must load
here: so it is Kafka's function, the absolute value of Java's String.hashCode over UTF-16 code units.
"""

from __future__ import annotations

import struct


def java_string_hash(text: str) -> int:
    """Java's String.hashCode as a signed 32-bit integer."""
    value = 0
    data = text.encode("utf-16-be", "surrogatepass")
    for (unit,) in struct.iter_unpack(">H", data):
        value = (31 * value + unit) & 0xFFFFFFFF
    return value - 0x1_0000_0000 if value & 0x8000_0000 else value


def partition_for(key: str, partition_count: int) -> int:
    """The partition of an internal topic with `partition_count` partitions that owns `key`."""
    value = java_string_hash(key)
    # Java has no absolute value of its smallest integer; Kafka defines it as 0, and clearing the sign bit as other
    # partitioners do would move every group with a negative hash.
    return 0 if value == -0x8000_0000 else abs(value) % partition_count
