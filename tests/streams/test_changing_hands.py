"""A task that begins again while the group gives its partitions to another worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

import streamlog
from streamlog.env import real_env
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.streams.task import TaskState
from streamlog.streams.worker import Worker
from tests.streams.live import live_broker
from tests.streams.words import until

SLOW_CLOSE_S_MAX = 20.0


class SlowStore(MemoryStore):
    may_close = threading.Event()

    def close(self) -> None:
        self.may_close.wait(SLOW_CLOSE_S_MAX)
        super().close()


class SlowEngine(MemoryEngine):
    """A disk that takes its time when a store is closed."""

    def open(self, path: str) -> MemoryStore:
        store = super().open(path)
        store.__class__ = SlowStore
        return store


def counting() -> streamlog.App:
    app = streamlog.App("hands", partitions=2)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(app.topic("numbers", key=str, value=int, partitions=2))
    async def count(stream: streamlog.Stream[str, int]) -> None:
        async for key, number in stream.items():
            counts[key] += number

    return app


async def test_a_task_that_begins_again_does_not_stay_when_its_partitions_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Afterwards each task has one owner, and runs there."""
    caplog.set_level(logging.INFO)
    SlowStore.may_close.set()
    async with live_broker(tmp_path / "broker") as broker:
        workers = [
            Worker(
                counting(),
                env=real_env(),
                broker=broker.address,
                data_dir=str(tmp_path / name),
                engine=SlowEngine() if name == "one" else None,
                create_topics=True,
                session_timeout_ms=6000,
            )
            for name in ("one", "two")
        ]
        one, two = workers
        async with one:
            await until(lambda: one.assignment is not None and len(one.assignment.running) == 2)
            assert one.assignment is not None
            SlowStore.may_close.clear()
            again = asyncio.ensure_future(one.assignment.reset(list(one.assignment.tasks.values()), Exception("lost")))
            async with two:
                await until(lambda: "group=hands revoked" in caplog.text, 20)
                await asyncio.sleep(0)
                SlowStore.may_close.set()
                await again

                def running() -> list[int]:
                    tasks = [task for one in workers if one.assignment for task in one.assignment.tasks.values()]
                    return sorted(task.number for task in tasks if task.state is TaskState.RUNNING)

                await until(lambda: running() == [0, 1], 20)
                assert two.assignment is not None
                assert sorted([*one.assignment.tasks, *two.assignment.tasks]) == [0, 1]
                assert one.assignment.errors == {}
