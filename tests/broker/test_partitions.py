"""Topics of many partitions: created a few at a time, and nobody can tell."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from streamlog.broker.node import Node
from streamlog.broker.partitions import CREATE_AT_ONCE, RECOVER_AT_ONCE
from streamlog.env import ThreadOffload, real_env
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicState
from streamlog.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.log.faulty_storage import faulty_env
from tests.broker.running import RawClient, client_of, make_topic, running_node

MANY = 10 * CREATE_AT_ONCE

KAFKA_STORAGE_ERROR = 56

T = TypeVar("T")


class CountingOffload(ThreadOffload):
    """Threads, and how much there was for them to do."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = self.running = self.running_max = 0

    async def run(self, work: Callable[[], T]) -> T:
        self.runs += 1
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            return await super().run(work)
        finally:
            self.running -= 1


def directories(path: Path, topic: str) -> int:
    return sum(1 for one in path.iterdir() if one.name.startswith(f"{topic}-") and not one.name.endswith("-delete"))


async def produce(client: RawClient, topic: str, partition: int) -> int:
    """The error code."""
    request = produce_request(topic, new_batch(b"v"), partition=partition)
    answer = await client.ask(request, 12, ProduceResponse)
    assert isinstance(answer, ProduceResponse)
    return answer.responses[0].partition_responses[0].error_code


async def all_created(path: Path, topic: str, count: int) -> None:
    async with asyncio.timeout(20):
        while directories(path, topic) < count:
            await asyncio.sleep(0.01)


