"""The cluster that client tests run against: our own broker, a real Apache Kafka, or one that runs already.

STREAMLOG_TEST_BOOTSTRAP   host:port of a running cluster
STREAMLOG_TEST_BROKER      "streamlog" or "kafka": which one to start; by default ours if it is there, else Kafka
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.kafka_node import KafkaNode, free_port, kafka_libs
from tests.processes import end

STOP_S_MAX = 15.0


class BrokerUnderTest(Protocol):
    """One node. `proxied` is another listener of it, whose advertised port is `proxy_port`: put a proxy there."""

    proxied: tuple[str, int] | None
    proxy_port: int

    @property
    def bootstrap(self) -> str: ...

    def start(self) -> None: ...
    def stop(self, *, kill: bool = False) -> None: ...


class RunningCluster:
    """Somebody else's; it cannot be stopped."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.proxied: tuple[str, int] | None = None
        self.proxy_port = 0

    def start(self) -> None:
        pytest.skip("the cluster under test is not ours to restart")

    def stop(self, *, kill: bool = False) -> None:
        pytest.skip("the cluster under test is not ours to stop")


class StreamlogNode:
    """Our own broker as a process."""

    def __init__(self, directory: Path) -> None:
        port, inner, self.proxy_port = free_port(), free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        self.proxied: tuple[str, int] | None = ("127.0.0.1", inner)
        self._settings = [
            f"listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{inner}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{self.proxy_port}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
            "group.initial.rebalance.delay.ms=0",
            "group.min.session.timeout.ms=100",
            "log.retention.check.interval.ms=1000",
        ]
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlog", "broker", "--data-dir", str(self._directory), *self._settings]
        log = (self._directory.parent / "broker.log").open("ab")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        assert self._process.stdout is not None, "stdout is a pipe"
        line = self._process.stdout.readline()
        if not re.search(r":\d+", line):
            self.stop(kill=True)
            raise AssertionError((self._directory.parent / "broker.log").read_text())

    def stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        end(process, STOP_S_MAX, kill=kill)
        if process.stdout is not None:
            process.stdout.close()


class ProxiedKafka(KafkaNode):
    """Apache Kafka with a second listener that clients reach through a proxy of the test."""

    def __init__(self, libs: Path) -> None:
        port, inner, self.proxy_port = free_port(), free_port(), free_port()
        self.proxied: tuple[str, int] | None = ("127.0.0.1", inner)
        super().__init__(
            libs,
            port=port,
            properties={
                "listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{inner},"
                "CONTROLLER://127.0.0.1:%controller%",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{self.proxy_port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            },
        )


def broker_kind() -> str:
    """ "running", "streamlog", "kafka", or "" when there is none to be had."""
    if os.environ.get("STREAMLOG_TEST_BOOTSTRAP"):
        return "running"
    named = os.environ.get("STREAMLOG_TEST_BROKER")
    if named:
        return named
    if importlib.util.find_spec("streamlog.__main__") is not None:
        return "streamlog"
    return "kafka" if kafka_libs() is not None else ""


@contextmanager
def broker_under_test() -> Iterator[BrokerUnderTest]:
    """Start the chosen broker; stop it afterwards. Skips when there is none."""
    kind = broker_kind()
    if kind == "running":
        yield RunningCluster(os.environ["STREAMLOG_TEST_BOOTSTRAP"])
    elif kind == "streamlog":
        with tempfile.TemporaryDirectory(prefix="streamlog-test-") as directory:
            data = Path(directory) / "data"
            data.mkdir()
            node = StreamlogNode(data)
            try:
                yield node
            finally:
                node.stop()
    elif kind == "kafka":
        libs = kafka_libs()
        if libs is None:
            pytest.skip("no Apache Kafka here; set STREAMLOG_KAFKA_LIBS to a directory with its jars")
        with ProxiedKafka(libs) as kafka:
            yield kafka
    else:
        pytest.skip("no broker to test against")
