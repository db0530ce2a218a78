"""A real broker for end-to-end tests: `streamlog broker` in a process of its own, or whatever already runs at
STREAMLOG_TEST_BOOTSTRAP, an Apache Kafka for instance."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from streamlog.client.admin import Admin, SomeFailed
from streamlog.env import real_env

START_TIMEOUT_S = 30.0


class LiveBroker:
    """One broker process on one data directory."""

    def __init__(self, data_dir: Path, settings: Sequence[str] = ()) -> None:
        """`settings`: as on the command line, name=value."""
        self.data_dir = data_dir
        self._settings = settings
        self.address = "127.0.0.1:0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, or start again on the same address."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamlog",
            "broker",
            "--data-dir",
            str(self.data_dir),
            "--listen",
            self.address,
            "group.initial.rebalance.delay.ms=0",
            *self._settings,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = (await self._process.stdout.readline()).decode()
        found = re.search(r"ready on (\S+)", line)
        assert found is not None, f"the broker said {line!r}"
        self.address = found[1]

    async def stop(self, how: int = signal.SIGTERM) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, how)
            await self._process.wait()


class RunningBroker(LiveBroker):
    """Somebody else's: its topics are deleted before each test, and tests that stop it are skipped."""

    async def start(self) -> None:
        self.address = os.environ["STREAMLOG_TEST_BOOTSTRAP"]
        async with Admin(self.address, env=real_env()) as admin, asyncio.timeout(START_TIMEOUT_S):
            while left := [name for name in await admin.list_topics() if not name.startswith("__")]:
                with suppress(SomeFailed):  # some are gone, and Kafka has not told all of itself yet
                    await admin.delete_topics(left)
                await asyncio.sleep(0.05)

    async def stop(self, how: int = signal.SIGTERM) -> None:
        pytest.skip("the broker under test is not ours to stop")


@asynccontextmanager
async def live_broker(data_dir: Path, settings: Sequence[str] = ()) -> AsyncIterator[LiveBroker]:
    if os.environ.get("STREAMLOG_TEST_BOOTSTRAP"):
        running = RunningBroker(data_dir)
        await running.start()
        yield running
        return
    broker = LiveBroker(data_dir, settings)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()
