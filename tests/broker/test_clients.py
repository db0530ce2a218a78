"""Real clients: librdkafka (confluent-kafka) and kafka-python, against a broker in a process of its own."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import confluent_kafka as ck
import kafka
import pytest
from confluent_kafka import admin as ck_admin
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewPartitions, NewTopic
from kafka import admin as kp_admin
from kafka.errors import TransactionalIdAuthorizationFailedError
from kafka.structs import TopicPartition as KafkaPythonPartition

from tests.broker.running import BrokerProcess

COUNT = 300
COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]
KafkaPythonCompression: TypeAlias = Literal["gzip", "snappy", "lz4", "zstd"] | None


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    data_dir: Path = tmp_path_factory.mktemp("broker")
    with BrokerProcess(data_dir, "group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=4") as running:
        yield running


@pytest.fixture(autouse=True)
def collect_sockets() -> Iterator[None]:
    """kafka-python leaves socket pairs to the garbage collector, which would blame a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


@pytest.fixture(scope="module")
def admin(broker: BrokerProcess) -> ck_admin.AdminClient:
    return ck_admin.AdminClient({"bootstrap.servers": broker.address})


def create(admin: ck_admin.AdminClient, topic: str, partitions: int = 1, **configs: str) -> None:
    new = NewTopic(topic, partitions, 1, config={n.replace("_", "."): v for n, v in configs.items()})
    admin.create_topics([new])[topic].result(10)


def read_all(broker: BrokerProcess, topic: str, partition: int, count: int) -> list[ck.Message]:
    consumer = ck.Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False})
    try:
        consumer.assign([ck.TopicPartition(topic, partition, 0)])
        found: list[ck.Message] = []
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            found += [message for message in consumer.consume(1000, 0.5) if message.error() is None]
        return found
    finally:
        consumer.close()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("idempotent", [False, True])
def test_librdkafka_reads_what_it_wrote(
    broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str, compression: str, idempotent: bool
) -> None:
    """Keys, values, headers, timestamps, in order, in every compression, idempotent or not."""
    create(admin, topic, retention_ms="-1")
    producer = ck.Producer(
        {
            "bootstrap.servers": broker.address,
            "compression.type": compression,
            "enable.idempotence": idempotent,
            "linger.ms": 5,
        }
    )
    failed: list[object] = []
    for number in range(COUNT):
        producer.produce(
            topic,
            key=b"k%d" % number,
            value=b"v%d" % number * 20,
            headers=[("h", b"%d" % number), ("none", None)],
            timestamp=1_700_000_000_000 + number,
            on_delivery=lambda error, message: failed.append(error) if error else None,
        )
    assert producer.flush(20) == 0
    assert failed == []
    found = read_all(broker, topic, 0, COUNT)
    assert [(m.offset(), m.key(), m.value(), m.headers(), m.timestamp()) for m in found] == [
        (
            number,
            b"k%d" % number,
            b"v%d" % number * 20,
            [("h", b"%d" % number), ("none", None)],
            (ck.TIMESTAMP_CREATE_TIME, 1_700_000_000_000 + number),
        )
        for number in range(COUNT)
    ]


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_kafka_python_reads_what_it_wrote(
    broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str, compression: KafkaPythonCompression
) -> None:
    """An independent codec and client."""
    create(admin, topic)
    producer = kafka.KafkaProducer(bootstrap_servers=broker.address, compression_type=compression)
    sent = [producer.send(topic, key=b"k%d" % number, value=b"v%d" % number) for number in range(COUNT)]
    assert [future.get(20).offset for future in sent] == list(range(COUNT))
    producer.close()
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=broker.address, auto_offset_reset="earliest", consumer_timeout_ms=5_000
    )
    consumer.assign([KafkaPythonPartition(topic, 0)])
    found = []
    for message in consumer:
        found.append((message.key, message.value))
        if len(found) == COUNT:
            break
    consumer.close()
    assert found == [(b"k%d" % number, b"v%d" % number) for number in range(COUNT)]


def test_librdkafka_reads_what_kafka_python_wrote(
    broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str
) -> None:
    """The broker changes nothing between two implementations."""
    create(admin, topic)
    producer = kafka.KafkaProducer(bootstrap_servers=broker.address)
    for number in range(10):
        producer.send(topic, value=b"%d" % number, headers=[("h", b"x")])
    producer.flush(20)
    producer.close()
    assert [message.value() for message in read_all(broker, topic, 0, 10)] == [b"%d" % number for number in range(10)]


def test_offsets_are_found_by_time_and_at_both_ends(
    broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str
) -> None:
    """ListOffsets: by timestamp, beginning, end, before and after everything."""
    create(admin, topic, retention_ms="-1")
    producer = ck.Producer({"bootstrap.servers": broker.address})
    for number in range(10):
        producer.produce(topic, b"x", timestamp=1_700_000_000_000 + number * 1000)
        producer.flush(20)
    consumer = ck.Consumer({"bootstrap.servers": broker.address, "group.id": "unused"})
    try:
        assert consumer.get_watermark_offsets(ck.TopicPartition(topic, 0), 10) == (0, 10)
        times = [1_700_000_000_000, 1_700_000_003_500, 1_700_000_009_000, 1_700_000_009_001]
        found = [consumer.offsets_for_times([ck.TopicPartition(topic, 0, at)], 10)[0].offset for at in times]
        assert found == [0, 4, 9, ck.OFFSET_END]
    finally:
        consumer.close()


