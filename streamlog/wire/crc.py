"""CRC-32C (Castagnoli), the checksum of record batches.

A thin face over the `crc32c` wheel, which uses the processor's instruction and reads any buffer in place: about
20 GB/s, so a checksum costs less than the copy it would take to avoid it. docs/decisions/0002 says why this wheel.
"""

from __future__ import annotations

from crc32c import crc32c as _crc32c


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Checksum of `data`, continuing from `value`; an unsigned 32-bit number. Nothing is copied."""
    return _crc32c(data, value)
