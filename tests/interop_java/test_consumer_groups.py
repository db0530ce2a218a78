"""Groups and offsets, judged by Apache Kafka: its tools against our broker, its log in our coordinator."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamlog.broker.coordinator.group.group_shard import GroupShard
from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.group.state import GroupState
from streamlog.broker.coordinator.groups import RecordBytes
from streamlog.broker.coordinator.partitioning import partition_for
from streamlog.broker.coordinator.shard import Now
from streamlog.broker.coordinator.shard_log import fold_batches
from tests.broker.coordinator.broker_process import BrokerProcess
from tests.broker.coordinator.test_real_clients import PARTITIONS, PATIENCE_S, TOPIC, Member, owners, produce, until
from tests.kafka_node import KafkaNode, run_java

pytestmark = [pytest.mark.interop_java, pytest.mark.timeout(300)]

GROUP_COMMAND = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
OFFSETS_PARTITIONS = 4


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "data") as running:
        create_topic(running.address)
        yield running


def create_topic(address: str) -> AdminClient:
    admin = AdminClient({"bootstrap.servers": address})
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        future.result(PATIENCE_S)
    return admin


def group_command(libs: Path, broker: BrokerProcess, *arguments: str) -> str:
    return run_java(libs, GROUP_COMMAND, ["--bootstrap-server", broker.address, *arguments])


def rows(text: str) -> list[list[str]]:
    """The table of a tool's output, without its heading."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    heading = next(number for number, line in enumerate(lines) if line[0] == "GROUP")
    return lines[heading + 1 :]


def test_the_group_command_describes_resets_and_deletes(kafka_libs: Path, broker: BrokerProcess) -> None:
    """The day of an operator: look at a running group, move it back while it is down, remove it."""
    produce(broker, 60)
    member = Member(broker, "g")
    try:
        until(lambda: owners([member]) == list(range(PARTITIONS)), "owning")
        until(lambda: len(member.values) == 60, "reading")
        table = rows(group_command(kafka_libs, broker, "--describe", "--group", "g"))
        assert sorted(row[2] for row in table) == [str(number) for number in range(PARTITIONS)]
        assert sum(int(row[3]) for row in table) == 60
        assert {row[5] for row in table} == {"0"}, "no lag"
        assert {row[7] for row in table} == {"/127.0.0.1"}
        (one,) = rows(group_command(kafka_libs, broker, "--describe", "--group", "g", "--members", "--verbose"))
        assert any(TOPIC in cell and "0,1,2,3,4,5" in cell for cell in one), one
        (state,) = rows(group_command(kafka_libs, broker, "--describe", "--group", "g", "--state"))
        assert state[-2:] == ["Stable", "1"]
        assert "Stable" in group_command(kafka_libs, broker, "--list", "--state", "stable")
        assert "GroupNotEmptyException" in group_command(kafka_libs, broker, "--delete", "--group", "g")
    finally:
        member.close()
    group_command(kafka_libs, broker, "--delete-offsets", "--group", "g", "--topic", f"{TOPIC}:5")
    reset = ["--reset-offsets", "--group", "g", "--topic", TOPIC, "--to-earliest", "--execute"]
    group_command(kafka_libs, broker, *reset)
    table = rows(group_command(kafka_libs, broker, "--describe", "--group", "g"))
    assert {row[3] for row in table} == {"0"}
    group_command(kafka_libs, broker, "--delete", "--group", "g")
    assert "g" not in group_command(kafka_libs, broker, "--list").split()


def test_a_java_consumer_joins_reads_commits_and_leaves(kafka_libs: Path, broker: BrokerProcess) -> None:
    """Kafka's own consumer, with whatever versions of the requests it prefers."""
    produce(broker, 40)
    options = ["--bootstrap-server", broker.address, "--topic", TOPIC, "--group-id", "java"]
    limits = ["--max-messages", "40", "--reset-policy", "earliest"]
    events = run_java(kafka_libs, "org.apache.kafka.tools.VerifiableConsumer", [*options, *limits])
    assert '"name":"partitions_assigned"' in events
    assert '"name":"offsets_committed"' in events
    assert '"success":false' not in events
    (state,) = rows(group_command(kafka_libs, broker, "--describe", "--group", "java", "--state"))
    assert state[-2:] == ["Empty", "0"]
    table = rows(group_command(kafka_libs, broker, "--describe", "--group", "java"))
    assert sum(int(row[3]) for row in table) == 40


