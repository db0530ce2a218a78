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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tests.kafka_node import CLUSTER_ID, free_port, kafka_libs, run_java

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S_MAX = 60.0
STOP_S_MAX = 30.0
HEAP = "1g"  # what Kafka's own start script gives a broker


class Node(Protocol):
    """A running broker."""

    name: str
    bootstrap: str
    ready_s: float

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def pid(self) -> int: ...


def cpu_s(pid: int) -> float:
    """CPU seconds the process has used so far, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class _Process:
    def __init__(self, name: str) -> None:
        self.name = name
        self.bootstrap = ""
        self.ready_s = 0.0
        self._directory = tempfile.TemporaryDirectory(prefix=f"bench-{name}-")
        self.path = Path(self._directory.name)
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "runs inside its with block"
        return self._process.pid

    def __enter__(self) -> Self:
        started_s = time.monotonic()
        self._start()
        self.ready_s = time.monotonic() - started_s
        return self

    def _start(self) -> None:
        raise NotImplementedError

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


class Streamlog(_Process):
    """`streamlog broker`. `properties` are Kafka's names."""

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        super().__init__("streamlog")
        self._properties = dict(properties or {})

    def _start(self) -> None:
        command = [sys.executable, "-m", "streamlog", "broker", "--data-dir", str(self.path / "data")]
        command += ["--listen", "127.0.0.1:0", *(f"{name}={value}" for name, value in self._properties.items())]
        with (self.path / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None, "stdout is a pipe"
        line = self._process.stdout.readline()
        found = re.search(r"ready on (\S+)", line)
        assert found is not None, f"the broker did not start: {line!r} {(self.path / 'log').read_text()[-2000:]}"
        self.bootstrap = found[1]


class ApacheKafka(_Process):
    """One combined KRaft node with Kafka's defaults, except what a single node needs."""

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        super().__init__("kafka")
        libs = kafka_libs()
        assert libs is not None, "ask have_kafka first"
        self._libs = libs
        port, controller = free_port(), free_port()
        self._address = ("127.0.0.1", port)
        self.bootstrap = f"127.0.0.1:{port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.path / "data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            **(properties or {}),
        }
        self._config = self.path / "server.properties"
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        run_java(libs, "kafka.tools.StorageTool", ["format", "-t", CLUSTER_ID, "-c", str(self._config)])

    def _start(self) -> None:
        command = ["java", f"-Xmx{HEAP}", f"-Xms{HEAP}", "-XX:+UseG1GC", "-cp", f"{self._libs}/*"]
        with (self.path / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "kafka.Kafka", str(self._config)], stdout=log, stderr=log, text=True
            )
        give_up_at = time.monotonic() + START_S_MAX
        while time.monotonic() < give_up_at and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(self._address) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError(f"Apache Kafka did not start: {(self.path / 'log').read_text()[-2000:]}")


def have_kafka() -> bool:
    return kafka_libs() is not None
