"""Record batches for tests."""

from __future__ import annotations

import struct
import time

from streamlog.wire.compression import compress
from streamlog.wire.crc import crc32c
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from streamlog.wire.records import Compression, encode_batch


def new_batch(
    *values: bytes,
    key: bytes | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    is_transactional: bool = False,
    compression: Compression = Compression.NONE,
    timestamp_ms: int | None = None,
) -> bytes:
    now_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    return bytes(
        encode_batch(
            keys=[key] * len(values),
            values=list(values),
            timestamps_ms=[now_ms] * len(values),
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            is_transactional=is_transactional,
            compression=compression,
        )
    )


def produce_request(topic: str, records: bytes | None, *, partition: int = 0, acks: int = -1) -> ProduceRequest:
    return ProduceRequest(
        acks=acks,
        timeout_ms=10_000,
        topic_data=[
            TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=partition, records=records)])
        ],
    )


ATTRIBUTES, LAST_DELTA, MAX_TIMESTAMP, COUNT, RECORDS = 21, 23, 35, 57, 61
"""Positions in a batch."""


def changed(batch: bytes, at: int, data: bytes, *, resum: bool = True) -> bytes:
    """A batch with some bytes replaced, and its checksum made right again."""
    out = bytearray(batch)
    out[at : at + len(data)] = data
    if resum:
        out[17:21] = crc32c(bytes(out[21:])).to_bytes(4, "big")
    return bytes(out)


def record(body: bytes) -> bytes:
    """A record of a body: attributes, timestamp delta, offset delta, key, value, header count, headers."""
    return varint(len(body)) + body


def varint(value: int) -> bytes:
    """A zigzag varint of a small number."""
    return bytes([((value << 1) ^ (value >> 31)) & 0x7F])


def with_section(section: bytes, count: int, compression: Compression) -> bytes:
    """A batch of `count` records that holds these bytes, compressed, for records."""
    batch = bytearray(new_batch(*[b"x"] * count)[:RECORDS])
    batch += compress(section, compression)
    batch[8:12] = struct.pack(">i", len(batch) - 12)
    return changed(bytes(batch), ATTRIBUTES, struct.pack(">h", compression))


GOOD = record(b"\0\0\0" + varint(1) + b"k" + varint(1) + b"v" + varint(0))
SECTIONS: dict[str, tuple[bytes, int]] = {
    "good": (GOOD, 1),
    "offset_gap": (GOOD + GOOD.replace(b"\0\0\0", b"\0\0\x0a"), 2),
    "offset_twice": (GOOD + GOOD, 2),
    "attributes_unknown": (GOOD.replace(b"\0\0\0", b"\x7f\0\0"), 1),
    "key_size_negative": (record(b"\0\0\0" + varint(-2) + varint(1) + b"v" + varint(0)), 1),
    "key_too_long": (record(b"\0\0\0" + varint(40) + b"k" + varint(1) + b"v" + varint(0)), 1),
    "value_size_negative": (record(b"\0\0\0" + varint(1) + b"k" + varint(-2) + varint(0)), 1),
    "value_too_long": (record(b"\0\0\0" + varint(1) + b"k" + varint(40) + b"v" + varint(0)), 1),
    "value_null": (record(b"\0\0\0" + varint(1) + b"k" + varint(-1) + varint(0)), 1),
    "header_count_negative": (record(b"\0\0\0" + varint(1) + b"k" + varint(1) + b"v" + varint(-1)), 1),
    "header_count_too_large": (record(b"\0\0\0" + varint(1) + b"k" + varint(1) + b"v" + varint(5)), 1),
    "header_key_null": (
        record(b"\0\0\0" + varint(1) + b"k" + varint(1) + b"v" + varint(1) + varint(-1) + varint(-1)),
        1,
    ),
    "header_value_negative": (
        record(b"\0\0\0" + varint(1) + b"k" + varint(1) + b"v" + varint(1) + varint(1) + b"h" + varint(-5)),
        1,
    ),
    "header_key_not_utf8": (
        record(b"\0\0\0" + varint(1) + b"k" + varint(1) + b"v" + varint(1) + varint(1) + b"\xff" + varint(-1)),
        1,
    ),
    "record_with_a_byte_left": (record(b"\0\0\0" + varint(1) + b"k" + varint(1) + b"v" + varint(0) + b"!"), 1),
    "bytes_behind_the_records": (GOOD + b"!!", 1),
    "second_record_missing": (GOOD, 2),
    "record_cut": (GOOD[:-2], 1),
    "size_varint_too_long": (b"\xff" * 6 + GOOD[1:], 1),
    "timestamp_varlong_too_long": (
        record(b"\0" + b"\xff" * 11 + b"\0" + varint(1) + b"k" + varint(1) + b"v" + varint(0)),
        1,
    ),
    "no_records": (b"", 1),
}
"""Records sections and how many records their batch claims."""
