"""Three real Apache Kafka nodes on loopback, each a broker and a controller, for tests that need replicas.

Small heaps, fresh directories, free ports. Nodes are ended by their process ids.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka_node import CLUSTER_ID, free_port, run_java
from tests.processes import end

START_S_MAX = 90.0
STOP_S_MAX = 30.0

SMALL = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Options of a JVM that shares a small machine with others."""

READY = "Kafka Server started"
"""What a node logs when it serves: its broker is registered, caught up and unfenced."""


class KafkaMember:
    """One node of a cluster. `start` again keeps the directory and the ports."""

    def __init__(
        self,
        libs: Path,
        path: Path,
        node_id: int,
        roles: str,
        ports: tuple[int, int],
        settings: Mapping[str, str],
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        java: Sequence[str] = SMALL,
    ) -> None:
        """`prefix` goes before the command: what puts it into a network of its own, for example."""
        self.libs, self.path, self.node_id = libs, path, node_id
        self.host, self.port, self.controller_port = host, *ports
        self._prefix, self._java = tuple(prefix), tuple(java)
        self.directory_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        self.process: subprocess.Popen[bytes] | None = None
        self.config = path / "server.properties"
        self.log = path / "kafka.log"
        path.mkdir(parents=True)
        named = {"broker": f"PLAINTEXT://{self.address}", "controller": f"CONTROLLER://{self.controller}"}
        mine = {
            "process.roles": roles,
            "node.id": str(node_id),
            "listeners": ",".join(named[role] for role in roles.split(",")),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(path / "data"),
            **settings,
        }
        self.config.write_text("".join(f"{name}={value}\n" for name, value in mine.items()))

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def controller(self) -> str:
        return f"{self.host}:{self.controller_port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the node runs"
        return self.process.pid

    def format(self, *how: str) -> None:
        run_java(self.libs, "kafka.tools.StorageTool", ["format", "-t", CLUSTER_ID, "-c", str(self.config), *how])

    def start(self, *, wait: bool = True) -> None:
        assert self.process is None, "already running"
        self.log.touch()
        seen = self.log.stat().st_size
        command = [*self._prefix, "java", *self._java]
        command += ["-cp", f"{self.libs}/*", "kafka.Kafka", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        if wait:
            self.wait_until_started(seen)

    def wait_until_started(self, seen: int = 0) -> None:
        give_up_at = time.monotonic() + START_S_MAX
        while READY not in (text := self.log.read_bytes()[seen:].decode(errors="replace")):
            assert self.process is not None, "started before"
            if time.monotonic() > give_up_at or self.process.poll() is not None:
                raise AssertionError(f"Apache Kafka node {self.node_id} did not start: {text[-3000:]}")
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "the node runs"
        self.process.send_signal(number)

    def stop(self, *, kill: bool = False) -> None:
        """End the process and wait for it: an orderly shutdown, or kill -9."""
        process, self.process = self.process, None
        if process is None:
            return
        end(process, STOP_S_MAX, kill=kill)


class KafkaCluster:
    """Combined nodes 1, 2, 3 with a quorum whose voters can change. `close` ends and removes them."""

    def __init__(
        self,
        libs: Path,
        *,
        nodes: int = 3,
        properties: Mapping[str, str] | None = None,
        places: Mapping[int, tuple[str, Sequence[str]]] | None = None,
        java: Sequence[str] = SMALL,
    ) -> None:
        """`places`: for each node the address to listen on, and what goes before its command."""
        self._directory = tempfile.TemporaryDirectory(prefix="streamlog-kafka-cluster-")
        self._path = Path(self._directory.name)
        self._libs = libs
        ports = {number: (free_port(), free_port()) for number in range(1, nodes + 1)}
        nowhere: tuple[str, Sequence[str]] = ("127.0.0.1", ())
        where = places or dict.fromkeys(ports, nowhere)
        replicas = str(min(nodes, 3))
        self._settings = {
            "controller.quorum.bootstrap.servers": ",".join(
                f"{where[number][0]}:{ports[number][1]}" for number in ports
            ),
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": replicas,
            "share.coordinator.state.topic.replication.factor": replicas,
            "group.initial.rebalance.delay.ms": "0",
            "log.initial.task.delay.ms": "1000",
            **(properties or {}),
        }
        self.nodes = {
            number: KafkaMember(
                libs,
                self._path / f"node-{number}",
                number,
                "broker,controller",
                pair,
                self._settings,
                host=where[number][0],
                prefix=where[number][1],
                java=java,
            )
            for number, pair in ports.items()
        }
        voters = ",".join(f"{one.node_id}@{one.controller}:{one.directory_id}" for one in self.nodes.values())
        try:
            for one in self.nodes.values():
                one.format("--initial-controllers", voters)
            for one in self.nodes.values():
                one.start(wait=False)
            for one in self.nodes.values():
                one.wait_until_started()
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        return ",".join(one.address for one in self.nodes.values() if one.port)

    def add_controller(self, node_id: int) -> KafkaMember:
        """A further node, a controller alone, which follows the quorum and has no vote yet."""
        path = self._path / f"node-{node_id}"
        one = KafkaMember(self._libs, path, node_id, "controller", (0, free_port()), self._settings)
        self.nodes[node_id] = one
        one.format("--no-initial-controllers")
        one.start(wait=False)
        return one

    def close(self) -> None:
        for one in self.nodes.values():
            one.stop(kill=True)
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
