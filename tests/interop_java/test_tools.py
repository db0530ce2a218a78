"""Kafka's own command line tools and clients at work on our broker and on its files, as an operator would use them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka as ck
import pytest

from tests.broker.running import BrokerProcess
from tests.interop_java.conftest import HERE, KafkaTools, Said
from tests.interop_java.test_dump_log import COMPLAINTS
from tests.kafka_node import run_java

pytestmark = [pytest.mark.interop_java, pytest.mark.timeout(180)]

TOOLS = "org.apache.kafka.tools."
CONFIGS = "kafka.admin.ConfigCommand"
GROUPS = TOOLS + "consumer.group.ConsumerGroupCommand"
TOPICS = TOOLS + "TopicCommand"
DUMP = TOOLS + "DumpLogSegments"
SETTINGS = ("group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=4")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("broker"), *SETTINGS) as running:
        yield running


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


class Operator:
    """Somebody with Kafka's scripts and the address of a broker."""

    def __init__(self, tools: KafkaTools, broker: BrokerProcess) -> None:
        self._tools, self._broker = tools, broker

    def run(self, main_class: str, *arguments: str) -> Said:
        return self._tools.run(main_class, "--bootstrap-server", self._broker.address, *arguments)

    def well(self, main_class: str, *arguments: str) -> str:
        """What it prints, when it ends well."""
        said = self.run(main_class, *arguments)
        assert said.code == 0, f"{said.out}{said.err}"
        return said.out

    def badly(self, main_class: str, *arguments: str) -> str:
        """What it says, when it fails."""
        said = self.run(main_class, *arguments)
        assert said.code != 0, said.out
        return said.out + said.err


@pytest.fixture
def operator(kafka_tools: KafkaTools, broker: BrokerProcess) -> Operator:
    return Operator(kafka_tools, broker)


