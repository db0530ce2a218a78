"""Brokers to test against: one in this process, on the test's own loop, and one as a process that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import msgspec

from streamlog.broker.config import load_config
from streamlog.broker.node import Node, start_node
from streamlog.broker.run import RunningBroker
from streamlog.env import Env, real_env
from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

START_SECONDS_MAX = 20.0


@asynccontextmanager
async def running_node(data_dir: Path, env: Env | None = None, /, **settings: str) -> AsyncIterator[Node]:
    """A broker on the running loop; settings are Kafka's names with `_` for `.`."""
    values = {"listeners": "PLAINTEXT://127.0.0.1:0", "group.initial.rebalance.delay.ms": "0"}
    values |= {name.replace("_", "."): value for name, value in settings.items()}
    config, _ = load_config(values)
    env = env or real_env()
    node = await start_node(env, config, str(data_dir))
    try:
        yield node
    finally:
        await node.close()
        env.offload.close()


class RawClient:
    """A socket that speaks frames and believes nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.correlation_id = 0

    @classmethod
    async def connect(cls, node: Node) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.listening[0].port, limit=64 * 1024 * 1024)
        return cls(reader, writer)

    async def ask(self, request: Request, version: int, response: type[Response]) -> Response:
        self.send(request, version)
        return await self.answer(version, response)

    def send(self, request: Request, version: int, client_id: str = "test") -> None:
        self.correlation_id += 1
        self.writer.write(encode_request(request, version, self.correlation_id, client_id))

    def send_frame(self, body: bytes) -> None:
        self.writer.write(len(body).to_bytes(4, "big") + body)

    async def frame(self) -> bytes:
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        return await self.reader.readexactly(size)

    async def answer(self, version: int, response: type[Response]) -> Response:
        correlation_id, message = decode_response(response, version, await self.frame())
        assert correlation_id == self.correlation_id
        return message

    async def is_closed(self) -> bool:
        """Whether the broker closes the connection without another byte."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


@asynccontextmanager
async def client_of(node: Node) -> AsyncIterator[RawClient]:
    client = await RawClient.connect(node)
    try:
        yield client
    finally:
        await client.close()


async def make_topic(client: RawClient, name: str, partitions: int = 1, **configs: str) -> None:
    request = CreateTopicsRequest(
        topics=[
            CreatableTopic(
                name=name,
                num_partitions=partitions,
                replication_factor=1,
                configs=[CreatableTopicConfig(name=n.replace("_", "."), value=v) for n, v in configs.items()],
            )
        ]
    )
    response = await client.ask(request, 7, CreateTopicsResponse)
    assert isinstance(response, CreateTopicsResponse)
    assert [topic.error_code for topic in response.topics] == [0]


def cpu_seconds(pid: int) -> float:
    """Processor time that a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def queued_seconds(pid: int) -> float:
    """How long a process's main thread was ready to run while others had the processors; 0 where nobody counts it."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


class BrokerProcess:
    """`streamlog broker` as a process of its own."""

    def __init__(self, data_dir: Path, *settings: str, listen: str = "127.0.0.1:0") -> None:
        self.data_dir = data_dir
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamlog", "broker", "--data-dir", str(data_dir), "--listen", listen, *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.ready_seconds = time.monotonic() - self.started_at
        self.cpu_seconds = cpu_seconds(self.process.pid)
        self.queued_seconds = queued_seconds(self.process.pid)
        if "ready on" not in self.line:
            _, error = self.process.communicate(timeout=START_SECONDS_MAX)
            raise AssertionError(f"the broker did not start: {self.line}{error}")
        running = msgspec.json.decode((data_dir / "broker.json").read_bytes(), type=RunningBroker)
        self.address = running.listen

    @property
    def memory_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.process.pid, signal.SIGKILL)
        self._collect()

    def stop(self) -> int:
        self.process.terminate()
        return self._collect()

    def _collect(self) -> int:
        self.process.communicate(timeout=START_SECONDS_MAX)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
