"""What runs on one worker of a group: it begins after the group is joined, moves with task 0, and ends where it was."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamlog
from streamlog.streams.app import App
from tests.streams.live import live_broker
from tests.streams.words import until

PARTITIONS = 2


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    async with live_broker(tmp_path / "broker") as running:
        yield running.address


def led(name: str, said: list[str], *, topics: bool = True) -> App:
    """An app whose leader says when it begins and ends, and whose leader's timer ticks."""
    app = streamlog.App("led", partitions=PARTITIONS)
    if topics:
        numbers = app.topic("numbers", value=int, partitions=PARTITIONS)

        @app.agent(numbers)
        async def reads(stream: streamlog.Stream[str, int]) -> None:
            async for number in stream:
                said.append(f"{name} read {number}")

    @app.task(on_leader=True)
    async def lead() -> None:
        said.append(f"{name} leads")
        try:
            await asyncio.Event().wait()
        finally:
            said.append(f"{name} stops")

    @app.timer(0.05, on_leader=True)
    async def tick() -> None:
        said.append(f"{name} ticks")

    @app.task
    async def everywhere() -> None:
        said.append(f"{name} runs")

    return app


async def test_the_leaders_task_runs_on_one_worker_and_moves_when_that_leaves(broker: str, tmp_path: Path) -> None:
    """Begun after joining, ended before the other begins, and the timer with it."""
    said: list[str] = []
    first = led("first", said).running(broker=broker, data_dir=str(tmp_path / "first"))
    second = led("second", said).running(broker=broker, data_dir=str(tmp_path / "second"))
    one = await first.__aenter__()
    await until(lambda: "first leads" in said and "first ticks" in said)
    two = await second.__aenter__()
    await until(lambda: len(two.status().tasks) == len(one.status().tasks) == PARTITIONS // 2)
    assert (one.leader, two.leader) in ((True, False), (False, True))
    leaver, stays = (first, "second") if one.leader else (second, "first")
    assert said.count("first leads") + said.count("second leads") == 1 + said.count("first stops")
    await leaver.__aexit__(None, None, None)
    await until(lambda: f"{stays} leads" in said and said[-1] == f"{stays} ticks")
    steps = [what for what in said if what.endswith(("leads", "stops"))]
    assert [what.split()[1] for what in steps] == ["leads", "stops"] * (len(steps) // 2) + ["leads"] * (len(steps) % 2)
    after = said[max(index for index, what in enumerate(said) if what == f"{stays} leads") :]
    assert {what.split()[0] for what in after} == {stays}, "nothing of the old leader runs on"
    assert said.count("first runs") == said.count("second runs") == 1
    await (second if leaver is first else first).__aexit__(None, None, None)
    assert said.count("first leads") + said.count("second leads") == said.count("first stops") + said.count(
        "second stops"
    )


async def test_an_app_without_topics_has_a_leader_too(broker: str, tmp_path: Path) -> None:
    """Its group shares a topic of its own, so that there is a task 0 to own."""
    said: list[str] = []
    async with led("first", said, topics=False).running(broker=broker, data_dir=str(tmp_path / "first")):
        await until(lambda: "first leads" in said)
        async with led("second", said, topics=False).running(broker=broker, data_dir=str(tmp_path / "second")):
            await until(lambda: "second runs" in said)
            await asyncio.sleep(0.3)
            assert "second leads" not in said
        await until(lambda: said[-1] == "first ticks")


async def test_hooks_run_when_the_group_is_joined_and_before_the_first_event(broker: str, tmp_path: Path) -> None:
    """What waits in the log is processed after the slowest hook, and other workers may come and go meanwhile."""
    said: list[str] = []
    app = led("again", said)
    go_on = asyncio.Event()

    @app.on_started
    async def hook() -> None:
        said.append("hook begins")
        await go_on.wait()
        said.append("hook ends")

    async with app.running(broker=broker, data_dir=str(tmp_path / "first")) as worker:
        await app.topics["numbers"].send(8, key="a")
        await until(lambda: "hook begins" in said)
        assert worker.assignment is not None
        assert sorted(worker.assignment.tasks) == [0, 1], "the group is joined"
        async with led("other", said).running(broker=broker, data_dir=str(tmp_path / "other")) as other:
            await until(lambda: len(other.status().tasks) == 1)
        await until(lambda: worker.assignment is not None and sorted(worker.assignment.tasks) == [0, 1])
        await asyncio.sleep(0.2)
        assert "again read 8" not in said
        go_on.set()
        await until(lambda: "again read 8" in said)
    assert said.index("hook ends") < said.index("again read 8")


async def test_a_killed_leader_is_followed_by_another(broker: str, tmp_path: Path) -> None:
    """kill -9: when its session has ended, the group gives task 0 away, and with it the lead."""
    said: list[str] = []
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, sys\n"
        "from tests.streams.test_leader import led\n"
        "class Said(list):\n"
        "    def append(self, what): print(what, flush=True)\n"
        "async def main():\n"
        "    async with led('killed', Said()).running(broker=sys.argv[1], data_dir=sys.argv[2],\n"
        "                                             session_timeout_ms=6000):\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n",
        broker,
        str(tmp_path / "killed"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while (await process.stdout.readline()) != b"killed leads\n":
            pass
    async with led("heir", said).running(
        broker=broker, data_dir=str(tmp_path / "heir"), session_timeout_ms=6000
    ) as heir:
        await until(lambda: len(heir.status().tasks) == 1)
        assert not heir.leader, "a task stays with its owner while that lives"
        os.kill(process.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        await process.wait()
        await until(lambda: "heir leads" in said)
        assert time.monotonic() - killed_at > 1
        assert heir.leader


async def test_a_task_that_does_not_end_when_cancelled_keeps_no_worker_from_stopping(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log, and the worker stops without it."""
    app = streamlog.App("stubborn", partitions=1)
    running = asyncio.Event()
    free = asyncio.Event()

    @app.task(on_leader=True)
    async def stubborn() -> None:
        running.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    loop = asyncio.get_running_loop()
    async with app.running(broker=broker, data_dir=str(tmp_path / "state")):
        await running.wait()
        began = loop.time()
    assert loop.time() - began < 10
    assert "stubborn was cancelled and does not end" in caplog.text
    free.set()