def test_the_log_dumper_decodes_our_records(kafka_libs: Path, broker: BrokerProcess) -> None:
    """Every record, with its fields, by Kafka's own offsets decoder."""
    produce(broker, 6)
    member = Member(broker, "g", **{"group.instance.id": "one"})
    try:
        until(lambda: len(member.values) == 6, "reading")
    finally:
        member.close()
    broker.stop()
    partition = partition_for("g", OFFSETS_PARTITIONS)
    segment = broker.data_dir / f"__consumer_offsets-{partition}" / "00000000000000000000.log"
    dump = run_java(
        kafka_libs, "org.apache.kafka.tools.DumpLogSegments", ["--offsets-decoder", "--files", str(segment)]
    )
    assert "isvalid: false" not in dump
    assert re.search(r'key: {"type":"1","data":{"group":"g","topic":"orders","partition":\d}}', dump)
    assert re.search(r'payload: {"version":"4","data":{"offset":\d+,"leaderEpoch":\d+,"metadata":"",', dump)
    assert '"groupInstanceId":"one"' in dump
    assert re.search(
        r'payload: {"version":"3","data":{"protocolType":"consumer","generation":1,"protocol":"range"', dump
    )


def test_a_log_that_kafka_wrote_is_folded_to_what_kafka_says(kafka_libs: Path) -> None:
    """Members, simple commits, transactions committed and aborted, deletions: the same positions and groups."""
    with KafkaNode(kafka_libs) as kafka:
        admin = create_topic(kafka.bootstrap)
        commit(kafka.bootstrap, "simple", {0: 5, 1: 7})
        commit(kafka.bootstrap, "simple", {0: 6})
        commit(kafka.bootstrap, "deleted", {0: 1})
        commit_in_transaction(kafka.bootstrap, "exact", {2: 20}, ends_well=True)
        commit_in_transaction(kafka.bootstrap, "exact", {2: 30}, ends_well=False)
        stay = consume(kafka.bootstrap, "stable")
        consume(kafka.bootstrap, "empty").close()
        admin.delete_consumer_groups(["deleted"])["deleted"].result(PATIENCE_S)
        said = {
            group: {
                (one.topic, one.partition): one.offset
                for one in admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group]
                .result(PATIENCE_S)
                .topic_partitions
                if one.offset >= 0
            }
            for group in ("simple", "deleted", "exact", "stable", "empty")
        }
        kafka.stop(kill=True)
        stay.close()
        shards = {index: folded(kafka, index) for index in range(OFFSETS_PARTITIONS)}
    for group, positions in said.items():
        table = shards[partition_for(group, OFFSETS_PARTITIONS)].table
        found = {(topic, number): one.offset for topic, number, one in table.offsets.positions(group)}
        assert found == positions, group
    groups = {name: group for shard in shards.values() for name, group in shard.table.groups.items()}
    assert sorted(groups) == ["empty", "exact", "simple", "stable"]
    assert groups["stable"].state is GroupState.STABLE
    assert groups["stable"].static_member_ids.keys() == {"stable-instance"}
    assert groups["stable"].topics == frozenset({TOPIC})
    assert groups["empty"].state is GroupState.EMPTY
    assert groups["empty"].generation_id == 2
    assert said["exact"] == {(TOPIC, 2): 20}


def commit(address: str, group: str, offsets: dict[int, int]) -> None:
    consumer = Consumer({"bootstrap.servers": address, "group.id": group})
    positions = [TopicPartition(TOPIC, partition, offset) for partition, offset in offsets.items()]
    consumer.commit(offsets=positions, asynchronous=False)
    consumer.close()


def consume(address: str, group: str) -> Consumer:
    """A static member that owns everything and has committed."""
    config = {"bootstrap.servers": address, "group.id": group, "group.instance.id": f"{group}-instance"}
    # Leaving must be said aloud: a static member that closes stays until its session ends.
    consumer = Consumer(config if group == "stable" else {k: v for k, v in config.items() if "instance" not in k})
    consumer.subscribe([TOPIC])
    until(lambda: consumer.poll(0.05) is None and len(consumer.assignment()) == PARTITIONS, "owning")
    consumer.commit(offsets=[TopicPartition(TOPIC, 3, 33)], asynchronous=False)
    return consumer


def commit_in_transaction(address: str, group: str, offsets: dict[int, int], *, ends_well: bool) -> None:
    consumer = Consumer({"bootstrap.servers": address, "group.id": group})
    producer = Producer({"bootstrap.servers": address, "transactional.id": group})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    positions = [TopicPartition(TOPIC, partition, offset) for partition, offset in offsets.items()]
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), PATIENCE_S)
    if ends_well:
        producer.commit_transaction(PATIENCE_S)
    else:
        producer.abort_transaction(PATIENCE_S)
    consumer.close()


def folded(kafka: KafkaNode, index: int) -> GroupShard:
    numbers = itertools.count(1)
    shard = GroupShard(GroupLimits(), lambda: UUID(int=next(numbers)))
    for segment in sorted((kafka.path / "data" / f"__consumer_offsets-{index}").glob("*.log")):
        fold_batches(segment.read_bytes(), RecordBytes(), shard)
    shard.on_loaded(Now(0, 0))
    shard.table.check()
    return shard
