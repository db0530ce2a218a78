"""What tests/broker asks of librdkafka and kafka-python not at all: stamped topics, members that die, and the rest of
their admin clients."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck
import kafka
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic
from kafka import admin as kp_admin
from kafka.structs import TopicPartition as KafkaPythonPartition

from tests.broker.running import BrokerProcess

pytestmark = pytest.mark.timeout(90)

COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    settings = ("group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=2")
    with BrokerProcess(tmp_path_factory.mktemp("broker"), *settings) as running:
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
def admin(broker: BrokerProcess) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.address})


def create(admin: AdminClient, topic: str, partitions: int = 1, **configs: str) -> None:
    new = NewTopic(topic, partitions, 1, config={name.replace("_", "."): value for name, value in configs.items()})
    admin.create_topics([new])[topic].result(10)


def consume(broker: BrokerProcess, topic: str, count: int) -> list[ck.Message]:
    consumer = ck.Consumer({"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False})
    try:
        consumer.assign([ck.TopicPartition(topic, 0, 0)])
        found: list[ck.Message] = []
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            found += [message for message in consumer.consume(1000, 0.5) if message.error() is None]
        return found
    finally:
        consumer.close()


def test_a_stamped_topic_gives_the_brokers_time(broker: BrokerProcess, admin: AdminClient, topic: str) -> None:
    """LogAppendTime: what the producer says does not count, for either client, and offsets are found by it."""
    create(admin, topic, message_timestamp_type="LogAppendTime")
    before_ms = int(time.time() * 1000)
    producer = ck.Producer({"bootstrap.servers": broker.address})
    producer.produce(topic, b"a", timestamp=1000)
    assert producer.flush(20) == 0
    python = kafka.KafkaProducer(bootstrap_servers=broker.address)
    placed = python.send(topic, b"b", timestamp_ms=2000).get(20)
    python.close()
    after_ms = int(time.time() * 1000)
    assert before_ms <= placed.timestamp <= after_ms
    for message in consume(broker, topic, 2):
        kind, at_ms = message.timestamp()
        assert kind == ck.TIMESTAMP_LOG_APPEND_TIME
        assert before_ms <= at_ms <= after_ms
    spec: Any = OffsetSpec  # its class methods have no types
    asked = {ck.TopicPartition(topic, 0): spec.for_timestamp(before_ms)}
    assert next(iter(admin.list_offsets(asked).values())).result(10).offset == 0
    asked = {ck.TopicPartition(topic, 0): spec.max_timestamp()}
    assert next(iter(admin.list_offsets(asked).values())).result(10).offset in (0, 1)


@pytest.mark.parametrize("codec", COMPRESSIONS)
def test_a_topic_with_a_compression_of_its_own_recompresses(
    broker: BrokerProcess, admin: AdminClient, topic: str, codec: str
) -> None:
    """compression.type=gzip: whatever arrives, both clients read it back unchanged."""
    create(admin, topic, compression_type="gzip", retention_ms="-1")
    producer = ck.Producer({"bootstrap.servers": broker.address, "compression.type": codec, "linger.ms": 20})
    for number in range(100):
        producer.produce(
            topic, b"v%d" % number * 30, key=b"k%d" % number, headers=[("h", b"x")], timestamp=5000 + number
        )
    assert producer.flush(20) == 0
    wanted = [(b"k%d" % number, b"v%d" % number * 30, 5000 + number) for number in range(100)]
    found = consume(broker, topic, 100)
    assert [(one.key(), one.value(), one.timestamp()[1]) for one in found] == wanted
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=broker.address, auto_offset_reset="earliest", consumer_timeout_ms=5000
    )
    consumer.assign([KafkaPythonPartition(topic, 0)])
    read = []
    for one in consumer:
        read.append((one.key, one.value, one.timestamp))
        if len(read) == 100:
            break
    consumer.close()
    assert read == wanted


MEMBER = """
import sys
from confluent_kafka import Consumer
address, topic = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": address, "group.id": topic, "auto.offset.reset": "earliest",
                     "session.timeout.ms": 6000, "heartbeat.interval.ms": 500})
consumer.subscribe([topic])
while True:
    consumer.poll(0.1)
    print(len(consumer.assignment()), flush=True)