def test_a_topic_is_made_when_a_producer_names_it(broker: BrokerProcess, topic: str) -> None:
    """auto.create.topics.enable; librdkafka drops its bootstrap connection while the creation runs."""
    for number in range(5):
        producer = ck.Producer({"bootstrap.servers": broker.address})
        producer.produce(f"{topic}-{number}", b"x")
        assert producer.flush(20) == 0


def test_a_consumer_group_reads_and_commits(broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str) -> None:
    """Subscribe, poll, commit; a second consumer of the group goes on from there."""
    create(admin, topic, partitions=3)
    producer = ck.Producer({"bootstrap.servers": broker.address})
    for number in range(30):
        producer.produce(topic, b"%d" % number, partition=number % 3)
    producer.flush(20)

    def read_some(count: int) -> list[bytes]:
        settings = {
            "bootstrap.servers": broker.address,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        consumer = ck.Consumer(settings)
        consumer.subscribe([topic])
        values: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(values) < count and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                values.append(message.value() or b"")
                consumer.commit(message=message, asynchronous=False)
        consumer.close()
        return values

    first, second = read_some(20), read_some(10)
    assert sorted(first + second, key=int) == [b"%d" % number for number in range(30)]


def test_topics_are_listed_described_grown_and_deleted(
    broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str
) -> None:
    """The admin client's daily work."""
    create(admin, topic, partitions=2, retention_ms="60000")
    described = admin.describe_topics(ck.TopicCollection([topic]))[topic].result(10)
    assert [(p.id, p.leader.id, [r.id for r in p.replicas]) for p in described.partitions] == [(0, 1, [1]), (1, 1, [1])]
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(10)
    assert len(admin.list_topics(topic, 10).topics[topic].partitions) == 4
    admin.delete_topics([topic])[topic].result(10)
    assert topic not in admin.list_topics(timeout=10).topics


def test_configs_are_described_and_altered(broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str) -> None:
    """Sources and synonyms included; altering takes effect on what is produced next."""
    create(admin, topic)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    before = admin.describe_configs([resource])[resource].result(10)
    assert (before["max.message.bytes"].value, before["max.message.bytes"].source) == ("1048588", 5)
    change = ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
    admin.incremental_alter_configs([altered])[altered].result(10)
    after = admin.describe_configs([resource])[resource].result(10)
    assert (after["max.message.bytes"].value, after["max.message.bytes"].source) == ("1000", 1)
    errors: list[object] = []
    producer = ck.Producer({"bootstrap.servers": broker.address})
    producer.produce(topic, bytes(5000), on_delivery=lambda error, message: errors.append(error))
    producer.flush(20)
    assert [isinstance(error, ck.KafkaError) and error.code() for error in errors] == [ck.KafkaError.MSG_SIZE_TOO_LARGE]


def test_broker_configs_are_described(broker: BrokerProcess, admin: ck_admin.AdminClient) -> None:
    """What was set on the command line is told apart from defaults."""
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    found = admin.describe_configs([resource])[resource].result(10)
    assert (found["offsets.topic.num.partitions"].value, found["offsets.topic.num.partitions"].source) == ("4", 4)
    assert (found["num.partitions"].value, found["num.partitions"].source) == ("1", 5)


def test_records_are_deleted(broker: BrokerProcess, admin: ck_admin.AdminClient, topic: str) -> None:
    """DeleteRecords through the admin client."""
    create(admin, topic)
    producer = ck.Producer({"bootstrap.servers": broker.address})
    for _ in range(10):
        producer.produce(topic, b"x")
    producer.flush(20)
    result = admin.delete_records([ck.TopicPartition(topic, 0, 6)])
    assert next(iter(result.values())).result(10).low_watermark == 6


def test_the_cluster_is_described(broker: BrokerProcess, admin: ck_admin.AdminClient) -> None:
    """Id, nodes, controller."""
    found = admin.describe_cluster().result(10)
    assert (found.controller.id, [node.id for node in found.nodes]) == (1, [1])
    assert len(found.cluster_id) == 22


def test_kafka_python_administers(broker: BrokerProcess, topic: str) -> None:
    """The same with another implementation of the requests."""
    admin = kp_admin.KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        admin.create_topics([kp_admin.NewTopic(topic, 2, 1)])
        assert topic in admin.list_topics()
        admin.delete_topics([topic])
        assert topic not in admin.list_topics()
    finally:
        admin.close()


def test_librdkafka_is_told_at_once_that_there_are_no_transactions(broker: BrokerProcess) -> None:
    """A fatal error, not silence until the timeout."""
    producer = ck.Producer({"bootstrap.servers": broker.address, "transactional.id": "mine"})
    with pytest.raises(ck.KafkaException) as refused:
        producer.init_transactions(20)
    error = refused.value.args[0]
    assert error.code() != ck.KafkaError._TIMED_OUT
    assert error.fatal()


def test_kafka_python_is_told_at_once_that_there_are_no_transactions(broker: BrokerProcess) -> None:
    """The same for a client that retries on its own terms."""
    producer = kafka.KafkaProducer(bootstrap_servers=broker.address, transactional_id="mine")
    try:
        with pytest.raises(TransactionalIdAuthorizationFailedError):
            producer.init_transactions()
    finally:
        producer.close(timeout=1)
