"""CRC-32C against published vectors."""

from __future__ import annotations

import pytest

from streamlog.wire.crc import crc32c


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        # RFC 3720 (iSCSI), appendix B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        # The check value of the CRC catalogue.
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksum_is_castagnoli(data: bytes, checksum: int) -> None:
    """The published value, whole or in two steps, from any kind of buffer."""
    assert crc32c(data) == checksum
    assert crc32c(memoryview(data)[5:], crc32c(bytearray(data[:5]))) == checksum
