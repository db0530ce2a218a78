"""The order of a commit, and what becomes of it when a step fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import streamlog
from streamlog.client.failures import NotDelivered
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import real_env
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.store import CommitBatch
from streamlog.state.table import DirtyRows
from streamlog.streams.commit import CommitFailed, Committer
from streamlog.streams.task import TaskState
from streamlog.streams.worker import Worker
from tests.streams.harness import CollectingOutbox, TaskHarness, running
from tests.streams.live import live_broker
from tests.streams.words import until


@dataclass
class Broker(CollectingOutbox):
    """Acknowledges outputs and rows when told to, or fails them."""

    steps: list[str] = field(default_factory=list)
    outputs_fail: bool = False
    rows_fail: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def append_rows(self, topic: str, partition: int, rows: Iterable[tuple[bytes, bytes | None, int]]) -> None:
        self.steps.append("rows")
        super().append_rows(topic, partition, rows)

    async def flush(self) -> None:
        self.steps.append("flush")
        await self.gate.wait()
        if self.outputs_fail:
            raise NotDelivered("no broker")

    async def flush_rows(self) -> None:
        self.steps.append("flush rows")
        if self.rows_fail:
            raise NotDelivered("no broker")

    def acked_offset(self, partition: TopicPartition) -> int | None:
        return len(self.logs[partition.topic, partition.partition])


def counting() -> streamlog.App:
    app = streamlog.App("counting")
    numbers = app.topic("numbers", key=str, value=int, partitions=1)
    out = app.topic("out", key=str, value=int, partitions=1)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(numbers, sink=[out])
    async def count(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for key, number in stream.items():
            counts[key] += 1
            yield number * counts[key]

    return app


class Committing:
    def __init__(self, harness: TaskHarness) -> None:
        self.broker = Broker(harness.outbox.partitions)
        self.broker.gate.set()
        self.taken: dict[TopicPartition, OffsetAndMetadata] = {}
        env = harness.env
        self.committer = Committer(self.broker, self.broker, self._take, env.clock, env.offload)
        self._task = harness.task

    async def _take(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self.taken.update(offsets)

    async def commit(self) -> bool:
        return await self.committer.commit(lambda: [self._task])

    @property
    def offsets(self) -> list[int]:
        return [offset.offset for offset in self.taken.values()]


async def test_no_row_is_sent_before_all_outputs_are_acknowledged() -> None:
    """And the group hears of it last."""
    async with running(counting(), {"numbers": 1}) as harness:
        committing = Committing(harness)
        committing.broker.gate.clear()
        harness.feed("numbers", [("a", "1"), ("b", "1")])
        await harness.settle()
        commit = asyncio.ensure_future(committing.commit())
        await harness.settle()
        assert committing.broker.steps == ["flush"]
        assert not committing.taken
        committing.broker.gate.set()
        assert await commit
        assert committing.broker.steps == ["flush", "rows", "flush rows"]
        assert committing.offsets == [2]


async def test_outputs_that_are_lost_leave_the_tables_as_they_were() -> None:
    """No row of that commit is in a changelog or in the store, so that the next life of the task counts anew."""
    async with running(counting(), {"numbers": 1}) as harness:
        committing = Committing(harness)
        committing.broker.outputs_fail = True
        harness.feed("numbers", [("a", "1")])
        await harness.settle()
        with pytest.raises(CommitFailed) as failed:
            await committing.commit()
        assert failed.value.tasks == [harness.task]
        assert "rows" not in committing.broker.steps
        assert not committing.taken
        assert harness.task.uncommitted_events == 1


async def test_rows_that_are_lost_are_rows_of_the_next_commit() -> None:
    """Nobody begins again: the task has them still, changed or not."""
    async with running(counting(), {"numbers": 1}) as harness:
        committing = Committing(harness)
        committing.broker.rows_fail = True
        harness.feed("numbers", [("a", "1"), ("b", "1")])
        await harness.settle()
        with pytest.raises(CommitFailed) as failed:
            await committing.commit()
        assert failed.value.of_rows
        assert failed.value.tasks == []
        assert not committing.taken
        committing.broker.rows_fail = False
        harness.feed("numbers", [("a", "1")])
        await harness.settle()
        committing.broker.logs.clear()
        assert await committing.commit()
        rows = committing.broker.logs["counting-counts-changelog", 0]
        assert sorted(key for key, *_ in rows if key is not None) == [b"a", b"b"]
        assert committing.offsets == [3]
        assert harness.table("counts") == {"a": 2, "b": 1}
        assert not await committing.commit()


async def test_a_task_that_was_lost_while_outputs_were_on_their_way_sends_no_rows() -> None:
    """Its changelogs are another worker's by then."""
    async with running(counting(), {"numbers": 1}) as harness:
        committing = Committing(harness)
        committing.broker.gate.clear()
        harness.feed("numbers", [("a", "1")])
        await harness.settle()
        commit = asyncio.ensure_future(committing.commit())
        await harness.settle()
        harness.task.move_to(TaskState.CLOSED)
        committing.broker.gate.set()
        assert not await commit
        assert "rows" not in committing.broker.steps
        assert not committing.taken


