"""Replicated topics on three nodes in this process: real sockets and files, the real controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from streamlog.broker.coordinator.partitioning import partition_for
from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignableTopic,
)
from streamlog.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from streamlog.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData
from streamlog.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from streamlog.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchResponse
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.nodes import Nodes, combined, nodes
from tests.broker.running import client_of

RETRIED = (
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode.REQUEST_TIMED_OUT,
)


class Replicated:
    """A cluster of three with one topic of three replicas."""

    def __init__(self, found: Nodes) -> None:
        self.nodes = found
        self.acknowledged: dict[int, bytes] = {}
        """Value by offset."""

    async def create(
        self, topic: str = "t", *, partitions: int = 1, assignment: list[int] | None = None, **configs: str
    ) -> None:
        node = next(iter(self.nodes.brokers.values()))
        request = CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name=topic,
                    num_partitions=-1 if assignment else partitions,
                    replication_factor=-1 if assignment else 3,
                    assignments=[CreatableReplicaAssignment(partition_index=0, broker_ids=assignment)]
                    if assignment
                    else [],
                    configs=[CreatableTopicConfig(name=n.replace("_", "."), value=v) for n, v in configs.items()],
                )
            ]
        )
        async with client_of(node) as client:
            response = await client.ask(request, 7, CreateTopicsResponse)
            assert isinstance(response, CreateTopicsResponse)
            assert [found.error_code for found in response.topics] == [0]
        await self.nodes.until(
            lambda: all(len(self.replicas(topic, i)) == len(assignment or (1, 2, 3)) for i in range(partitions))
        )

    def replicas(self, topic: str = "t", index: int = 0) -> dict[int, Partition]:
        found = ((number, node.broker.partitions.find(topic, index)) for number, node in self.nodes.brokers.items())
        return {number: partition for number, partition in found if partition is not None}

    def leader(self, topic: str = "t", index: int = 0) -> int | None:
        """The node that believes it leads in the newest epoch."""
        leading = {n: p.leader_epoch for n, p in self.replicas(topic, index).items() if p.is_leader}
        newest = max((p.leader_epoch for p in self.replicas(topic, index).values()), default=-1)
        return next((number for number, epoch in leading.items() if epoch == newest), None)

    def leading(self, topic: str = "t", index: int = 0) -> Partition:
        number = self.leader(topic, index)
        assert number is not None
        return self.replicas(topic, index)[number]

    async def produce(self, *values: bytes, topic: str = "t", index: int = 0, acks: int = -1) -> None:
        """Write until it is acknowledged, as a client with retries does."""
        for value in values:
            async with asyncio.timeout(20):
                while not await self._try(value, topic, index, acks):
                    await asyncio.sleep(0.02)

    async def _try(self, value: bytes, topic: str, index: int, acks: int) -> bool:
        number = self.leader(topic, index)
        node = None if number is None else self.nodes.brokers.get(number)
        if node is None:
            return False
        code, offset = await produce_once(node, value, topic, index, acks)
        if code is ErrorCode.NONE:
            self.acknowledged[offset] = value
        else:
            assert code in RETRIED
        return code is ErrorCode.NONE

    async def in_sync(self, *numbers: int, topic: str = "t", index: int = 0) -> None:
        """Return when the leader counts exactly these in, and all of them have all of it."""

        def are() -> bool:
            number = self.leader(topic, index)
            if number is None:
                return False
            leading = self.replicas(topic, index)[number]
            if leading.leader is None or set(leading.leader.isr) != set(numbers):
                return False
            end = leading.log.log_end_offset
            found = self.replicas(topic, index)
            return all(found[n].log.log_end_offset == found[n].log.high_watermark == end for n in numbers)

        await self.nodes.until(are)

    def check_logs(self, topic: str = "t", index: int = 0) -> None:
        """All replicas are the same, byte for byte, and have what was acknowledged."""
        logs = {number: read_all(partition) for number, partition in self.replicas(topic, index).items()}
        first, *others = logs.values()
        assert all(other == first for other in others)
        for value in self.acknowledged.values():
            assert value in first


async def produce_once(node: Node, value: bytes, topic: str, index: int, acks: int) -> tuple[ErrorCode, int]:
    async with client_of(node) as client:
        try:
            response = await client.ask(
                produce_request(topic, new_batch(value), partition=index, acks=acks), 12, ProduceResponse
            )
        except (ConnectionError, asyncio.IncompleteReadError):
            return ErrorCode.NOT_LEADER_OR_FOLLOWER, -1
    assert isinstance(response, ProduceResponse)
    answer = response.responses[0].partition_responses[0]
    return ErrorCode.of(answer.error_code), answer.base_offset


def read_all(partition: Partition) -> bytes:
    log, found, position = partition.log, b"", partition.log.log_start_offset
    while position < log.log_end_offset:
        data, position = log.read(position, 1 << 20, end_offset=log.log_end_offset)
        found += bytes(data)
    return found


@asynccontextmanager
async def replicated(path: Path, **settings: str) -> AsyncIterator[Replicated]:
    async with nodes(path, combined(), None, **settings) as found:
        await found.start()
        yield Replicated(found)


async def test_what_is_acknowledged_is_on_every_replica(tmp_path: Path) -> None:
    """acks=all waits for the in-sync set; followers learn the high watermark without further records."""
    async with replicated(tmp_path) as cluster:
        await cluster.create()
        for number in range(20):
            await cluster.produce(b"v%d" % number)
            ends = [partition.log.log_end_offset for partition in cluster.replicas().values()]
            assert min(ends) == number + 1
        await cluster.in_sync(1, 2, 3)
        cluster.check_logs()


async def test_a_killed_leader_is_replaced_and_comes_back_as_a_follower(tmp_path: Path) -> None:
    """Writing goes on within seconds, and nothing acknowledged is missing afterwards."""
    async with replicated(tmp_path) as cluster:
        await cluster.create(min_insync_replicas="2")
        await cluster.produce(*(b"a%d" % number for number in range(10)))
        for round_ in range(3):
            gone = cluster.leader()
            assert gone is not None
            await cluster.nodes.stop(gone, clean=False)
            began = asyncio.get_running_loop().time()
            await cluster.produce(b"first %d" % round_)
            assert asyncio.get_running_loop().time() - began < 5
            await cluster.produce(*(b"b%d %d" % (round_, number) for number in range(10)))
            await cluster.nodes.start(gone)
            await cluster.in_sync(1, 2, 3)
            cluster.check_logs()


async def test_a_dead_follower_leaves_the_in_sync_set_and_comes_back(tmp_path: Path) -> None:
    """Nobody waits for it meanwhile, and it catches up with what it has missed."""
    async with replicated(tmp_path) as cluster:
        await cluster.create(min_insync_replicas="2")
        await cluster.produce(b"before")
        gone = next(number for number in cluster.replicas() if number != cluster.leader())
        await cluster.nodes.stop(gone, clean=False)
        await cluster.produce(*(b"%d" % number for number in range(20)))
        await cluster.in_sync(*cluster.replicas())
        assert len(isr_of(cluster)) == 2
        await cluster.nodes.start(gone)
        await cluster.in_sync(1, 2, 3)
        cluster.check_logs()


async def test_too_few_replicas_refuse_acks_all_and_take_acks_1(tmp_path: Path) -> None:
    """min.insync.replicas is a promise to who asks for it."""
    async with replicated(tmp_path) as cluster:
        await cluster.create(min_insync_replicas="3")
        await cluster.produce(b"before")
        gone = next(number for number in cluster.replicas() if number != cluster.leader())
        await cluster.nodes.stop(gone, clean=False)
        await cluster.nodes.until(lambda: cluster.leading().leader is not None and len(isr_of(cluster)) == 2)
        leader = cluster.leader()
        assert leader is not None
        node = cluster.nodes.brokers[leader]
        assert (await produce_once(node, b"all", "t", 0, -1))[0] is ErrorCode.NOT_ENOUGH_REPLICAS
        assert (await produce_once(node, b"one", "t", 0, 1))[0] is ErrorCode.NONE
        assert cluster.leading().log.high_watermark == 1, "below min.insync.replicas nothing is committed"
        await cluster.nodes.start(gone)
        await cluster.in_sync(1, 2, 3)
        assert cluster.leading().log.high_watermark == 2


def isr_of(cluster: Replicated) -> tuple[int, ...]:
    state = cluster.leading().leader
    assert state is not None
    return state.isr


async def test_a_tail_that_nobody_else_had_is_cut(tmp_path: Path) -> None:
    """acks=1 while the followers are away; the others go on without it, and it follows them exactly."""
    async with replicated(tmp_path, broker_session_timeout_ms="1000") as cluster:
        active = await cluster.nodes.active()
        others = [active, next(number for number in (1, 2, 3) if number != active)]
        alone = next(number for number in (1, 2, 3) if number not in others)
        await cluster.create(assignment=[alone, *others])
        await cluster.produce(*(b"kept %d" % number for number in range(5)))
        await cluster.in_sync(1, 2, 3)
        assert cluster.leader() == alone
        for number in others:  # the controller first: nobody is left who could commit that one alone is in sync
            await cluster.nodes.stop(number, clean=False)
        node = cluster.nodes.brokers[alone]
        for number in range(7):
            code, _ = await produce_once(node, b"lost %d" % number, "t", 0, 1)
            assert code is ErrorCode.NONE
        await cluster.nodes.stop(alone, clean=False)
        await cluster.nodes.start(*(number for number in (1, 2, 3) if number != alone))
        await cluster.produce(*(b"after %d" % number for number in range(3)))
        await cluster.nodes.start(alone)
        await cluster.in_sync(1, 2, 3)
        cluster.check_logs()
        assert b"lost" not in read_all(cluster.replicas()[alone])
        assert cluster.leading().log.log_end_offset == 8


async def test_a_follower_below_the_leaders_log_start_begins_anew(tmp_path: Path) -> None:
    """What it has is deleted everywhere else. The answer to DeleteRecords waits for those that live."""
    async with replicated(tmp_path) as cluster:
        await cluster.create()
        await cluster.produce(*(b"%d" % number for number in range(5)))
        await cluster.in_sync(1, 2, 3)
        leader = cluster.leader()
        assert leader is not None
        gone = next(number for number in cluster.replicas() if number != leader)
        await cluster.nodes.stop(gone, clean=False)
        await cluster.produce(*(b"%d" % number for number in range(5, 20)))
        await delete_before(cluster, 12)
        assert {partition.log.log_start_offset for partition in cluster.replicas().values()} == {12}
        await cluster.nodes.start(gone)
        await cluster.in_sync(1, 2, 3)
        assert {partition.log.log_start_offset for partition in cluster.replicas().values()} == {12}
        cluster.acknowledged.clear()
        cluster.check_logs()


async def delete_before(cluster: Replicated, offset: int) -> None:
    leader = cluster.leader()
    assert leader is not None
    asked = DeleteRecordsPartition(partition_index=0, offset=offset)
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=[asked])], timeout_ms=10_000)
    async with client_of(cluster.nodes.brokers[leader]) as client:
        answer = await client.ask(request, 2, DeleteRecordsResponse)
    assert isinstance(answer, DeleteRecordsResponse)
    assert [(p.error_code, p.low_watermark) for p in answer.topics[0].partitions] == [(0, offset)]


async def test_deleted_records_stay_deleted_when_a_killed_follower_leads(tmp_path: Path) -> None:
    """It has written down what its leader deleted before whoever asked for that was told."""
    async with replicated(tmp_path) as cluster:
        await cluster.create()
        await cluster.produce(*(b"%d" % number for number in range(20)))
        await cluster.in_sync(1, 2, 3)
        await delete_before(cluster, 12)
        for number in (1, 2, 3):
            await cluster.nodes.stop(number, clean=False)
        await cluster.nodes.start()
        await cluster.in_sync(1, 2, 3)
        assert {partition.log.log_start_offset for partition in cluster.replicas().values()} == {12}


async def test_what_is_flushed_before_it_is_acknowledged_is_so_on_every_replica(tmp_path: Path) -> None:
    """streamlog.flush=before-ack: no power cut of all nodes takes it back."""
    async with replicated(tmp_path) as cluster:
        await cluster.create(streamlog_flush="before-ack")
        for number in range(10):
            await cluster.produce(b"%d" % number)
            assert min(partition.log.flushed_offset for partition in cluster.replicas().values()) == number + 1


async def test_a_consumer_is_sent_to_the_replica_in_its_rack(tmp_path: Path) -> None:
    """KIP-392: and can read there what is committed."""
    async with nodes(tmp_path, combined()) as found:
        selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
        async with asyncio.TaskGroup() as group:
            for number in (1, 2, 3):
                group.create_task(found.start(number, broker_rack=f"r{number}", replica_selector_class=selector))
        cluster = Replicated(found)
        await cluster.create()
        await cluster.produce(b"a", b"b")
        await cluster.in_sync(1, 2, 3)
        leader = cluster.leader()
        assert leader is not None
        near = next(number for number in cluster.replicas() if number != leader)
        told = await fetch_from(found.brokers[leader], f"r{near}")
        assert told.preferred_read_replica == near
        assert not told.records
        there = await fetch_from(found.brokers[near], f"r{near}")
        assert (there.error_code, there.high_watermark, there.preferred_read_replica) == (0, 2, -1)
        assert there.records
        here = await fetch_from(found.brokers[leader], f"r{leader}")
        assert here.preferred_read_replica == -1
        assert here.records


async def fetch_from(node: Node, rack: str, version: int = 12) -> PartitionData:
    asked = [FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)]
    request = FetchRequest(
        max_wait_ms=1000, min_bytes=1, rack_id=rack, topics=[FetchTopic(topic="t", partitions=asked)]
    )
    async with client_of(node) as client:
        answer = await client.ask(request, version, FetchResponse)
    assert isinstance(answer, FetchResponse)
    return answer.responses[0].partitions[0]


async def test_readers_that_do_not_know_of_other_replicas_are_sent_to_the_leader(tmp_path: Path) -> None:
    """Before version 11 of Fetch; and producers always."""
    async with replicated(tmp_path) as cluster:
        await cluster.create()
        other = next(number for number in cluster.replicas() if number != cluster.leader())
        node = cluster.nodes.brokers[other]
        assert (await fetch_from(node, "", 10)).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (await fetch_from(node, "", 11)).error_code == ErrorCode.NONE
        assert (await produce_once(node, b"x", "t", 0, -1))[0] is ErrorCode.NOT_LEADER_OR_FOLLOWER


async def test_a_reassignment_moves_the_log_and_removes_the_old_one(tmp_path: Path) -> None:
    """The new replica catches up, joins, and only then the old one goes."""
    async with replicated(tmp_path) as cluster:
        await cluster.create(assignment=[1, 2])
        await cluster.produce(*(b"%d" % number for number in range(50)))
        wanted = ReassignablePartition(partition_index=0, replicas=[2, 3])
        request = AlterPartitionReassignmentsRequest(topics=[ReassignableTopic(name="t", partitions=[wanted])])
        async with client_of(cluster.nodes.brokers[3]) as client:
            answer = await client.ask(request, 0, AlterPartitionReassignmentsResponse)
        assert isinstance(answer, AlterPartitionReassignmentsResponse)
        assert answer.error_code == 0
        await cluster.in_sync(2, 3)
        await cluster.nodes.until(lambda: set(cluster.replicas()) == {2, 3})
        await cluster.produce(b"after")
        await cluster.in_sync(2, 3)
        cluster.check_logs()


async def test_committed_offsets_outlive_their_coordinator(tmp_path: Path) -> None:
    """The replica that leads next has loaded them before it answers."""
    async with replicated(tmp_path, offsets_topic_num_partitions="3") as cluster:
        await cluster.create()
        for offset in range(3):
            await until_done(partial(commit, cluster, offset))
            coordinator = await coordinator_of(cluster)
            await cluster.nodes.stop(coordinator, clean=False)
            assert await until_done(partial(committed, cluster)) == offset
            await cluster.nodes.start(coordinator)
            await cluster.in_sync(1, 2, 3, topic="__consumer_offsets", index=partition_for("g", 3))


T = TypeVar("T")


async def until_done(attempt: Callable[[], Awaitable[T | None]]) -> T:
    async with asyncio.timeout(20):
        while (done := await attempt()) is None:
            await asyncio.sleep(0.05)
        return done


async def coordinator_of(cluster: Replicated) -> int:
    async def ask() -> int | None:
        node = next(iter(cluster.nodes.brokers.values()))
        async with client_of(node) as client:
            answer = await client.ask(FindCoordinatorRequest(coordinator_keys=["g"]), 4, FindCoordinatorResponse)
        assert isinstance(answer, FindCoordinatorResponse)
        found = answer.coordinators[0]
        return found.node_id if not found.error_code and found.node_id in cluster.nodes.brokers else None

    return await until_done(ask)


async def commit(cluster: Replicated, offset: int) -> bool | None:
    node = cluster.nodes.brokers[await coordinator_of(cluster)]
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    request = OffsetCommitRequest(
        group_id="g",
        topics=[OffsetCommitRequestTopic(name="t", partitions=[partition])],
        generation_id_or_member_epoch=-1,
    )
    async with client_of(node) as client:
        answer = await client.ask(request, 8, OffsetCommitResponse)
    assert isinstance(answer, OffsetCommitResponse)
    return True if answer.topics[0].partitions[0].error_code == 0 else None


async def committed(cluster: Replicated) -> int | None:
    node = cluster.nodes.brokers[await coordinator_of(cluster)]
    group = OffsetFetchRequestGroup(group_id="g", topics=None)
    async with client_of(node) as client:
        answer = await client.ask(OffsetFetchRequest(groups=[group]), 8, OffsetFetchResponse)
    assert isinstance(answer, OffsetFetchResponse)
    found = answer.groups[0]
    return None if found.error_code else found.topics[0].partitions[0].committed_offset


async def test_a_replica_of_an_idle_partition_comes_back_too(tmp_path: Path) -> None:
    """Its first fetches come before the cluster trusts it again; the later ones have nothing to tell but that."""
    async with replicated(tmp_path) as cluster:
        await cluster.create()
        await cluster.create("u")
        await cluster.produce(b"one", topic="u")
        gone = next(number for number in cluster.replicas() if number != cluster.leader())
        await cluster.nodes.stop(gone, clean=False)
        for topic in ("t", "u"):
            await cluster.in_sync(*cluster.replicas(topic), topic=topic)
        await cluster.nodes.start(gone)
        for topic in ("t", "u"):
            await cluster.in_sync(1, 2, 3, topic=topic)


async def test_a_leader_without_the_listener_between_brokers_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once. Nothing else tells why its partitions are not replicated."""
    async with nodes(tmp_path, combined(), None, listener_security_protocol_map="OTHER:PLAINTEXT") as found:
        other = found.values(3)["listeners"].replace("PLAINTEXT:", "OTHER:")
        await found.start(1, 2)
        await found.start(3, listeners=other, inter_broker_listener_name="OTHER")
        caplog.clear()
        await Replicated(found).create(assignment=[1, 2, 3])
        await found.until(lambda: "leader=1 nothing is replicated from it" in caplog.text)
        assert len([line for line in caplog.messages if "inter.broker.listener.name" in line]) == 1
