"""A full disk, a sync that fails, a write that fails: what clients hear, and what goes on."""

from __future__ import annotations

import asyncio
import errno
import logging
from pathlib import Path

import pytest

from streamlog.broker.config import load_config
from streamlog.broker.node import start_node
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest, CreateTopicsResponse
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from streamlog.wire.messages.produce import PartitionProduceResponse, ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.log.faulty_storage import faulty_env
from tests.broker.running import RawClient, client_of, make_topic, running_node


async def produce(client: RawClient, topic: str, value: bytes) -> PartitionProduceResponse:
    async with asyncio.timeout(10):
        answer = await client.ask(produce_request(topic, new_batch(value)), 12, ProduceResponse)
    assert isinstance(answer, ProduceResponse)
    return answer.responses[0].partition_responses[0]


async def end_offset(client: RawClient, topic: str) -> int:
    asked = [FetchPartition(partition=0, partition_max_bytes=1 << 20)]
    answer = await client.ask(FetchRequest(topics=[FetchTopic(topic=topic, partitions=asked)]), 12, FetchResponse)
    assert isinstance(answer, FetchResponse)
    assert answer.responses[0].partitions[0].error_code == 0
    return answer.responses[0].partitions[0].high_watermark


async def test_a_full_disk_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    """KAFKA_STORAGE_ERROR, no partial batch; when there is room again, writing goes on without a restart."""
    env, faults = faulty_env()
    async with running_node(tmp_path, env) as node, client_of(node) as client:
        await make_topic(client, "t")
        assert (await produce(client, "t", b"a")).error_code == 0
        faults.write_bytes_left = 20
        assert (await produce(client, "t", b"b" * 1000)).error_code == 56
        assert await end_offset(client, "t") == 1
        answer = await client.ask(
            CreateTopicsRequest(topics=[CreatableTopic(name="n", num_partitions=1, replication_factor=1)]),
            7,
            CreateTopicsResponse,
        )
        assert isinstance(answer, CreateTopicsResponse)
        assert [topic.error_code for topic in answer.topics] == [56]
        faults.write_bytes_left = None
        assert (await produce(client, "t", b"c")).base_offset == 1
        await make_topic(client, "n")


async def test_a_full_disk_is_told_to_the_operator_once_at_each_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However many writes are refused; and small ones that still fit do not end it."""
    caplog.set_level(logging.WARNING, "streamlog.broker")

    def lines(state: str) -> list[str]:
        return [line for line in caplog.messages if f"state={state}" in line]

    env, faults = faulty_env()
    async with running_node(tmp_path, env) as node, client_of(node) as client:
        await make_topic(client, "t")
        await make_topic(client, "u")
        faults.write_bytes_left = 200
        for topic in ("t", "t", "u"):
            assert (await produce(client, topic, b"b" * 1000)).error_code == 56
        node.broker.partitions.disk_watch.tick()
        assert len(lines("refusing-writes")) == 1
        assert "t-0" in lines("refusing-writes")[0]
        assert "No space left on device" in lines("refusing-writes")[0]
        faults.write_bytes_left = None
        assert (await produce(client, "t", b"b" * 1000)).error_code == 0
        async with asyncio.timeout(10):
            while not lines("accepting-writes"):
                await asyncio.sleep(0.05)
    assert len(lines("refusing-writes")) == len(lines("accepting-writes")) == 1
    assert "3 were refused" in lines("accepting-writes")[0]


async def test_a_failed_sync_takes_its_partition_offline_and_no_other(tmp_path: Path) -> None:
    """No acknowledgement after it, until a restart (fsync is not to be tried again)."""
    env, faults = faulty_env()
    async with running_node(tmp_path, env) as node, client_of(node) as client:
        await make_topic(client, "bad")
        await make_topic(client, "good")
        assert (await produce(client, "bad", b"a")).error_code == 0

        def fail(name: str, path: str) -> None:
            if name == "fdatasync" and "/bad-0/" in path:
                raise OSError(errno.EIO, "Input/output error")

        faults.before = fail
        assert (await produce(client, "bad", b"b")).error_code == 56
        faults.before = lambda name, path: None
        assert (await produce(client, "bad", b"c")).error_code == 56
        assert (await produce(client, "good", b"a")).error_code == 0


async def test_a_failed_sync_of_the_metadata_ends_the_broker(tmp_path: Path) -> None:
    """What was promised is not certain any more: stop, and say why."""
    env, faults = faulty_env()
    config, _ = load_config({"listeners": "PLAINTEXT://127.0.0.1:0"})
    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    node = await start_node(env, config, str(tmp_path), on_failure=failed.set_result)
    try:
        async with client_of(node) as client:

            def fail(name: str, path: str) -> None:
                if name == "fdatasync" and "__cluster_metadata" in path:
                    raise OSError(errno.EIO, "Input/output error")

            faults.before = fail
            request = CreateTopicsRequest(topics=[CreatableTopic(name="t", num_partitions=1, replication_factor=1)])
            client.send(request, 7)
            async with asyncio.timeout(10):
                error = await failed
            assert "__cluster_metadata-0" in str(error)
    finally:
        await node.close()
        env.offload.close()
    assert not (tmp_path / ".kafka_cleanshutdown").exists()
