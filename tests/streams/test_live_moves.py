"""State on disk that meets another cluster, another topic of the same name, or offsets that somebody reset."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import real_env
from streamlog.state.query import TableReader
from streamlog.streams.worker import Worker
from tests.streams.live import live_broker
from tests.streams.words import until


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    async with live_broker(tmp_path / "broker") as running:
        yield running.address


@dataclass
class Counting:
    """An app that counts in a table, one that only looks on, and a table that follows a topic."""

    data_dir: Path
    name: str = field(default_factory=lambda: f"moves-{os.getpid()}-{random.getrandbits(32):08x}")
    seen: list[int] = field(default_factory=list)

    @property
    def topic(self) -> str:
        return f"{self.name}-numbers"

    @property
    def rates_topic(self) -> str:
        return f"{self.name}-rates"

    @asynccontextmanager
    async def running(self, broker: str) -> AsyncIterator[Running]:
        app = streamlog.App(self.name, commit_interval_ms=50)
        numbers = app.topic(self.topic, key=str, value=int, partitions=1)
        rates = app.topic(self.rates_topic, key=str, value=int, partitions=1)
        counts = app.Table("counts", key=str, value=int, default=int)
        rate = app.Table("rate", key=str, value=int, source=rates)
        seen: list[int] = []
        self.seen = seen

        @app.agent(numbers)
        async def count(stream: streamlog.Stream[str, int]) -> None:
            async for _ in stream:
                counts["k"] += 1

        @app.agent(numbers.stream().left_join(rate))
        async def look(stream: streamlog.Stream[str, tuple[int, int | None]]) -> None:
            async for value, _ in stream:
                seen.append(value)

        async with app.running(broker=broker, data_dir=str(self.data_dir)) as worker:
            await until(lambda: [task.state for task in worker.status().tasks] == ["running"])
            yield Running(worker, numbers, rates, seen)


@dataclass
class Running:
    worker: Worker
    numbers: streamlog.Topic[str, int]
    rates: streamlog.Topic[str, int]
    seen: list[int]

    async def send(self, count: int) -> None:
        for value in range(count):
            await self.numbers.send(value, key="k")

    def row(self, table: str) -> int | None:
        readers = self.worker.query(table)
        if 0 not in readers:
            return None
        reader = readers[0]
        assert isinstance(reader, TableReader)
        value: int | None = reader.get("k").value
        return value

    async def until_seen(self, count: int) -> None:
        await until(lambda: len(self.seen) >= count)
        commits = self.worker.status().commits
        await until(lambda: self.worker.status().commits > commits + 1)
        assert self.seen == list(range(count))


def topics_of(worker: Worker) -> list[list[str]]:
    """That each running task reads."""
    tasks = worker.status().tasks
    return [sorted(one.topic for one in task.partitions) for task in tasks if task.state == "running"]


async def make_again(broker: str, topic: str, configs: dict[str, str] | None = None) -> None:
    async with Admin(broker, env=real_env()) as admin:
        await admin.delete_topics([topic])
        await admin.create_topics([NewTopic(topic, 1, 1, configs or {})])


async def set_offset(broker: str, group: str, topic: str, offset: int) -> None:
    """What `groups reset-offsets` does."""
    async with Admin(broker, env=real_env()) as admin:
        await admin.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(offset)})


async def test_a_worker_whose_topic_was_deleted_is_not_healthy(broker: str, tmp_path: Path) -> None:
    """It says which topic is missing, as long as it is: its partitions are closed, so they have no failures to tell."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as here, Admin(broker, env=real_env()) as admin:
        await here.send(3)
        await here.until_seen(3)
        assert here.worker.status().healthy
        await admin.delete_topics([counting.topic])
        await until(lambda: not here.worker.status().healthy and topics_of(here.worker) == [[counting.rates_topic]])
        error = here.worker.status().error
        assert error is not None
        assert f"topic {counting.topic} does not exist any more" in error
        assert not here.worker.status().healthy
        await admin.create_topics([NewTopic(counting.topic, 1, 1)])
        both = sorted([counting.topic, counting.rates_topic])
        await until(lambda: here.worker.status().healthy and topics_of(here.worker) == [both])
        await here.numbers.send(3, key="k")
        await until(lambda: here.seen == [0, 1, 2, 3])


