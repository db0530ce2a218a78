"""Record batches through the public face: what goes in comes out, in the bytes Kafka defines."""

from __future__ import annotations

import pytest

from streamlog.wire.records import (
    BatchBuilder,
    Compression,
    CorruptBatch,
    decode_batch_header,
    decode_records,
    encode_batch,
    iter_batch_headers,
)

KEYS = [b"a", None, b"", b"long" * 100]
VALUES = [b"1", b"2", None, b""]
TIMESTAMPS_MS = [1_700_000_000_000, 1_700_000_000_001, 1_699_999_999_999, 1_700_000_900_000]
HEADERS = [(), (("h", b"v"), ("n", None)), (), (("", b""),)]


@pytest.mark.parametrize("compression", list(Compression))
def test_batch_round_trips(compression: Compression) -> None:
    """Nulls, empties, headers and unordered timestamps survive every compression."""
    batch = encode_batch(
        keys=KEYS,
        values=VALUES,
        timestamps_ms=TIMESTAMPS_MS,
        headers=HEADERS,
        base_offset=42,
        compression=compression,
    )
    columns = decode_records(batch)
    assert columns.offsets == [42, 43, 44, 45]
    assert (columns.keys, columns.values) == (KEYS, VALUES)
    assert (columns.timestamps_ms, columns.headers) == (TIMESTAMPS_MS, HEADERS)
    assert decode_batch_header(batch).max_timestamp_ms == max(TIMESTAMPS_MS)


def test_builder_builds_what_encode_batch_encodes() -> None:
    """Record by record or as columns: the same bytes."""
    builder = BatchBuilder()
    for key, value, timestamp_ms, headers in zip(KEYS, VALUES, TIMESTAMPS_MS, HEADERS, strict=True):
        builder.append(key, value, timestamp_ms, headers)
    batch = builder.build(producer_id=9, producer_epoch=1, base_sequence=7)
    assert batch == encode_batch(
        keys=KEYS,
        values=VALUES,
        timestamps_ms=TIMESTAMPS_MS,
        headers=HEADERS,
        producer_id=9,
        producer_epoch=1,
        base_sequence=7,
    )
    assert builder.size_bytes >= len(batch)


def test_iteration_stops_at_a_torn_tail() -> None:
    """A log that ends inside a batch yields the whole ones before it, and says where they end."""
    batch = encode_batch(keys=[b"k"], values=[b"v"], timestamps_ms=[5])
    headers = iter_batch_headers(batch + batch + batch[:-1])
    assert [position for position, _ in headers] == [0, len(batch)]
    assert headers.valid_bytes == 2 * len(batch)


def test_flipped_bit_is_corrupt() -> None:
    """The checksum is verified before records are believed."""
    batch = encode_batch(keys=[b"k"], values=[b"v"], timestamps_ms=[5])
    batch[-2] ^= 1
    with pytest.raises(CorruptBatch, match="checksum"):
        decode_records(batch)
