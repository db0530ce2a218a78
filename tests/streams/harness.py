"""Runs one task of an app without any broker: records are fed by hand, outputs are collected, commits are made on
demand."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from streamlog.client.partitioner import partition_for_key
from streamlog.env import Clock, real_env
from streamlog.state.memory import MemoryEngine
from streamlog.state.store import Position
from streamlog.streams.app import App
from streamlog.streams.context import Sender
from streamlog.streams.failing import LaneFailure
from streamlog.streams.places import SourceLog, place_of
from streamlog.streams.policies import Policy
from streamlog.streams.pump import Pump
from streamlog.streams.task import Task, TaskCommit, TaskState
from streamlog.streams.timestamps import TIMESTAMP_MS_MAX, refused_time
from streamlog.wire.records import RecordColumns

Sent = tuple[bytes | None, bytes | None, int, tuple[tuple[str, bytes | None], ...]]
"""Key, value, timestamp in ms, headers."""


@dataclass
class CollectingOutbox:
    """Keeps what was appended, by topic and partition, as a log would."""

    partitions: Mapping[str, int]
    logs: dict[tuple[str, int], list[Sent]] = field(default_factory=lambda: defaultdict(list))
    full: bool = False

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        if not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:
            raise refused_time(topic, timestamp_ms)
        if partition is None:
            count = self.partitions.get(topic, 1)
            partition = 0 if key is None else partition_for_key(key, count)
        self.logs[topic, partition].append((key, value, timestamp_ms, tuple(headers)))

    def sender(self, topic: str) -> Sender:
        return lambda key, value, timestamp_ms, headers: self.append(topic, None, key, value, timestamp_ms, headers)

    async def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        self.append(topic, partition, key, value, timestamp_ms, headers)

    def answer(
        self, topic: str, partition: int, value: bytes, timestamp_ms: int, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        self.append(topic, partition, None, value, timestamp_ms, headers)

    def append_rows(self, topic: str, partition: int, rows: Iterable[tuple[bytes, bytes | None, int]]) -> None:
        for key, value, timestamp_ms in rows:
            self.append(topic, partition, key, value, timestamp_ms)

    def row_bytes_max(self, topic: str) -> int:
        return 1 << 20

    async def room(self) -> None:
        return None

    async def flush(self) -> None:
        return None

    async def flush_rows(self) -> None:
        return None

    def values(self, topic: str) -> list[bytes | None]:
        """Values sent to any partition of `topic`, partition by partition."""
        return [sent[1] for (name, _), log in sorted(self.logs.items()) if name == topic for sent in log]


@dataclass
class Failed:
    failure: LaneFailure
    policy: Policy


class TaskHarness:
    """One task with a memory store."""

    def __init__(
        self,
        app: App,
        partitions: Mapping[str, int],
        number: int = 0,
        engine: MemoryEngine | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.app = app
        self.env = real_env() if clock is None else replace(real_env(), clock=clock)
        self.plan = app.plan()
        self.topology = self.plan.topology.resolve(partitions, 1)
        counts = {topic.name: topic.partitions or 1 for topic in self.topology.topics}
        self.outbox = CollectingOutbox(counts)
        self.failures: list[Failed] = []
        self.engine = engine or MemoryEngine()
        self.offsets: dict[str, int] = defaultdict(int)
        self.task = Task(
            self.plan,
            self.topology,
            number,
            1,
            pump=Pump(),
            outbox=self.outbox,
            clock=self.env.clock,
            on_failure=lambda _, failure, policy: self.failures.append(Failed(failure, policy)),
        )

    def start(self, positions: Mapping[str, int] | None = None, ends: Mapping[str, int] | None = None) -> None:
        store = self.engine.open("store")
        stored = store.source_offsets()
        places = {
            name: place_of(None, stored.get((name, self.task.number)), SourceLog(0, 2**62)) for name in self.task.topics
        }
        for name, offset in (positions or {}).items():
            places[name] = replace(places[name], offset=offset)
        begin = {name: place.offset for name, place in places.items()}
        self.offsets.update(begin)
        self.task.move_to(TaskState.RESTORING)
        self.task.open(store, places, ends if ends is not None else begin, {})
        self.task.move_to(TaskState.RUNNING)
        self.task.start()

    def feed(self, topic: str, rows: Sequence[tuple[Any, ...]], end: int | None = None) -> None:
        """Rows are (key, value) or (key, value, timestamp_ms) or (key, value, timestamp_ms, headers)."""
        start = self.offsets[topic]
        columns = RecordColumns(
            list(range(start, start + len(rows))),
            [row[2] if len(row) > 2 else 0 for row in rows],
            [row[0].encode() if isinstance(row[0], str) else row[0] for row in rows],
            [row[1].encode() if isinstance(row[1], str) else row[1] for row in rows],
            [row[3] if len(row) > 3 else () for row in rows],
        )
        self.offsets[topic] = start + len(rows)
        self.task.feed(topic, columns, self.offsets[topic], self.offsets[topic] if end is None else end)

    async def settle(self, turns: int = 200) -> None:
        """Until no lane has anything to do. Turns of the loop, not time: enough for bodies that do not wait for
        time."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def commit(self) -> TaskCommit:
        commit = self.task.begin_commit()
        ends: dict[str, Position] = {}
        for table, _, dirty in commit.dirty:
            if table.kind != "source":
                for key, value, timestamp_ms in dirty.rows:
                    self.outbox.append(table.changelog, self.task.number, key, value, timestamp_ms)
                ends[table.name] = Position(len(self.outbox.logs[table.changelog, self.task.number]))
        assert self.task.store is not None
        self.task.store.commit(self.task.batch_of(commit, ends))
        self.task.committed(commit)
        return commit

    def table(self, name: str) -> dict[Any, Any]:
        """Rows of a table as agents would see them."""
        return dict(self.task._states[self.app.tables[name].slot].items())

    async def stop(self) -> None:
        await self.task.stop()
        if self.task.store is not None:
            self.task.store.close()
        self.env.offload.close()


@asynccontextmanager
async def running(
    app: App,
    partitions: Mapping[str, int],
    number: int = 0,
    engine: MemoryEngine | None = None,
    clock: Clock | None = None,
    **start: Any,
) -> AsyncIterator[TaskHarness]:
    harness = TaskHarness(app, partitions, number, engine, clock)
    harness.start(**start)
    await harness.settle(3)
    try:
        yield harness
    finally:
        await harness.stop()