async def test_a_partition_serves_before_its_turn_to_be_created(tmp_path: Path) -> None:
    """The last one, as soon as the topic is there."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "t", partitions=MANY)
        assert directories(tmp_path, "t") < MANY
        assert await produce(client, "t", MANY - 1) == 0
        assert await produce(client, "t", MANY) == 3
        await all_created(tmp_path, "t", MANY)
        assert sum(1 for _ in node.broker.partitions) == MANY


async def test_a_stop_in_between_creates_the_rest_at_the_next_start(tmp_path: Path) -> None:
    """Clean or not, what was written is there."""
    for topic, is_clean in (("a", True), ("b", False)):
        node: Node
        async with running_node(tmp_path) as node, client_of(node) as client:
            await make_topic(client, topic, partitions=MANY)
            assert await produce(client, topic, MANY - 1) == 0
            assert directories(tmp_path, topic) < MANY
        if not is_clean:
            (tmp_path / ".kafka_cleanshutdown").unlink()
    async with running_node(tmp_path) as node:
        for topic in ("a", "b"):
            assert directories(tmp_path, topic) == MANY
            last = node.broker.partitions.find(topic, MANY - 1)
            assert last is not None
            assert last.log.log_end_offset == 1


async def test_a_topic_deleted_while_it_is_created_leaves_nothing(tmp_path: Path) -> None:
    """Nor does its successor of the same name suffer."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "t", partitions=MANY)
        request = DeleteTopicsRequest(topics=[DeleteTopicState(name="t")])
        answer = await client.ask(request, 6, DeleteTopicsResponse)
        assert isinstance(answer, DeleteTopicsResponse)
        assert answer.responses[0].error_code == 0
        await make_topic(client, "t", partitions=MANY // 2)
        assert await produce(client, "t", MANY // 2) == 3
        await all_created(tmp_path, "t", MANY // 2)
        ids = {partition.topic_id for partition in node.broker.partitions}
        assert ids == {node.broker.image.topics["t"].id}


async def test_a_config_that_changes_meanwhile_counts_for_all(tmp_path: Path) -> None:
    """For those that are there and for those to come."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "t", partitions=MANY)
        change = AlterableConfig(name="retention.ms", config_operation=0, value="12345")
        request = IncrementalAlterConfigsRequest(
            resources=[AlterConfigsResource(resource_type=2, resource_name="t", configs=[change])]
        )
        answer = await client.ask(request, 1, IncrementalAlterConfigsResponse)
        assert isinstance(answer, IncrementalAlterConfigsResponse)
        assert answer.responses[0].error_code == 0
        await all_created(tmp_path, "t", MANY)
        assert {partition.log.config.retention_ms for partition in node.broker.partitions} == {12345}


async def test_what_recovery_found_is_synced_in_groups_and_side_by_side_before_the_broker_serves(
    tmp_path: Path,
) -> None:
    """A way to a thread and back for each partition would cost more than the syncs of a thousand."""
    count = 2 * RECOVER_AT_ONCE + 3
    async with running_node(tmp_path / "alive") as node, client_of(node) as client:
        await make_topic(client, "t", partitions=count)
        for index in range(count):
            assert await produce(client, "t", index) == 0
        shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    offload = CountingOffload()
    async with running_node(tmp_path / "killed", replace(real_env(), offload=offload)) as node:
        logs = [partition.log for partition in node.broker.partitions]
        assert len(logs) == count
        assert all(log.recovery_point == 0 and log.recovery_report.walked_bytes > 0 for log in logs)
        assert all(log.high_watermark == log.flushed_offset == log.log_end_offset == 1 for log in logs)
        assert 3 <= offload.runs < count / 2
        assert offload.running_max > 1


async def test_a_sync_that_fails_at_the_start_takes_its_partition_offline_and_no_other(tmp_path: Path) -> None:
    """Nobody may read there what may not be on the disk."""
    async with running_node(tmp_path / "alive") as node, client_of(node) as client:
        await make_topic(client, "t", partitions=3)
        for index in range(3):
            assert await produce(client, "t", index) == 0
        shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    env, faults = faulty_env()

    def fail(name: str, path: str) -> None:
        if name == "fdatasync" and "/t-1/" in path:
            raise OSError(errno.EIO, "the disk is tired", path)

    faults.before = fail
    async with running_node(tmp_path / "killed", env) as node, client_of(node) as client:
        assert [await produce(client, "t", index) for index in range(3)] == [0, KAFKA_STORAGE_ERROR, 0]
        damaged = node.broker.partitions.find("t", 1)
        assert damaged is not None
        assert damaged.log.high_watermark == 0


async def test_partitions_that_had_no_room_are_created_when_there_is_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No restart, one line when it begins and one when it ends; until then producers hear KAFKA_STORAGE_ERROR."""
    env, faults = faulty_env()

    def before(name: str, path: str) -> None:
        if name == "make_directory" and "/t-" in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)

    async with running_node(tmp_path, env) as node, client_of(node) as client:
        faults.before = before
        await make_topic(client, "t", partitions=2)
        partitions = node.broker.partitions
        for _ in range(3):
            await partitions.retry_refused()
            assert [await produce(client, "t", index) for index in range(2)] == [KAFKA_STORAGE_ERROR] * 2
        faults.before = lambda name, path: None
        await partitions.retry_refused()
        assert [await produce(client, "t", index) for index in range(2)] == [0, 0]
        assert sorted(partition.index for partition in partitions) == [0, 1]
    for index in range(2):
        told = [record.getMessage() for record in caplog.records if f"partition=t-{index} " in record.getMessage()]
        assert [line.split()[1] for line in told] == ["state=offline", "state=online:"]


@pytest.mark.parametrize("step", ["make_directory", "append", "create"])
async def test_a_partition_that_was_made_in_part_is_whole_when_it_is_tried_again(tmp_path: Path, step: str) -> None:
    """The directory, its partition.metadata and the first segment: whichever of them the disk refused."""
    env, faults = faulty_env()

    def before(name: str, path: str) -> None:
        if name == step and "/t-0" in path and not (step == "create" and path.endswith(".metadata")):
            raise OSError(errno.ENOSPC, "No space left on device", path)

    async with running_node(tmp_path, env) as node, client_of(node) as client:
        faults.before = before
        await make_topic(client, "t")
        assert await produce(client, "t", 0) == KAFKA_STORAGE_ERROR
        faults.before = lambda name, path: None
        await node.broker.partitions.retry_refused()
        assert await produce(client, "t", 0) == 0
    async with running_node(tmp_path) as node, client_of(node) as client:
        assert await produce(client, "t", 0) == 0
        assert [partition.log.log_end_offset for partition in node.broker.partitions] == [2]


async def test_what_is_deleted_or_damaged_is_not_tried_again(tmp_path: Path) -> None:
    """Neither is a matter of room."""
    env, faults = faulty_env()

    def before(name: str, path: str) -> None:
        if name == "make_directory" and "-0" in path:
            raise OSError(errno.EIO if "/bad" in path else errno.ENOSPC, "no", path)

    async with running_node(tmp_path, env) as node, client_of(node) as client:
        faults.before = before
        for topic in ("gone", "bad"):
            await make_topic(client, topic)
            assert await produce(client, topic, 0) == KAFKA_STORAGE_ERROR
        request = DeleteTopicsRequest(topics=[DeleteTopicState(name="gone")], timeout_ms=1000)
        await client.ask(request, 6, DeleteTopicsResponse)
        faults.before = lambda name, path: None
        await node.broker.partitions.retry_refused()
        assert list(node.broker.partitions) == []
        assert directories(tmp_path, "gone") == 0


async def test_what_was_found_in_a_partition_is_synced_before_it_serves_at_a_later_try_too(tmp_path: Path) -> None:
    """A start without a file to spare, after a kill -9: the tail may be in the page cache alone."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "t")
        assert await produce(client, "t", 0) == 0
        await node.abandon()
    env, faults = faulty_env()
    synced: list[str] = []

    def before(name: str, path: str) -> None:
        if name == "pwrite" and "/t-0" in path and is_full:
            raise OSError(errno.EMFILE, "Too many open files", path)
        if name == "fdatasync" and "/t-0" in path:
            synced.append(path)

    is_full, faults.before = True, before
    async with running_node(tmp_path, env) as node, client_of(node) as client:
        assert await produce(client, "t", 0) == KAFKA_STORAGE_ERROR
        assert not synced
        is_full = False
        await node.broker.partitions.retry_refused()
        assert synced
        assert await produce(client, "t", 0) == 0
        assert [partition.log.log_end_offset for partition in node.broker.partitions] == [2]
