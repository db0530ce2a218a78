"""Clusters under test, ours and Apache Kafka's, seen alike: three nodes to be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from streamlog.broker.format import format_directory
from streamlog.broker.raft.messages import Endpoint, ReplicaKey
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.client.admin import Admin
from streamlog.client.config import ConnectionSettings
from streamlog.client.metadata import TopicInfo
from streamlog.env import real_env
from streamlog.errors import StreamlogError
from streamlog.wire.uuids import uuid_from_text
from tests.cluster.network import Network
from tests.kafka_cluster import KafkaCluster
from tests.kafka_node import CLUSTER_ID, free_port
from tests.processes import end

NODES = (1, 2, 3)
START_S_MAX = 40.0
STOP_S_MAX = 30.0
PATIENCE_S = 60.0

SETTINGS = {
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "3",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
}


class Member(Protocol):
    """One node."""

    node_id: int

    @property
    def address(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def start(self, *, wait: bool = True) -> None: ...
    def signal(self, number: signal.Signals) -> None: ...
    def stop(self, *, kill: bool = False) -> None: ...


class StreamlogMember:
    """`streamlog broker` with a configuration file, broker and controller in one."""

    def __init__(
        self, path: Path, node_id: int, host: str, ports: tuple[int, int], prefix: Sequence[str], quorum: str
    ) -> None:
        self.path, self.node_id, self.host = path, node_id, host
        self.port, self.controller_port = ports
        self.directory_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        self.log = path / "node.log"
        self.config = path / "server.properties"
        self.process: subprocess.Popen[bytes] | None = None
        self._prefix = tuple(prefix)
        path.mkdir(parents=True)
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(node_id),
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{host}:{self.controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": quorum,
            "log.dirs": str(path / "data"),
            **SETTINGS,
        }
        self.config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the node runs"
        return self.process.pid

    def start(self, *, wait: bool = True) -> None:
        assert self.process is None, "already running"
        self.log.touch()
        seen = self.log.stat().st_size
        command = [*self._prefix, sys.executable, "-m", "streamlog", "broker", "--config", str(self.config)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLOG_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--log-level", "INFO"], stdout=log, stderr=log, env=environment)
        give_up_at = time.monotonic() + START_S_MAX
        while wait and "ready on" not in (text := self.log.read_bytes()[seen:].decode(errors="replace")):
            if time.monotonic() > give_up_at or self.process.poll() is not None:
                raise AssertionError(f"node {self.node_id} did not start: {text[-3000:]}")
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "the node runs"
        self.process.send_signal(number)

    def stop(self, *, kill: bool = False) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        assert end(process, STOP_S_MAX, kill=kill) or kill, f"node {self.node_id} did not stop within {STOP_S_MAX:g} s"


class Cluster:
    """Three members, and what they say about themselves."""

    def __init__(self, name: str, members: Mapping[int, Member], network: Network | None) -> None:
        self.name, self.members, self.network = name, dict(members), network

    @property
    def bootstrap(self) -> str:
        return ",".join(one.address for one in self.members.values())

    def describe(self, *topics: str) -> tuple[dict[str, TopicInfo], int]:
        """The topics, and the node that leads the metadata quorum (-1: nobody says)."""

        async def work() -> tuple[dict[str, TopicInfo], int]:
            env = real_env()
            settings = ConnectionSettings(question_timeout_ms=500)
            async with Admin(self.bootstrap, env=env, timeout_ms=8_000, connection=settings) as admin:
                infos = await admin.describe_topics(topics)
                try:
                    leader_id = (await admin.describe_quorum()).leader_id
                except StreamlogError:
                    leader_id = (await admin.describe_cluster()).controller_id
            env.offload.close()
            return infos, leader_id

        return asyncio.run(work())

    def until_in_sync(self, *topics: str) -> dict[str, TopicInfo]:
        """Wait until every partition has a leader and every replica is in sync."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            problem = "nobody answers"
            try:
                infos, _ = self.describe(*topics)
                behind = [
                    f"{name}-{one.partition} leader={one.leader} isr={one.isr} of {one.replicas}"
                    for name, info in infos.items()
                    for one in info.partitions
                    if one.leader < 0 or len(one.isr) < len(one.replicas)
                ]
                if not behind:
                    return infos
                problem = "; ".join(behind)
            except StreamlogError as failure:
                problem = str(failure)
            assert time.monotonic() < give_up_at, f"not in sync after {PATIENCE_S:g} s: {problem}"
            time.sleep(0.1)


@contextmanager
def streamlog_cluster(path: Path, network: Network | None) -> Iterator[Cluster]:
    """Three of ours. Data stays under `path`, for who looks for the reason of a failure."""
    ports = {number: (free_port(), free_port()) for number in NODES}
    hosts = {number: network.address(number) if network else "127.0.0.1" for number in NODES}
    quorum = ",".join(f"{hosts[number]}:{ports[number][1]}" for number in NODES)
    members = {
        number: StreamlogMember(
            path / f"node-{number}",
            number,
            hosts[number],
            ports[number],
            network.prefix(number) if network else (),
            quorum,
        )
        for number in NODES
    }
    voters = VoterSet(
        VoterNode(
            ReplicaKey(one.node_id, uuid_from_text(one.directory_id)),
            (Endpoint("CONTROLLER", one.host, one.controller_port),),
        )
        for one in members.values()
    )
    env = real_env()
    for one in members.values():
        format_directory(env, str(one.path / "data"), cluster_id=CLUSTER_ID, node_id=one.node_id, voters=voters)
    env.offload.close()
    try:
        for one in members.values():
            one.start(wait=False)
        yield Cluster("streamlog", members, network)
    finally:
        for one in members.values():
            one.stop(kill=True)


@contextmanager
def kafka_cluster(libs: Path, network: Network | None) -> Iterator[Cluster]:
    """Three of Apache Kafka's, with its defaults for everything that decides how long a failure lasts."""
    places = None if network is None else {one: (network.address(one), network.prefix(one)) for one in NODES}
    settings = {**SETTINGS, "transaction.state.log.min.isr": "2"}
    with KafkaCluster(libs, properties=settings, places=places) as nodes:
        yield Cluster("kafka", nodes.nodes, network)
