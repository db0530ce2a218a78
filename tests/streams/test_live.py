"""Apps against a real broker: what comes out equals what a loop over the input would give."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.streams.live import live_broker
from tests.streams.words import PARTITIONS, counts_in, send_lines, until, until_counted, word_count


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    """Address of a broker of ours; or of the one that STREAMLOG_TEST_BOOTSTRAP names."""
    async with live_broker(tmp_path / "broker") as running:
        yield running.address


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An app id that no other test uses, so that tests can share a broker."""
    return f"words-{os.getpid()}-{random.getrandbits(32):08x}"


async def test_word_count_equals_brute_force(broker: str, name: str, tmp_path: Path) -> None:
    """Two agents, a topic between them, a table with its changelog."""
    app = word_count(name)
    async with app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker:
        expected = await send_lines(broker, name, 2000, seed=1)
        assert await until_counted(broker, name, expected) == expected
        status = worker.status()
        assert status.healthy
        assert [task.state for task in status.tasks] == ["running"] * PARTITIONS


async def test_a_clean_restart_in_the_middle_counts_everything_once(broker: str, name: str, tmp_path: Path) -> None:
    """Stopped and started again, three times, on one data directory, while lines keep coming."""
    expected: Counter[str] = Counter()
    for round_number in range(3):
        async with word_count(name).running(broker=broker, data_dir=str(tmp_path / "state")) as worker:
            expected += await send_lines(broker, name, 1000, seed=round_number)
            await until(lambda worker=worker: worker.status().commits > 3)  # type: ignore[misc]
    async with word_count(name).running(broker=broker, data_dir=str(tmp_path / "state")):
        assert await until_counted(broker, name, expected) == expected


async def test_workers_that_join_and_leave_count_everything_once(broker: str, name: str, tmp_path: Path) -> None:
    """A second worker takes half of the tasks, the first leaves, the second has all: clean stops repeat nothing."""
    first = word_count(name).running(broker=broker, data_dir=str(tmp_path / "first"))
    second = word_count(name).running(broker=broker, data_dir=str(tmp_path / "second"))
    one = await first.__aenter__()
    expected = await send_lines(broker, name, 1000, seed=1)
    two = await second.__aenter__()
    await until(lambda: len(two.status().tasks) == len(one.status().tasks) == PARTITIONS // 2)
    expected += await send_lines(broker, name, 1000, seed=2)
    await until(lambda: all(task.state == "running" for task in two.status().tasks))
    await first.__aexit__(None, None, None)
    expected += await send_lines(broker, name, 1000, seed=3)
    assert await until_counted(broker, name, expected) == expected
    await until(lambda: len(two.status().tasks) == PARTITIONS)
    await second.__aexit__(None, None, None)
    async with word_count(name).running(broker=broker, data_dir=str(tmp_path / "first")):
        await asyncio.sleep(0.5)
        assert await counts_in(broker, name) == expected


async def test_tasks_move_between_two_workers_on_one_data_directory(broker: str, name: str, tmp_path: Path) -> None:
    """Each has a slot of its own in it. One is killed -9, comes back to its slot, and has all when the other leaves."""
    data_dir = tmp_path / "state"
    everything = {f"task-{number}" for number in range(PARTITIONS)}
    expected: Counter[str] = Counter()

    def tasks_in(slot: int) -> set[str]:
        return {path.name for path in data_dir.glob(f"{name}/*/worker-{slot}/task-*")}

    async def count_more(seed: int) -> None:
        nonlocal expected
        expected += await send_lines(broker, name, 500, seed=seed)
        found = await until_counted(broker, name, expected)
        assert not expected - found, "no word may be missing, whoever had counted it"

    here = word_count(name).running(broker=broker, data_dir=str(data_dir))
    worker = await here.__aenter__()

    async def until_running(count: int) -> None:
        await until(lambda: [task.state for task in worker.status().tasks] == ["running"] * count)

    await until_running(PARTITIONS)
    other = await start_worker(broker, name, data_dir)
    await until_running(PARTITIONS // 2)
    await count_more(1)
    assert (tasks_in(0), len(tasks_in(1))) == (everything, PARTITIONS // 2)
    other.send_signal(signal.SIGKILL)
    await other.wait()
    await until_running(PARTITIONS)  # those of the other are restored from their changelogs, or what is new of them
    await count_more(2)
    other = await start_worker(broker, name, data_dir)
    await until_running(PARTITIONS // 2)
    await count_more(3)
    await here.__aexit__(None, None, None)
    await count_more(4)
    assert tasks_in(1) == everything
    assert not tasks_in(2)
    other.send_signal(signal.SIGTERM)
    assert await other.wait() == 0


async def test_more_workers_than_partitions_is_a_normal_state(broker: str, name: str, tmp_path: Path) -> None:
    """The idle ones are members without tasks, and take over when somebody leaves."""
    async with word_count(name).running(broker=broker, data_dir=str(tmp_path / "0")) as busy:
        workers = [
            word_count(name).running(broker=broker, data_dir=str(tmp_path / str(number)))
            for number in range(1, PARTITIONS + 2)
        ]
        others = [await worker.__aenter__() for worker in workers]
        await until(lambda: sum(len(one.status().tasks) for one in (busy, *others)) == PARTITIONS, 60)
        expected = await send_lines(broker, name, 500, seed=1)
        assert await until_counted(broker, name, expected) == expected
        for worker in workers:
            await worker.__aexit__(None, None, None)
        await until(lambda: len(busy.status().tasks) == PARTITIONS)
        expected += await send_lines(broker, name, 500, seed=2)
        assert await until_counted(broker, name, expected) == expected


async def kill_and_count(broker: str, name: str, data_dir: Path, kills: int) -> tuple[Counter[str], Counter[str]]:
    """Kill a worker process -9 at random moments while lines arrive; then let it finish. Expected and found counts."""
    rng = random.Random(name)
    expected: Counter[str] = Counter()
    done = asyncio.Event()

    async def keep_sending() -> None:
        while not done.is_set():
            expected.update(await send_lines(broker, name, 300, seed=rng.getrandbits(32)))
            await asyncio.sleep(0.05)

    process = await start_worker(broker, name, data_dir)
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_sending())
        for _ in range(kills):
            await asyncio.sleep(1.5 * rng.random())
            process.send_signal(signal.SIGKILL)
            await process.wait()
            process = await start_worker(broker, name, data_dir)
        done.set()
    found = await until_counted(broker, name, expected, 60)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    return expected, found


async def start_worker(broker: str, name: str, data_dir: Path) -> asyncio.subprocess.Process:
    arguments = [sys.executable, "-m", "tests.streams.worker_process", broker, name, str(data_dir)]
    with (data_dir.parent / "worker.log").open("a") as log:
        process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"started"
    return process


async def test_a_killed_worker_loses_nothing(broker: str, name: str, tmp_path: Path) -> None:
    """At least once: after kill -9 every word is counted, some perhaps twice."""
    expected, found = await kill_and_count(broker, name, tmp_path / "state", kills=3)
    assert not expected - found, "no word may be missing"


@pytest.mark.crash
@pytest.mark.timeout(900)
async def test_a_worker_killed_many_times_loses_nothing(broker: str, name: str, tmp_path: Path) -> None:
    """The same with 25 kills, so that they hit every step of a commit and of a restore."""
    expected, found = await kill_and_count(broker, name, tmp_path / "state", kills=25)
    assert not expected - found, "no word may be missing"
