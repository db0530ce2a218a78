"""Apache Kafka's own tool reads our metadata log and its snapshots, every record of them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from tests.broker.nodes import combined, nodes
from tests.broker.running import client_of, make_topic, running_node
from tests.kafka_node import kafka_libs

pytestmark = pytest.mark.interop_java


def dump(file: Path) -> str:
    """What DumpLogSegments prints about a file of the metadata log."""
    libs = kafka_libs()
    if libs is None:
        pytest.skip("needs Apache Kafka's jars: make interop-java")
    command = ["java", "-Xmx256m", "-cp", f"{libs}/*", "org.apache.kafka.tools.DumpLogSegments"]
    result = subprocess.run(
        [*command, "--cluster-metadata-decoder", "--deep-iteration", "--files", str(file)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def record_types(text: str) -> list[str]:
    return [json.loads(payload)["type"] for payload in re.findall(r"payload: (\{.*\})", text)]


async def test_kafka_dumps_our_metadata_log(tmp_path: Path) -> None:
    """Control records, registrations, topics, configs, producer ids, removals, an unclean restart."""
    for _ in range(2):
        async with running_node(tmp_path) as node, client_of(node) as client:
            if not node.broker.image.topics:
                await make_topic(client, "t", partitions=2, retention_ms="5")
                await make_topic(client, "gone")
                await client.ask(DeleteTopicsRequest(topic_names=["gone"]), 5, DeleteTopicsResponse)
                await client.ask(InitProducerIdRequest(transactional_id=None), 5, InitProducerIdResponse)
        (tmp_path / ".kafka_cleanshutdown").unlink()
    text = dump(tmp_path / "__cluster_metadata-0" / "00000000000000000000.log")
    assert "isvalid: false" not in text
    assert text.count("LeaderChange: ") == 2
    assert text.count("KRaftVersion ") == 1
    assert text.count("KRaftVoters ") == 1
    lost = elected = ["PARTITION_CHANGE_RECORD", "PARTITION_CHANGE_RECORD"]
    assert record_types(text) == [
        "FEATURE_LEVEL_RECORD",
        "FEATURE_LEVEL_RECORD",
        "CONFIG_RECORD",
        "REGISTER_BROKER_RECORD",
        "BROKER_REGISTRATION_CHANGE_RECORD",
        "TOPIC_RECORD",
        "CONFIG_RECORD",
        "PARTITION_RECORD",
        "PARTITION_RECORD",
        "TOPIC_RECORD",
        "PARTITION_RECORD",
        "REMOVE_TOPIC_RECORD",
        "PRODUCER_IDS_RECORD",
        "REGISTER_BROKER_RECORD",
        *lost,
        "BROKER_REGISTRATION_CHANGE_RECORD",
        *elected,
    ]


async def test_kafka_dumps_our_snapshots(tmp_path: Path) -> None:
    """The one a cluster is formatted with, and one of a running cluster."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "t", partitions=2, retention_ms="5")
        node.broker.controller.snapshot()
    formatted, later = sorted((tmp_path / "__cluster_metadata-0").glob("*.checkpoint"))
    text = dump(formatted)
    assert "SnapshotHeader" in text
    assert "KRaftVoters" in text
    assert "SnapshotFooter" in text
    assert record_types(dump(later)) == [
        "FEATURE_LEVEL_RECORD",
        "FEATURE_LEVEL_RECORD",
        "REGISTER_BROKER_RECORD",
        "TOPIC_RECORD",
        "PARTITION_RECORD",
        "PARTITION_RECORD",
        "CONFIG_RECORD",
        "CONFIG_RECORD",
    ]


async def test_kafka_dumps_the_log_of_a_quorum_of_three(tmp_path: Path) -> None:
    """Every replica's, after a change of leader; and the snapshot that one of them has sent to another."""
    async with nodes(tmp_path, combined(), metadata_log_max_record_bytes_between_snapshots="3000") as found:
        await found.start()
        gone = await found.active()
        async with client_of(found.brokers[gone]) as client:
            await make_topic(client, "before", partitions=2, retention_ms="5")
        await found.stop(gone)
        active = await found.active()
        async with client_of(found.brokers[active]) as client:
            for number in range(30):
                await make_topic(client, f"t{number}")
        await found.start(gone)
        await found.until(lambda: len({node.broker.image.applied_offset for node in found.brokers.values()}) == 1)
        assert found.quorums[gone].log.start_offset > 0, "it was sent a snapshot"
    for number in (1, 2, 3):
        directory = tmp_path / str(number) / "__cluster_metadata-0"
        for file in [*directory.glob("*.log"), *directory.glob("*.checkpoint")]:
            text = dump(file)
            assert "isvalid: false" not in text
            assert "Found invalid" not in text
        newest = max(directory.glob("*.checkpoint"))
        kinds = record_types(dump(newest))
        assert kinds.count("REGISTER_BROKER_RECORD") == 3
        assert "KRaftVoters" in dump(newest)
