"""What a broker knows before it stops it knows afterwards, however it stopped."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from streamlog.broker.run import BROKER_FILE
from streamlog.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.killing import produce_until_killed, read_values
from tests.broker.running import BrokerProcess, client_of, make_topic, running_node

READY_SECONDS_MAX = 5.0
"""Far beyond what it takes (bench/ measures that); a machine under load must not fail a test."""


@pytest.mark.parametrize("kill", [False, True])
def test_a_restart_keeps_topics_records_and_configs(tmp_path: Path, kill: bool) -> None:
    """Stopped or killed."""
    with BrokerProcess(tmp_path) as broker:
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic("t", 2, 1, config={"retention.ms": "-1"})])["t"].result(10)
        producer = ck.Producer({"bootstrap.servers": broker.address})
        for number in range(100):
            producer.produce("t", b"%d" % number, partition=number % 2)
        assert producer.flush(20) == 0
        cluster_id = admin.describe_cluster().result(10).cluster_id
        if kill:
            broker.kill()
        else:
            assert broker.stop() == 0
    with BrokerProcess(tmp_path) as broker:
        admin = AdminClient({"bootstrap.servers": broker.address})
        assert admin.describe_cluster().result(10).cluster_id == cluster_id
        resource = ConfigResource(ConfigResource.Type.TOPIC, "t")
        assert admin.describe_configs([resource])[resource].result(10)["retention.ms"].value == "-1"
        assert read_values(broker.address, "t", 0, 50) == [b"%d" % number for number in range(0, 100, 2)]
        assert read_values(broker.address, "t", 1, 50) == [b"%d" % number for number in range(1, 100, 2)]


def test_kill_minus_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Three rounds under load (tests/crash has fifty): once, in order, and ready again soon."""
    for number in range(3):
        acknowledged = produce_until_killed(tmp_path, number)
        started = time.monotonic()
        with BrokerProcess(tmp_path) as broker:
            assert time.monotonic() - started < READY_SECONDS_MAX
            found = read_values(broker.address, f"round-{number}", 0)
            assert found[: len(acknowledged)] == acknowledged
            assert found == [b"%d" % value for value in range(len(found))]


async def test_an_unclean_stop_begins_a_new_leader_epoch(tmp_path: Path) -> None:
    """And a clean one does not."""
    epochs: list[int] = []
    for clean in (True, False, True):
        async with running_node(tmp_path) as node, client_of(node) as client:
            if not epochs:
                await make_topic(client, "t")
            epochs.append(node.broker.image.topics["t"].partitions[0].leader_epoch)
        if not clean:
            (tmp_path / ".kafka_cleanshutdown").unlink()
    assert epochs[0] == epochs[1] < epochs[2]


async def test_a_topic_made_again_under_its_name_is_empty(tmp_path: Path) -> None:
    """No resurrected records, with a restart between or without."""
    for restart in (False, True):
        name = f"t-{restart}"
        async with running_node(tmp_path) as node, client_of(node) as client:
            await make_topic(client, name)
            await client.ask(produce_request(name, new_batch(b"old")), 12, ProduceResponse)
            await client.ask(DeleteTopicsRequest(topic_names=[name]), 5, DeleteTopicsResponse)
            if not restart:
                await make_topic(client, name)
        async with running_node(tmp_path) as node, client_of(node) as client:
            if restart:
                await make_topic(client, name)
            asked = [FetchPartition(partition=0, partition_max_bytes=1000)]
            answer = await client.ask(
                FetchRequest(topics=[FetchTopic(topic=name, partitions=asked)]), 12, FetchResponse
            )
            assert isinstance(answer, FetchResponse)
            assert answer.responses[0].partitions[0].high_watermark == 0


async def test_a_deletion_that_a_crash_interrupted_is_finished(tmp_path: Path) -> None:
    """A directory the metadata does not know is set aside, and its name is free."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "t")
    (tmp_path / "t-0").rename(tmp_path / "gone-0")
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "gone")
        strays = [path.name for path in tmp_path.iterdir() if path.name.endswith("-stray")]
        assert [name.partition(".")[0] for name in strays] == ["gone-0"]


async def test_deleted_records_do_not_come_back_after_a_crash(tmp_path: Path) -> None:
    """Whoever was told where a log begins now may rely on it, whatever becomes of the broker."""
    async with running_node(tmp_path / "data") as node, client_of(node) as client:
        await make_topic(client, "t")
        for _ in range(3):
            await client.ask(produce_request("t", new_batch(b"old")), 12, ProduceResponse)
        wanted = DeleteRecordsTopic(name="t", partitions=[DeleteRecordsPartition(partition_index=0, offset=2)])
        answer = await client.ask(DeleteRecordsRequest(topics=[wanted], timeout_ms=1000), 2, DeleteRecordsResponse)
        assert isinstance(answer, DeleteRecordsResponse)
        assert answer.topics[0].partitions[0].low_watermark == 2
        shutil.copytree(tmp_path / "data", tmp_path / "crashed")
    async with running_node(tmp_path / "crashed") as node:
        assert node.broker.partitions.lead("t", 0).log.log_start_offset == 2


async def test_metadata_is_snapshot_by_size_and_loaded_from_it(tmp_path: Path) -> None:
    """metadata.log.max.record.bytes.between.snapshots: a start reads the snapshot and little else."""
    setting = {"metadata_log_max_record_bytes_between_snapshots": "5000"}
    async with running_node(tmp_path, **setting) as node, client_of(node) as client:
        for number in range(60):
            await make_topic(client, f"t{number}", partitions=2)
        before = node.broker.image.copy()
    assert len(list((tmp_path / "__cluster_metadata-0").glob("*.checkpoint"))) == 2
    async with running_node(tmp_path, **setting) as node:
        after = node.broker.image
        assert after.topics == before.topics
        assert node.quorum.log.latest_snapshot() is not None


def test_the_directory_says_who_serves_it(tmp_path: Path) -> None:
    """broker.json: there while it runs, gone after a clean stop, overwritten after a kill."""
    with BrokerProcess(tmp_path) as first:
        first.kill()
    assert (tmp_path / BROKER_FILE).exists()
    with BrokerProcess(tmp_path) as second:
        assert str(second.process.pid) in (tmp_path / BROKER_FILE).read_text()
        second.stop()
    assert not (tmp_path / BROKER_FILE).exists()
