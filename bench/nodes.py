"""The brokers that are measured, each a process of its own on loopback: ours, and Apache Kafka with its defaults."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tests.kafka_node import CLUSTER_ID, free_port, kafka_libs, run_java

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S_MAX = 60.0
STOP_S_MAX = 30.0
HEAP = "1g"  # what Kafka's own start script gives a broker


def cpu_s(pid: int) -> float:
    """CPU seconds the process has used so far, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Launched(NamedTuple):
    process: subprocess.Popen[str]
    bootstrap: str
    ready_s: float
    """From the start of its process until it accepted a connection."""


Launch = Callable[[Path], Launched]
"""Starts a broker whose files are under the given directory, and waits until it serves."""


class Served(Protocol):
    """A side of a comparison: who it is, where clients go, and the CPU seconds of all its processes so far."""

    name: str
    bootstrap: str

    def cpu_s(self) -> float: ...


class Node:
    """A running broker inside its `with` block, stopped and its files deleted after it."""

    def __init__(self, name: str, launch: Launch) -> None:
        self.name = name
        self.bootstrap = ""
        self.ready_s = 0.0
        self._launch = launch
        self._directory = tempfile.TemporaryDirectory(prefix=f"bench-{name}-")
        self.path = Path(self._directory.name)
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "runs inside its with block"
        return self._process.pid

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def __enter__(self) -> Self:
        self._process, self.bootstrap, self.ready_s = self._launch(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._directory.cleanup()


def streamlog(properties: Mapping[str, str] | None = None) -> Node:
    """`streamlog broker`. `properties` have Kafka's names."""

    def launch(directory: Path) -> Launched:
        command = [sys.executable, "-m", "streamlog", "broker", "--data-dir", str(directory / "data")]
        command += ["--listen", "127.0.0.1:0", *(f"{name}={value}" for name, value in (properties or {}).items())]
        started_s = time.monotonic()
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None, "stdout is a pipe"
        line = process.stdout.readline()
        found = re.search(r"ready on (\S+)", line)
        if found is None:
            process.kill()
            raise RuntimeError(f"the broker did not start: {line!r} {_end_of_log(directory)}")
        return Launched(process, found[1], time.monotonic() - started_s)

    return Node("streamlog", launch)


def apache_kafka(properties: Mapping[str, str] | None = None) -> Node:
    """One combined KRaft node with Kafka's defaults, except what a single node needs. Ask `have_kafka` first."""
    libs = kafka_libs()
    assert libs is not None, "ask have_kafka first"
    port, controller = free_port(), free_port()
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        **(properties or {}),
    }

    def launch(directory: Path) -> Launched:
        config = directory / "server.properties"
        in_file = {**settings, "log.dirs": str(directory / "data")}
        config.write_text("".join(f"{name}={value}\n" for name, value in in_file.items()))
        run_java(libs, "kafka.tools.StorageTool", ["format", "-t", CLUSTER_ID, "-c", str(config)])
        command = ["java", f"-Xmx{HEAP}", f"-Xms{HEAP}", "-XX:+UseG1GC", "-cp", f"{libs}/*", "kafka.Kafka", str(config)]
        started_s = time.monotonic()
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        give_up_at = time.monotonic() + START_S_MAX
        while time.monotonic() < give_up_at and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return Launched(process, f"127.0.0.1:{port}", time.monotonic() - started_s)
            time.sleep(0.01)
        process.kill()
        raise RuntimeError(f"Apache Kafka did not start: {_end_of_log(directory)}")

    return Node("kafka", launch)


def _end_of_log(directory: Path) -> str:
    return (directory / "log").read_text()[-2000:]


def have_kafka() -> bool:
    return kafka_libs() is not None
