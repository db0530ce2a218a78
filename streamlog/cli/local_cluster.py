"""A cluster of local nodes: one directory that says what it is, and a process for each node.

    DIR/cluster.json              what the cluster is; written once, before anything else
    DIR/.lock                     held by the command that starts or stops nodes
    DIR/node-1/server.properties  the node's configuration; edits stay
    DIR/node-1/data               its log
    DIR/node-1/node.log           what it says
    DIR/node-1/process.json       its process, believed only while that lives
    DIR/node-1/vote-lost          while a controller whose data directory was lost has not got its vote back

Nothing else is remembered, so a cluster can be started again after a reboot, and a command that is killed half way can
be repeated. Ports are fixed when the cluster is made: clients and nodes find each other again after every start.

The first data directories have the ids that `cluster.json` says, and their controllers vote. A directory that is
missing when nodes have run before was lost, with what its node promised: votes, and records that it acknowledged. What
is made in its place is another directory to everybody: its node follows, is refilled, and votes when the quorum has
taken the vote from the old directory and given it to the new one (votes.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from streamlog.broker.config import load_config, parse_properties
from streamlog.broker.format import format_directory, read_directory_id
from streamlog.broker.log.checkpoint import META_PROPERTIES_FILE
from streamlog.broker.raft.messages import Endpoint, ReplicaKey
from streamlog.broker.raft.quorum import DIRECTORY_NAME, QUORUM_STATE_FILE
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.cli.process_files import Process, find, reap, spawn
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure, UserError
from streamlog.wire.uuids import uuid_from_text, uuid_to_text

HOST: Final = "127.0.0.1"
BROKER, CONTROLLER = "broker", "controller"
CLIENTS, QUORUM = "PLAINTEXT", "CONTROLLER"
"""Names of the listeners."""

FIRST_CONTROLLER_ID: Final = 101
"""Of controllers that are no brokers, so that brokers count from 1 however many there are."""

NODES_MAX: Final = 100
REPLICAS_DEFAULT: Final = 3

PORTS: Final = range(20_000, 30_000)
"""Where free ports are looked for. Below those that kernels hand out to outgoing connections: one of them could take
the port of a node while it is down."""

STOP_S_MAX: Final = 30.0
POLL_S: Final = 0.02
LOG_LINES_SHOWN: Final = 12


class Node(msgspec.Struct, frozen=True):
    """What a node is."""

    id: int
    roles: tuple[str, ...]
    port: int
    """For clients; 0 without the broker's role."""
    controller_port: int
    """For the quorum; 0 without the controller's role."""
    directory_id: str

    @property
    def is_broker(self) -> bool:
        return BROKER in self.roles

    @property
    def is_controller(self) -> bool:
        return CONTROLLER in self.roles

    @property
    def address(self) -> str:
        """host:port for clients; for the quorum, where it has no clients."""
        return f"{HOST}:{self.port or self.controller_port}"


class Plan(msgspec.Struct, frozen=True):
    """`cluster.json`."""

    cluster_id: str
    nodes: tuple[Node, ...]

    @property
    def brokers(self) -> tuple[Node, ...]:
        return tuple(one for one in self.nodes if one.is_broker)

    @property
    def controllers(self) -> tuple[Node, ...]:
        return tuple(one for one in self.nodes if one.is_controller)

    @property
    def bootstrap(self) -> str:
        return ",".join(one.address for one in self.brokers)

    @property
    def quorum(self) -> str:
        return ",".join(f"{HOST}:{one.controller_port}" for one in self.controllers)


