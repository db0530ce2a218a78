"""`streamlog.connect`: reading the tables of two worker processes from a program that is neither."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import streamlog
from streamlog.client.partitioner import partition_for_key
from streamlog.errors import UserError
from streamlog.streams.app import App
from streamlog.web.asking import NoOwner
from streamlog.web.live import AsyncLive, Change
from streamlog.web.routing import NoWorkers
from tests.cli.shell import CARRIERS, Running, Shell, flight_line, until
from tests.web.conftest import produce_delays, two_workers

Two: TypeAlias = tuple[Shell, list[Running], str]

DELAYS = {carrier: float(number) for number, carrier in enumerate(CARRIERS, 1)}


def test_rows_of_both_workers_are_read(running: Two) -> None:
    """Each key from whoever has it; one that is in no table is a KeyError."""
    _, _, address = running
    with streamlog.connect(address, app="flights") as live:
        delay_min = live.table("delay_min")
        assert {carrier: delay_min[carrier] for carrier in CARRIERS} == DELAYS
        assert sorted(one.partitions for one in live.workers()) != [(0, 1, 2, 3)]
        assert len({one.endpoint for one in live.workers()}) == 2
        with pytest.raises(KeyError, match="nobody"):
            delay_min["nobody"]
        assert delay_min.get("nobody") is None
        assert delay_min.get("nobody", 0.0) == 0.0
        assert "UA" in delay_min
        assert "nobody" not in delay_min


def test_rows_are_merged_by_key_over_the_workers(running: Two) -> None:
    """All of them, by prefix, some of them, and many at once."""
    _, _, address = running
    with streamlog.connect(address, app="flights") as live:
        delay_min = live.table("delay_min")
        assert list(delay_min.items()) == sorted(DELAYS.items())
        assert [key for key, _ in delay_min.items(prefix="A")] == ["AA", "AS"]
        assert [key for key, _ in delay_min.items(limit=3)] == sorted(DELAYS)[:3]
        assert list(delay_min) == sorted(DELAYS)
        assert delay_min.count() == len(DELAYS)
        assert delay_min.get_many(["UA", "AA", "nobody"]) == {"UA": DELAYS["UA"], "AA": DELAYS["AA"]}


def test_pages_follow_each_other_without_gap_or_overlap(running: Two) -> None:
    """Pages smaller than a partition's share."""
    _, _, address = running

    async def read() -> list[list[Any]]:
        async with streamlog.connect_async(address, app="flights") as live:
            return [rows async for rows, _ in live.table("delay_min").pages(page_rows=1)]

    pages = asyncio.run(read())
    assert [row for page in pages for row in page] == sorted(DELAYS.items())
    assert max(len(page) for page in pages) == 1


def test_answers_say_how_stale_they_are(running: Two) -> None:
    """Which partition answered, in which state, and what is not in it yet."""
    _, _, address = running
    with streamlog.connect(address, app="flights") as live:

        def settled() -> bool:
            staleness = live.table("delay_min").read("UA").staleness
            return staleness.committed and staleness.behind == 0

        until("committed", settled)
        read = live.table("delay_min").read("UA", committed=True)
        assert read.value == DELAYS["UA"]
        assert read.staleness.state == "running"
        assert read.staleness.lag == 0
        assert read.staleness.position is not None
        assert read.staleness.position > 0
        partitions = [one.partition for _, staleness in live.table("delay_min").pages() for one in staleness]
        assert partitions == [0, 1, 2, 3]


def test_types_come_back_when_the_app_is_given(running: Two) -> None:
    """Records as records with the App; plain objects with its name alone; any type on request."""
    shell, _, address = running
    app = _import_app(shell.path)
    with streamlog.connect(address, app=app) as live:
        flight = live.table("last_flight")["UA"]
        assert type(flight).__name__ == "Flight"
        assert flight.delay_min == DELAYS["UA"]
        assert flight.at == datetime(2013, 1, 1, 4, 30, tzinfo=UTC)
    with streamlog.connect(address, app="flights") as live:
        assert live.table("last_flight")["UA"]["delay_min"] == DELAYS["UA"]
        typed = live.table("last_flight", key=str, value=dict[str, Any])["UA"]
        assert typed["carrier"] == "UA"


