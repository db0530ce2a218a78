"""Restores from real brokers, Apache Kafka and ours: markers, compaction, topics that were made again."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from confluent_kafka import Producer as RealProducer
from confluent_kafka import TopicPartition as RealTopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamlog.env import Env, real_env
from streamlog.serde import key_serde_for, serde_for
from streamlog.state.changelog import changelog_configs, restored_table
from streamlog.state.consumer_reader import ConsumerReader
from streamlog.state.global_table import GlobalTableState
from streamlog.state.restore import Restorer
from streamlog.state.rocksdb import RocksEngine, RocksStore
from tests.kafka_node import KafkaNode, kafka_libs

pytestmark = pytest.mark.timeout(180)

BROKER_PROPERTIES = {"log.cleaner.backoff.ms": "100", "transaction.max.timeout.ms": "60000"}


class Node(Protocol):
    @property
    def bootstrap(self) -> str: ...


class StreamlogNode:
    """The bundled broker in a process of its own."""

    def __init__(self, directory: Path) -> None:
        settings = [f"{name}={value}" for name, value in BROKER_PROPERTIES.items()]
        command = ["broker", "--data-dir", str(directory), "--listen", "127.0.0.1:0", *settings]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamlog", *command], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        found = re.search(r"ready on (127\.0\.0\.1:\d+)", ready)
        assert found is not None, f"the broker did not start: {ready}"
        self.bootstrap = found[1]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module", params=["streamlog", pytest.param("kafka", marks=pytest.mark.interop_kafka)])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    if request.param == "streamlog":
        ours = StreamlogNode(tmp_path_factory.mktemp("broker"))
        yield ours
        ours.close()
        return
    libs = kafka_libs()
    if libs is None:
        pytest.skip("no Apache Kafka jars (STREAMLOG_KAFKA_LIBS)")
    with KafkaNode(libs, properties=BROKER_PROPERTIES) as node:
        yield node


@pytest.fixture
def env() -> Iterator[Env]:
    env = real_env()
    yield env
    env.offload.close()


@pytest.fixture
async def reader(node: Node, env: Env) -> AsyncIterator[ConsumerReader]:
    reader = ConsumerReader(node.bootstrap, env)
    await reader.open()
    yield reader
    await reader.close()


@pytest.fixture
async def restorer(reader: ConsumerReader, env: Env) -> AsyncIterator[Restorer]:
    restorer = Restorer(reader, env, stall_timeout_ms=30_000)
    yield restorer
    await restorer.close()


@pytest.fixture
def store(env: Env, tmp_path: Path) -> Iterator[RocksStore]:
    store = RocksEngine(env.storage).open(str(tmp_path / "task-0"))
    yield store
    store.close()


def make_topic(node: Node, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> None:
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    config = {**changelog_configs(), **(configs or {})}
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
    admin.create_topics([topic])[name].result()


def delete_topic(node: Node, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    admin.delete_topics([name])[name].result()


def write(node: Node, topic: str, records: list[tuple[str, str | None]], partition: int = 0) -> None:
    producer = RealProducer({"bootstrap.servers": node.bootstrap, "linger.ms": 5})
    for key, value in records:
        producer.produce(topic, value, key, partition)
        producer.poll(0)
    producer.flush()


def fold(records: list[tuple[str, str | None]]) -> Mapping[bytes, bytes]:
    rows: dict[bytes, bytes] = {}
    for key, value in records:
        if value is None:
            rows.pop(key.encode(), None)
        else:
            rows[key.encode()] = value.encode()
    return rows


RECORDS: list[tuple[str, str | None]] = [
    (f"k{number % 977}", None if number % 7 == 0 else f"v{number}") for number in range(20_000)
]


async def test_a_table_is_restored_and_then_only_its_tail(node: Node, restorer: Restorer, store: RocksStore) -> None:
    """With topic id and leader epoch in its position."""
    table = restored_table("app", "tail")
    make_topic(node, table.topic)
    assert (await restorer.restore(store, [table], 0)).records == 0
    write(node, table.topic, RECORDS)
    result = await restorer.restore(store, [table], 0)
    assert dict(store.scan("tail")) == fold(RECORDS)
    assert (result.records, result.ends, result.rebuilt) == (20_000, {"tail": 20_000}, {})
    position = store.positions()["tail"]
    assert position.topic_id is not None
    assert position.leader_epoch >= 0
    write(node, table.topic, [("k1", "new")])
    result = await restorer.restore(store, [table], 0)
    assert (result.records, result.rebuilt) == (1, {})
    assert store.get("tail", b"k1") == b"new"


async def test_aborted_rows_and_markers_are_passed(node: Node, restorer: Restorer, store: RocksStore) -> None:
    """The log ends in markers: its end is no record's."""
    if isinstance(node, StreamlogNode):
        pytest.skip("the bundled broker has no transactions yet")
    table = restored_table("app", "transactions")
    make_topic(node, table.topic)
    producer = RealProducer({"bootstrap.servers": node.bootstrap, "transactional.id": "t"})
    producer.init_transactions()
    for number in range(6):
        producer.begin_transaction()
        producer.produce(table.topic, f"v{number}", "k", 0)
        producer.flush()
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    result = await restorer.restore(store, [table], 0)
    assert dict(store.scan("transactions")) == {b"k": b"v4"}
    assert (result.records, result.ends) == (3, {"transactions": 12})


