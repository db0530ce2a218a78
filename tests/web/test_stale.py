"""Reads of a partition that its worker is still restoring."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamlog
from streamlog.state.query import TableReader
from streamlog.streams.worker import Worker
from streamlog.web.asking import NoOwner
from streamlog.web.server import WebServer
from tests.streams.live import live_broker
from tests.streams.words import until


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    async with live_broker(tmp_path / "broker") as running:
        yield running.address


async def test_rows_of_a_restoring_partition_are_given_to_who_takes_stale_ones(broker: str, tmp_path: Path) -> None:
    """Others wait, and are told why; whoever takes them is told what they are."""
    name = f"stale-{os.getpid()}-{random.getrandbits(32):08x}"
    gate = asyncio.Event()

    def counted(worker: Worker) -> int | None:
        reader = worker.query("counts").get(0)
        assert reader is None or isinstance(reader, TableReader)
        return None if reader is None else reader.get("k").value

    def make() -> tuple[streamlog.App, streamlog.Topic[str, int]]:
        app = streamlog.App(name, commit_interval_ms=50)
        numbers = app.topic(f"{name}-numbers", key=str, value=int, partitions=1)
        counts = app.Table("counts", key=str, value=int, default=int)

        @app.agent(numbers)
        async def count(stream: streamlog.Stream[str, int]) -> None:
            async for _ in stream:
                counts["k"] += 1

        @app.on_started
        async def wait() -> None:
            await gate.wait()  # until then tasks restore, and do not run

        return app, numbers

    gate.set()
    app, numbers = make()
    async with app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker:
        for _ in range(3):
            await numbers.send(1, key="k")
        await until(lambda: counted(worker) == 3)
    gate.clear()
    app, _ = make()
    server = WebServer(port=0)
    async with app.running(broker=broker, data_dir=str(tmp_path / "state"), extensions=[server]) as worker:
        await until(lambda: 0 in worker.query("counts"))
        async with streamlog.connect_async(broker, app=name, timeout_s=0.5) as live:
            table = live.table("counts", key=str, value=int)
            with pytest.raises(NoOwner, match="restoring"):
                await table.read("k")
            found = await table.read("k", stale=True)
            assert found.value == 3
            assert found.staleness.state == "restoring"
            pages = [page async for page in table.pages(stale=True)]
            assert [rows for rows, _ in pages] == [[("k", 3)]]
            gate.set()
            await until(lambda: [task.state for task in worker.status().tasks] == ["running"])
            found = await table.read("k", stale=True)
            assert (found.value, found.staleness.state, found.staleness.lag) == (3, "running", 0)
