"""Workers that were frozen while others took their tasks over, and go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamlog
import streamlog.serde
from streamlog.client.partitioner import partition_for_key
from streamlog.client.producer import Producer
from streamlog.env import real_env
from streamlog.state.query import TableReader
from streamlog.streams.worker import Worker
from tests.streams.live import live_broker
from tests.streams.test_live import start_worker
from tests.streams.words import PARTITIONS, WORDS, until, until_counted, word_count

SESSION_MS = 6_000
"""As short as brokers take."""


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    async with live_broker(tmp_path / "broker") as running:
        yield running.address


class Load:
    """Words on their way to the counting agent, some thousands a second, until it is ended."""

    def __init__(self, broker: str, name: str) -> None:
        self.expected: Counter[str] = Counter()
        self._broker, self._topic = broker, f"{name}-words"
        self._ended = asyncio.Event()

    def end(self) -> None:
        self._ended.set()

    async def run(self) -> None:
        env, rng = real_env(), random.Random(self._topic)
        encode = streamlog.serde.serde_for(str).encode
        async with Producer(self._broker, env=env) as producer:
            count = await producer.partitions(self._topic)
            while not self._ended.is_set():
                for word in rng.choices(WORDS, k=50):
                    key = word.encode()
                    producer.append(self._topic, partition_for_key(key, count), key, encode(word), env.clock.wall_ms())
                    self.expected[word] += 1
                await asyncio.sleep(0.02)


def running_tasks(worker: Worker) -> int:
    return sum(task.state == "running" for task in worker.status().tasks)


def rows(worker: Worker) -> Counter[str]:
    """The table as the worker's stores have it."""
    readers = worker.query("counts").values()
    return Counter({key: value for one in readers if isinstance(one, TableReader) for key, value in one.scan().rows})


async def test_a_worker_that_is_thawed_after_its_session_writes_no_old_rows(broker: str, tmp_path: Path) -> None:
    """It is stopped between commits under load, with changed rows that wait, and another one counts on from what is
    committed. Its rows would lie behind the other's newer ones, and be what every later restore believes."""
    name = f"zombies-{os.getpid()}-{random.getrandbits(32):08x}"
    zombie = await start_worker(broker, name, tmp_path / "zombie")
    load = Load(broker, name)
    try:
        heir = word_count(name).running(broker=broker, data_dir=str(tmp_path / "heir"), session_timeout_ms=SESSION_MS)
        async with heir as worker, asyncio.TaskGroup() as group:
            await until(lambda: running_tasks(worker) == len(worker.status().tasks) == PARTITIONS // 2)
            group.create_task(load.run())
            await until(lambda: load.expected.total() > 2_000)
            zombie.send_signal(signal.SIGSTOP)
            await until(lambda: running_tasks(worker) == PARTITIONS, 60)
            load.end()
            before = await until_counted(broker, name, load.expected, 60)
            assert not load.expected - before
            zombie.send_signal(signal.SIGCONT)
            await until(lambda: running_tasks(worker) == len(worker.status().tasks) == PARTITIONS // 2, 60)
            found = await until_counted(broker, name, load.expected, 1)
            assert not load.expected - found, "the thawed worker put old rows behind newer ones"
            assert found == before, "nothing was processed that was not committed before"
        async with word_count(name).running(
            broker=broker, data_dir=str(tmp_path / "zombie"), session_timeout_ms=SESSION_MS
        ) as worker:
            zombie.send_signal(signal.SIGTERM)
            assert await zombie.wait() == 0
            await until(lambda: running_tasks(worker) == PARTITIONS, 60)
            assert rows(worker) == before, "a restore finds what was counted"
        async with word_count(name).running(
            broker=broker, data_dir=str(tmp_path / "zombie"), session_timeout_ms=SESSION_MS
        ) as worker:
            await until(lambda: running_tasks(worker) == PARTITIONS, 60)
            assert rows(worker) == before, "so does the store of the worker that was frozen"
    finally:
        if zombie.returncode is None:
            zombie.send_signal(signal.SIGKILL)
            await zombie.wait()


async def test_what_no_task_sends_needs_no_membership(broker: str, tmp_path: Path) -> None:
    """A web handler's sends go through while the worker is out of its group; a task's outputs wait to see whether they
    are still its own."""
    name = f"outside-{os.getpid()}-{random.getrandbits(32):08x}"
    app = word_count(name)
    words = app.topics[f"{name}-words"]
    async with app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker:
        await until(lambda: running_tasks(worker) == PARTITIONS)
        worker._lease.give(None)
        async with asyncio.timeout(10):
            await words.send("word0", key="word0")
        expected = Counter({"word0": 1})
        assert await until_counted(broker, name, expected, 30) == expected  # with the next heartbeat