def rows(text: str) -> list[list[str]]:
    """The lines below a heading that begins with GROUP."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    heading = next(number for number, line in enumerate(lines) if line[0] == "GROUP")
    return lines[heading + 1 :]


def test_topics_are_created_described_grown_and_deleted(operator: Operator, topic: str) -> None:
    """TopicCommand: with configs, twice, into nonsense, and away."""
    name = ("--topic", topic)
    operator.well(TOPICS, "--create", *name, "--partitions", "3", "--config", "retention.ms=100000")
    assert "already exists" in operator.badly(TOPICS, "--create", *name, "--partitions", "3")
    operator.well(TOPICS, "--create", "--if-not-exists", *name, "--partitions", "3")
    assert topic in operator.well(TOPICS, "--list").split()
    described = operator.well(TOPICS, "--describe", *name)
    assert re.search(
        r"TopicId: \S{22}\tPartitionCount: 3\tReplicationFactor: 1\t"
        r"Configs: min.insync.replicas=1,retention.ms=100000",  # the cluster's is written down (KIP-966), and told
        described,
    )
    assert described.count("Leader: 1\tReplicas: 1\tIsr: 1") == 3
    assert topic in operator.well(TOPICS, "--describe", "--topics-with-overrides")
    for filtered in ("--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"):
        assert operator.well(TOPICS, "--describe", filtered).strip() == ""
    operator.well(TOPICS, "--alter", *name, "--partitions", "5")
    assert "PartitionCount: 5" in operator.well(TOPICS, "--describe", *name)
    assert "would not be an increase" in operator.badly(TOPICS, "--alter", *name, "--partitions", "2")
    assert "Unknown topic config name" in operator.badly(TOPICS, "--create", "--topic", "x", "--config", "no=1")
    operator.well(TOPICS, "--delete", *name)
    assert "does not exist" in operator.badly(TOPICS, "--describe", *name)


def test_configs_of_topics_and_brokers_are_described_and_altered(operator: Operator, topic: str) -> None:
    """ConfigCommand: sources, lists, deletion, what is refused."""
    operator.well(TOPICS, "--create", "--topic", topic)
    name = ("--entity-type", "topics", "--entity-name", topic)
    operator.well(CONFIGS, "--alter", *name, "--add-config", "max.message.bytes=2000,cleanup.policy=[compact,delete]")
    described = operator.well(CONFIGS, "--describe", *name)
    assert "max.message.bytes=2000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000," in described
    assert "cleanup.policy=compact,delete" in described
    operator.well(CONFIGS, "--alter", *name, "--delete-config", "max.message.bytes")
    assert "max.message.bytes" not in operator.well(CONFIGS, "--describe", *name)
    assert "max.message.bytes=1048588" in operator.well(CONFIGS, "--describe", *name, "--all")
    assert "InvalidConfiguration" in operator.badly(CONFIGS, "--alter", *name, "--add-config", "retention.ms=abc")
    operator.well(CONFIGS, "--alter", "--broker", "1", "--add-config", "message.max.bytes=1000000")
    assert "DYNAMIC_BROKER_CONFIG:message.max.bytes=1000000" in operator.well(CONFIGS, "--describe", "--broker", "1")
    operator.well(CONFIGS, "--alter", "--broker-defaults", "--add-config", "message.max.bytes=900000")
    defaults = operator.well(CONFIGS, "--describe", "--broker-defaults")
    assert "DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=900000" in defaults
    for where in (("--broker", "1"), ("--broker-defaults",)):
        operator.well(CONFIGS, "--alter", *where, "--delete-config", "message.max.bytes")
    every = operator.well(CONFIGS, "--describe", "--broker", "1", "--all")
    assert "offsets.topic.num.partitions=4 sensitive=false synonyms={STATIC_BROKER_CONFIG:" in every


def test_messages_are_produced_counted_consumed_and_deleted(
    operator: Operator, broker: BrokerProcess, topic: str, tmp_path: Path
) -> None:
    """ProducerPerformance, GetOffsetShell, ConsumerPerformance, ConsoleConsumer, DeleteRecordsCommand."""
    operator.well(TOPICS, "--create", "--topic", topic, "--partitions", "2")
    load = ("--topic", topic, "--num-records", "5000", "--record-size", "100", "--throughput", "-1")
    assert "5000 records sent" in operator.well(TOOLS + "ProducerPerformance", *load, "--command-property", "acks=all")

    def offsets(*time: str) -> dict[str, int]:
        text = operator.well(TOOLS + "GetOffsetShell", "--topic", topic, *time)
        return {line.split(":")[1]: int(line.split(":")[2]) for line in text.split()}

    ends = offsets()
    assert sum(ends.values()) == 5000
    assert offsets("--time", "earliest") == {"0": 0, "1": 0}
    assert offsets("--time", "latest") == ends
    assert offsets("--time", "1000") == {"0": 0, "1": 0}
    newest = offsets("--time", "max-timestamp")
    assert all(0 <= newest[partition] < end for partition, end in ends.items())
    said = operator.well(TOOLS + "ConsumerPerformance", "--topic", topic, "--num-records", "5000", "--group", topic)
    assert said.splitlines()[1].split(", ")[4] == "5000"
    few = ("--topic", topic, "--from-beginning", "--max-messages", "7", "--formatter-property", "print.offset=true")
    lines = operator.well(TOOLS + "consumer.ConsoleConsumer", *few).splitlines()
    assert len(lines) == 7
    assert all(re.fullmatch(r"Offset:\d+\t[A-Z]{100}", line) for line in lines)
    chosen = tmp_path / "offsets.json"
    partitions = [{"topic": topic, "partition": 0, "offset": 5}, {"topic": topic, "partition": 1, "offset": -1}]
    chosen.write_text(json.dumps({"version": 1, "partitions": partitions}))
    said = operator.well(TOOLS + "DeleteRecordsCommand", "--offset-json-file", str(chosen))
    assert f"partition: {topic}-0\tlow_watermark: 5" in said
    assert offsets("--time", "earliest") == {"0": 5, "1": ends["1"]}


def test_offsets_of_a_group_are_reset_in_every_way(operator: Operator, broker: BrokerProcess, topic: str) -> None:
    """ConsumerGroupCommand and GroupsCommand on a group that is at rest."""
    operator.well(TOPICS, "--create", "--topic", topic, "--partitions", "2", "--config", "retention.ms=-1")
    producer = ck.Producer({"bootstrap.servers": broker.address})
    for number in range(100):
        at = 1_700_000_000_000 + number * 1000
        producer.produce(topic, b"x", partition=number % 2, timestamp=at)
    assert producer.flush(20) == 0
    consumer = ck.Consumer({"bootstrap.servers": broker.address, "group.id": topic})
    consumer.commit(offsets=[ck.TopicPartition(topic, p, 30) for p in range(2)], asynchronous=False)
    consumer.close()

    def reset(*how: str) -> set[int]:
        """The new offsets, as the tool says and as it finds them afterwards."""
        said = operator.well(GROUPS, "--reset-offsets", "--group", topic, "--topic", topic, *how, "--execute")
        new = {int(row[3]) for row in rows(said)}
        table = rows(operator.well(GROUPS, "--describe", "--group", topic, "--offsets"))
        assert {int(row[3]) for row in table} == new
        assert all(int(row[5]) == 50 - int(row[3]) for row in table), "lag"
        return new

    assert reset("--to-current") == {30}
    assert reset("--shift-by", "-10") == {20}
    assert reset("--to-latest") == {50}
    assert reset("--to-earliest") == {0}
    assert reset("--to-offset", "7") == {7}
    assert reset("--to-datetime", "2023-11-14T22:13:40.000") == {10}  # 20 s after the first of a hundred seconds
    assert reset("--by-duration", "PT1H") == {50}
    exported = operator.well(GROUPS, "--reset-offsets", "--group", topic, "--topic", topic, "--to-current", "--export")
    assert f'"{topic}",0,50' in exported
    assert topic in operator.well(GROUPS, "--list").split()
    assert re.search(rf"{topic}\s+Classic", operator.well(TOOLS + "GroupsCommand", "--list"))
    (state,) = rows(operator.well(GROUPS, "--describe", "--group", topic, "--state"))
    assert state[-2:] == ["Empty", "0"]
    deleted = operator.well(GROUPS, "--delete-offsets", "--group", topic, "--topic", f"{topic}:1")
    assert re.search(rf"{topic}\s+1\s+Successful", deleted)
    table = rows(operator.well(GROUPS, "--describe", "--group", topic))
    assert {row[2]: row[3] for row in table} == {"0": "50"}
    operator.well(GROUPS, "--delete", "--group", topic)
    assert "not found" in operator.well(GROUPS, "--describe", "--group", topic)


def test_the_cluster_says_what_it_is(operator: Operator) -> None:
    """ClusterTool, BrokerApiVersionsCommand, FeatureCommand: what stands is named, nothing more."""
    endpoints = operator.run(TOOLS + "BrokerApiVersionsCommand")
    assert "ApiVersions(18): 0 to 4" in endpoints.out
    assert "Feature: metadata.version" in operator.run(TOOLS + "FeatureCommand", "describe").out


@pytest.mark.parametrize("assignor", ["RangeAssignor", "CooperativeStickyAssignor"])
def test_java_consumers_share_read_and_commit_what_a_java_producer_wrote(
    kafka_libs: Path, kafka_tools: KafkaTools, tmp_path: Path, assignor: str
) -> None:
    """Idempotent producer; one, two, three members, then two: every message read where it was written."""
    topic = f"group-{assignor}"
    with BrokerProcess(tmp_path, *SETTINGS) as broker:
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        command += ["-cp", f"{kafka_libs}/*", str(HERE / "JavaGroup.java"), broker.address, topic, "6"]
        admin = ["--create", "--topic", topic, "--partitions", "6"]
        Operator(kafka_tools, broker).well(TOPICS, *admin)
        full_name = f"org.apache.kafka.clients.consumer.{assignor}"
        done = subprocess.run([*command, full_name, "4000"], capture_output=True, text=True, timeout=120)
        assert "EQUAL true SENT 4000" in done.stdout, done.stdout + done.stderr
        assert "COMMITTED 4000" in done.stdout, done.stdout


def test_verifiable_clients_find_nothing_wrong(kafka_libs: Path, broker: BrokerProcess, topic: str) -> None:
    """Kafka's own system tests run on these two."""
    common = ["--bootstrap-server", broker.address, "--topic", topic]
    said = run_java(kafka_libs, TOOLS + "VerifiableProducer", [*common, "--max-messages", "200"])
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert sum(event["name"] == "producer_send_success" for event in events) == 200
    assert not [event for event in events if event["name"] == "producer_send_error"]
    group = ["--group-id", topic, "--max-messages", "200", "--reset-policy", "earliest"]
    cooperative = ["--assignment-strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"]
    said = run_java(kafka_libs, TOOLS + "VerifiableConsumer", [*common, *group, *cooperative])
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert sum(event["count"] for event in events if event["name"] == "records_consumed") == 200