async def test_a_compacted_log_with_gaps_is_restored(node: Node, restorer: Restorer, store: RocksStore) -> None:
    """Compaction leaves holes, also at the start of what a half restored table reads next."""
    table = restored_table("app", "compacted")
    eager = {"min.cleanable.dirty.ratio": "0.001", "segment.ms": "100", "delete.retention.ms": "0"}
    make_topic(node, table.topic, configs=eager)
    write(node, table.topic, RECORDS)
    await asyncio.sleep(0.3)
    write(node, table.topic, [("last", "x")])
    deadline = time.monotonic() + 60
    while True:
        other = RocksEngine(real_env().storage).open(store.path + f"-{time.monotonic_ns()}")
        result = await restorer.restore(other, [table], 0)
        assert dict(other.scan("compacted")) == {**fold(RECORDS), b"last": b"x"}
        assert result.ends == {"compacted": 20_001}
        other.close()
        if result.records < 20_000 or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    assert result.records < 20_000, "the broker never compacted"


async def test_a_topic_that_was_made_again_is_noticed(
    node: Node, env: Env, restorer: Restorer, store: RocksStore
) -> None:
    """By its id, although the new one is longer than the old one was."""
    table = restored_table("app", "again")
    make_topic(node, table.topic)
    write(node, table.topic, [("old", "1"), ("k", "1")])
    await restorer.restore(store, [table], 0)
    delete_topic(node, table.topic)
    await asyncio.sleep(1)
    make_topic(node, table.topic)
    write(node, table.topic, [("k", "2"), ("l", "2"), ("m", "2")])
    reader = ConsumerReader(node.bootstrap, env)
    await reader.open()
    fresh = Restorer(reader, env)
    result = await fresh.restore(store, [table], 0)
    await fresh.close()
    await reader.close()
    assert "made again" in result.rebuilt["again"]
    assert dict(store.scan("again")) == {b"k": b"2", b"l": b"2", b"m": b"2"}


async def test_records_deleted_before_the_position_rebuild_the_table(
    node: Node, restorer: Restorer, store: RocksStore
) -> None:
    """DeleteRecords moves the log's start."""
    table = restored_table("app", "deleted")
    make_topic(node, table.topic, configs={"cleanup.policy": "delete"})
    write(node, table.topic, [("a", "1"), ("b", "1")])
    await restorer.restore(store, [table], 0)
    write(node, table.topic, [("c", "1"), ("d", "1")])
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    partition = RealTopicPartition(table.topic, 0, 3)
    admin.delete_records([partition])[partition].result()
    result = await restorer.restore(store, [table], 0)
    assert "before the log's start" in result.rebuilt["deleted"]
    assert dict(store.scan("deleted")) == {b"d": b"1"}


async def test_a_cancelled_restore_goes_on_where_it_was(
    node: Node, reader: ConsumerReader, env: Env, store: RocksStore
) -> None:
    """Whatever moment it is."""
    table = restored_table("app", "cancelled")
    make_topic(node, table.topic)
    write(node, table.topic, RECORDS)
    restorer = Restorer(reader, env, chunk_rows_max=100)
    total = 0
    for number in range(20):
        work = asyncio.ensure_future(restorer.restore(store, [table], 0))
        await asyncio.sleep(0.001 * number)
        work.cancel()
        await asyncio.wait([work])
    total = (await restorer.restore(store, [table], 0)).records
    await restorer.close()
    assert dict(store.scan("cancelled")) == fold(RECORDS)
    assert total <= 20_000


async def test_a_global_table_follows_all_partitions(
    node: Node, reader: ConsumerReader, env: Env, store: RocksStore
) -> None:
    """Complete when it says so, and live from then on."""
    make_topic(node, "rates", partitions=3)
    for partition in range(3):
        write(node, "rates", [(f"k{partition}", "1"), (f"gone{partition}", "1"), (f"gone{partition}", None)], partition)
    table = GlobalTableState("rates", "rates", store, key_serde_for(str), serde_for(int), reader, env)
    await table.open()
    await table.ready()
    assert dict(table.items()) == {"k0": 1, "k1": 1, "k2": 1}
    write(node, "rates", [("k1", "5"), ("k0", None)], 1)
    async with asyncio.timeout(10):
        while table.get("k1") != 5 or table.get("k0") is not None:
            await asyncio.sleep(0.01)
    await table.close()
