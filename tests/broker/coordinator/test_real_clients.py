"""Consumer groups of librdkafka and kafka-python against a broker in its own process, over sockets."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kafka
import kafka.admin
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.broker.coordinator.broker_process import BrokerProcess

TOPIC = "orders"
PARTITIONS = 6
PATIENCE_S = 30


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "data") as running:
        yield running


@pytest.fixture
def admin(broker: BrokerProcess) -> AdminClient:
    """With the topic created."""
    client = AdminClient({"bootstrap.servers": broker.address})
    for future in client.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        future.result(PATIENCE_S)
    return client


def produce(broker: BrokerProcess, count: int) -> None:
    producer = Producer({"bootstrap.servers": broker.address})
    for number in range(count):
        producer.produce(TOPIC, value=str(number), key=str(number))
    assert producer.flush(PATIENCE_S) == 0


class Member:
    """A librdkafka consumer that polls in a thread, and remembers what it owns and what it read."""

    def __init__(self, broker: BrokerProcess, group: str, **options: object) -> None:
        self.owned: set[int] = set()
        self.values: list[str] = []
        self.rebalances = 0
        self.is_cooperative = options.get("partition.assignment.strategy") == "cooperative-sticky"
        config = {
            "bootstrap.servers": broker.address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 200,
            "enable.auto.commit": False,
        }
        self.consumer = Consumer(config | options)
        self.consumer.subscribe([TOPIC], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.rebalances += 1
        self.owned |= {one.partition for one in partitions}

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.owned -= {one.partition for one in partitions}

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self.consumer.poll(0.05)
            if message is not None and message.error() is None:
                value = message.value()
                assert value is not None
                self.values.append(value.decode())
                self.consumer.commit(message=message, asynchronous=False)

    def close(self, *, leave: bool = True) -> None:
        self._stop.set()
        self._thread.join()
        if leave:
            self.consumer.close()


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for something that another process decides; there is no event to await."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_S} s"
        time.sleep(0.02)


def owners(members: list[Member]) -> list[int]:
    return sorted(partition for member in members for partition in member.owned)


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_members_share_the_partitions_through_rebalances(
    broker: BrokerProcess, admin: AdminClient, strategy: str
) -> None:
    """Eager and cooperative: everything is owned once with one, two, three and again two members, nothing is lost."""
    options = {"partition.assignment.strategy": strategy}
    members = [Member(broker, "g", **options)]
    try:
        for count in (1, 2, 3):
            if count > 1:
                members.append(Member(broker, "g", **options))
            until(
                lambda: owners(members) == list(range(PARTITIONS)) and all(member.owned for member in members),
                f"sharing among {count}",
            )
        produce(broker, 60)
        everything = sorted(str(number) for number in range(60))
        until(lambda: sorted(v for m in members for v in m.values) == everything, "reading everything once")
        members[0].close()
        until(lambda: owners(members[1:]) == list(range(PARTITIONS)), "the others taking over")
    finally:
        for member in members:
            member.close()


def test_a_static_member_restarts_without_a_rebalance(broker: BrokerProcess, admin: AdminClient) -> None:
    """KIP-345: the other member notices nothing."""
    options: dict[str, object] = {"session.timeout.ms": 30_000}
    first = Member(broker, "g", **options, **{"group.instance.id": "one"})
    second = Member(broker, "g", **options, **{"group.instance.id": "two"})
    third: Member | None = None
    try:
        until(lambda: owners([first, second]) == list(range(PARTITIONS)) and bool(first.owned), "sharing")
        before, owned = second.rebalances, set(first.owned)
        first.close()
        third = Member(broker, "g", **options, **{"group.instance.id": "one"})
        returned = third
        until(lambda: returned.owned == owned, "taking the old partitions")
        assert second.rebalances == before
    finally:
        second.close()
        if third is not None:
            third.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_commits_and_members_survive_the_broker(broker: BrokerProcess, admin: AdminClient, how: str) -> None:
    """The group goes on where it was; what was acknowledged is there."""
    member = Member(broker, "g")
    try:
        produce(broker, 30)
        until(lambda: len(member.values) == 30, "reading")
        getattr(broker, how)()
        broker.start()
        produce(broker, 10)
        until(lambda: len(member.values) == 40, "reading on")
        assert len(set(member.values[30:])) == 10
    finally:
        member.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_acknowledged_offsets_survive_the_broker(broker: BrokerProcess, admin: AdminClient, how: str) -> None:
    """Of a consumer without group management, with their metadata."""
    config = {"bootstrap.servers": broker.address, "group.id": "simple"}
    consumer = Consumer(config)
    for offset in range(1, 20):
        consumer.commit(offsets=[TopicPartition(TOPIC, 3, offset, f"note {offset}")], asynchronous=False)
        if offset % 5 == 0:
            getattr(broker, how)()
            broker.start()
        (position,) = consumer.committed([TopicPartition(TOPIC, 3)], timeout=PATIENCE_S)
        assert (position.offset, position.metadata) == (offset, f"note {offset}")
    consumer.close()


def test_librdkafkas_admin_client_lists_describes_alters_and_deletes(broker: BrokerProcess, admin: AdminClient) -> None:
    """What an operator does."""
    produce(broker, 6)
    member = Member(broker, "g")
    try:
        until(lambda: owners([member]) == list(range(PARTITIONS)), "owning")
        until(lambda: len(member.values) == 6, "reading")
        (listed,) = admin.list_consumer_groups().result(PATIENCE_S).valid
        assert (listed.group_id, listed.state.name, listed.type.name) == ("g", "STABLE", "CLASSIC")
        described = admin.describe_consumer_groups(["g"], include_authorized_operations=True)["g"].result(PATIENCE_S)
        (one,) = described.members
        assert {partition.partition for partition in one.assignment.topic_partitions} == set(range(PARTITIONS))
        assert one.host == "/127.0.0.1"
        assert described.partition_assignor == "range"
        assert {operation.name for operation in described.authorized_operations} >= {"READ", "DELETE", "DESCRIBE"}
        with pytest.raises(KafkaException, match="NON_EMPTY_GROUP"):
            admin.delete_consumer_groups(["g"])["g"].result(PATIENCE_S)
    finally:
        member.close()
    alter = ConsumerGroupTopicPartitions("g", [TopicPartition(TOPIC, 0, 1)])
    admin.alter_consumer_group_offsets([alter])["g"].result(PATIENCE_S)
    ask = ConsumerGroupTopicPartitions("g")
    stored = admin.list_consumer_group_offsets([ask])["g"].result(PATIENCE_S)
    assert {one.partition: one.offset for one in stored.topic_partitions}[0] == 1
    admin.delete_consumer_groups(["g"])["g"].result(PATIENCE_S)
    assert admin.list_consumer_groups().result(PATIENCE_S).valid == []
    with pytest.raises(KafkaException, match="GROUP_ID_NOT_FOUND"):
        admin.delete_consumer_groups(["g"])["g"].result(PATIENCE_S)


def test_deleting_a_topic_takes_its_offsets_along(broker: BrokerProcess, admin: AdminClient) -> None:
    """A topic of the same name starts anew."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "simple"})
    consumer.commit(offsets=[TopicPartition(TOPIC, 0, 5)], asynchronous=False)
    admin.delete_topics([TOPIC])[TOPIC].result(PATIENCE_S)
    ask = ConsumerGroupTopicPartitions("simple")
    until(
        lambda: not admin.list_consumer_group_offsets([ask])["simple"].result(PATIENCE_S).topic_partitions,
        "forgetting",
    )
    consumer.close()


