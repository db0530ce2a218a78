"""What the demo and the tests of the examples share: worker processes, sending, and knowing when all is processed.

A program of yours needs none of this: `streamlog worker` runs workers, and `topic.send` sends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import streamlog
from streamlog.client.admin import Admin
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import real_env

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.25
STALLED_S = 60.0  # without any progress we give up and show what the workers said
STOP_S = 30.0
LOG_START_S = 3.0
LINES_SHOWN = 15  # of a worker's log

SendRecord: TypeAlias = tuple[Any, Any, int]
"""Key, value, timestamp in ms."""


class Failed(Exception):
    """It cannot go on; the message says why."""


class Workers:
    """Worker processes of one app, each with a log file. None outlives `stop_all`."""

    def __init__(self, target: str, data_dir: Path, broker: str | None = None, *, cwd: Path = ROOT) -> None:
        """Workers of the app that -A `target` names in `cwd`; without a broker on an embedded log in `data_dir`."""
        self.data_dir = data_dir
        self._target, self._broker, self._cwd = target, broker, cwd
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "streamlog", "-A", self._target, "worker", "--web", "127.0.0.1:0"]
        command += ["--data-dir", str(self.data_dir)]
        command += [] if self._broker is None else ["--broker", self._broker]
        with self._log(name).open("ab") as log:
            # A session of its own: Ctrl-C is for us, and we then stop our workers in order.
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._cwd, start_new_session=True
            )

    async def stop(self, name: str) -> None:
        """Stop a worker as Ctrl-C would: it finishes the events in hand, commits, and leaves the group."""
        process = self._processes.pop(name)
        process.terminate()
        deadline_s = time.monotonic() + STOP_S
        while process.poll() is None and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        if process.poll() is None:
            process.kill()
            process.wait()
            raise Failed(f"worker {name} did not stop within {STOP_S:g} s\n{self.tail(name)}")
        if process.returncode != 0:
            raise Failed(f"worker {name} ended with exit code {process.returncode}\n{self.tail(name)}")

    def check(self) -> None:
        """Raises Failed when a worker ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise Failed(f"worker {name} ended by itself, exit code {process.returncode}\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(f"  {name}: {line[:300]}" for line in lines[-LINES_SHOWN:])

    def tails(self) -> str:
        return "\n".join(self.tail(name) for name in sorted(self._processes))

    def stop_all(self) -> None:
        """End every worker, and the embedded log with them; kill what does not end in time."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        if self._broker is None:
            self._stop_log()

    def _log(self, name: str) -> Path:
        return self.data_dir / f"worker-{name}.log"

    async def address(self) -> str:
        """Where the broker is; waits until the embedded log has started."""
        if self._broker is not None:
            return self._broker
        deadline_s = time.monotonic() + STALLED_S
        while (found := self._announced()) is None:
            self.check()
            if time.monotonic() > deadline_s:
                raise Failed(f"the embedded log did not start\n{self.tails()}")
            await asyncio.sleep(0.05)
        return found[0]

    def _announced(self) -> tuple[str, int] | None:
        """Where the embedded log listens, and its process id."""
        try:
            announced = json.loads((self.data_dir / "log" / "broker.json").read_text())
        except (OSError, ValueError):
            return None
        return announced["listen"], announced["pid"]

    def _stop_log(self) -> None:
        """The embedded log ends by itself half a minute after its last client. Nobody should wait for that here."""
        deadline_s = time.monotonic() + LOG_START_S
        while (found := self._announced()) is None:
            if not (self.data_dir / "log").exists() or time.monotonic() > deadline_s:
                return
            time.sleep(0.05)  # interrupted while the log was starting: it has not said yet where it is
        deadline_s = time.monotonic() + STOP_S
        number = signal.SIGTERM
        try:
            while True:
                os.kill(found[1], number)
                time.sleep(0.05)
                number = signal.SIGTERM if time.monotonic() < deadline_s else signal.SIGKILL
        except ProcessLookupError:
            return


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[tuple[Admin, Producer]]:
    env = real_env()
    async with Admin(address, env=env) as admin, Producer(address, env=env, auto_create_topics=False) as producer:
        yield admin, producer


async def send_all(producer: Producer, topic: streamlog.Topic[Any, Any], records: Iterable[SendRecord]) -> int:
    """Send records with their keys and times, without asking for each one; returns how many."""
    await producer.partitions(topic.name)  # from here on the producer can tell partitions without waiting
    count = 0
    for key, value, timestamp_ms in records:
        key_bytes = None if key is None else topic.key_serde.encode(key)
        partition = producer.partition_for(topic.name, key_bytes)
        producer.append(topic.name, partition, key_bytes, topic.value_serde.encode(value), timestamp_ms)
        count += 1
        if count % 500 == 0:
            await producer.room()
    await producer.flush()
    return count


class Progress:
    """How far an app is, as its group's committed offsets say."""

    def __init__(self, app: streamlog.App, admin: Admin, workers: Workers) -> None:
        self._app, self._admin, self._workers = app, admin, workers
        self._topics = sorted({name for lane in app.topology().lanes for name in lane.sources})
        self._moved_at_s = time.monotonic()
        self._seen: object = None
        self.lag: dict[TopicPartition, int] = {}
        self.committed: dict[str, int] = {}  # by topic

    async def topics_made(self) -> None:
        """Wait until a worker has created the app's topics."""
        wanted = {node.name for node in self._app.topology().topics}
        while not wanted <= set(await self._admin.list_topics()):
            self._check("the workers do not create the app's topics")
            await asyncio.sleep(0.1)

    async def look(self) -> bool:
        """Whether everything that is in the log is processed and committed.

        Offsets are asked for before ends: what is committed includes its outputs, so that if nothing is left at the
        later moment, nothing was on its way at the earlier.
        """
        offsets = await self._admin.list_group_offsets(self._app.id)
        if offsets != self._seen:
            self._seen, self._moved_at_s = offsets, time.monotonic()
        self.committed = {
            topic: sum(one.offset for partition, one in offsets.items() if partition.topic == topic)
            for topic in self._topics
        }
        ends = await self._ends()
        reached = {partition: offsets[partition].offset for partition in ends if partition in offsets}
        self.lag = {one: end - reached.get(one, 0) for one, end in ends.items() if end != reached.get(one, 0)}
        self._check(f"nothing moves: {', '.join(f'{one} lacks {lag:,}' for one, lag in sorted(self.lag.items()))}")
        return not self.lag

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.look()
            await asyncio.sleep(POLL_S)

    async def until_done(self) -> None:
        """Wait until everything that was sent is processed and committed, by every agent."""
        while not await self.look():
            await asyncio.sleep(POLL_S)

    async def until_members(self, count: int) -> None:
        """Wait until the group is `count` workers, and at rest."""
        self._moved_at_s = time.monotonic()
        while True:
            group = (await self._admin.describe_groups([self._app.id])).get(self._app.id)
            if group is not None and group.state == "Stable" and len(group.members) == count:
                return
            self._check(f"the group does not come to {count} workers")
            await asyncio.sleep(POLL_S)

    def _check(self, trouble: str) -> None:
        self._workers.check()
        if time.monotonic() - self._moved_at_s > STALLED_S:
            raise Failed(f"for {STALLED_S:g} s {trouble}\n{self._workers.tails()}")

    async def _ends(self) -> dict[TopicPartition, int]:
        infos = await self._admin.describe_topics(self._topics)
        asked = {TopicPartition(name, n): -1 for name, info in infos.items() for n in range(len(info.partitions))}
        return {partition: found.offset for partition, found in (await self._admin.list_offsets(asked)).items()}
