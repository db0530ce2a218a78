"""One run of three nodes and one fault: simulated time until every partition takes a write again, and a group a commit.

The nodes are brokers and controllers, with the settings they have by default. Once everything is in sync, one node is
killed, frozen or cut off in one of several ways, at a moment that the seed draws. Who asks does not wait long
and knows nothing: every node is asked for every partition all the time. So what is measured is the cluster's own time,
with no client's timeouts in it and no machine that is busy with something else.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from streamlog.broker.node import Node
from streamlog.broker.peer import connect
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.config import ConnectionSettings
from streamlog.env import Env
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.members import CLIENT_PORT, Members
from streamlog.testing.simulator.network import NetworkKnobs
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.stage import Stage
from streamlog.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from streamlog.wire.messages.offset_commit import OffsetCommitResponse
from streamlog.wire.messages.produce import ProduceResponse
from tests.cluster.campaign import coordinator_partition
from tests.sim.asking import Claims, answers, commit, produce
from tests.sim.plain_nodes import start_nodes

KILL, FREEZE, ISOLATE, PEERS, MUTE, DEAF = (
    "kill", "freeze", "cut off", "cut off from nodes", "cannot be heard by nodes", "cannot hear nodes",
)  # fmt: skip
STALL: Final = "stalls for a second"
"""No fault: a disk, a garbage collection, a machine with too much to do. Nobody may lose anything by it."""
KINDS: Final = (KILL, FREEZE, ISOLATE, PEERS, MUTE, DEAF)
ROLES: Final = ("controller", "broker")
"""The node that leads the metadata quorum, and one that does not. Each leads partitions too."""

NODES: Final = 3
PARTITIONS: Final = 6
TOPIC, GROUP = "events", "group"
OFFSETS: Final = "__consumer_offsets"

CUT_OFF_MS: Final = 4_000
"""By then a node knows that it is cut off: a session, and what it takes a last heartbeat to fail."""

STALL_S: Final = 1.0
SETTLE_S: Final = 4.0

PATIENCE_S: Final = 30.0
START_S_MAX: Final = 60.0

SETTINGS: Final = {
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "3",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "group.initial.rebalance.delay.ms": "0",
}


@dataclass(slots=True)
class Felt:
    """One fault, in milliseconds of the world's time."""

    kind: str
    role: str
    seed: int
    written_ms: dict[int, int] = field(default_factory=dict)
    """By partition."""
    committed_ms: int | None = None
    was_coordinator: bool = False
    still_claims: list[str] = field(default_factory=list)
    """What a node that is cut off from the others goes on to say to clients a session later, and should not."""
    lost: list[str] = field(default_factory=list)
    """Offices that others have in the end."""
    violations: list[str] = field(default_factory=list)

    @property
    def slowest_ms(self) -> int:
        return max(self.written_ms.values()) if len(self.written_ms) == PARTITIONS else int(PATIENCE_S * 1000)