async def test_a_data_directory_serves_several_clusters(broker: str, tmp_path: Path) -> None:
    """An app that moves to another cluster begins there from nothing, and finds its state again when it comes back."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as here:
        await here.send(10)
        await here.until_seen(10)
    async with live_broker(tmp_path / "other") as other, counting.running(other.address) as there:
        await there.send(15)
        await there.until_seen(15)
        assert there.row("counts") == 15
    async with counting.running(broker) as back:
        assert back.row("counts") == 10
        await back.numbers.send(0, key="k")
        await back.until_seen(1)
        assert back.row("counts") == 11


@pytest.mark.parametrize("offset", [0, 4, 10])
async def test_offsets_that_were_reset_while_no_worker_ran_win(broker: str, tmp_path: Path, offset: int) -> None:
    """Processing goes on where the group's offset was set; tables keep their rows."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as before:
        await before.send(10)
        await before.until_seen(10)
    await set_offset(broker, counting.name, counting.topic, offset)
    async with counting.running(broker) as after:
        if offset < 10:
            await until(lambda: after.seen[-1:] == [9])
        await after.numbers.send(10, key="k")
        await until(lambda: after.seen[-1:] == [10])
        assert after.seen == list(range(offset, 11))
        await until(lambda: after.row("counts") == 10 + 11 - offset)


async def test_a_reset_while_another_data_directory_was_used_wins_too(broker: str, tmp_path: Path) -> None:
    """The first directory's state is older than what the group says, although its offset is higher."""
    first = Counting(tmp_path / "first")
    async with first.running(broker) as running:
        await running.send(10)
        await running.until_seen(10)
    await set_offset(broker, first.name, first.topic, 0)
    second = Counting(tmp_path / "second", first.name)
    async with second.running(broker) as running:
        await running.until_seen(10)
    await set_offset(broker, first.name, first.topic, 3)
    async with second.running(broker) as running:
        await until(lambda: running.seen[-1:] == [9])
    await set_offset(broker, first.name, first.topic, 7)
    async with second.running(broker) as running:
        await until(lambda: running.seen[-1:] == [9])
        assert running.seen == [7, 8, 9]
    async with first.running(broker) as running:
        await running.numbers.send(10, key="k")
        await until(lambda: bool(running.seen))
        assert running.seen == [10]


