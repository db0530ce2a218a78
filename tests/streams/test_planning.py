"""Topologies: what is planned, how it prints, and what is refused with which words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

import streamlog


class Flight(streamlog.Record):
    carrier: str
    origin: str
    delay_min: float | None
    scheduled_at: datetime


class Weather(streamlog.Record):
    station: str
    wind: float


@dataclass(slots=True)
class Reading:
    station: str


def test_the_example_of_the_readme_plans_as_it_reads() -> None:
    """Agents, a group_by inside a body, two tables: every topic and who uses what."""
    app = streamlog.App("flights")
    flights = app.topic("flights", key=str, value=Flight, timestamp=Flight.scheduled_at)
    delay_min = app.Table("delay_min", key=str, value=float, default=float)
    departures = app.Table("departures", key=str, value=int, default=int).tumbling(hours=1, grace=600)

    @app.agent(flights)
    async def by_carrier(stream: streamlog.Stream[str, Flight]) -> None:
        async for flight in stream:
            delay_min[flight.carrier] += flight.delay_min or 0.0

    @app.agent(flights)
    async def by_origin(stream: streamlog.Stream[str, Flight]) -> None:
        async for flight in stream.group_by(Flight.origin):
            departures[flight.origin] += 1

    topology = app.topology()
    assert topology == app.topology()
    assert [lane.name for lane in topology.lanes] == ["by_carrier", "by_origin-1", "by_origin"]
    repartition = "flights-by_origin-origin-repartition"
    assert topology.lanes[1].target == repartition
    assert topology.lanes[2].sources == (repartition,)
    assert topology.lanes[2].tables == ("departures",)
    resolved = topology.resolve({"flights": 3}, 8)
    assert resolved.partitions(repartition) == 3
    assert resolved.table_partitions("departures") == 3
    assert resolved.partitions("flights-delay_min-changelog") == 3
    assert resolved.task_count == 3
    text = str(resolved)
    assert "agent by_origin: flights-by_origin-origin-repartition" in text
    assert "windowed table departures: raw str -> row int" in text
    assert "\n  table delay_min: raw str -> row float" in text


def test_dataclass_fields_are_references_too() -> None:
    """slots=True gives a dataclass the descriptors that name its fields."""
    app = streamlog.App("w")
    readings = app.topic("readings", value=Reading)
    reading: Any = Reading  # type checkers allow the reference on a Record only

    @app.agent(readings.stream().group_by(reading.station))
    async def calm(stream: streamlog.Stream[str, Reading]) -> None:
        async for _ in stream:
            pass

    assert app.topology().lanes[0].target == "w-calm-station-repartition"


def test_partitions_of_a_group_by_follow_its_source_unless_said() -> None:
    """Two cuts in a row; the second says its own count."""
    app = streamlog.App("w")
    weather = app.topic("weather", value=Weather)

    @app.agent(
        weather.stream().group_by(Weather.station).group_by(lambda w: int(w.wind), key=int, name="wind", partitions=2)
    )
    async def calm(stream: streamlog.Stream[int, Weather]) -> None:
        async for _ in stream:
            pass

    resolved = app.topology().resolve({"weather": 5}, 8)
    assert resolved.partitions("w-calm-station-repartition") == 5
    assert resolved.partitions("w-calm-wind-repartition") == 2
    assert resolved.task_count == 5


def _group_by_after_await(app: streamlog.App) -> None:
    topic = app.topic("weather", value=Weather)

    @app.agent(topic)
    async def late(stream: streamlog.Stream[str, Weather]) -> None:
        await asyncio.sleep(1)
        async for _ in stream.group_by(Weather.station):
            pass

    app.plan()


def _group_by_after_failure(app: streamlog.App) -> None:
    topic = app.topic("weather", value=Weather)
    table = app.Table("t", key=str, value=int)

    @app.agent(topic)
    async def early(stream: streamlog.Stream[str, Weather]) -> None:
        table["a"] = 1
        async for _ in stream.group_by(Weather.station):
            pass

    app.plan()


def _unknown_key_type(app: streamlog.App) -> None:
    app.topic("weather", value=Weather).stream().group_by(lambda w: w.station)


def _field_of_another_class(app: streamlog.App) -> None:
    topic = app.topic("weather", value=Weather)

    @app.agent(topic.stream().group_by(Flight.origin))
    async def wrong(stream: streamlog.Stream[str, Weather]) -> None:
        async for _ in stream:
            pass

    app.plan()


def _untyped_map(app: streamlog.App) -> None:
    topic = app.topic("weather", value=Weather)

    @app.agent(topic.stream().map(lambda w: w.wind).group_by(round, key=int))
    async def wrong(stream: streamlog.Stream[int, float]) -> None:
        async for _ in stream:
            pass

    app.plan()


def _table_twice(app: streamlog.App) -> None:
    app.Table("t", key=str, value=int)
    app.Table("t", key=str, value=int)


def _agent_twice(app: streamlog.App) -> None:
    topic = app.topic("weather", value=Weather)
    for _ in range(2):

        @app.agent(topic)
        async def twin(stream: streamlog.Stream[str, Weather]) -> None:
            async for _ in stream:
                pass


def _topic_twice(app: streamlog.App) -> None:
    app.topic("weather", value=Weather)
    app.topic("weather", value=Flight)


async def _nothing() -> None:
    pass


def _bad_cron(app: streamlog.App) -> None:
    app.crontab("every tuesday")(_nothing)


def _bad_zone(app: streamlog.App) -> None:
    app.crontab("0 * * * *", timezone="Mars/Olympus")(_nothing)


def _bad_policy(app: streamlog.App) -> None:
    policy: Any = "explode"

    @app.agent(app.topic("weather", value=Weather), on_error=policy)
    async def wrong(stream: streamlog.Stream[str, Weather]) -> None:
        async for _ in stream:
            pass


def _bad_name(app: streamlog.App) -> None:
    app.topic("no spaces", value=int)


def _sync_agent(app: streamlog.App) -> None:
    function: Any = len
    app.agent(app.topic("weather", value=Weather))(function)


def _table_outside(app: streamlog.App) -> None:
    app.Table("t", key=str, value=int, default=int)["a"] += 1


def _uneven_writers(app: streamlog.App) -> None:
    table = app.Table("t", key=str, value=int, default=int)

    @app.agent(app.topic("four", value=Weather))
    async def first(stream: streamlog.Stream[str, Weather]) -> None:
        async for _ in stream:
            table["a"] += 1

    def helper() -> None:
        table["a"] += 1

    @app.agent(app.topic("five", value=Weather))
    async def second(stream: streamlog.Stream[str, Weather]) -> None:
        async for _ in stream:
            helper()

    app.topology().resolve({"four": 4, "five": 5}, 8)


def _uneven_join(app: streamlog.App) -> None:
    table = app.Table("rates", key=str, value=int, source=app.topic("rates", value=int))

    @app.agent(app.topic("four", value=Weather).stream().join(table))
    async def first(stream: streamlog.Stream[str, tuple[Weather, int]]) -> None:
        async for _ in stream:
            pass

    app.topology().resolve({"four": 4, "rates": 5}, 8)


def _declared_otherwise(app: streamlog.App) -> None:
    app.topic("four", value=Weather, partitions=3)
    app.topology().resolve({"four": 4}, 8)


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (_group_by_after_await, "Move it out of the body"),
        (_group_by_after_failure, "table t was used outside an agent"),
        (_unknown_key_type, "Say it, as in key=str"),
        (_field_of_another_class, "names a field of Flight"),
        (_untyped_map, "map(function, value=Type)"),
        (_table_twice, "table t is declared twice"),
        (_agent_twice, "agent twin is declared twice"),
        (_topic_twice, "topic weather is declared twice"),
        (_bad_cron, "is not a cron line"),
        (_bad_zone, "time zone 'Mars/Olympus' is unknown"),
        (_bad_policy, "on_error='explode' is unknown"),
        (_bad_name, "use 1 to 249 letters"),
        (_sync_agent, "has to be an async function"),
        (_table_outside, "was used outside an agent"),
        (_uneven_writers, "first has 4 partitions, second has 5 partitions"),
        (_uneven_join, "equal keys would not meet"),
        (_declared_otherwise, "has 4 partitions, and the app declares partitions=3"),
    ],
)
def test_mistakes_are_named_with_what_to_do(declare: Callable[[streamlog.App], None], words: str) -> None:
    """One message for each, before anything runs."""
    with pytest.raises(streamlog.UserError) as caught:
        declare(streamlog.App("app"))
    assert words in str(caught.value)


def test_types_of_an_own_topic_come_from_the_annotation() -> None:
    """An agent without a source reads `<app>-<agent>`."""
    app = streamlog.App("app")

    @app.agent()
    async def double(stream: streamlog.Stream[str, int]) -> AsyncIterator[int]:
        async for number in stream:
            yield 2 * number

    topic = app.topology().topic("app-double")
    assert (topic.kind, topic.key, topic.value) == ("agent", "raw str", "json int")


def test_topics_between_agents_keep_what_was_not_processed_yet() -> None:
    """Brokers delete by event time: casting last year's events must not lose them before they are read."""
    app = streamlog.App("flights")
    flights = app.topic("flights", key=str, value=Flight, timestamp=Flight.scheduled_at)

    @app.agent(flights)
    async def by_origin(stream: streamlog.Stream[str, Flight]) -> None:
        async for flight in stream.group_by(Flight.origin):
            await count.cast(flight.origin)

    @app.agent()
    async def count(stream: streamlog.Stream[str, str]) -> None:
        async for _ in stream:
            pass

    topology = app.topology()
    for name in ("flights-count", "flights-by_origin-origin-repartition"):
        configs = dict(topology.topic(name).configs)
        assert (configs["cleanup.policy"], configs["retention.ms"]) == ("delete", "-1")
    assert topology.topic("flights").configs == (), "a declared topic is its owner's to configure"


def test_an_app_without_topics_has_one_for_its_leader() -> None:
    """Only if something is to run on the leader; an app that reads a topic shares that."""
    app = streamlog.App("clock")

    @app.timer(1, on_leader=True)
    async def tick() -> None:
        pass

    assert app.topology().consumed == ("clock-leader",)
    assert app.topology().topic("clock-leader").partitions == 1
    numbers = app.topic("numbers", value=int)

    @app.agent(numbers)
    async def reads(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            pass

    assert app.topology().consumed == ("numbers",)
