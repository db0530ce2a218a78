"""One real Apache Kafka node on loopback, for tests that hold our client or broker against the original.

The jars come from STREAMLOG_KAFKA_LIBS, or from `target/kafka-libs` in the repository. A node is a combined broker
and controller with a fresh directory, free ports and no rebalance delay; it is stopped by its process id.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.processes import end

REPOSITORY = Path(__file__).resolve().parent.parent
START_S_MAX = 60.0
STOP_S_MAX = 20.0
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"


def kafka_libs() -> Path | None:
    """The directory of Apache Kafka's jars, or None when this machine has none."""
    named = os.environ.get("STREAMLOG_KAFKA_LIBS")
    libs = Path(named) if named else REPOSITORY / "target" / "kafka-libs"
    return libs if any(libs.glob("kafka-clients-*.jar")) else None


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_java(libs: Path, main_class: str, arguments: Sequence[str], *, stdin: str = "", timeout_s: float = 60) -> str:
    """Run one of Kafka's tools; returns stdout. Raises AssertionError with stderr when it fails."""
    done = subprocess.run(
        ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*", main_class, *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{main_class} failed: {done.stderr[-2000:]}"
    return done.stdout


class KafkaNode:
    """A running Apache Kafka. `stop` and `start` again keep the directory and the ports; `close` removes it."""

    def __init__(
        self,
        libs: Path,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        features: Mapping[str, int] | None = None,
    ) -> None:
        """Properties override ours; `%controller%` in a value stands for the controller's port.

        Features are finalized at these levels instead of the release's.
        """
        self.libs = libs
        self.port, self.controller_port = port or free_port(), free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="streamlog-kafka-")
        self.path = Path(self._directory.name)
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.path / "data"),
            "num.partitions": "1",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "100",
            "log.initial.task.delay.ms": "1000",
            "log.retention.check.interval.ms": "1000",
            **(properties or {}),
        }
        config = self.path / "server.properties"
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        config.write_text(lines.replace("%controller%", str(self.controller_port)))
        levels = [word for name, level in (features or {}).items() for word in ("--feature", f"{name}={level}")]
        run_java(libs, "kafka.tools.StorageTool", ["format", "-t", CLUSTER_ID, "-c", str(config), *levels])
        self.start()

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the node and wait until it accepts connections."""
        assert self._process is None, "already running"
        log = (self.path / "kafka.log").open("ab")
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        main = ["kafka.Kafka", str(self.path / "server.properties")]
        self._process = subprocess.Popen(["java", *options, "-cp", f"{self.libs}/*", *main], stdout=log, stderr=log)
        log.close()
        give_up_at = time.monotonic() + START_S_MAX
        while time.monotonic() < give_up_at and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        tail = (self.path / "kafka.log").read_text(errors="replace")[-3000:]
        self.close()
        raise AssertionError(f"Apache Kafka did not start: {tail}")

    def stop(self, *, kill: bool = False) -> None:
        """End the process and wait for it: an orderly shutdown, or kill -9."""
        process, self._process = self._process, None
        if process is None:
            return
        end(process, STOP_S_MAX, kill=kill)

    def close(self) -> None:
        self.stop(kill=True)
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
