"""The same records through every client: kcat, confluent-kafka, kafka-python. Each writes and each reads."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import confluent_kafka as ck
import kafka
from kafka.structs import TopicPartition as KafkaPythonPartition

from streamlog.wire.records import iter_batch_headers

COUNT: Final = 60
SINCE_MS: Final = 1_700_000_000_000
PATIENCE_S: Final = 30.0
KCAT: Final = shutil.which("kcat") or shutil.which("kafkacat")
COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")


class Row(NamedTuple):
    """A record as a reader saw it."""

    offset: int
    key: str
    value: str
    headers: tuple[tuple[str, str], ...]
    timestamp_ms: int


def wanted() -> list[tuple[int, str, str, tuple[tuple[str, str], ...]]]:
    """What every writer writes: offset, key, value, headers."""
    return [(number, f"k{number}", value_of(number), (("from", "writer"),)) for number in range(COUNT)]


def value_of(number: int) -> str:
    return f"v{number}-" * 20


def write_with_kcat(address: str, topic: str, codec: str) -> None:
    """Its records carry the time at which it wrote them."""
    assert KCAT is not None
    lines = "".join(f"k{number}|{value_of(number)}\n" for number in range(COUNT))
    command = [KCAT, "-b", address, "-P", "-t", topic, "-p", "0", "-K", "|", "-H", "from=writer", "-z", codec]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


def write_with_confluent(address: str, topic: str, codec: str) -> None:
    producer = ck.Producer({"bootstrap.servers": address, "compression.type": codec, "linger.ms": 20})
    for number in range(COUNT):
        producer.produce(
            topic,
            value_of(number).encode(),
            f"k{number}".encode(),
            partition=0,
            headers=[("from", b"writer")],
            timestamp=SINCE_MS + number,
        )
    assert producer.flush(PATIENCE_S) == 0


def write_with_kafka_python(address: str, topic: str, codec: str) -> None:
    options: Any = {"compression_type": None if codec == "none" else codec, "linger_ms": 20}
    producer = kafka.KafkaProducer(bootstrap_servers=address, **options)
    for number in range(COUNT):
        producer.send(
            topic,
            value_of(number).encode(),
            f"k{number}".encode(),
            headers=[("from", b"writer")],
            partition=0,
            timestamp_ms=SINCE_MS + number,
        )
    producer.flush(PATIENCE_S)
    producer.close()
    collect_sockets()


def read_with_kcat(address: str, topic: str) -> list[Row]:
    assert KCAT is not None
    command = [KCAT, "-b", address, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-J"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    rows: list[Row] = []
    for line in done.stdout.splitlines():
        one = json.loads(line)
        headers = tuple(zip(one["headers"][::2], one["headers"][1::2], strict=True))
        rows.append(Row(one["offset"], one["key"], one["payload"], headers, one["ts"]))
    return rows


def read_with_confluent(address: str, topic: str) -> list[Row]:
    consumer = ck.Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False})
    rows: list[Row] = []
    try:
        consumer.assign([ck.TopicPartition(topic, 0, 0)])
        deadline = time.monotonic() + PATIENCE_S
        while len(rows) < COUNT and time.monotonic() < deadline:
            for one in consumer.consume(1000, 0.2):
                assert one.error() is None, one.error()
                headers: Any = one.headers() or []
                key, value, offset = one.key(), one.value(), one.offset()
                assert isinstance(key, bytes)
                assert isinstance(value, bytes)
                assert offset is not None
                texts = tuple((name, content.decode()) for name, content in headers)
                rows.append(Row(offset, key.decode(), value.decode(), texts, one.timestamp()[1]))
    finally:
        consumer.close()
    return rows


def read_with_kafka_python(address: str, topic: str) -> list[Row]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    rows: list[Row] = []
    try:
        consumer.assign([KafkaPythonPartition(topic, 0)])
        deadline = time.monotonic() + PATIENCE_S
        while len(rows) < COUNT and time.monotonic() < deadline:
            for found in consumer.poll(200).values():
                for one in found:
                    headers = tuple((name, content.decode()) for name, content in one.headers)
                    rows.append(Row(one.offset, one.key.decode(), one.value.decode(), headers, one.timestamp))
    finally:
        consumer.close()
    collect_sockets()
    return rows


def collect_sockets() -> None:
    """kafka-python leaves socket pairs to the garbage collector, which would blame a later test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


WRITERS: dict[str, Callable[[str, str, str], None]] = {
    "confluent-kafka": write_with_confluent,
    "kafka-python": write_with_kafka_python,
}
READERS: dict[str, Callable[[str, str], list[Row]]] = {
    "confluent-kafka": read_with_confluent,
    "kafka-python": read_with_kafka_python,
}
if KCAT is not None:
    WRITERS["kcat"], READERS["kcat"] = write_with_kcat, read_with_kcat


def stored_with(data_dir: Path, topic: str) -> set[str]:
    """The compressions of the batches in partition 0 as they lie on the disk."""
    log = (data_dir / f"{topic}-0" / "00000000000000000000.log").read_bytes()
    return {header.compression.name.lower() for _, header in iter_batch_headers(log)}


def check_rows(rows: list[Row], writer: str, *, since_ms: int, until_ms: int) -> None:
    """They are what was written, with the writer's times where it gave any."""
    assert [row[:4] for row in rows] == wanted()
    times = [row.timestamp_ms for row in rows]
    if writer in ("confluent-kafka", "kafka-python"):
        assert times == [SINCE_MS + number for number in range(COUNT)]
    else:
        assert all(since_ms <= at <= until_ms for at in times)
