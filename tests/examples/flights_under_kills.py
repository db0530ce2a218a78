"""The flights example on a cluster of three, while one node after another is killed with -9 and started again."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from examples import flights_pandas
from examples.driving import Progress, SendRecord, Workers, opened, send_all
from examples.flights import airlines_topic, app, flights, planes_topic, weather_topic
from examples.flights_report import differences, read_tables
from streamlog.client.producer import Producer

BEFORE_ALL_MS = 1_356_998_400_000
AT_ONCE = 500


class Member(Protocol):
    """A node of the cluster."""

    def start(self, *, wait: bool = True) -> None: ...
    def stop(self, *, kill: bool = False) -> None: ...


@dataclass(slots=True)
class Outcome:
    kills: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """Rows that pandas has otherwise."""
    rows: int = 0
    """That were compared."""


async def send_at_a_pace(producer: Producer, records: Sequence[SendRecord], seconds: float) -> None:
    """Evenly over so many seconds, whatever happens to the cluster meanwhile."""
    began_s = time.monotonic()
    for start in range(0, len(records), AT_ONCE):
        await asyncio.sleep(max(0.0, began_s + seconds * start / len(records) - time.monotonic()))
        await send_all(producer, flights, records[start : start + AT_ONCE])


async def kill_one_after_another(members: Mapping[int, Member], every_s: float, outcome: Outcome) -> None:
    """Each in its turn, and at once again; the next when its time has come and this one serves again."""
    for number in itertools.cycle(sorted(members)):
        due_s = time.monotonic() + every_s
        await asyncio.to_thread(members[number].stop, kill=True)
        outcome.kills += 1
        await asyncio.to_thread(members[number].start)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def play(
    bootstrap: str, members: Mapping[int, Member], data_dir: Path, *, flights_max: int, seconds: float, every_s: float
) -> Outcome:
    """One worker all the while. Raises Failed when it ends, or when nothing moves any more."""
    data = flights_pandas.load(flights_max)
    records: list[SendRecord] = list(flights_pandas.flight_records(data.flights))
    outcome = Outcome()
    workers = Workers("examples.flights", data_dir, bootstrap)
    began_s = time.monotonic()
    try:
        workers.start("A")
        async with opened(bootstrap) as (admin, producer):
            progress = Progress(app, admin, workers)
            await progress.topics_made()
            await send_all(producer, airlines_topic, flights_pandas.airline_records(data.airlines, BEFORE_ALL_MS))
            await send_all(producer, planes_topic, flights_pandas.plane_records(data.planes, BEFORE_ALL_MS))
            await send_all(producer, weather_topic, flights_pandas.weather_records(data.weather))
            await progress.until_members(1)
            killing = asyncio.create_task(kill_one_after_another(members, every_s, outcome))
            try:
                await send_at_a_pace(producer, records, seconds)
                await progress.until_done()
            finally:
                killing.cancel()
                await asyncio.gather(killing, return_exceptions=True)
        tables = await asyncio.to_thread(read_tables, bootstrap)
        expected = flights_pandas.expected_tables(data)
        outcome.wrong = list(differences(tables, expected))
        outcome.rows = sum(len(table) for table in expected.values())
        outcome.seconds = time.monotonic() - began_s
        workers.check()
        await workers.stop("A")
    finally:
        await asyncio.to_thread(workers.stop_all)
    return outcome
