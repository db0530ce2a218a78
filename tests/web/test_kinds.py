"""Live reads of every kind of table and key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import streamlog
from streamlog.streams.record import MOMENT_MAX, MOMENT_MIN
from streamlog.web.blocking import Live
from tests.cli.shell import Shell, until

FAR_MS = {"past": -(10**15), "past calendars": 316_000_000_000_000, "usual": 1_700_000_040_000}
"""Times of events: what begins in a year that datetime does not have, and what does."""

APP = """
import streamlog

app = streamlog.App("kinds", partitions=2)


class Place(streamlog.Record, frozen=True):
    city: str
    gate: int


events = app.topic("events", key=int, value=dict[str, str])
names = app.topic("names", key=str, value=str, partitions=2)
by_number = app.Table("by_number", key=int, value=str)
by_place = app.Table("by_place", key=Place, value=int)
tags = app.SetTable("tags", key=int, value=str)
latest = app.Table("latest", key=str, value=str, source=names)
shared = app.GlobalTable("shared", key=str, value=str)


class Measure(streamlog.Record):
    at_ms: int


measures = app.topic("measures", key=str, value=Measure, partitions=2, timestamp=Measure.at_ms)
by_minute = app.Table("by_minute", key=str, value=int, default=int).tumbling(minutes=1)


@app.agent(measures)
async def by_time(stream: streamlog.Stream[str, Measure]) -> None:
    async for event in stream.events():
        by_minute[event.key] += 1
        print("measured", event.key, event.timestamp.isoformat(), flush=True)


@app.agent(events)
async def count(stream: streamlog.Stream[int, dict[str, str]]) -> None:
    async for number, value in stream.items():
        by_number[number] = value["text"]
        tags.add(number, value["text"])
        shared[value["text"]] = "yes"


@app.agent(events)
async def places(stream: streamlog.Stream[int, dict[str, str]]) -> None:
    async for value in stream.group_by(lambda value: Place(value["text"], 7), key=Place, name="place"):
        place = Place(value["text"], 7)
        by_place[place] = by_place.get(place, 0) + 1
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("kinds"))
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def live(shell: Shell) -> Iterator[Live]:
    """The tables of one worker that has processed three events, and measures of strange times."""
    (shell.path / "kinds.py").write_text(APP)
    worker = shell.start("-A", "kinds", "worker", "--web", "127.0.0.1:0")
    worker.wait_for(r"task=\d+ epoch=\d+ state=running", count=2)
    shell.ok("produce", "events", "-s", ":", "-q", stdin='1:{"text":"a"}\n2:{"text":"b"}\n10:{"text":"a"}\n')
    shell.ok("produce", "names", "-s", ":", "-q", stdin='LHR:"London"\n')
    shell.ok("produce", "measures", "-s", ":", "-q", stdin="".join(f'{k}:{{"at_ms":{v}}}\n' for k, v in FAR_MS.items()))
    with streamlog.connect(app="kinds", data_dir=str(shell.path / "streamlog-data")) as connected:
        place = {"city": "a", "gate": 7}
        until("processed", lambda: connected.table("by_place").get(place) == 2)
        until("followed", lambda: connected.table("latest").get("LHR") is not None)
        until("gone round", lambda: connected.table("shared").get("b") is not None)
        worker.wait_for(r"measured (.+)\n", count=len(FAR_MS))
        yield connected
    worker.stop()


def test_number_keys_are_numbers(live: Live) -> None:
    """In lookups and in scans, which go by the keys' bytes."""
    assert live.table("by_number")[10] == "a"
    assert list(live.table("by_number").items()) == [(1, "a"), (10, "a"), (2, "b")]


def test_record_keys_are_objects_without_the_app_and_records_with_their_type(live: Live) -> None:
    """Fields in the declared order are the same key."""
    assert live.table("by_place")[{"city": "a", "gate": 7}] == 2
    keyed: dict[str, Any] = {"city": "b", "gate": 7}
    assert list(live.table("by_place").items())[-1] == (keyed, 1)


def test_sets_are_lists_of_members_without_their_type(live: Live) -> None:
    """And sets with it."""
    assert live.table("tags")[1] == ["a"]
    assert live.table("tags", key=int, value=frozenset[str])[1] == frozenset({"a"})


def test_tables_that_follow_a_topic_are_read_like_others(live: Live) -> None:
    """Their rows are the topic's latest records."""
    assert live.table("latest")["LHR"] == "London"
    assert list(live.table("latest").items()) == [("LHR", "London")]


def test_global_tables_are_read_from_any_worker(live: Live) -> None:
    """They have one part."""
    assert live.table("shared")["a"] == "yes"
    assert list(live.table("shared").items()) == [("a", "yes"), ("b", "yes")]
    assert live.table("shared").read("a").staleness.partition == 0


def test_windows_beyond_the_calendar_are_at_its_edge_and_exact_in_ms(live: Live) -> None:
    """A producer that sends microseconds makes such windows; the others have to be readable all the same."""
    by_minute = live.table("by_minute")
    usual = datetime(2023, 11, 14, 22, 14, tzinfo=UTC)
    assert dict(by_minute.items()) == {("usual", usual): 1, ("past", MOMENT_MIN): 1, ("past calendars", MOMENT_MAX): 1}
    assert [start_ms for key, start_ms, _ in by_minute.entries() if key == "past calendars"] == [315_999_999_960_000]
    assert [start_ms for _, start_ms, _ in live.table("by_number").entries(limit=1)] == [None]
    (window,) = by_minute.windows("past calendars")
    assert (window.start, window.end) == (MOMENT_MAX, MOMENT_MAX)
    assert (window.start_ms, window.end_ms) == (315_999_999_960_000, 316_000_000_020_000)
    assert by_minute.window("past calendars", window.start_ms) == 1
    assert by_minute.windows("usual")[0].start == usual
    with pytest.raises(KeyError):
        by_minute.window("past", FAR_MS["past calendars"])


def test_commands_show_windows_beyond_the_calendar_in_ms(shell: Shell, live: Live) -> None:
    """As --at takes them. Records of such times are consumed as well."""
    lines = shell.ok("tables", "scan", "kinds", "by_minute", "--json").splitlines()
    starts = {row["key"]: row["window"]["start"] for row in map(json.loads, lines)}
    assert starts == {"past": "-1000000000020000", "past calendars": "315999999960000", "usual": "2023-11-14T22:14:00Z"}
    assert "315999999960000" in shell.ok("tables", "get", "kinds", "by_minute", "past calendars")
    assert shell.ok("tables", "get", "kinds", "by_minute", "past calendars", "--at", "316000000000000") == "1\n"
    absurd = shell.run("tables", "get", "kinds", "by_minute", "usual", "--at", "9" * 30)
    assert (absurd.code, absurd.err.count("\n")) == (1, 1)
    assert re.search(r"--at=.9+.: more than", absurd.err)
