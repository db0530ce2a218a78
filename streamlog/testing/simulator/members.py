"""The nodes of one cluster in a run: their machines, settings and data directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from streamlog.broker.config import BrokerConfig, load_config
from streamlog.broker.format import format_directory
from streamlog.broker.log.checkpoint import META_PROPERTIES_FILE
from streamlog.broker.raft.messages import Endpoint, ReplicaKey
from streamlog.broker.raft.quorum import DIRECTORY_NAME
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.env import Env
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.world import World

CLIENT_PORT: Final = 9092
CONTROLLER_PORT: Final = 9093
DATA_DIR: Final = "/data"
METADATA_DIR: Final = f"{DATA_DIR}/{DIRECTORY_NAME}"
CLUSTER_ID: Final = "AAAAAAAAAAAAAAAAAAAAAQ"

ROLES: Final = {"quorum": "controller", "cluster": "broker,controller"}


@dataclass(frozen=True, slots=True)
class Members:
    """Nodes 1 to n, on machines node1 to noden."""

    setup: Setup
    machines: Mapping[int, Machine]

    @classmethod
    def of(cls, world: World, setup: Setup) -> Members:
        names = {number: f"node{number}" for number in range(1, setup.nodes + 1)}
        return cls(setup, {number: world.machine(name, names=setup.names) for number, name in names.items()})

    def config(self, number: int) -> BrokerConfig:
        """The settings of a node."""
        hosts = {other: machine.host for other, machine in self.machines.items()}
        roles = ROLES[self.setup.shape]
        listeners = [f"PLAINTEXT://{hosts[number]}:{CLIENT_PORT}"] if "broker" in roles else []
        values = {
            "process.roles": roles,
            "node.id": str(number),
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*listeners, f"CONTROLLER://{hosts[number]}:{CONTROLLER_PORT}"]),
        }
        if self.setup.static_voters:
            voters = ",".join(f"{other}@{host}:{CONTROLLER_PORT}" for other, host in hosts.items())
            values["controller.quorum.voters"] = voters
        else:
            bootstrap = ",".join(f"{host}:{CONTROLLER_PORT}" for host in hosts.values())
            values["controller.quorum.bootstrap.servers"] = bootstrap
        config, _ = load_config(values | dict(self.setup.broker))
        return config

    def format(self, env: Env, number: int) -> None:
        """As an operator does before the first start; again when the power went meanwhile."""
        if env.storage.exists(f"{DATA_DIR}/{META_PROPERTIES_FILE}"):
            return
        if env.storage.is_directory(DATA_DIR):
            env.storage.remove_tree(DATA_DIR)
        voters = None
        if not self.setup.static_voters:
            voters = VoterSet(
                VoterNode(
                    ReplicaKey(other, UUID(int=100 + other)), (Endpoint("CONTROLLER", machine.host, CONTROLLER_PORT),)
                )
                for other, machine in self.machines.items()
            )
        format_directory(env, DATA_DIR, cluster_id=CLUSTER_ID, node_id=number, voters=voters)