def test_the_dump_tool_reads_every_file_of_a_broker_that_was_killed(kafka_tools: KafkaTools, tmp_path: Path) -> None:
    """Partition logs with indexes and producer snapshots, committed offsets, the metadata log and its snapshot."""
    data_dir = tmp_path / "data"
    small = ("metadata.log.max.record.bytes.between.snapshots=2000", "log.index.interval.bytes=100")
    with BrokerProcess(data_dir, *SETTINGS, *small) as broker:
        operator = Operator(kafka_tools, broker)
        for number in range(30):
            operator.well(TOPICS, "--create", "--topic", f"t{number}", "--config", "segment.bytes=1048576")
        settings = {"bootstrap.servers": broker.address, "enable.idempotence": True}
        producer = ck.Producer(settings | {"compression.type": "lz4"})
        for number in range(300):
            producer.produce("t0", bytes(5000) + b"%d" % number, key=b"%d" % number, headers=[("h", b"v")])
            if number % 20 == 0:
                assert producer.flush(20) == 0
        assert producer.flush(20) == 0
        plain = ck.Producer(settings)
        for number in range(500):
            plain.produce("t1", bytes(5000) + b"%d" % number)
        assert plain.flush(20) == 0
        consumer = ck.Consumer({"bootstrap.servers": broker.address, "group.id": "g"})
        consumer.commit(offsets=[ck.TopicPartition("t0", 0, 17)], asynchronous=False)
        consumer.close()
        broker.kill()
    with BrokerProcess(data_dir, *SETTINGS, *small) as broker:
        broker.stop()  # what recovery rebuilt is on disk now

    def dump(*files: Path, options: tuple[str, ...] = ()) -> str:
        said = kafka_tools.run(DUMP, "--files", ",".join(map(str, files)), *options)
        for complaint in COMPLAINTS:
            assert complaint not in said.out, said.out[-2000:]
        assert said.code == 0, said.err
        return said.out

    records = dump(data_dir / "t0-0" / "00000000000000000000.log", options=("--deep-iteration", "--print-data-log"))
    assert records.count("| offset:") == 300
    assert records.count("compresscodec: lz4") > 5
    assert "headerKeys: [h]" in records
    derived = [path for path in sorted((data_dir / "t1-0").iterdir()) if path.suffix in (".index", ".timeindex")]
    assert len(derived) >= 4, "the topic has several segments"
    dump(*derived)
    dump(*derived, options=("--index-sanity-check",))
    snapshots = [path for path in sorted((data_dir / "t1-0").iterdir()) if path.suffix == ".snapshot"]
    assert re.search(r"producerId: \d+ producerEpoch: 0 .* lastSequence: 499", dump(*snapshots))
    logs = sorted(data_dir.glob("__consumer_offsets-*/*.log"))
    offsets = dump(*logs, options=("--offsets-decoder",))
    assert '"group":"g","topic":"t0","partition":0' in offsets
    assert '"offset":17' in offsets
    metadata = sorted((data_dir / "__cluster_metadata-0").glob("*.log"))
    decoded = dump(*metadata, options=("--cluster-metadata-decoder",))
    assert decoded.count('"type":"TOPIC_RECORD"') >= 1
    checkpoints = sorted((data_dir / "__cluster_metadata-0").glob("*.checkpoint"))
    decoded = dump(checkpoints[-1], options=("--cluster-metadata-decoder",))
    assert '"type":"TOPIC_RECORD"' in decoded
    assert "SnapshotHeader" in decoded
