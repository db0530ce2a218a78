"""Replicated topics on three nodes in this process: real sockets and files, the real controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
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

    async def create(self, topic: str = "t", *, partitions: int = 1, **configs: str) -> None:
        node = next(iter(self.nodes.brokers.values()))
        request = CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name=topic,
                    num_partitions=partitions,
                    replication_factor=3,
                    configs=[CreatableTopicConfig(name=n.replace("_", "."), value=v) for n, v in configs.items()],
                )
            ]
        )
        async with client_of(node) as client:
            response = await client.ask(request, 7, CreateTopicsResponse)
            assert isinstance(response, CreateTopicsResponse)
            assert [found.error_code for found in response.topics] == [0]
        await self.nodes.until(lambda: all(len(self.replicas(topic, i)) == 3 for i in range(partitions)))

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
