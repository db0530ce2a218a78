"""Clusters of nodes on real files and sockets, in this process: brokers, controllers, or both in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from streamlog.broker.config import load_config
from streamlog.broker.controller_node import ControllerNode, start_controller
from streamlog.broker.format import format_directory
from streamlog.broker.node import Node, start_node
from streamlog.broker.raft.messages import Endpoint, ReplicaKey
from streamlog.broker.raft.quorum import Quorum
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.env import real_env
from tests.broker.raft.controllers import free_ports

CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"
WAIT_S = 30

COMBINED = "broker,controller"
BROKER = "broker"
CONTROLLER = "controller"


class Nodes:
    """Nodes by number, each with its roles. Formatted, not started."""

    def __init__(
        self, path: Path, roles: Mapping[int, str], voters: Collection[int] | None = None, **settings: str
    ) -> None:
        """`voters`: the first voters, if that is not every controller."""
        self.path = path
        self.roles = dict(roles)
        self.settings = settings
        self.env = real_env()
        self.brokers: dict[int, Node] = {}
        self.controllers: dict[int, ControllerNode] = {}
        controllers = [number for number, role in roles.items() if "controller" in role]
        self.controller_ports = dict(zip(controllers, free_ports(len(controllers)), strict=True))
        first = VoterSet(
            VoterNode(ReplicaKey(number, UUID(int=100 + number)), (Endpoint("CONTROLLER", "127.0.0.1", port),))
            for number, port in self.controller_ports.items()
            if voters is None or number in voters
        )
        for number in roles:
            known = None if first.get(number) is None else first
            format_directory(self.env, self.directory(number), cluster_id=CLUSTER_ID, node_id=number, voters=known)

    def directory(self, number: int) -> str:
        return str(self.path / str(number))

    def values(self, number: int, **more: str) -> dict[str, str]:
        """The node's settings."""
        role = self.roles[number]
        listeners = ["PLAINTEXT://127.0.0.1:0"] if "broker" in role else []
        if "controller" in role:
            listeners.append(f"CONTROLLER://127.0.0.1:{self.controller_ports[number]}")
        bootstrap = ",".join(f"127.0.0.1:{port}" for port in self.controller_ports.values())
        values = {
            "process.roles": role,
            "node.id": str(number),
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(listeners),
            "controller.quorum.bootstrap.servers": bootstrap,
            "controller.quorum.election.timeout.ms": "300",
            "controller.quorum.fetch.timeout.ms": "1000",
            "group.initial.rebalance.delay.ms": "0",
        }
        return values | {name.replace("_", "."): value for name, value in (self.settings | more).items()}

    async def start(self, *numbers: int, **more: str) -> None:
        """Start these, or all, and wait until they serve."""
        async with asyncio.TaskGroup() as group:
            for number in numbers or self.roles:
                group.create_task(self._start(number, more))

    async def _start(self, number: int, more: Mapping[str, str]) -> None:
        config, _ = load_config(self.values(number, **more))
        async with asyncio.timeout(WAIT_S):
            if config.is_broker:
                self.brokers[number] = await start_node(self.env, config, self.directory(number))
            else:
                self.controllers[number] = await start_controller(self.env, config, self.directory(number))

    async def stop(self, number: int, *, clean: bool = True) -> None:
        broker, controller = self.brokers.pop(number, None), self.controllers.pop(number, None)
        for node in (broker, controller):
            if node is not None:
                await (node.close() if clean else node.abandon())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.01)

    @property
    def quorums(self) -> dict[int, Quorum]:
        """Of the nodes that run."""
        brokers = {number: node.quorum for number, node in self.brokers.items()}
        return brokers | {number: node.quorum for number, node in self.controllers.items()}

    async def active(self) -> int:
        """The number of the node whose controller is active, once everybody knows."""

        def found() -> int | None:
            known = {quorum.leader_id for quorum in self.quorums.values()}
            number = next(iter(known)) if len(known) == 1 else None
            node = None if number is None else self.brokers.get(number) or self.controllers.get(number)
            controller = node.broker.controller if isinstance(node, Node) else None if node is None else node.controller
            return number if controller is not None and controller.is_active else None

        await self.until(lambda: found() is not None)
        number = found()
        assert number is not None
        return number

    async def close(self) -> None:
        for number in [*self.brokers, *self.controllers]:
            await self.stop(number, clean=False)
        self.env.offload.close()


@asynccontextmanager
async def nodes(
    path: Path, roles: Mapping[int, str], voters: Collection[int] | None = None, **settings: str
) -> AsyncIterator[Nodes]:
    found = Nodes(path, roles, voters, **settings)
    try:
        yield found
    finally:
        await found.close()


def combined(count: int = 3) -> dict[int, str]:
    """Roles of nodes 1 to `count`, each of which is both."""
    return dict.fromkeys(range(1, count + 1), COMBINED)