class LocalCluster:
    """The nodes of one directory. Commands hold `lock` while they start or stop some."""

    def __init__(self, env: Env, directory: Path, plan: Plan) -> None:
        self.directory, self.plan = directory, plan
        self._env = env
        self._by_id = {one.id: one for one in plan.nodes}

    def nodes(self, ids: Iterable[int]) -> list[Node]:
        """These nodes, or all when none is named. Raises UserError."""
        wanted = list(dict.fromkeys(ids)) or list(self._by_id)
        for one in wanted:
            if one not in self._by_id:
                known = ", ".join(map(str, self._by_id))
                raise UserError(f"{self.directory} has no node {one}; its nodes are {known}")
        return [self._by_id[one] for one in wanted]

    def path(self, node: Node) -> Path:
        return self.directory / f"node-{node.id}"

    def log(self, node: Node) -> Path:
        return self.path(node) / "node.log"

    def config(self, node: Node) -> Path:
        return self.path(node) / "server.properties"

    def process(self, node: Node) -> Process | None:
        return find(self._process_file(node))

    def _process_file(self, node: Node) -> Path:
        return self.path(node) / "process.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Raises UserError while another command starts or stops nodes."""
        held = self._env.storage.lock(str(self.directory / ".lock"))
        if held is None:
            raise UserError(f"another command is starting or stopping nodes of {self.directory}; wait for it")
        try:
            yield
        finally:
            held.release()

    # -- files

    def prepare(self, nodes: Iterable[Node], settings: Mapping[str, str]) -> list[Node]:
        """Make what is not there yet: a configuration and a formatted data directory for each node.

        Once nodes have run only for these, and not for those that run now: what is missing was lost. Returns whose
        data directory that was. Raises UserError when no controller has kept its own.
        """
        if not self._has_run():
            voters = VoterSet(
                VoterNode(
                    ReplicaKey(one.id, uuid_from_text(one.directory_id)),
                    (Endpoint(QUORUM, HOST, one.controller_port),),
                )
                for one in self.plan.controllers
            )
            for one in self.plan.nodes:
                self._configure(one, settings)
                if not self.has_data(one):
                    self._format(one, voters if one.is_controller else None)
            return []
        self._check_metadata_left()
        idle = [one for one in nodes if self.process(one) is None]
        for one in idle:
            self._configure(one, self._settings_of_another(one))
        lost = [one for one in idle if not self.has_data(one)]
        for one in lost:
            if one.is_controller:
                self.vote_lost(one).touch()  # first: a command that is killed here is repeated
            self._format(one, None)
        return lost

    def _has_run(self) -> bool:
        """Whether any node was started, ever. Whatever one of them has left says so."""
        return any(
            path.exists()
            for one in self.plan.nodes
            for path in (
                self.log(one),
                self._process_file(one),
                self.vote_lost(one),
                self.path(one) / "data" / DIRECTORY_NAME / QUORUM_STATE_FILE,
            )
        )

    def _check_metadata_left(self) -> None:
        if not any(self.has_data(one) and not self.vote_lost(one).exists() for one in self.plan.controllers):
            gone = ", ".join(str(self.path(one)) for one in self.plan.controllers)
            raise UserError(
                f"the data directories of all controllers ({gone}) are lost, and what the cluster knew of its topics "
                f"with them. Put one of them back, or remove {self.directory} and start a new cluster"
            )

    def _configure(self, node: Node, settings: Mapping[str, str]) -> None:
        self.path(node).mkdir(parents=True, exist_ok=True)
        config = self.config(node)
        if not config.exists():
            fresh = config.with_suffix(".new")
            fresh.write_text(properties(self.plan, node, self.path(node) / "data", settings))
            fresh.replace(config)

    def _settings_of_another(self, node: Node) -> dict[str, str]:
        """What somebody has set for all nodes, as far as one of the same kind still says so."""
        for one in self.plan.nodes:
            if one.roles == node.roles and self.config(one).exists():
                usual = parse_properties(properties(self.plan, one, self.path(one) / "data", {}))
                values = parse_properties(self.config(one).read_text(encoding="utf-8"))
                own = {"node.id", "listeners", "log.dirs"}
                return {name: text for name, text in values.items() if name not in own and text != usual.get(name)}
        return {}

    def _format(self, node: Node, voters: VoterSet | None) -> None:
        data = str(self._data(node))
        format_directory(self._env, data, cluster_id=self.plan.cluster_id, node_id=node.id, voters=voters)

    def has_data(self, node: Node) -> bool:
        return self.config(node).exists() and (self._data(node) / META_PROPERTIES_FILE).exists()

    def directory_id(self, node: Node) -> UUID:
        """Of the data directory as it is now."""
        return read_directory_id(self._env, str(self._data(node)))

    def vote_lost(self, node: Node) -> Path:
        """This file is there while the node has no vote because its data directory was lost."""
        return self.path(node) / "vote-lost"

    def _data(self, node: Node) -> Path:
        values = parse_properties(self.config(node).read_text(encoding="utf-8"))
        return Path(values.get("log.dirs") or values.get("log.dir") or str(self.path(node) / "data"))

    # -- processes

    def start(self, nodes: Iterable[Node], loglevel: str) -> dict[int, int]:
        """Start those that do not run. Returns them, each with how long its log was before."""
        started: dict[int, int] = {}
        for one in nodes:
            if self.process(one) is not None:
                continue
            log = self.log(one)
            started[one.id] = log.stat().st_size if log.exists() else 0
            command = [sys.executable, "-m", "streamlog", "broker", "--config", str(self.config(one))]
            # Settings of the person's shell would go before those of the node's file.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLOG_")}
            spawn([*command, "--log-level", loglevel], environment, log, self._process_file(one))
        return started

    def check_alive(self, nodes: Iterable[Node], started: Mapping[int, int]) -> None:
        """Raises UserError, with what it said, when one that was started has ended."""
        for one in nodes:
            if self.process(one) is None:
                said = self.log_tail(one, started.get(one.id, 0))
                raise UserError(f"node {one.id} did not start. It said:\n{said}")

    def log_tail(self, node: Node, offset: int = 0) -> str:
        try:
            text = self.log(node).read_bytes()[offset:].decode(errors="replace")
        except OSError as error:
            return f"  ({self.log(node)} cannot be read: {error.strerror})"
        lines = text.splitlines() or ["(nothing)"]
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])

    async def end(self, nodes: Sequence[Node], number: signal.Signals = signal.SIGTERM) -> list[Node]:
        """Signal those that run and wait until they have ended. Returns them.

        Raises EnvironmentFailure when some do not end in time; cancelled, they end without anybody waiting.
        """
        running = [(one, process) for one in nodes if (process := self.process(one)) is not None]
        for _, process in running:
            process.signal(number)
            if number is not signal.SIGKILL:
                process.signal(signal.SIGCONT)  # a frozen one would hear of it only when it is thawed
        left = running
        try:
            async with asyncio.timeout(STOP_S_MAX):
                while True:
                    left = [(one, process) for one, process in left if process.state != "ended"]
                    if not left:
                        break
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            names = ", ".join(str(one.id) for one, _ in left)
            raise EnvironmentFailure(
                f"node {names} did not end within {STOP_S_MAX:g} s; see its log, or use `streamlog cluster kill`"
            ) from None
        for _, process in running:
            reap(process)
        return [one for one, _ in running]


