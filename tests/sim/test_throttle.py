"""A partition is moved at a rate, in simulated time: what nodes do with a throttle, whatever its arithmetic."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from streamlog.broker.metadata.image import PartitionRegistration
from streamlog.broker.node import Node
from streamlog.broker.peer import PeerConnection, connect
from streamlog.client.admin import BROKER_RESOURCE, Admin, NewTopic
from streamlog.client.config import ConnectionSettings
from streamlog.client.values import TopicPartition
from streamlog.env import Env
from streamlog.testing.simulator.members import CLIENT_PORT, Members
from streamlog.testing.simulator.network import NetworkKnobs
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.stage import Stage
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData
from streamlog.wire.records import encode_batch
from tests.sim.plain_nodes import start_nodes

NODES: Final = 3
TOPIC: Final = "events"
SETTINGS: Final = {
    "default.replication.factor": "2",
    "replica.fetch.max.bytes": "20000",
    "replica.fetch.response.max.bytes": "20000",
    "replica.fetch.wait.max.ms": "100",
}
"""Small fetches: one may overshoot the rate."""

BATCH_BYTES: Final = 10_000
BATCHES: Final = 100
RATE: Final = 100_000
"""Bytes per second: the whole partition takes ten seconds."""

UNTHROTTLED_MS_MAX: Final = 3_000
ANSWER_MS_MAX: Final = 500
"""Of a write with acks=all meanwhile. It is not behind what is throttled."""


class Move:
    """A partition on nodes 1 and 2 gets a replica on node 3, while somebody writes to it."""

    def __init__(self, throttled: tuple[str, ...]) -> None:
        self.throttled = throttled
        self.took_ms = 0
        self.slowest_ms = 0
        self.setup = Setup(
            1,
            shape="cluster",
            nodes=NODES,
            turns="in turn",
            network=NetworkKnobs(latency_ns=100_000, jitter_ns=300_000),
            broker=SETTINGS,
        )
        self.stage = Stage(self.setup, None)
        self.members = Members.of(self.stage.world, self.setup)
        self.nodes: dict[int, Node] = {}

    def go(self) -> None:
        assert self.stage.perform(self._scenario(), lambda: None).violations == []

    async def _scenario(self) -> None:
        await start_nodes(self.stage, self.members, self.nodes)
        await self.stage.once("operator", self._operate, 120)

    async def _operate(self, env: Env) -> None:
        bootstrap = ",".join(f"{machine.host}:{CLIENT_PORT}" for machine in self.members.machines.values())
        async with Admin(bootstrap, env=env, connection=ConnectionSettings(client_id="operator")) as admin:
            await admin.create_topics([NewTopic(TOPIC, replicas={0: [1, 2]})])
            for side in self.throttled:
                await admin.incremental_alter_configs(TOPIC, set={f"{side}.replication.throttled.replicas": "*"})
                rate = {f"{side}.replication.throttled.rate": str(RATE)}
                await admin.incremental_alter_configs("", set=rate, kind=BROKER_RESOURCE)
            while self._partition is None or len(self._partition.isr) < 2:
                await asyncio.sleep(0.1)
            connection = await connect(env, self.members.machines[1].host, CLIENT_PORT, "writer")
            for _ in range(BATCHES):
                await self._write(env, connection)
            await asyncio.sleep(1)
            began_ms = env.clock.mono_ms()
            self.slowest_ms = 0
            await admin.alter_partition_reassignments({TopicPartition(TOPIC, 0): [1, 2, 3]})
            while len(self._partition.isr) < NODES:
                await self._write(env, connection, value_bytes=10)
                await asyncio.sleep(0.1)
            self.took_ms = env.clock.mono_ms() - began_ms
            connection.close()

    @property
    def _partition(self) -> PartitionRegistration | None:
        return self.nodes[1].broker.image.partition(TOPIC, 0)

    async def _write(self, env: Env, connection: PeerConnection, value_bytes: int = BATCH_BYTES) -> None:
        records = encode_batch(keys=[None], values=[b"x" * value_bytes], timestamps_ms=[env.clock.wall_ms()])
        topic_id = self.nodes[1].broker.image.topics[TOPIC].id
        data = PartitionProduceData(index=0, records=bytes(records))
        topic = TopicProduceData(name=TOPIC, topic_id=topic_id, partition_data=[data])
        began_ms = env.clock.mono_ms()
        answer = await connection.request(ProduceRequest(acks=-1, timeout_ms=10_000, topic_data=[topic]))
        assert isinstance(answer, ProduceResponse)
        assert answer.responses[0].partition_responses[0].error_code == 0
        self.slowest_ms = max(self.slowest_ms, env.clock.mono_ms() - began_ms)


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_replica_that_is_throttled_gets_its_rate(side: str) -> None:
    """Whoever holds it back, the leader or the replica itself; those that are in sync are not held back with it."""
    move = Move((side,))
    move.go()
    whole_ms = BATCHES * BATCH_BYTES * 1000 / RATE
    assert 0.8 * whole_ms <= move.took_ms <= 1.5 * whole_ms
    assert move.slowest_ms < ANSWER_MS_MAX


def test_a_replica_that_is_not_throttled_comes_as_fast_as_it_can() -> None:
    """The same move, and what the rate is measured against."""
    move = Move(())
    move.go()
    assert move.took_ms < UNTHROTTLED_MS_MAX
