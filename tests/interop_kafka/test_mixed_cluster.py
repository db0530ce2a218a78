"""Nodes of Apache Kafka and of streamlog in one cluster."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamlog.broker.config import load_config
from streamlog.broker.format import format_directory
from streamlog.broker.node import start_node
from streamlog.client.admin import Admin, NewTopic
from streamlog.env import real_env
from tests.broker.nodes import BROKER, CLUSTER_ID, CONTROLLER, Nodes, nodes
from tests.kafka_cluster import KafkaMember
from tests.kafka_node import CLUSTER_ID as KAFKAS_CLUSTER_ID
from tests.kafka_node import KafkaNode, free_port, run_java

pytestmark = pytest.mark.interop_kafka

TOOLS = "org.apache.kafka.tools"
KAFKAS_ID = 21

OLD_PROTOCOLS: Mapping[str, int] = {
    "group.version": 0,
    "transaction.version": 0,
    "share.version": 0,
    "streams.version": 0,
}
"""A cluster whose features a streamlog broker has, all of them."""


@contextmanager
def kafka_broker(libs: Path, path: Path, found: Nodes) -> Iterator[KafkaMember]:
    """A broker of Apache Kafka that observes our quorum; it runs when this is entered."""
    settings = {
        "controller.quorum.bootstrap.servers": ",".join(
            f"127.0.0.1:{port}" for port in found.controller_ports.values()
        ),
        "offsets.topic.replication.factor": "1",
        "group.initial.rebalance.delay.ms": "0",
    }
    member = KafkaMember(libs, path, KAFKAS_ID, "broker", (free_port(), 0), settings)
    formatted = ["format", "-t", CLUSTER_ID, "-c", str(member.config)]
    run_java(libs, "kafka.tools.StorageTool", formatted)
    try:
        yield member
    finally:
        member.stop(kill=True)


async def test_a_broker_of_apache_kafka_works_with_our_controllers(kafka_libs: Path, tmp_path: Path) -> None:
    """It registers, is unfenced, forwards what clients ask, replicates from us and to us, and shuts down in order."""
    roles = {1: CONTROLLER, 2: CONTROLLER, 3: CONTROLLER, 11: BROKER}
    async with nodes(tmp_path, roles) as found:
        await found.start()
        ours = found.brokers[11]
        address = f"127.0.0.1:{ours.listening[0].port}"
        with kafka_broker(kafka_libs, tmp_path / "kafka", found) as theirs:
            await asyncio.to_thread(theirs.start)
            await ours.broker.controller.until(lambda image: not image.brokers[KAFKAS_ID].fenced, 10_000)
            arguments = [
                "--bootstrap-server",
                theirs.address,
                "--create",
                "--topic",
                "mixed",
                "--partitions",
                "4",
                "--replication-factor",
                "2",
            ]
            await asyncio.to_thread(run_java, kafka_libs, f"{TOOLS}.TopicCommand", arguments)
            await ours.broker.controller.until(lambda image: "mixed" in image.topics, 10_000)
            leaders = {one.leader for one in ours.broker.image.topics["mixed"].partitions.values()}
            assert leaders == {11, KAFKAS_ID}

            arguments = ["--bootstrap-server", theirs.address, "--topic", "mixed", "--property", "parse.key=true"]
            lines = "".join(f"{n}\t{n}\n" for n in range(100))
            await asyncio.to_thread(
                run_java, kafka_libs, f"{TOOLS}.ConsoleProducer", arguments, stdin=lines, timeout_s=60
            )
            led = ours.broker.image.topics["mixed"].partitions
            assert all(sorted(one.isr) == [11, KAFKAS_ID] for one in led.values()), "each follows the other"
            mine = [ours.broker.partitions.find("mixed", index) for index in range(4)]
            ends = [0 if one is None else one.log.log_end_offset for one in mine]
            assert sum(ends) == 100, "ours has every record, whoever led"
            assert 0 < sum(end for index, end in enumerate(ends) if led[index].leader == KAFKAS_ID) < 100
            arguments = ["--bootstrap-server", address, "--topic", "mixed", "--time", "-1"]
            text = await asyncio.to_thread(run_java, kafka_libs, f"{TOOLS}.GetOffsetShell", arguments)
            assert sum(int(end) for end in re.findall(r"^mixed:\d+:(\d+)$", text, re.MULTILINE)) == 100

            await asyncio.to_thread(theirs.stop)
            await ours.broker.controller.until(lambda image: image.brokers[KAFKAS_ID].fenced, 10_000)
            led = ours.broker.image.topics["mixed"].partitions
            assert {one.leader for one in led.values()} == {11}
            arguments = ["--bootstrap-server", address, "--topic", "mixed", "--from-beginning", "--max-messages", "100"]
            text = await asyncio.to_thread(
                run_java, kafka_libs, f"{TOOLS}.consumer.ConsoleConsumer", arguments, timeout_s=60
            )
            assert sorted(map(int, text.split())) == list(range(100))


async def test_a_broker_of_ours_works_with_apache_kafkas_controller(kafka_libs: Path, tmp_path: Path) -> None:
    """Where the cluster's features are ones it has: it registers, creates topics, leads and follows partitions."""
    env = real_env()
    format_directory(env, str(tmp_path / "ours"), cluster_id=KAFKAS_CLUSTER_ID, node_id=31)
    with KafkaNode(kafka_libs, features=OLD_PROTOCOLS) as theirs:
        settings = {
            "process.roles": "broker",
            "node.id": "31",
            "listeners": "PLAINTEXT://127.0.0.1:0",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{theirs.controller_port}",
        }
        config, _ = load_config(settings)
        node = await asyncio.wait_for(start_node(env, config, str(tmp_path / "ours")), 30)
        try:
            assert not node.broker.image.brokers[31].fenced
            async with Admin(f"127.0.0.1:{node.listening[0].port}", env=env) as admin:
                await admin.create_topics([NewTopic("mixed", 4, 2)])
            leaders = {one.leader for one in node.broker.image.topics["mixed"].partitions.values()}
            assert leaders == {1, 31}
            arguments = ["--bootstrap-server", theirs.bootstrap, "--topic", "mixed", "--property", "parse.key=true"]
            lines = "".join(f"{n}\t{n}\n" for n in range(100))
            await asyncio.to_thread(
                run_java, kafka_libs, f"{TOOLS}.ConsoleProducer", arguments, stdin=lines, timeout_s=60
            )
            led = node.broker.image.topics["mixed"].partitions
            assert all(sorted(one.isr) == [1, 31] for one in led.values()), "each follows the other"
            mine = [node.broker.partitions.find("mixed", index) for index in range(4)]
            assert sum(0 if one is None else one.log.log_end_offset for one in mine) == 100
        finally:
            await node.close()
            env.offload.close()
