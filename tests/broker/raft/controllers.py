"""Quorums of controllers on real files and sockets, in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from streamlog.broker.config import load_config
from streamlog.broker.controller_node import ControllerNode, start_controller
from streamlog.broker.format import format_directory
from streamlog.broker.raft.messages import Endpoint, ReplicaKey
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.env import real_env
from streamlog.wire.internal.metadata import ConfigRecord

CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"
WAIT_S = 20


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


class Controllers:
    """Nodes 1 to `count`; the first `voters` of them are the first voters."""

    def __init__(self, path: Path, count: int = 3, voters: int | None = None, **settings: str) -> None:
        self.path = path
        self.settings = settings
        self.ports = free_ports(count)
        self.env = real_env()
        self.nodes: dict[int, ControllerNode] = {}
        voting = count if voters is None else voters
        first = VoterSet(
            VoterNode(self.key(number), (Endpoint("CONTROLLER", "127.0.0.1", self.ports[number - 1]),))
            for number in range(1, voting + 1)
        )
        for number in range(1, count + 1):
            known = first if number <= voting else None
            format_directory(self.env, self.directory(number), cluster_id=CLUSTER_ID, node_id=number, voters=known)

    @staticmethod
    def key(number: int) -> ReplicaKey:
        return ReplicaKey(number, UUID(int=100 + number))

    def directory(self, number: int) -> str:
        return str(self.path / str(number))

    def values(self, number: int, **more: str) -> dict[str, str]:
        """The node's settings."""
        values = {
            "process.roles": "controller",
            "node.id": str(number),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CONTROLLER://127.0.0.1:{self.ports[number - 1]}",
            "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in self.ports),
            "controller.quorum.election.timeout.ms": "200",
            "controller.quorum.fetch.timeout.ms": "600",
        }
        return values | {name.replace("_", "."): value for name, value in (self.settings | more).items()}

    async def start(self, *numbers: int, **more: str) -> None:
        for number in numbers or range(1, len(self.ports) + 1):
            config, _ = load_config(self.values(number, **more))
            self.nodes[number] = await start_controller(self.env, config, self.directory(number))

    async def stop(self, number: int, *, clean: bool = True) -> None:
        node = self.nodes.pop(number)
        await (node.close() if clean else node.abandon())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def leader(self) -> ControllerNode:
        """The node whose controller is active, once everybody follows it."""
        await self.until(lambda: self._agreed() is not None)
        found = self._agreed()
        assert found is not None
        return found

    def _agreed(self) -> ControllerNode | None:
        active = [node for node in self.nodes.values() if node.controller.is_active]
        if len(active) != 1:
            return None
        follows = {node.quorum.core.leader_id for node in self.nodes.values()}
        return active[0] if follows == {active[0].node_id} else None

    async def write(self, value: str, times: int = 1) -> None:
        """The active controller writes something."""
        await self.write_on(await self.leader(), value, times)

    async def write_on(self, leader: ControllerNode, value: str, times: int = 1) -> None:
        for number in range(times):
            record = ConfigRecord(resource_type=4, resource_name="", name=f"test.{value}.{number}", value=value)
            await leader.controller.write_records([record])

    async def agreed(self) -> None:
        """Everybody has what is committed on the leader."""
        leader = await self.leader()
        end_offset = leader.quorum.committed_end_offset
        await self.until(lambda: all(node.quorum.committed_end_offset >= end_offset for node in self.nodes.values()))

    async def close(self) -> None:
        for number in list(self.nodes):
            await self.stop(number, clean=False)
        self.env.offload.close()


@asynccontextmanager
async def controllers(
    path: Path, count: int = 3, voters: int | None = None, **settings: str
) -> AsyncIterator[Controllers]:
    """Formatted, not started."""
    found = Controllers(path, count, voters, **settings)
    try:
        yield found
    finally:
        await found.close()