def open_cluster(env: Env, directory: Path) -> LocalCluster:
    """The cluster of a directory. Raises UserError when there is none."""
    try:
        plan = msgspec.json.decode((directory / "cluster.json").read_bytes(), type=Plan)
    except FileNotFoundError:
        raise UserError(f"there is no cluster in {directory}; `streamlog cluster start 3` makes one") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(f"{directory / 'cluster.json'} cannot be read: {error}") from error
    if not plan.nodes:
        raise UserError(
            f"{directory / 'cluster.json'} names no nodes: put the one back that was made with the cluster, or remove "
            f"{directory} and make another"
        )
    return LocalCluster(env, directory, plan)


def make_cluster(env: Env, directory: Path, plan: Plan) -> LocalCluster:
    """Write down what the cluster is. Its nodes are made when they start. Raises UserError."""
    data = msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        env.storage.write_atomic(str(directory / "cluster.json"), data)
    except OSError as error:
        raise UserError(f"no cluster can be made in {directory}: {error.strerror}; choose another --dir") from error
    return LocalCluster(env, directory, plan)


def check_settings(plan: Plan, directory: Path, settings: Mapping[str, str]) -> list[str]:
    """What nodes would warn of that get these settings. Raises UserError: one would not start with them."""
    warnings: dict[str, None] = {}
    for node in plan.nodes:
        values = parse_properties(properties(plan, node, directory / f"node-{node.id}" / "data", settings))
        warnings |= dict.fromkeys(load_config(values)[1])
    return list(warnings)


