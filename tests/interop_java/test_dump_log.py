"""Our data directories in Apache Kafka's hands, and Kafka's in ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from streamlog.broker.log.checkpoint import decode_partition_metadata
from streamlog.broker.log.cleaner import clean, find_cleanable
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.producer_state import BATCHES_KEPT
from streamlog.env import real_env
from streamlog.wire.records import Compression, ControlType
from tests.broker.log.harness import NOW_MS, TINY, Bench, append, append_marker, batch_of, marker_of, values_of
from tests.kafka_node import KafkaNode, run_java

pytestmark = pytest.mark.interop_java

DUMP = "org.apache.kafka.tools.DumpLogSegments"
COMPLAINTS = (
    "Mismatches",
    "Found",
    "Non-consecutive",
    "out of order",
    "isvalid: false",
    "Could not",
    "Exception",
    "not found in the log",
)


def dump(libs: Path, directory: Path, *options: str) -> str:
    """What Kafka's own tool says about every file it knows; fails on any complaint."""
    suffixes = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")
    files = sorted(str(path) for path in directory.iterdir() if path.suffix in suffixes)
    text = run_java(libs, DUMP, ["--files", ",".join(files), *options])
    for complaint in COMPLAINTS:
        assert complaint not in text, text
    return text


def mixed(bench: Bench) -> PartitionLog:
    """Plain, compressed and transactional batches, markers and aborts, over several segments and epochs."""
    log = bench.open()
    for number in range(60):
        compression = list(Compression)[number % 5]
        batch = batch_of(
            b"v%d" % number, b"w%d" % number, keys=[b"k", b"l"], timestamp_ms=NOW_MS + number, compression=compression
        )
        append(log, batch, epoch=number // 20)
        append(log, batch_of(b"t", keys=[b"t"], producer=(7, 0, number), transactional=True), epoch=number // 20)
        if number % 7 == 3:
            append_marker(log, marker_of(ControlType.ABORT if number % 2 else ControlType.COMMIT, 7, 0))
    log.high_watermark = log.log_end_offset
    return log


def test_kafka_reads_every_file_of_a_partition(kafka_libs: Path, tmp_path: Path) -> None:
    """Logs, indexes and producer snapshots of a partition that was closed, with nothing to complain about."""
    bench = Bench(tmp_path / "orders-0", replace(TINY, segment_bytes=4000))
    log = mixed(bench)
    end_offset, aborted = log.log_end_offset, log.aborted_transactions(0, log.log_end_offset)
    log.close()
    text = dump(kafka_libs, bench.directory, "--deep-iteration")
    assert text.count("| offset:") == end_offset
    assert text.count("lastStableOffset:") == len(aborted) > 2
    assert "producerId: 7 producerEpoch: 0 coordinatorEpoch: 0" in text
    dump(kafka_libs, bench.directory, "--verify-index-only")
    dump(kafka_libs, bench.directory, "--index-sanity-check")


def test_kafka_reads_a_partition_that_was_recovered_and_compacted(kafka_libs: Path, tmp_path: Path) -> None:
    """Indexes that recovery and the cleaner wrote are as good as those of appending."""
    bench = Bench(tmp_path / "orders-0", replace(TINY, segment_bytes=4000, compact=True))
    log = bench.crash(mixed(bench))
    log.high_watermark = log.log_end_offset
    append_marker(log, marker_of(ControlType.COMMIT, 7, 0))
    for _ in range(
        2
    ):  # the first round takes the aborted records, the second finds their markers without a transaction
        append(log, batch_of(b"last", keys=[b"k"]), epoch=3)
        log.high_watermark = log.log_end_offset
        log.roll(NOW_MS)
        bench.checkpoint(log)
        cleanable = find_cleanable(log, 0, NOW_MS)
        assert cleanable is not None
        for step in clean(log, bench.env.storage, cleanable, NOW_MS):
            if step is not None:
                step()
    kept = values_of(log)
    log.close()
    logs = ",".join(str(path) for path in sorted(bench.directory.glob("*.log")))
    text = run_java(kafka_libs, DUMP, ["--files", logs, "--deep-iteration"])
    assert "isvalid: false" not in text
    assert sum(line.startswith("| offset:") and "keySize: 1 " in line for line in text.splitlines()) == len(kept)
    assert "deleteHorizonMs: OptionalLong[" in text
    dump(kafka_libs, bench.directory, "--verify-index-only")


@pytest.fixture
def kafka_node(kafka_libs: Path) -> Iterator[KafkaNode]:
    node = KafkaNode(kafka_libs, properties={"log.segment.bytes": str(1024 * 1024), "log.index.interval.bytes": "200"})
    yield node
    node.close()


def produce(node: KafkaNode, first: int, count: int, **settings: str) -> None:
    producer = Producer({"bootstrap.servers": node.bootstrap, **settings})
    transactional = "transactional.id" in settings
    if transactional:
        producer.init_transactions()
        producer.begin_transaction()
    for number in range(first, first + count):
        producer.produce("orders", b"%d" % number, key=b"k%d" % number, partition=0)
        if number % 10 == 0:
            producer.flush()
    producer.flush()
    if transactional:
        producer.commit_transaction()


def consume(node: KafkaNode, count: int) -> list[bytes]:
    settings = {
        "bootstrap.servers": node.bootstrap,
        "group.id": uuid.uuid4().hex,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(settings)
    consumer.subscribe(["orders"])
    values: list[bytes] = []
    for _ in range(600):
        if len(values) == count:
            break
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            value = message.value()
            assert isinstance(value, bytes)
            values.append(value)
    consumer.close()
    return values


@pytest.mark.timeout(180)
@pytest.mark.parametrize("clean_stop", [True, False])
def test_partition_moves_from_kafka_to_us_and_back(kafka_node: KafkaNode, clean_stop: bool) -> None:
    """We open what Kafka wrote and left (or lost), append, close; Kafka starts on it and serves all of it."""
    produce(kafka_node, 0, 100, **{"enable.idempotence": "true"})
    produce(kafka_node, 100, 50, **{"transactional.id": "t1"})
    produce(kafka_node, 150, 50, **{"compression.type": "zstd"})
    kafka_node.stop(kill=not clean_stop)

    env = real_env()
    directory = LogDirectory.open(env, str(kafka_node.path / "data"), node_id=1, now_ms=NOW_MS)
    assert directory.was_clean is clean_stop
    metadata = (kafka_node.path / "data" / "orders-0" / "partition.metadata").read_bytes()
    log = directory.open_partition("orders", 0, decode_partition_metadata(metadata), LogConfig(), NOW_MS)
    found = [value for _, value in sorted(values_of(log).items())]
    assert found == [b"%d" % number for number in range(200)]
    idempotent = log.producers.entries[min(log.producers.entries)]
    assert len(idempotent.batches) == BATCHES_KEPT, "Kafka's snapshot has one, the log has the others"
    log.high_watermark = log.log_end_offset
    assert log.last_stable_offset == log.log_end_offset
    oldest = log.offset_for_timestamp(0)
    assert oldest is not None
    for number in range(200, 230):
        batch = batch_of(b"%d" % number, keys=[b"k"], timestamp_ms=oldest.timestamp_ms)
        append(log, batch, epoch=log.leader_epoch, now_ms=oldest.timestamp_ms)
    log.high_watermark = log.log_end_offset
    directory.close()
    env.offload.close()

    kafka_node.start()
    assert consume(kafka_node, 230) == [b"%d" % number for number in range(230)]