async def test_a_topic_made_again_while_no_worker_ran_is_read_from_its_beginning(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it has fewer events than before or more. One warning says so; the table keeps its rows."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as running:
        await running.send(10)
        await running.until_seen(10)
    total = 10
    for count in (4, 20):
        await make_again(broker, counting.topic)
        async with Admin(broker, env=real_env()) as admin:
            await admin.describe_topics([counting.topic])
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            async with counting.running(broker) as running:
                await running.send(count)
                await running.until_seen(count)
                total += count
                assert running.row("counts") == total
        said = [record.getMessage() for record in caplog.records if "made again" in record.getMessage()]
        assert len(said) == 1, said
        assert counting.topic in said[0]


async def test_a_topic_made_again_under_a_running_task_is_read_from_its_beginning(broker: str, tmp_path: Path) -> None:
    """The task begins anew; nothing of the new topic is passed over."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as running:
        await running.send(10)
        await running.until_seen(10)
        await make_again(broker, counting.topic)
        running.seen.clear()
        await running.send(4)
        await running.until_seen(4)
        await until(lambda: running.row("counts") == 14)
        await until(lambda: [task.state for task in running.worker.status().tasks] == ["running"])
        assert next(one.position for task in running.worker.status().tasks for one in task.partitions) == 4


async def test_a_topic_made_again_before_its_first_event_is_no_stranger_later(broker: str, tmp_path: Path) -> None:
    """What is committed of the new topic is signed with the new id, although no offset ever went back."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as running:
        await make_again(broker, counting.topic)
        await running.send(3)
        await running.until_seen(3)
    async with counting.running(broker) as running:
        await running.numbers.send(3, key="k")
        await until(lambda: running.row("counts") == 4)
        assert running.seen == [3]


async def test_a_followed_topic_made_again_empties_its_table(broker: str, tmp_path: Path) -> None:
    """Its rows are the topic's and nothing else."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as running:
        await running.rates.send(7, key="k")
        await running.rates.send(8, key="gone")
        await until(lambda: running.row("rate") == 7)
        commits = running.worker.status().commits
        await until(lambda: running.worker.status().commits > commits + 1)
    await make_again(broker, counting.rates_topic)
    async with counting.running(broker) as running:
        assert running.row("rate") is None
        await running.rates.send(9, key="k")
        await until(lambda: running.row("rate") == 9)


async def test_a_changelog_made_again_empties_its_table(broker: str, tmp_path: Path) -> None:
    """The changelog is the truth: what it has lost the store does not keep, whatever machine the task comes to."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as running:
        await running.send(10)
        await running.until_seen(10)
    await make_again(broker, f"{counting.name}-counts-changelog", {"cleanup.policy": "compact"})
    async with counting.running(broker) as running:
        await running.numbers.send(0, key="k")
        await until(lambda: running.row("counts") == 1)


async def test_a_store_ahead_of_the_group_counts(broker: str, tmp_path: Path) -> None:
    """A crash between store and group: the group has an older offset of the same worker, and nothing is repeated."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as running:
        await running.send(5)
        await running.until_seen(5)
        async with Admin(broker, env=real_env()) as admin:
            older = await admin.list_group_offsets(counting.name)
        await running.send(5)
        await until(lambda: len(running.seen) == 10)
    async with Admin(broker, env=real_env()) as admin:
        await admin.alter_group_offsets(counting.name, older)
    async with counting.running(broker) as running:
        await running.numbers.send(10, key="k")
        await until(lambda: running.row("counts") == 11)
        assert running.seen == [10]


TWO = 2


@dataclass
class Neighbours:
    """An app with an agent for each of two topics; of the second one's, what happens when the first is deleted."""

    name: str = field(default_factory=lambda: f"neighbours-{os.getpid()}-{random.getrandbits(32):08x}")
    gone: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def app(self) -> tuple[streamlog.App, streamlog.Topic[str, int], streamlog.Topic[str, int]]:
        app = streamlog.App(self.name, commit_interval_ms=50)
        going = app.topic(f"{self.name}-going", key=str, value=int, partitions=TWO)
        staying = app.topic(f"{self.name}-staying", key=str, value=int, partitions=TWO)
        counts = app.Table("counts", key=str, value=int, default=int)

        @app.agent(going)
        async def lost(stream: streamlog.Stream[str, int]) -> None:
            async for value in stream:
                self.gone.append(value)

        @app.agent(staying)
        async def goes_on(stream: streamlog.Stream[str, int]) -> None:
            async for value in stream:
                counts[str(value)] += 1
                self.kept.append(value)

        return app, going, staying


async def test_a_deleted_topic_stops_only_the_agents_that_read_it(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The agents of other topics go on in the same tasks, and the worker says who stands still, and what to do."""
    here = Neighbours()
    app, going, staying = here.app()
    async with (
        app.running(broker=broker, data_dir=str(tmp_path / "state")) as worker,
        Admin(broker, env=real_env()) as admin,
    ):
        await until(lambda: [task.state for task in worker.status().tasks] == ["running"] * TWO)
        await going.send(0, key="k")
        await staying.send(0, key="0")
        await until(lambda: here.gone == [0] and here.kept == [0])
        await admin.delete_topics([going.name])
        await until(lambda: worker.status().error is not None)
        error = worker.status().error
        assert error is not None
        assert error.startswith(f"topic {going.name} does not exist any more: agent lost stands still. Create it again")
        assert not worker.status().healthy
        await staying.send(1, key="1")
        await until(lambda: here.kept == [0, 1])
        await until(lambda: [task.state for task in worker.status().tasks] == ["running"] * TWO)
        await admin.create_topics([NewTopic(going.name, TWO, 1)])
        await until(lambda: worker.status().healthy)
        await until(lambda: worker.missing_topics() == [])
        await going.send(7, key="k")
        await staying.send(2, key="2")
        await until(lambda: here.gone == [0, 7] and here.kept == [0, 1, 2])
    said = [one.getMessage() for one in caplog.records if "does not exist any more" in one.getMessage()]
    assert len(said) == 1, said


async def test_a_deleted_topic_leaves_the_other_agents_of_all_workers_going(broker: str, tmp_path: Path) -> None:
    """Also of a worker that hears of it from the group's leader only, and of tasks that move meanwhile."""
    here = Neighbours()
    app, going, staying = here.app()
    other = here.app()[0]
    async with (
        app.running(broker=broker, data_dir=str(tmp_path / "one")) as worker,
        Admin(broker, env=real_env()) as admin,
    ):
        async with other.running(broker=broker, data_dir=str(tmp_path / "two")) as neighbour:
            both = (worker, neighbour)

            await until(lambda: all(len(topics_of(one)) == 1 for one in both))
            await admin.delete_topics([going.name])
            await until(lambda: all(one.status().error is not None for one in both))
            await until(lambda: all(topics_of(one) == [[staying.name]] for one in both))  # without the deleted topic
        await until(lambda: [task.state for task in worker.status().tasks] == ["running"] * TWO)
        for number in range(20):
            await staying.send(number, key=str(number))
        await until(lambda: sorted(here.kept) == list(range(20)))


async def test_tasks_whose_table_follows_a_deleted_topic_stay_closed(broker: str, tmp_path: Path) -> None:
    """Where a table follows the deleted topic its tasks stay closed: whose rows it should have is not known."""
    counting = Counting(tmp_path / "state")
    async with counting.running(broker) as here, Admin(broker, env=real_env()) as admin:
        await admin.delete_topics([counting.rates_topic])
        await until(lambda: here.worker.status().tasks == ())
        error = here.worker.status().error
        assert error is not None
        assert error.startswith(
            f"topic {counting.rates_topic} does not exist any more: table rate follows it, so all tasks that share its "
        ), error
        await admin.create_topics([NewTopic(counting.rates_topic, 1, 1)])
        await until(lambda: here.worker.status().healthy and here.worker.status().tasks != ())
