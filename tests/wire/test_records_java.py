"""Record batches against Apache Kafka's own classes: its bytes in ours, ours in its.

The first test reads bytes that Kafka 4.3.1 wrote once (RecordBatches.java, kept in data/); the others run the Java
side and want STREAMLOG_KAFKA_LIBS to name the directory of its jars.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from streamlog.wire.records import (
    Compression,
    ControlType,
    decode_batch_header,
    decode_records,
    encode_batch,
    encode_control_batch,
    encode_end_transaction_marker,
    set_max_timestamp_and_append_time,
    validate_records,
)
from tests.wire.batch_rows import kafka_batch, kafka_rows

HERE = Path(__file__).parent
BATCHES = HERE / "data" / "kafka-4.3.1-batches"
# Levels that take other paths through the libraries; None is Kafka's default.
LEVELS: dict[Compression, list[int | None]] = {
    Compression.NONE: [None],
    Compression.GZIP: [None, 1, 9],
    Compression.SNAPPY: [None],
    Compression.LZ4: [None, 1, 9, 12],
    Compression.ZSTD: [None, -5, 1, 19],
}


def assert_reads_as_written(batch: bytes, compression: Compression, count: int) -> None:
    keys, values, timestamps_ms, headers = kafka_rows(count)
    header = decode_batch_header(batch)
    assert (header.base_offset, header.last_offset, header.size_bytes) == (42, 42 + count - 1, len(batch))
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 3, 11)
    assert (header.leader_epoch, header.compression) == (5, compression)
    assert validate_records(batch) is None
    columns = decode_records(batch)
    assert columns.offsets == list(range(42, 42 + count))
    assert (columns.keys, columns.values) == (keys, values)
    assert (columns.timestamps_ms, columns.headers) == (timestamps_ms, headers)


@pytest.mark.parametrize("compression", list(Compression))
def test_batch_of_apache_kafka_reads_as_it_was_written(compression: Compression) -> None:
    """Bytes kept from Kafka 4.3.1, in each compression."""
    batch = (BATCHES / f"{compression.name.lower()}-100").read_bytes()
    assert_reads_as_written(batch, compression, 100)


def test_uncompressed_batch_is_byte_for_byte_that_of_apache_kafka() -> None:
    """Where no compressor is in between the two encodings are one."""
    assert kafka_batch(100, Compression.NONE) == (BATCHES / "none-100").read_bytes()


def run_java(*arguments: str | Path) -> str:
    """Run RecordBatches.java and return what it printed."""
    libs = os.environ.get("STREAMLOG_KAFKA_LIBS")
    if libs is None:
        pytest.skip("STREAMLOG_KAFKA_LIBS does not name the directory of Apache Kafka's jars")
    done = subprocess.run(
        ["java", "-Xmx256m", "-cp", f"{libs}/*", str(HERE / "RecordBatches.java"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout


@pytest.mark.interop_java
def test_apache_kafka_writes_what_we_read(tmp_path: Path) -> None:
    """Every compression, from one record to several compressed blocks."""
    run_java("write", tmp_path)
    for compression in Compression:
        for count in (1, 100, 1000):
            batch = (tmp_path / f"{compression.name.lower()}-{count}").read_bytes()
            assert_reads_as_written(batch, compression, count)


def described(batch: bytearray) -> str:
    """What RecordBatches.java prints of a batch, from our own decoder."""
    header = decode_batch_header(batch)
    fields = [
        *(header.base_offset, header.last_offset, header.compression.name.lower()),
        *("LogAppendTime" if header.is_log_append_time else "CreateTime", header.max_timestamp_ms),
        *(header.producer_id, header.producer_epoch, header.base_sequence, header.last_sequence, header.leader_epoch),
        *(str(header.is_transactional).lower(), str(header.is_control).lower()),
        -1 if header.delete_horizon_ms is None else header.delete_horizon_ms,
    ]
    lines = ["batch " + " ".join(map(str, fields))]
    for record in decode_records(batch).rows():
        words = [str(record.offset), str(record.timestamp_ms)]
        words += ["null" if field is None else "x" + field.hex() for field in (record.key, record.value)]
        for name, value in record.headers:
            words.append(f"{name.encode().hex()}={'null' if value is None else value.hex()}")
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


@pytest.mark.interop_java
def test_apache_kafka_reads_what_we_write(tmp_path: Path) -> None:
    """Every compression and level, control and compacted batches, timestamps set by the log."""
    batches: list[bytearray] = [
        kafka_batch(count, compression, level)
        for compression, levels in LEVELS.items()
        for level in levels
        for count in (1, 1000)
    ]
    batches.append(
        encode_control_batch(
            ControlType.COMMIT, encode_end_transaction_marker(4), timestamp_ms=9, producer_id=1, producer_epoch=2
        )
    )
    stamped = kafka_batch(10, Compression.LZ4)
    set_max_timestamp_and_append_time(stamped, 0, 1_800_000_000_000)
    batches.append(stamped)
    batches.append(
        encode_batch(
            keys=[b"a", b"b"],
            values=[b"1", None],
            timestamps_ms=[1_700_000_000_005, 1_700_000_000_001],
            offset_deltas=[3, 700_000],
            last_offset_delta=1_000_000,
            delete_horizon_ms=1_700_000_500_000,
            compression=Compression.ZSTD,
        )
    )
    batches.append(
        encode_batch(
            keys=[], values=[], timestamps_ms=[], last_offset_delta=9, max_timestamp_ms=77, producer_id=5,
            producer_epoch=0, base_sequence=2**31 - 3,
        )
    )  # fmt: skip
    files = []
    for index, batch in enumerate(batches):
        files.append(tmp_path / f"{index:03}")
        files[-1].write_bytes(batch)
    assert run_java("read", *files) == "".join(map(described, batches))
