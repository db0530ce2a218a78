"""Live reads of every kind of table and key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import streamlog
from streamlog.web.blocking import Live
from tests.cli.shell import Shell, until

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
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The tables of one worker that has processed three events."""
    shell = Shell(tmp_path_factory.mktemp("kinds"))
    try:
        yield from _live(shell)
    finally:
        shell.close()


def _live(shell: Shell) -> Iterator[Live]:
    (shell.path / "kinds.py").write_text(APP)
    worker = shell.start("-A", "kinds", "worker", "--web", "127.0.0.1:0")
    worker.wait_for(r"task=\d+ epoch=\d+ state=running", count=2)
    shell.ok("produce", "events", "-s", ":", "-q", stdin='1:{"text":"a"}\n2:{"text":"b"}\n10:{"text":"a"}\n')
    shell.ok("produce", "names", "-s", ":", "-q", stdin='LHR:"London"\n')
    with streamlog.connect(app="kinds", data_dir=str(shell.path / "streamlog-data")) as connected:
        place = {"city": "a", "gate": 7}
        until("processed", lambda: connected.table("by_place").get(place) == 2)
        until("followed", lambda: connected.table("latest").get("LHR") is not None)
        until("gone round", lambda: connected.table("shared").get("b") is not None)
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