def test_windows_are_read_by_time_and_in_order(running: Two) -> None:
    """One window, all windows of a key, and rows with their windows."""
    _, _, address = running
    start = datetime(2013, 1, 1, 4, tzinfo=UTC)
    with streamlog.connect(address, app="flights") as live:
        departures = live.table("departures")
        assert departures.window("UA", start.replace(minute=59)) == 1
        (window,) = departures.windows("UA")
        assert (window.start, window.end, window.value) == (start, start.replace(hour=5), 1)
        assert departures.windows("UA", since=start.replace(hour=5)) == []
        assert departures.windows("UA", until=start.replace(hour=5))[0].value == 1
        with pytest.raises(KeyError):
            departures.window("UA", start.replace(hour=7))
        assert dict(departures.items())["UA", start] == 1
        with pytest.raises(UserError, match="delay_min has no windows"):
            live.table("delay_min").windows("UA")


async def test_async_reads_share_the_callers_loop(running: Two) -> None:
    """Many at a time."""
    _, _, address = running
    async with streamlog.connect_async(address, app="flights") as live:
        delay_min = live.table("delay_min", key=str, value=float)
        values = await asyncio.gather(*(delay_min.get(carrier) for carrier in CARRIERS * 5))
        assert values == [DELAYS[carrier] for carrier in CARRIERS] * 5
        assert [key async for key, _ in delay_min.items()] == sorted(DELAYS)


async def test_sync_reads_work_inside_a_running_loop(running: Two) -> None:
    """As in a notebook, whose thread runs a loop."""
    _, _, address = running
    live = streamlog.connect(address, app="flights")
    assert live.table("delay_min")["UA"] == DELAYS["UA"]
    live.close()
    live.close()
    with pytest.raises(RuntimeError, match="closed"):
        live.table("delay_min")["UA"]


def test_what_is_wrong_is_said_with_what_there_is(running: Two) -> None:
    """No such app, no such table, a key of another type."""
    _, _, address = running
    with pytest.raises(UserError, match="there is no app 'fligths' on these brokers; groups there: flights"):
        streamlog.connect(address, app="fligths")
    with streamlog.connect(address, app="flights") as live:
        with pytest.raises(UserError, match="no table 'delays'; its tables: delay_min, departures, last_flight"):
            live.table("delays")["UA"]
        with pytest.raises(UserError, match="cannot write 7 as str"):
            live.table("delay_min").get(7)
    with pytest.raises(streamlog.EnvironmentFailure, match=r"no broker answered at 127\.0\.0\.1:1"):
        streamlog.connect("127.0.0.1:1", app="flights")


