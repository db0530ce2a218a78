"""Topics that get more partitions under running workers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.config import ConnectionSettings
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import real_env
from streamlog.streams.growth import Growth
from streamlog.streams.worker import Worker
from tests.streams.live import live_broker
from tests.streams.words import until

QUICK = ConnectionSettings(metadata_max_age_ms=200)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    async with live_broker(tmp_path / "broker") as running:
        yield running.address


def _passing(name: str, seen: list[int]) -> streamlog.App:
    """An app that keeps nothing."""
    app = streamlog.App(name, commit_interval_ms=50)

    @app.agent(app.topic(f"{name}-in", key=str, value=int))
    async def see(stream: streamlog.Stream[str, int]) -> None:
        async for number in stream:
            seen.append(number)

    return app


def _counting(name: str, seen: list[int]) -> streamlog.App:
    """An app that counts by key."""
    app = streamlog.App(name, commit_interval_ms=50)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(app.topic(f"{name}-in", key=str, value=int))
    async def count(stream: streamlog.Stream[str, int]) -> None:
        async for key, number in stream.items():
            counts[key] += 1
            seen.append(number)

    return app


def _worker(app: streamlog.App, broker: str, data_dir: Path) -> Worker:
    return Worker(app, env=real_env(), broker=broker, data_dir=str(data_dir), connection=QUICK)


async def _send(broker: str, topic: str, partition: int, *numbers: int) -> None:
    env = real_env()
    async with Producer(broker, env=env) as producer:
        for number in numbers:
            producer.append(topic, partition, b"k%d" % number, b"%d" % number, env.clock.wall_ms())


def _running(*workers: Worker) -> list[int]:
    return sorted(task.number for one in workers for task in one.status().tasks if task.state == "running")


async def test_an_app_that_keeps_nothing_goes_on_with_the_new_partitions(broker: str, tmp_path: Path) -> None:
    """On both of two workers: the group's leader hears of them first, the other when it is given some."""
    seen: list[int] = []
    topic = "passing-in"
    async with Admin(broker, env=real_env()) as admin:
        await admin.create_topics([NewTopic(topic, 2)])
        first = _worker(_passing("passing", seen), broker, tmp_path)
        second = _worker(_passing("passing", seen), broker, tmp_path)
        async with first, second:
            await until(lambda: len(first.status().tasks) == len(second.status().tasks) == 1)
            await until(lambda: _running(first, second) == [0, 1])
            await admin.create_partitions({topic: 4})
            for partition in range(4):
                await _send(broker, topic, partition, partition)
            await until(lambda: sorted(seen) == [0, 1, 2, 3])
            assert _running(first, second) == [0, 1, 2, 3]
            assert first.status().error is None
            assert second.status().error is None


async def test_an_app_with_a_table_goes_on_with_the_old_partitions_and_says_what_to_do(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its rows are placed by the old count. Once, in one message; what it does not read stays in the topic."""
    seen: list[int] = []
    topic = "counting-in"
    async with Admin(broker, env=real_env()) as admin:
        await admin.create_topics([NewTopic(topic, 2)])
        with caplog.at_level(logging.ERROR, "streamlog.streams.growth"):
            async with _worker(_counting("counting", seen), broker, tmp_path) as worker:
                await until(lambda: _running(worker) == [0, 1])
                await admin.create_partitions({topic: 3})
                await until(lambda: worker.status().error is not None)
                for partition in range(3):
                    await _send(broker, topic, partition, partition)
                await until(lambda: sorted(seen) == [0, 1])
                assert not worker.status().healthy
        (said,) = caplog.messages
        assert said.startswith(f"app=counting topic {topic} has 3 partitions now, and had 2: the new ones are not")
        assert "internal topic counting-counts-changelog has 2 partitions and would need 3" in said
        assert "streamlog -A MODULE reset" in said
        committed = await admin.list_group_offsets("counting")
        assert {one: at.offset for one, at in committed.items()} == {
            TopicPartition(topic, 0): 1,
            TopicPartition(topic, 1): 1,
        }


async def test_workers_that_do_not_lead_the_group_are_not_healthy_either(broker: str, tmp_path: Path) -> None:
    """New partitions that nobody reads are everybody's trouble: whoever is asked says so."""
    async with Admin(broker, env=real_env()) as admin:
        await admin.create_topics([NewTopic("shared-in", 2)])
        async with (
            _worker(_counting("shared", []), broker, tmp_path / "1") as first,
            _worker(_counting("shared", []), broker, tmp_path / "2") as second,
        ):
            await until(lambda: _running(first) != [] and _running(second) != [] and _running(first, second) == [0, 1])
            await admin.create_partitions({"shared-in": 3})
            told = "3 partitions now, and had 2"
            await until(lambda: all(told in (one.status().error or "") for one in (first, second)))


def _growth(app: streamlog.App, sizes: Mapping[str, int]) -> Growth:
    declared = app.topology()

    async def ask(names: Sequence[str]) -> Mapping[str, int]:
        return {name: sizes[name] for name in names}

    return Growth(app.id, declared, declared.resolve(dict.fromkeys(sizes, 2), 2), ask)


def test_a_repartitioned_stream_holds_the_new_partitions_back() -> None:
    """Its repartition topic was made for the old count."""
    app = streamlog.App("grouping")

    @app.agent(app.topic("grouped", key=str, value=int).stream().group_by(lambda number: number, key=int))
    async def count(stream: streamlog.Stream[int, int]) -> None:
        async for _ in stream:
            pass

    growth = _growth(app, {"grouped": 4})
    consumed = dict.fromkeys(growth.topology.consumed, 2)
    assert growth.allowed(consumed | {"grouped": 4}) == consumed
    assert growth.trouble is not None
    assert growth.allowed(consumed) == consumed
    assert growth.trouble is None


def test_a_table_that_follows_the_topic_holds_its_new_partitions_back() -> None:
    """A restart would take them; until then equal keys would be in two places, unsaid."""
    app = streamlog.App("following")
    rates = app.topic("rates", key=str, value=int)
    app.Table("rate", key=str, value=int, source=rates)
    growth = _growth(app, {"rates": 3})
    assert growth.allowed({"rates": 3}) == {"rates": 2}
    assert growth.trouble is not None
    assert "write these rows again" in growth.trouble


def test_topics_that_shrank_or_are_of_another_version_are_given_out_as_they_are() -> None:
    """Neither is growth."""
    growth = _growth(_passing("same", []), {"same-in": 2})
    assert growth.allowed({"same-in": 1, "of-another-version": 7}) == {"same-in": 1, "of-another-version": 7}


async def test_a_worker_that_asks_a_broker_that_lags_believes_the_group() -> None:
    """The leader gave partition 3 out, so there are at least four."""
    growth = _growth(_passing("late", []), {"late-in": 2})
    await growth.follow([TopicPartition("late-in", 1)])
    assert growth.topology.partitions("late-in") == 2
    await growth.follow([TopicPartition("late-in", 3)])
    assert growth.topology.partitions("late-in") == 4