def test_kafka_pythons_consumers_and_admin_client(broker: BrokerProcess, admin: AdminClient) -> None:
    """Another implementation of the same protocol, with other versions of the same requests."""
    produce(broker, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # kafka-python leaves sockets to the collector
        run_kafka_python(broker)
        gc.collect()


def run_kafka_python(broker: BrokerProcess) -> None:
    consumers = [
        kafka.KafkaConsumer(
            TOPIC,
            bootstrap_servers=broker.address,
            group_id="py",
            auto_offset_reset="earliest",
            session_timeout_ms=6000,
            heartbeat_interval_ms=200,
            max_poll_interval_ms=20_000,
            enable_auto_commit=False,
        )
        for _ in range(2)
    ]
    values: list[bytes] = []
    stop = threading.Event()

    def run(consumer: kafka.KafkaConsumer) -> None:
        while not stop.is_set():
            for records in consumer.poll(timeout_ms=50).values():
                values.extend(record.value for record in records)
        consumer.commit()

    threads = [threading.Thread(target=run, args=(consumer,)) for consumer in consumers]
    for thread in threads:
        thread.start()
    client: Any = kafka.admin.KafkaAdminClient(bootstrap_servers=broker.address)  # it makes its methods at run time
    try:
        until(
            lambda: (
                sum(len(c.assignment()) for c in consumers) == PARTITIONS and all(c.assignment() for c in consumers)
            ),
            "sharing",
        )
        until(lambda: len(set(values)) == 12, "reading")
        described = client.describe_groups(["py"])["py"]
        assert described["group_state"] == "Stable"
        assert len(described["members"]) == 2
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    offsets = client.list_group_offsets("py")["py"]
    assert sum(position.offset for position in offsets.values() if position.offset > 0) == 12
    for consumer in consumers:
        consumer.close()
    assert [group["group_id"] for group in client.list_groups(states_filter=["Empty"])] == ["py"]
    assert client.list_groups(states_filter=["Stable"]) == []
    client.delete_groups(["py"])
    assert client.list_groups() == []
    client.close()