def test_the_embedded_log_is_found_in_its_data_directory(running: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address; a directory where nothing runs says so."""
    shell, _, _ = running
    monkeypatch.delenv("STREAMLOG_BROKER", raising=False)
    with streamlog.connect(app="flights", data_dir=str(shell.path / "streamlog-data")) as live:
        assert [info.name for info in live.tables()] == ["delay_min", "departures", "last_flight"]
    with pytest.raises(UserError, match="no embedded log runs in"):
        streamlog.connect(app="flights", data_dir=str(shell.path))


async def test_changes_are_watched_as_they_are_committed(shell: Shell) -> None:
    """Of one key, with the value after the commit, from a window as well."""
    worker = await asyncio.to_thread(shell.worker)
    address = worker.wait_for(r"started broker=(\S+)")[1]
    async with streamlog.connect_async(address, app="flights") as live:
        ready = [asyncio.Event(), asyncio.Event()]
        async with asyncio.TaskGroup() as group:
            plain = group.create_task(_first(live, "delay_min", "ZZ", ready[0]))
            windowed = group.create_task(_first(live, "departures", "ZZ", ready[1]))
            for event in ready:
                await event.wait()
            lines = flight_line("UA", 0) + flight_line("ZZ", 7, hour=9)
            await asyncio.to_thread(shell.ok, "produce", "flights", "-s", ":", "-q", stdin=lines)
        assert (plain.result().key, plain.result().value, plain.result().window) == ("ZZ", 7.0, None)
        start = datetime(2013, 1, 1, 9, tzinfo=UTC)
        assert windowed.result().window == (start, start.replace(hour=10))
        assert windowed.result().value == 1


async def _first(live: AsyncLive, table: str, key: str, ready: asyncio.Event) -> Change[Any, Any]:
    changes: AsyncIterator[Change[Any, Any]] = live.table(table).watch(key, ready=ready)
    async with asyncio.timeout(60):
        return await anext(changes)


def test_reads_follow_partitions_when_workers_come_and_go(shell: Shell) -> None:
    """One of two workers leaves: its keys are read from the other; the last one leaves: there is nobody to ask."""
    workers = two_workers(shell)
    address = workers[0].wait_for(r"started broker=(\S+)")[1]
    produce_delays(shell)
    with streamlog.connect(address, app="flights", timeout_s=30) as live:
        delay_min = live.table("delay_min")
        assert dict(delay_min.items()) == DELAYS
        assert workers[1].stop() == 0
        assert {carrier: delay_min[carrier] for carrier in CARRIERS} == DELAYS
        third = shell.worker(tasks=2)
        assert dict(delay_min.items()) == DELAYS
        assert {carrier: delay_min[carrier] for carrier in CARRIERS} == DELAYS
        assert workers[0].stop() == 0
        assert dict(delay_min.items()) == DELAYS
        assert third.stop() == 0
        live._live.timeout_s = 2
        with pytest.raises((NoOwner, NoWorkers)):
            delay_min["UA"]
    with pytest.raises(NoWorkers, match="no worker of app 'flights' is running: start one with `streamlog -A"):
        streamlog.connect(address, app="flights")


def test_who_connects_during_a_rebalance_finds_the_workers_that_go_on(shell: Shell) -> None:
    """A frozen worker holds up the group; the other one has its partitions all the while."""
    workers = two_workers(shell)
    address = workers[0].wait_for(r"started broker=(\S+)")[1]
    endpoint = workers[0].wait_for(r"web=http://(\S+)")[1]
    produce_delays(shell)

    def rebalancing() -> bool:
        (group,) = shell.run("groups", "describe", "flights", "--json").json
        return bool(group["state"] == "PreparingRebalance")

    with streamlog.connect(address, app="flights") as live:
        (mine,) = [one.partitions for one in live.workers() if one.endpoint == endpoint]
    workers[1].send_signal(signal.SIGSTOP)
    try:
        shell.start("-A", "flights_app", "worker", "--web", "127.0.0.1:0")
        until("the group waits for the frozen worker", rebalancing)
        with streamlog.connect(address, app="flights", timeout_s=30) as live:
            delay_min = live.table("delay_min")
            known = {key: value for key, value in DELAYS.items() if partition_for_key(key.encode(), 4) in mine}
            assert known
            assert {key: delay_min[key] for key in known} == known
    finally:
        workers[1].send_signal(signal.SIGCONT)


def test_a_worker_without_a_web_server_is_named_as_the_reason(shell: Shell) -> None:
    """Its rows cannot be had: the message says at once what to start instead."""
    worker = shell.start("-A", "flights_app", "worker", "--no-web")
    worker.wait_for(r"task=\d+ epoch=\d+ state=running", count=4)
    address = worker.wait_for(r"started broker=(\S+)")[1]
    with streamlog.connect(address, app="flights", timeout_s=600) as live:
        began = time.monotonic()
        with pytest.raises(NoOwner, match=r"without a web server.*--no-web.*extensions=\[WebServer\(\)\]"):
            live.tables()
        with pytest.raises(NoOwner, match="cannot be read: its workers run without a web server"):
            live.table("delay_min")["UA"]
        assert time.monotonic() - began < 30, "nobody waits for what will not come"
    assert worker.stop() == 0


def test_rows_of_workers_without_a_web_server_are_refused_at_once_and_others_are_read(shell: Shell) -> None:
    """One of two workers has none: its rows cannot be had, and nobody waits for them."""
    first = shell.worker()
    address = first.wait_for(r"started broker=(\S+)")[1]
    produce_delays(shell)
    shell.start("-A", "flights_app", "worker", "--no-web").wait_for(r"task=\d+ epoch=\d+ state=running", count=2)
    with streamlog.connect(address, app="flights", timeout_s=600) as live:
        until("each has two", lambda: [len(one.partitions) for one in live.workers()] == [2, 2])
        (mine,) = [one.partitions for one in live.workers() if one.endpoint is not None]
        delay_min = live.table("delay_min")
        known = {key: value for key, value in DELAYS.items() if partition_for_key(key.encode(), 4) in mine}
        assert {key: delay_min[key] for key in known} == known
        began = time.monotonic()
        (other, *_) = sorted(DELAYS.keys() - known.keys())
        refused = r"cannot be read: the worker that has it, on /?127.0.0.1, has no web server. Start workers with"
        with pytest.raises(NoOwner, match=refused):
            delay_min[other]
        with pytest.raises(NoOwner, match=refused):
            dict(delay_min.items())
        assert time.monotonic() - began < 30, "nobody waits for what will not come"


def test_reads_of_a_killed_owner_say_when_others_take_over(shell: Shell) -> None:
    """Nobody has its partitions before the group has missed it."""
    workers = two_workers(shell)
    address = workers[0].wait_for(r"started broker=(\S+)")[1]
    endpoint = workers[1].wait_for(r"web=http://(\S+)")[1]
    produce_delays(shell)
    with streamlog.connect(address, app="flights", timeout_s=1) as live:
        (its,) = [one.partitions for one in live.workers() if one.endpoint == endpoint]
        key = next(key for key in DELAYS if partition_for_key(key.encode(), 4) in its)
        assert live.table("delay_min")[key] == DELAYS[key]
        workers[1].kill()
        with pytest.raises(
            NoOwner, match=r"could not be read within 1 s.*cannot be reached.*others take over .* \(45 s\)"
        ):
            live.table("delay_min")[key]


def test_a_frozen_worker_does_not_hide_the_rows_of_the_others(shell: Shell) -> None:
    """It is asked first, and takes connections without ever answering; what it alone has cannot be read."""
    workers = two_workers(shell)
    address = workers[0].wait_for(r"started broker=(\S+)")[1]
    produce_delays(shell)
    with streamlog.connect(address, app="flights") as live:
        asked_first, other = live.workers()
    (frozen,) = [one for one in workers if one.wait_for(r"web=http://(\S+)")[1] == asked_first.endpoint]
    frozen.send_signal(signal.SIGSTOP)
    try:
        with streamlog.connect(address, app="flights", timeout_s=8) as live:
            assert len(live.tables()) == 3
            delay_min = live.table("delay_min")
            known = {
                key: value for key, value in DELAYS.items() if partition_for_key(key.encode(), 4) in other.partitions
            }
            assert {key: delay_min[key] for key in known} == known
            (lost, *_) = sorted(DELAYS.keys() - known.keys())
            with pytest.raises(NoOwner, match=r"within 8 s: the worker at \S+ did not answer within 4 s\. If it was"):
                delay_min[lost]
    finally:
        frozen.send_signal(signal.SIGCONT)


def _import_app(path: Path) -> App:
    spec = importlib.util.spec_from_file_location("flights_app_for_connect", path / "flights_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Record looks its annotations up there
    spec.loader.exec_module(module)
    app = module.app
    assert isinstance(app, App)
    return app
