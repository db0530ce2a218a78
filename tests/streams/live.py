"""A real broker for end-to-end tests: `streamlog broker` in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

START_TIMEOUT_S = 30.0


class LiveBroker:
    """One broker process on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
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


@asynccontextmanager
async def live_broker(data_dir: Path) -> AsyncIterator[LiveBroker]:
    broker = LiveBroker(data_dir)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()
