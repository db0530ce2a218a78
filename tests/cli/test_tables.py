"""`streamlog tables` against one worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.cli.shell import Shell, flight_line, until


@pytest.fixture(scope="module")
def flying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with a worker that has seen three flights."""
    shell = Shell(tmp_path_factory.mktemp("flying"))
    try:
        shell.worker()
        lines = flight_line("UA", 5, hour=3) + flight_line("UA", 7, hour=4) + flight_line("AA", 1, hour=3)
        shell.ok("produce", "flights", "-s", ":", "-q", stdin=lines)
        until("processed", lambda: len(shell.ok("tables", "scan", "flights", "departures").splitlines()) == 3)
        yield shell
    finally:
        shell.close()


def test_one_value_is_printed_alone(flying: Shell) -> None:
    """For use in scripts; with --json it says how old it is."""
    assert flying.ok("tables", "get", "flights", "delay_min", "UA") == "12.0\n"
    answer = flying.run("tables", "get", "flights", "delay_min", "UA", "--json").json
    assert (answer["key"], answer["value"], answer["staleness"]["state"]) == ("UA", 12.0, "running")
    assert json.loads(flying.ok("tables", "get", "flights", "last_flight", "UA"))["delay_min"] == 7.0


def test_windows_are_listed_or_picked(flying: Shell) -> None:
    """All windows of a key, or the one at a time."""
    lines = flying.ok("tables", "get", "flights", "departures", "UA").splitlines()
    assert lines[0].split() == ["START", "END", "VALUE"]
    assert [line.split() for line in lines[1:]] == [
        ["2013-01-01T03:00:00Z", "2013-01-01T04:00:00Z", "1"],
        ["2013-01-01T04:00:00Z", "2013-01-01T05:00:00Z", "1"],
    ]
    assert flying.ok("tables", "get", "flights", "departures", "UA", "--at", "2013-01-01T03:59") == "1\n"


def test_scans_are_lines(flying: Shell) -> None:
    """Key, window where there is one, and value; or JSON."""
    assert flying.ok("tables", "scan", "flights", "delay_min", "-n", "2") == "AA\t1.0\nUA\t12.0\n"
    assert flying.ok("tables", "scan", "flights", "departures", "--prefix", "A") == "AA\t2013-01-01T03:00:00Z\t1\n"
    lines = flying.ok("tables", "scan", "flights", "delay_min", "--prefix", "U", "--json").splitlines()
    assert [json.loads(line) for line in lines] == [{"key": "UA", "value": 12.0}]


def test_a_scan_of_nothing_says_so_to_people_and_is_no_lines_for_programs(flying: Shell) -> None:
    """One line a row, so none for none; a listing that is one document is [] then."""
    nothing = flying.run("tables", "scan", "flights", "delay_min", "--prefix", "X")
    assert (nothing.code, nothing.out, nothing.err) == (
        0,
        "",
        "Table delay_min of flights has no rows that begin so.\n",
    )
    lines = flying.run("tables", "scan", "flights", "delay_min", "--prefix", "X", "--json")
    assert (lines.code, lines.out, lines.err) == (0, "", "")


def test_what_is_not_there_is_said_with_exit_code_1(flying: Shell) -> None:
    """A key, a window, a table, an app."""
    cases = {
        ("flights", "delay_min", "XX"): "streamlog: table delay_min of flights has no key 'XX'\n",
        ("flights", "departures", "XX"): "streamlog: table departures of flights has no windows of 'XX'\n",
        ("flights", "nothing", "XX"): (
            "streamlog: app flights has no table 'nothing'; its tables: delay_min, departures, last_flight\n"
        ),
        ("flight", "delay_min", "XX"): "streamlog: there is no app 'flight' on these brokers; groups there: flights\n",
    }
    for arguments, said in cases.items():
        done = flying.run("tables", "get", *arguments)
        assert (done.code, done.err) == (1, said)


def test_changes_are_printed_as_they_are_committed(flying: Shell) -> None:
    """Until enough were seen."""
    watching = flying.start("tables", "watch", "flights", "last_flight", "ZZ", "-n", "1", "--json")

    def seen() -> bool:
        flying.ok("produce", "flights", "-s", ":", "-q", stdin=flight_line("ZZ", 9))  # again: it may not watch yet
        return watching.process.poll() is not None

    until("one change was printed", seen)
    assert watching.ends() == 0
    change = json.loads(watching.text)
    assert (change["key"], change["value"]["delay_min"]) == ("ZZ", 9.0)


ONLY = """
import streamlog

app = streamlog.App("flights", partitions=4)
flights = app.topic("flights", key=str, partitions=4)
seen = app.Table("seen", key=str, value=int, default=int)


@app.agent(flights)
async def see(stream):
    async for key, _ in stream.items():
        seen[key] += 1
"""
"""An app that has nothing to do without its topic."""


def test_tables_of_an_app_whose_only_topic_was_deleted_say_so_at_once(shell: Shell) -> None:
    """Nobody has such a table's partitions, and nobody will before the topic is there again."""
    (shell.path / "only.py").write_text(ONLY)
    worker = shell.start("-A", "only", "worker", "--web", "127.0.0.1:0")
    worker.wait_for(r"state=running positions", count=4)
    shell.ok("topics", "delete", "flights")
    worker.wait_for(r"topic flights does not exist any more: agent see stands still. Create it again")
    worker.wait_for(r"state=closed", count=4)
    said = "streamlog: app flights reads topic flights, which does not exist any more: its tables can be read again "
    for question in (("get", "flights", "seen", "UA"), ("scan", "flights", "seen")):
        began = time.monotonic()
        done = shell.run("tables", *question)
        assert (done.code, done.err[: len(said)], done.out) == (1, said, "")
        assert time.monotonic() - began < 8, "it asks for 10 seconds where a partition may be moving"
    doctor = shell.run("-A", "only", "doctor")
    assert doctor.code == 1
    assert "0 of 0 partitions running, lag 0; topic flights does not exist any more" in " ".join(doctor.out.split())
    shell.ok("topics", "create", "flights", "-p", "4")
    worker.wait_for(r"state=running positions", count=8)
    shell.ok("produce", "flights", "-s", ":", "-q", stdin=flight_line("UA", 5))
    until("read again", lambda: shell.run("tables", "get", "flights", "seen", "UA").out == "1\n")


def test_tables_stay_readable_when_one_of_several_topics_was_deleted(shell: Shell) -> None:
    """The app has another agent, whose tasks have the rows; the doctor names the topic and the agent."""
    shell.worker()
    shell.ok("produce", "flights", "-s", ":", "-q", stdin=flight_line("UA", 5))
    until("processed", lambda: shell.ok("tables", "scan", "flights", "delay_min") != "")
    before = shell.ok("tables", "scan", "flights", "delay_min")
    shell.ok("topics", "delete", "flights")
    said = "topic flights does not exist any more: agent by_carrier stands still"
    until("noticed", lambda: said in " ".join(shell.run("-A", "flights_app", "doctor").out.split()))
    until("open again", lambda: shell.run("tables", "scan", "flights", "delay_min").out == before)
