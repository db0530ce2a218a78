"""Kafka's tools for a cluster of several brokers at work on three of our nodes, as an operator would use them."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka as ck
import pytest

from tests.cluster.members import Cluster, streamlog_cluster
from tests.interop_java.conftest import KafkaTools

pytestmark = [pytest.mark.interop_java, pytest.mark.timeout(240)]

TOOLS = "org.apache.kafka.tools."
TOPICS = TOOLS + "TopicCommand"
REASSIGN = TOOLS + "reassign.ReassignPartitionsCommand"
ELECT = TOOLS + "LeaderElectionCommand"
QUORUM = TOOLS + "MetadataQuorumCommand"
VERIFY = TOOLS + "ReplicaVerificationTool"
PATIENCE_S = 40.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with streamlog_cluster(tmp_path_factory.mktemp("cluster"), None) as three:
        three.until_in_sync()
        yield three


class Operator:
    """Somebody with Kafka's scripts and the addresses of the brokers."""

    def __init__(self, tools: KafkaTools, cluster: Cluster) -> None:
        self._tools, self.cluster = tools, cluster

    def well(self, main_class: str, *arguments: str) -> str:
        """What it prints, when it ends well."""
        said = self._tools.run(main_class, "--bootstrap-server", self.cluster.bootstrap, *arguments)
        assert said.code == 0, f"{said.out}{said.err}"
        return said.out

    def create(self, topic: str, *replicas: str, records: int = 0) -> None:
        """A topic with these brokers for each partition, "1:2" for example."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:  # right after the start not every broker is registered yet
            said = self._tools.run(
                TOPICS,
                *("--bootstrap-server", self.cluster.bootstrap, "--create", "--topic", topic),
                *("--replica-assignment", ",".join(replicas)),
            )
            if said.code == 0:
                break
            assert time.monotonic() < give_up_at, said.out + said.err
        self.cluster.until_in_sync(topic)
        producer = ck.Producer({"bootstrap.servers": self.cluster.bootstrap, "acks": "all"})
        for number in range(records):
            producer.produce(topic, b"%d" % number, partition=number % len(replicas))
        assert producer.flush(30) == 0


@pytest.fixture
def operator(kafka_tools: KafkaTools, cluster: Cluster) -> Operator:
    return Operator(kafka_tools, cluster)


def until(check: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < give_up_at, "not in time"
        time.sleep(0.2)


def test_partitions_are_reassigned(operator: Operator, tmp_path: Path) -> None:
    """kafka-reassign-partitions: generate, execute with a throttle, list, verify, and cancel of what is done."""
    operator.create("moved", "1:2", "2:1", records=1000)
    topics, move = tmp_path / "topics.json", tmp_path / "move.json"
    topics.write_text(json.dumps({"version": 1, "topics": [{"topic": "moved"}]}))
    generated = operator.well(REASSIGN, "--topics-to-move-json-file", str(topics), "--broker-list", "2,3", "--generate")
    assert "Proposed partition reassignment configuration" in generated
    partitions = [{"topic": "moved", "partition": n, "replicas": one} for n, one in enumerate([[3, 2], [2, 3]])]
    move.write_text(json.dumps({"version": 1, "partitions": partitions}))
    file = ("--reassignment-json-file", str(move))
    said = operator.well(REASSIGN, *file, "--execute", "--throttle", "50000000")
    assert "Successfully started partition reassignments for moved-0,moved-1" in said
    until(lambda: "still in progress" not in operator.well(REASSIGN, *file, "--verify", "--preserve-throttles"))
    said = operator.well(REASSIGN, *file, "--verify")
    assert said.count("is completed.") == 2
    assert "Clearing broker-level throttles" in said
    assert "No partition reassignments found." in operator.well(REASSIGN, "--list")
    described = operator.well(TOPICS, "--describe", "--topic", "moved")
    assert re.search(r"Partition: 0\tLeader: \d\tReplicas: 3,2", described)
    infos = operator.cluster.until_in_sync("moved")
    assert [one.replicas for one in infos["moved"].partitions] == [(3, 2), (2, 3)]


def test_leaders_are_elected(operator: Operator) -> None:
    """kafka-leader-election: the preferred one comes back to lead after its node was killed."""
    operator.create("led", "3:1:2", records=10)
    operator.cluster.members[3].stop(kill=True)
    until(lambda: operator.cluster.describe("led")[0]["led"].partitions[0].leader in (1, 2))
    assert "Leader: 3" not in operator.well(TOPICS, "--describe", "--topic", "led")
    assert "led" in operator.well(TOPICS, "--describe", "--under-replicated-partitions")
    operator.cluster.members[3].start()
    infos = operator.cluster.until_in_sync("led")
    if infos["led"].partitions[0].leader != 3:
        said = operator.well(ELECT, "--election-type", "preferred", "--topic", "led", "--partition", "0")
        assert "Successfully completed leader election (PREFERRED) for partitions led-0" in said
    until(lambda: operator.cluster.describe("led")[0]["led"].partitions[0].leader == 3)
    said = operator.well(ELECT, "--election-type", "preferred", "--topic", "led", "--partition", "0")
    assert "Valid replica already elected for partitions led-0" in said


def test_the_quorum_is_described(operator: Operator) -> None:
    """kafka-metadata-quorum: status and replication, by way of the brokers."""
    status = operator.well(QUORUM, "describe", "--status")
    assert re.search(r"LeaderId:\s+[123]\n", status)
    assert re.search(r"MaxFollowerLag:\s+\d+", status)
    rows = operator.well(QUORUM, "describe", "--replication").splitlines()
    assert sorted(row.split()[0] for row in rows[1:]) == ["1", "2", "3"]
    assert sum("Leader" in row for row in rows[1:]) == 1


def test_replicas_are_the_same_everywhere(kafka_libs: Path, operator: Operator) -> None:
    """kafka-replica-verification compares what every replica has, record by record, until it is ended."""
    operator.create("verified", "1:2:3", "2:3:1", records=2000)
    command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_libs}/*", VERIFY]
    command += ["--broker-list", operator.cluster.bootstrap, "--topics-include", "verified"]
    command += ["--report-interval-ms", "1000", "--time", "-2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tool:
        timer = threading.Timer(PATIENCE_S, tool.kill)
        timer.start()
        said: list[str] = []
        assert tool.stdout is not None, "asked for with PIPE"
        for line in tool.stdout:
            said.append(line)
            if sum("max lag is 0" in one for one in said) == 2:
                break
        timer.cancel()
        tool.kill()
    text = "".join(said)
    assert text.count("max lag is 0 for partition") == 2, text
    assert "differ" not in text.replace("different", ""), text
