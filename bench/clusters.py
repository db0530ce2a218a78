"""Clusters of three that are measured: our nodes, and Apache Kafka's with the heap that its start script gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from bench.nodes import HEAP, cpu_s, resident_mb
from tests.kafka_cluster import KafkaCluster
from tests.kafka_node import kafka_libs
from tests.streamlog_cluster import StreamlogCluster

REPLICAS = 3
DEFAULTS = {"default.replication.factor": str(REPLICAS), "min.insync.replicas": "2"}
JAVA = (f"-Xmx{HEAP}", f"-Xms{HEAP}", "-XX:+UseG1GC")


class Member(Protocol):
    """One node of a cluster."""

    node_id: int

    @property
    def pid(self) -> int: ...
    def start(self, *, wait: bool = True) -> None: ...
    def stop(self, *, kill: bool = False) -> None: ...


class Nodes(Protocol):
    """What both kinds of cluster have."""

    @property
    def bootstrap(self) -> str: ...
    def close(self) -> None: ...


class Cluster:
    """Three running nodes inside its `with` block, their files deleted after it."""

    def __init__(self, name: str, launch: Callable[[], tuple[Nodes, Mapping[int, Member]]]) -> None:
        self.name = name
        self.bootstrap = ""
        self.members: Mapping[int, Member] = {}
        self.ready_s = 0.0
        """From the start of the first process until the last node said that it serves."""
        self._launch = launch
        self._nodes: Nodes | None = None

    def cpu_s(self) -> float:
        return sum(cpu_s(one.pid) for one in self.members.values())

    def resident_mb(self) -> float:
        return sum(resident_mb(one.pid) for one in self.members.values())

    def __enter__(self) -> Self:
        started_s = time.monotonic()
        self._nodes, self.members = self._launch()
        self.bootstrap = self._nodes.bootstrap
        self.ready_s = time.monotonic() - started_s
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nodes is not None:
            self._nodes.close()


def streamlog() -> Cluster:
    """As `streamlog cluster start 3` makes it: its defaults are three replicas, of which two have to be in sync."""

    def launch() -> tuple[Nodes, Mapping[int, Member]]:
        nodes = StreamlogCluster()
        return nodes, nodes.nodes

    return Cluster("streamlog", launch)


def apache_kafka() -> Cluster:
    """Three combined KRaft nodes. Ask `have_kafka` first."""
    libs = kafka_libs()
    assert libs is not None, "ask have_kafka first"

    def launch() -> tuple[Nodes, Mapping[int, Member]]:
        nodes = KafkaCluster(libs, properties=DEFAULTS, java=JAVA)
        return nodes, nodes.nodes

    return Cluster("kafka", launch)