def make_plan(env: Env, *, combined: int, brokers: int, controllers: int, port_base: int | None) -> Plan:
    """Nodes with both roles, or brokers and controllers apart. Ports upwards from `port_base`, or free ones."""
    roles: list[tuple[int, tuple[str, ...]]]
    roles = [(number, (BROKER, CONTROLLER)) for number in range(1, combined + 1)]
    roles += [(number, (BROKER,)) for number in range(1, brokers + 1)]
    roles += [(FIRST_CONTROLLER_ID + number, (CONTROLLER,)) for number in range(controllers)]
    wanted = sum(len(one) for _, one in roles)
    ports = iter(_free_ports(env, wanted) if port_base is None else _ports_from(port_base, wanted))
    clients = {number: next(ports) for number, one in roles if BROKER in one}  # first those that people type
    quorum = {number: next(ports) for number, one in roles if CONTROLLER in one}
    return Plan(
        uuid_to_text(env.entropy.uuid4()),
        tuple(
            Node(number, one, clients.get(number, 0), quorum.get(number, 0), uuid_to_text(env.entropy.uuid4()))
            for number, one in roles
        ),
    )


def _ports_from(first: int, count: int) -> list[int]:
    taken = [port for port in range(first, first + count) if not _is_free(port)]
    if taken:
        raise UserError(f"port {taken[0]} is in use; choose another --port-base, or leave it out to get free ports")
    return list(range(first, first + count))


def _free_ports(env: Env, count: int) -> list[int]:
    at = env.entropy.randrange(len(PORTS))
    found = [port for port in (*PORTS[at:], *PORTS[:at])[: 10 * count] if _is_free(port)]
    if len(found) < count:
        raise EnvironmentFailure(f"no {count} free ports found from {PORTS[at]} on; choose some with --port-base")
    return found[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def properties(plan: Plan, node: Node, data: Path, settings: Mapping[str, str]) -> str:
    """The node's server.properties."""
    listeners = [f"{CLIENTS}://{HOST}:{node.port}"] if node.is_broker else []
    listeners += [f"{QUORUM}://{HOST}:{node.controller_port}"] if node.is_controller else []
    replicas = min(REPLICAS_DEFAULT, len(plan.brokers))
    values = {
        "process.roles": ",".join(node.roles),
        "node.id": str(node.id),
        "listeners": ",".join(listeners),
        "listener.security.protocol.map": f"{CLIENTS}:PLAINTEXT,{QUORUM}:PLAINTEXT",
        "controller.listener.names": QUORUM,
        "controller.quorum.bootstrap.servers": plan.quorum,
        "log.dirs": str(data),
        # In every file, whatever the roles: a controller decides about topics by its own, and the first one writes its
        # min.insync.replicas down as the cluster's; a broker asks for topics that clients ask it for by its own.
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(max(1, replicas - 1)),
    }
    if node.is_broker:
        values |= {
            "inter.broker.listener.name": CLIENTS,
            "offsets.topic.replication.factor": str(replicas),
            "group.initial.rebalance.delay.ms": "100",
        }
    lines = [f"{name}={value}" for name, value in (values | dict(settings)).items()]
    heading = f"# Node {node.id} of cluster {plan.cluster_id}; edits count from its next start on.\n"
    return heading + "\n".join(lines) + "\n"