class FeltRun:
    def __init__(self, kind: str, role: str, seed: int, settings: dict[str, str], tell: bool = False) -> None:
        self.felt = Felt(kind, role, seed)
        self.setup = Setup(
            seed,
            shape="cluster",
            nodes=NODES,
            turns="in turn",
            network=NetworkKnobs(latency_ns=100_000, jitter_ns=300_000, slow_one_in=50),
            broker=SETTINGS | settings,
        )
        self.stage = Stage(self.setup, print if tell else None)
        self.world, self.services = self.stage.world, self.stage.services
        self.members = Members.of(self.world, self.setup)
        self.nodes: dict[int, Node] = {}
        self.bootstrap = ",".join(f"{machine.host}:{CLIENT_PORT}" for machine in self.members.machines.values())
        self._began_ms: int | None = None

    def go(self) -> Felt:
        self.felt.violations = self.stage.perform(self._scenario(), lambda: None).violations
        return self.felt

    async def _scenario(self) -> None:
        await start_nodes(self.stage, self.members, self.nodes)
        await self.stage.once("maker", self._make_topics, START_S_MAX)
        while not self._is_in_sync():
            await asyncio.sleep(0.1)
        self._topic_id = self.nodes[1].broker.image.topics[TOPIC].id
        client = self.world.machine("client").start(self._ask_everybody)
        random = self.world.random("fault")
        await asyncio.sleep(1 + 2 * random.random())
        controller = next(number for number, node in self.nodes.items() if node.quorum.is_leader)
        others = [number for number in self.nodes if number != controller]
        victim = controller if self.felt.role == "controller" else random.choice(others)
        self.felt.was_coordinator = self._leads_group(victim)
        offices = self._offices(controller)
        self._began_ms = self.world.now_ms
        self.world.note("nemesis", f"{self.felt.kind} node{victim}, node{controller} is the active controller")
        self._bring(self.felt.kind, victim)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(self.felt.written_ms) < PARTITIONS or self.felt.committed_ms is None:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass
        assert client.alive, "who asks asks to the end"
        if self.felt.kind == STALL:
            await asyncio.sleep(STALL_S + SETTLE_S)
            after = self._offices(controller)
            self.felt.lost = [
                f"{name}: {one}, and then {after[name]}" for name, one in offices.items() if one != after[name]
            ]
        if self.felt.kind in (PEERS, MUTE, DEAF):
            await asyncio.sleep(max(0, self._began_ms + CUT_OFF_MS - self.world.now_ms) / 1000)
            claims = Claims(TOPIC, self._topic_id, GROUP, victim, range(PARTITIONS))
            self.felt.still_claims = await self.stage.once("visitor", claims.of(self.members.machines[victim]), 10)

    async def _make_topics(self, env: Env) -> None:
        async with Admin(self.bootstrap, env=env, connection=ConnectionSettings(client_id="maker")) as admin:
            await admin.create_topics([NewTopic(TOPIC, PARTITIONS, NODES, {"min.insync.replicas": "2"})])
        while True:  # the first question makes the coordinators' topic
            connection = await connect(env, self.members.machines[1].host, CLIENT_PORT, "maker")
            answer = await connection.request(FindCoordinatorRequest(coordinator_keys=[GROUP]))
            assert isinstance(answer, FindCoordinatorResponse)
            connection.close()
            if not answer.coordinators[0].error_code:
                return
            await asyncio.sleep(0.1)

    def _is_in_sync(self) -> bool:
        partitions = [
            partition
            for node in self.nodes.values()
            for topic in node.broker.image.topics.values()
            for partition in topic.partitions.values()
        ]
        return len(partitions) >= NODES * (PARTITIONS + 4) and all(
            one.leader >= 0 and len(one.isr) == NODES for one in partitions
        )

    def _offices(self, number: int) -> dict[str, str]:
        """Who leads what, and since which epoch, as one node has it."""
        node = self.nodes[number]
        found = {"the quorum": f"{node.quorum.leader_id} in epoch {node.quorum.epoch}"}
        for topic in node.broker.image.topics.values():
            for index, one in topic.partitions.items():
                found[f"{topic.name}-{index}"] = f"{one.leader} in epoch {one.leader_epoch}, {one.isr}"
        return found

    def _leads_group(self, number: int) -> bool:
        offsets = self.nodes[number].broker.image.topics[OFFSETS].partitions
        return offsets[coordinator_partition(GROUP, len(offsets))].leader == number

    def _bring(self, kind: str, victim: int) -> None:
        network, machine = self.world.network, self.members.machines[victim]
        others = [one.host for number, one in self.members.machines.items() if number != victim]
        if kind == KILL:
            self.services[machine.name].is_wanted = False
            machine.kill()
        elif kind in (FREEZE, STALL):
            machine.pause()
        if kind == STALL:
            asyncio.get_running_loop().call_later(STALL_S, machine.resume)
        hosts = [*others, self.world.machines["client"].host] if kind == ISOLATE else others
        for host in hosts:
            if kind in (ISOLATE, PEERS, MUTE):
                network.cut(machine.host, host)
            if kind in (ISOLATE, PEERS, DEAF):
                network.cut(host, machine.host)

    # -- who asks ---------------------------------------------------------------------------------------------

    async def _ask_everybody(self, env: Env) -> None:
        async with asyncio.TaskGroup() as group:
            for machine in self.members.machines.values():
                for partition in range(PARTITIONS):
                    group.create_task(self._write_again(env, machine, partition))
                group.create_task(self._commit_again(env, machine))

    async def _write_again(self, env: Env, machine: Machine, partition: int) -> None:
        async for sent_ms, answer in answers(env, machine, lambda: produce(env, TOPIC, self._topic_id, partition)):
            assert isinstance(answer, ProduceResponse)
            if not answer.responses[0].partition_responses[0].error_code and self._counts(sent_ms):
                assert self._began_ms is not None
                self.felt.written_ms.setdefault(partition, self.world.now_ms - self._began_ms)

    async def _commit_again(self, env: Env, machine: Machine) -> None:
        async for sent_ms, answer in answers(env, machine, lambda: commit(GROUP, TOPIC, self._topic_id)):
            assert isinstance(answer, OffsetCommitResponse)
            done = not answer.topics[0].partitions[0].error_code
            if done and self._counts(sent_ms) and self.felt.committed_ms is None:
                assert self._began_ms is not None
                self.felt.committed_ms = self.world.now_ms - self._began_ms

    def _counts(self, sent_ms: int) -> bool:
        return self._began_ms is not None and sent_ms > self._began_ms