class Bug:
    """A table with a mistake of ours in it."""

    name, dirty_full = "bug", False

    def take_dirty(self, timestamp_ms: int, held: object = ()) -> DirtyRows:
        raise KeyError("k4066")

    def committed(self, dirty: DirtyRows) -> None: ...
    def abandon(self, dirty: DirtyRows) -> None: ...


async def test_a_bug_is_no_failed_commit() -> None:
    """It comes out as it is, so that nobody begins again because of it; what was taken before it is dirty again."""
    async with running(counting(), {"numbers": 1}) as harness:
        committing = Committing(harness)
        harness.feed("numbers", [("a", "1")])
        await harness.settle()
        harness.task._durable.append((harness.app.tables["counts"], Bug()))
        with pytest.raises(KeyError):
            await committing.commit()
        assert committing.broker.steps == []
        harness.task._durable.pop()
        assert await committing.commit()
        assert committing.offsets == [1]
        assert [row[0] for row in committing.broker.logs["counting-counts-changelog", 0]] == [b"a"]


class BuggyStore(MemoryStore):
    def commit(self, batch: CommitBatch) -> None:
        raise KeyError("of ours")


class BuggyEngine(MemoryEngine):
    def open(self, path: str) -> MemoryStore:
        store = super().open(path)
        store.__class__ = BuggyStore
        return store


async def test_a_bug_in_a_store_is_no_failed_commit() -> None:
    """Errors of the disk come as EnvironmentFailure, and begin again."""
    async with running(counting(), {"numbers": 1}, engine=BuggyEngine()) as harness:
        committing = Committing(harness)
        harness.feed("numbers", [("a", "1")])
        await harness.settle()
        with pytest.raises(KeyError, match="of ours"):
            await committing.commit()
        assert not committing.taken
        assert harness.table("counts") == {"a": 1}
        harness.task._durable[0][1].take_dirty(0)  # the commit before was abandoned


async def test_a_bug_ends_the_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Loudly, once, and without beginning again: in the loop of commits and in the last commit alike."""
    async with live_broker(tmp_path / "broker") as broker:
        app = counting()
        worker = Worker(
            app, env=real_env(), broker=broker.address, data_dir=str(tmp_path / "state"), create_topics=True
        )
        run = asyncio.ensure_future(worker.run())
        await until(lambda: worker.assignment is not None and bool(worker.assignment.running))
        assert worker.assignment is not None
        worker.assignment.tasks[0]._durable.append((app.tables["counts"], Bug()))
        with pytest.raises(KeyError, match="k4066"):
            await run
        assert worker.state == "stopped"
        assert "state=resetting" not in caplog.text
        assert caplog.text.count("worker failed") == 1