"""


def test_a_member_that_is_killed_loses_its_partitions_to_the_others(
    broker: BrokerProcess, admin: AdminClient, topic: str
) -> None:
    """kill -9 says no goodbye; the session times out and the survivor owns everything."""
    create(admin, topic, 4)
    command = [sys.executable, "-c", MEMBER, broker.address, topic]
    members = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        outputs = [member.stdout for member in members]
        assert outputs[0] is not None
        assert outputs[1] is not None
        deadline = time.monotonic() + 30
        while [int(output.readline()) for output in outputs if output is not None] != [2, 2]:
            assert time.monotonic() < deadline, "they do not share"
        members[0].send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        while int(outputs[1].readline()) != 4:
            assert time.monotonic() < killed_at + 30, "the dead member keeps its partitions"
        assert time.monotonic() - killed_at > 2, "not before the session has timed out"
    finally:
        for member in members:
            member.kill()
            member.wait()
            if member.stdout is not None:
                member.stdout.close()


def test_librdkafka_alters_configs_of_a_list_and_of_the_broker(
    broker: BrokerProcess, admin: AdminClient, topic: str
) -> None:
    """Append, subtract, delete; the broker's own; what is wrong is refused."""
    create(admin, topic)

    def alter(kind: Any, name: str, *changes: tuple[str, str | None, Any]) -> None:
        entries = [ConfigEntry(key, value, incremental_operation=operation) for key, value, operation in changes]
        resource = ConfigResource(kind, name, incremental_configs=entries)
        admin.incremental_alter_configs([resource])[resource].result(10)

    def value(kind: Any, name: str, key: str) -> str | None:
        resource = ConfigResource(kind, name)
        found: str | None = admin.describe_configs([resource])[resource].result(10)[key].value
        return found

    kinds = ConfigResource.Type
    alter(kinds.TOPIC, topic, ("cleanup.policy", "compact", AlterConfigOpType.APPEND))
    assert value(kinds.TOPIC, topic, "cleanup.policy") == "delete,compact"
    alter(kinds.TOPIC, topic, ("cleanup.policy", "delete", AlterConfigOpType.SUBTRACT))
    assert value(kinds.TOPIC, topic, "cleanup.policy") == "compact"
    alter(kinds.TOPIC, topic, ("cleanup.policy", None, AlterConfigOpType.DELETE))
    assert value(kinds.TOPIC, topic, "cleanup.policy") == "delete"
    alter(kinds.BROKER, "1", ("message.max.bytes", "2000000", AlterConfigOpType.SET))
    assert value(kinds.BROKER, "1", "message.max.bytes") == "2000000"
    alter(kinds.BROKER, "1", ("message.max.bytes", None, AlterConfigOpType.DELETE))
    with pytest.raises(ck.KafkaException, match="INVALID_CONFIG"):
        alter(kinds.TOPIC, topic, ("retention.ms", "soon", AlterConfigOpType.SET))


def test_kafka_pythons_admin_client_does_the_rest(broker: BrokerProcess, topic: str) -> None:
    """Partitions, configs, the cluster, offsets of a group, records."""
    client: Any = kp_admin.KafkaAdminClient(bootstrap_servers=broker.address)  # it makes its methods at run time
    try:
        client.create_topics([kp_admin.NewTopic(topic, 1, 1, topic_configs={"retention.ms": "5000000"})])
        client.create_partitions({topic: kp_admin.NewPartitions(3)})
        (described,) = client.describe_topics([topic])
        assert len(described["partitions"]) == 3
        assert len(client.describe_cluster()["brokers"]) == 1
        resource = kp_admin.ConfigResource(kp_admin.ConfigResourceType.TOPIC, topic)
        assert "5000000" in str(client.describe_configs([resource]))
        changed = kp_admin.ConfigResource(kp_admin.ConfigResourceType.TOPIC, topic, configs={"retention.ms": "6000000"})
        client.alter_configs([changed])
        assert "6000000" in str(client.describe_configs([resource]))
        producer = kafka.KafkaProducer(bootstrap_servers=broker.address)
        for _ in range(6):
            producer.send(topic, b"x", partition=0).get(20)
        producer.close()
        client.delete_records({KafkaPythonPartition(topic, 0): 4})
        consumer = kafka.KafkaConsumer(bootstrap_servers=broker.address, group_id=topic)
        first = KafkaPythonPartition(topic, 0)
        assert consumer.beginning_offsets([first]) == {first: 4}
        consumer.assign([first])
        consumer.seek(first, 5)
        consumer.commit()
        consumer.close()
        assert client.list_group_offsets(topic)[topic][first].offset == 5
        client.delete_groups([topic])
    finally:
        client.close()
