"""Three controllers as processes, killed with -9 one after the other."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamlog.broker.peer import PeerConnection, PeerGone, connect
from streamlog.env import real_env
from streamlog.wire.messages.describe_quorum import DescribeQuorumRequest, PartitionData, TopicData
from streamlog.wire.messages.describe_quorum_response import DescribeQuorumResponse
from tests.broker.raft.controllers import Controllers

WITHOUT_LEADER_SECONDS_MAX = 2.0
"""On a quiet machine a new one leads after 0.1 to 0.3 s."""

ASK = DescribeQuorumRequest(
    topics=[TopicData(topic_name="__cluster_metadata", partitions=[PartitionData(partition_index=0)])]
)


class ControllerProcess:
    def __init__(self, found: Controllers, number: int) -> None:
        settings = [f"{name}={value}" for name, value in found.values(number).items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamlog", "broker", "--data-dir", found.directory(number), *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ready on" in line, line

    def end(self, number: int) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        self.process.communicate(timeout=20)
        return self.process.returncode


class Observer:
    """Who asks all of them who leads."""

    def __init__(self, found: Controllers) -> None:
        self._found = found
        self._connections: dict[int, PeerConnection] = {}

    async def ask(self, number: int) -> DescribeQuorumResponse | None:
        try:
            connection = self._connections.get(number)
            if connection is None or connection.closed is not None:
                connection = await connect(self._found.env, "127.0.0.1", self._found.ports[number - 1], "observer")
                self._connections[number] = connection
            response = await connection.request(ASK)
        except PeerGone:
            return None
        assert isinstance(response, DescribeQuorumResponse)
        return response

    async def leader(self) -> tuple[int, int]:
        """Who leads, and in which epoch, as it says of itself."""
        async with asyncio.timeout(20):
            while True:
                for number in range(1, len(self._found.ports) + 1):
                    response = await self.ask(number)
                    if response is not None:
                        (data,) = response.topics[0].partitions
                        if data.error_code == 0 and data.leader_id == number:
                            return number, data.leader_epoch
                await asyncio.sleep(0.005)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


async def test_another_leads_soon_after_the_leader_is_killed(tmp_path: Path) -> None:
    """Three times, each in a later epoch; the one that was killed comes back."""
    found = Controllers(tmp_path)
    processes = {number: ControllerProcess(found, number) for number in (1, 2, 3)}
    observer = Observer(found)
    try:
        for process in processes.values():
            process.wait_ready()
        leader, epoch = await observer.leader()
        for _ in range(3):
            processes[leader].end(signal.SIGKILL)
            killed, killed_at, before = leader, time.monotonic(), epoch
            leader, epoch = await observer.leader()
            assert leader != killed
            assert epoch > before
            assert time.monotonic() - killed_at < WITHOUT_LEADER_SECONDS_MAX
            processes[killed] = ControllerProcess(found, killed)
            processes[killed].wait_ready()
    finally:
        observer.close()
        codes = [process.end(signal.SIGTERM) for process in processes.values()]
        await found.close()
    assert codes == [0, 0, 0]


async def test_who_cannot_be_reached_is_gone(tmp_path: Path) -> None:
    """A peer's port that nobody listens on."""
    found = Controllers(tmp_path, count=1)
    with pytest.raises(PeerGone, match="cannot be reached"):
        await connect(real_env(), "127.0.0.1", found.ports[0], "test")
    await found.close()
