"""The records that RecordBatches.java writes, for the tests that compare with Apache Kafka's bytes."""

from __future__ import annotations

from streamlog.wire.records import Compression, RecordHeaders, encode_batch

Rows = tuple[list[bytes | None], list[bytes | None], list[int], list[RecordHeaders]]


def kafka_rows(count: int) -> Rows:
    """Keys, values, timestamps and headers of its first `count` records."""
    keys = [None if i % 5 == 0 else b"key-%d" % i for i in range(count)]
    values = [None if i % 7 == 3 else b"value-%d;" % i * (i % 50) for i in range(count)]
    timestamps_ms = [1_700_000_000_000 + (i * 37) % 101 for i in range(count)]
    headers: list[RecordHeaders] = [() if i % 4 != 1 else (("h\u00e4", b"v%d" % i), ("n", None)) for i in range(count)]
    return keys, values, timestamps_ms, headers


def kafka_batch(count: int, compression: Compression, level: int | None = None) -> bytearray:
    """The batch that RecordBatches.java writes of them, as we write it."""
    keys, values, timestamps_ms, headers = kafka_rows(count)
    return encode_batch(
        keys=keys,
        values=values,
        timestamps_ms=timestamps_ms,
        headers=headers,
        base_offset=42,
        compression=compression,
        level=level,
        producer_id=7,
        producer_epoch=3,
        base_sequence=11,
        leader_epoch=5,
    )
