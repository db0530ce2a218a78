"""`streamlog worker`: the app that -A names, run by real processes on an embedded log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket

import pytest

from streamlog.web.server import PORT_PREFERRED
from tests.cli.shell import CARRIERS, Shell, flight_line, until


def _delay(shell: Shell, carrier: str) -> float | None:
    done = shell.run("tables", "get", "flights", "delay_min", carrier, "--json")
    return json.loads(done.out)["value"] if done.code == 0 else None


def _lag(shell: Shell) -> int | None:
    (group,) = shell.run("groups", "describe", "flights", "--json").json
    lags = [one["lag"] for one in group["partitions"] if one["topic"] == "flights"]
    return None if None in lags or not lags else sum(lags)


def test_a_worker_processes_commits_and_continues_after_ctrl_c(shell: Shell) -> None:
    """The straight path: no broker named, records in, rows out, Ctrl-C, and on from there."""
    worker = shell.worker()
    shell.ok("produce", "flights", "-s", ":", stdin=flight_line("UA", 5) + flight_line("AA", 2))
    until("processed", lambda: _delay(shell, "UA") == 5.0 and _delay(shell, "AA") == 2.0)
    worker.send_signal(signal.SIGINT)
    assert worker.ends() == 0
    assert "state=stopped" in worker.text
    assert "Traceback" not in worker.text

    shell.ok("produce", "flights", "-s", ":", stdin=flight_line("UA", 7))
    again = shell.worker()
    until("continued", lambda: _delay(shell, "UA") == 12.0)
    assert again.stop() == 0


def test_two_workers_that_start_at_once_share_one_embedded_log(shell: Shell) -> None:
    """One of them starts the broker, the other joins it, and each gets a half of the partitions."""
    first = shell.start("-A", "flights_app", "worker", "--web", "127.0.0.1:0")
    second = shell.start("-A", "flights_app", "worker", "--web", "127.0.0.1:0")
    for worker in (first, second):
        worker.wait_for(r"worker=\w+ state=running")
    started = [worker for worker in (first, second) if "started broker=" in worker.text]
    joined = [worker for worker in (first, second) if "joined broker=" in worker.text]
    assert (len(started), len(joined)) == (1, 1)

    def shared() -> bool:
        (group,) = shell.run("groups", "describe", "flights", "--json").json
        owners = [one["member"] for one in group["partitions"] if one["topic"] == "flights"]
        return group["members"] == 2 and len(owners) == 4 and sorted(map(owners.count, set(owners))) == [2, 2]

    until("both have partitions", shared)
    assert first.stop() == 0
    assert second.stop() == 0


def test_a_broker_that_was_killed_is_started_again(shell: Shell) -> None:
    """kill -9 leaves broker.json behind; the worker does not believe it, and goes on by itself."""
    worker = shell.worker()
    before = shell.embedded_broker_pid()
    os.kill(before, signal.SIGKILL)
    worker.wait_for(r"started broker=", count=2)
    assert shell.embedded_broker_pid() != before
    shell.ok("produce", "flights", "-s", ":", stdin=flight_line("UA", 3))
    until("processed by the new broker's worker", lambda: _delay(shell, "UA") == 3.0)
    assert worker.stop() == 0


def test_a_stale_announcement_of_a_dead_broker_is_not_believed(shell: Shell) -> None:
    """A directory whose broker was killed, and nobody there: the next command starts one."""
    worker = shell.worker()
    worker.kill()
    os.kill(shell.embedded_broker_pid(), signal.SIGKILL)
    assert (shell.path / "streamlog-data/log/broker.json").exists()
    assert "flights" in shell.ok("topics", "list")


def test_an_embedded_log_that_does_not_start_shows_what_the_broker_said(shell: Shell) -> None:
    """A data directory of somebody else's cluster, say."""
    log = shell.path / "streamlog-data" / "log"
    log.mkdir(parents=True)
    (log / "meta.properties").write_text("version=7\n")
    done = shell.run("-A", "flights_app", "worker")
    assert done.code == 1
    assert "did not start. Its broker said:" in done.err
    assert "meta.properties" in done.err
    assert "Traceback" not in done.err


def test_processes_are_supervised(shell: Shell) -> None:
    """Two workers with slots and ports of their own; one is killed and comes back; Ctrl-C ends both, committed."""
    parent = shell.start("-A", "flights_app", "worker", "--web", "127.0.0.1:0", "--processes", "2")
    for number in (0, 1):
        parent.wait_for(rf"\[{number}\] .*worker=\w+ state=running")
    endpoints = set(re.findall(r"web=(http://\S+)", parent.text))
    assert len(endpoints) == 2
    slots = sorted(path.name for path in (shell.path / "streamlog-data/flights").glob("*/worker-*"))
    assert slots == ["worker-0", "worker-1"]

    children = _workers_of(shell, parent.process.pid)
    assert len(children) == 2
    os.kill(children[0], signal.SIGKILL)
    parent.wait_for(r"worker \d ended with SIGKILL; starting it again in 0.5 s")
    parent.wait_for(r"worker=\w+ state=running", count=3)

    lines = "".join(flight_line(carrier) for carrier in CARRIERS)
    shell.ok("produce", "flights", "-s", ":", "-q", stdin=lines)
    until("all processed", lambda: all(_delay(shell, carrier) == 1.0 for carrier in CARRIERS))
    parent.send_signal(signal.SIGINT)
    assert parent.ends() == 0
    assert parent.text.count("state=stopped") == 2
    assert _lag(shell) == 0


def test_processes_give_way_when_the_default_port_is_taken(shell: Shell) -> None:
    """Nobody named a port, so another worker's is no reason to end."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # taken already: all the better
            other.bind(("127.0.0.1", PORT_PREFERRED))
            other.listen()
        parent = shell.start("-A", "flights_app", "worker", "--processes", "2")
        for number in (0, 1):
            parent.wait_for(rf"\[{number}\] .*worker=\w+ state=running")
        assert parent.stop() == 0


def test_a_crash_is_restarted_whatever_it_ends_with(shell: Shell) -> None:
    """Exit code 1 is what a crashing interpreter ends with too; only the user's own mistakes are final."""
    (shell.path / "crashing_app.py").write_text(
        "import os\n"
        "import streamlog\n"
        "app = streamlog.App('crashing', partitions=2)\n"
        "@app.on_started\n"
        "async def crash() -> None:\n"
        "    number = len(os.listdir('crashes'))\n"
        "    if number < 2:\n"
        "        open(f'crashes/{number}', 'w').close()\n"
        "        os._exit(1)\n"
    )
    (shell.path / "crashes").mkdir()
    parent = shell.start("-A", "crashing_app", "worker", "--processes", "2", "--web", "127.0.0.1:0")
    parent.wait_for(r"worker \d ended with exit code 1; starting it again in 0.5 s")
    for number in (0, 1):
        parent.wait_for(rf"\[{number}\] .*worker=\w+ state=running")
    until("both crashed once", lambda: len(list((shell.path / "crashes").iterdir())) == 2)
    parent.wait_for(r"worker=\w+ state=running", count=4)
    assert parent.stop() == 0


def test_workers_end_when_their_supervisor_is_killed(shell: Shell) -> None:
    """kill -9 of the parent leaves no worker behind."""
    parent = shell.start("-A", "flights_app", "worker", "--web", "127.0.0.1:0", "--processes", "2")
    for number in (0, 1):
        parent.wait_for(rf"\[{number}\] .*worker=\w+ state=running")
    children = _workers_of(shell, parent.process.pid)
    parent.kill()
    until("the workers ended", lambda: not any(_alive(pid) for pid in children))


def test_a_user_error_of_one_process_ends_all(shell: Shell) -> None:
    """Starting again would change nothing; the exit code is the worker's."""
    shell.worker().stop()
    text = (shell.path / "flights_app.py").read_text()
    (shell.path / "flights_app.py").write_text(
        text.replace("partitions=4", "partitions=5").replace(
            'app.topic("flights", ', 'app.topic("flights", partitions=5, '
        )
    )
    parent = shell.start("-A", "flights_app", "worker", "--processes", "2")
    assert parent.ends() == 1
    assert "has 4 partitions, and the app declares partitions=5" in parent.text
    assert "starting it again" not in parent.text


def test_commands_of_the_app_and_send_reach_its_agents(shell: Shell) -> None:
    """`@app.command()` functions may be async and ask; `send --ask` does without one."""
    worker = shell.worker()
    assert shell.ok("-A", "flights_app", "greet") == "HELLO\n"
    assert shell.ok("-A", "flights_app", "send", "shout", "hey", "--ask") == '"HEY"\n'
    assert "greet" in shell.ok("-A", "flights_app", "--help")
    done = shell.run("-A", "flights_app", "give-up")
    assert (done.code, "give_up awaited something that was cancelled" in done.err) == (70, True)
    done = shell.run("-A", "flights_app", "send", "flights", '{"carrier": 1}')
    assert done.code == 1
    assert "values of topic flights are Flight" in done.err
    assert shell.ok("-A", "flights_app", "send", "flights", flight_line("HA")[3:].strip(), "-k", "HA") == (
        "Sent to flights.\n"
    )
    until("processed", lambda: _delay(shell, "HA") == 1.0)
    assert worker.stop() == 0


def test_doctor_finds_the_worker_and_what_stands_still(shell: Shell) -> None:
    """A record that cannot be read stops its partition; doctor says which and why, and exits with 1."""
    done = shell.run("-A", "flights_app", "doctor", "--json")
    assert [one for one in done.json if one["verdict"] == "problem"] == []
    worker = shell.worker()
    done = shell.run("-A", "flights_app", "doctor")
    assert done.code == 0, done.out
    assert "4 of 4 partitions running" in done.out
    shell.ok("produce", "flights", "-k", "UA", stdin="this is no flight\n")
    until("it stands still", lambda: "stands still" in shell.run("-A", "flights_app", "doctor").out)
    done = shell.run("-A", "flights_app", "doctor")
    assert done.code == 1
    assert "PROBLEM" in done.out
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("target", "text", "said"),
    [
        ("nowhere", "", "-A nowhere: there is no module 'nowhere' in"),
        ("empty_app", "import streamlog\n", 'empty_app.py has no streamlog.App in it: write  app = streamlog.App("'),
        ("empty_app:thing", "thing = 3\n", "empty_app:thing is a int, not a streamlog.App"),
        ("broken_app", "import streamlog\n\nx = 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("broken_app", "def f(:\n", "broken_app does not import: invalid syntax at broken_app.py, line 1"),
        ("broken_app", "import no_such_module\n", "No module named 'no_such_module'"),
        (
            "several_apps",
            "import streamlog\na = streamlog.App('a')\nb = streamlog.App('b')\n",
            "several_apps.py has several apps: choose with -A several_apps:a, -A several_apps:b",
        ),
        (
            "double",
            "import streamlog\napp = streamlog.App('a')\n\nfor _ in 'ab':\n    app.Table('t', key=str, value=int)\n",
            "double.py, line 5: table t is declared twice",
        ),
    ],
)
def test_an_app_that_cannot_be_loaded_is_explained(shell: Shell, target: str, text: str, said: str) -> None:
    """In the user's own words and lines, without our frames."""
    if text:
        (shell.path / f"{target.partition(':')[0]}.py").write_text(text)
    done = shell.run("-A", target, "worker")
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err
    assert "streamlog/streams" not in done.err


def test_the_line_of_the_users_module_is_shown(shell: Shell) -> None:
    """The deepest line that is theirs, with its code."""
    (shell.path / "broken_app.py").write_text("import streamlog\n\nvalue = int('seven')\n")
    done = shell.run("-A", "broken_app", "topology")
    assert "at broken_app.py, line 3:\n    value = int('seven')" in done.err


def test_the_app_may_be_named_in_pyproject(shell: Shell) -> None:
    """Then -A is not needed, in this directory or below it."""
    (shell.path / "pyproject.toml").write_text('[tool.streamlog]\napp = "flights_app:app"\n')
    assert "agent by_carrier: flights" in shell.ok("topology")
    assert [row["agent"] for row in shell.run("agents", "--json").json] == ["by_carrier", "shout"]
    assert {row["table"] for row in shell.run("tables", "--json").json} == {"delay_min", "departures", "last_flight"}


def test_without_an_app_the_message_says_how_to_name_one(shell: Shell) -> None:
    """On the command line or in pyproject.toml."""
    done = shell.run("worker")
    assert done.code == 1
    assert "-A module:app" in done.err
    assert "[tool.streamlog]" in done.err


def test_a_web_port_that_is_taken_is_a_user_error_only_when_it_was_named(shell: Shell) -> None:
    """The default port gives way; a named one does not."""
    first = shell.worker()
    endpoint = first.wait_for(r"web=http://(\S+)")[1]
    done = shell.run("-A", "flights_app", "worker", "--web", endpoint)
    assert done.code == 1
    assert f"the web server cannot listen on {endpoint}" in done.err
    assert "choose another address with --web" in done.err
    assert first.stop() == 0


def _workers_of(shell: Shell, supervisor: int) -> list[int]:
    """Its children, except the embedded log's broker."""
    with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split() if int(child) != shell.embedded_broker_pid()]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_command_that_passes_over_a_bad_record_works_as_it_is_printed(shell: Shell) -> None:
    """A worker that stands still names it; after the worker has stopped, the next goes on behind the record."""
    worker = shell.worker()
    shell.ok("produce", "flights", "-k", "UA", stdin="this is no flight\n")
    command = worker.wait_for(r"run `streamlog (groups reset-offsets flights --topic flights:\d --to-offset 1 [^`]*)`")[
        1
    ]
    assert 'on_error="skip"' in worker.text
    assert worker.stop() == 0
    shell.ok(*shlex.split(command))
    worker = shell.worker()
    shell.ok("produce", "flights", "-s", ":", stdin=flight_line("UA", 3))
    until("processed", lambda: _delay(shell, "UA") == 3.0)
    assert worker.stop() == 0


def test_what_needs_a_key_or_a_worker_says_so(shell: Shell) -> None:
    """A value without a key would stop the agent's partition; an app that never ran has no topics to ask through."""
    done = shell.run("-A", "flights_app", "send", "by_carrier", flight_line("UA").partition(":")[2])
    assert (done.code, "give the value's key with --key" in done.err) == (2, True)
    done = shell.run("-A", "flights_app", "greet")
    assert done.code == 1
    assert "no worker of app flights has run there yet" in done.err


LATE = """
import streamlog

app = streamlog.App("late", partitions=1)


class Hit(streamlog.Record):
    at_ms: int


hits = app.topic("hits", key=str, value=Hit, timestamp=Hit.at_ms)
counts = app.Table("counts", key=str, value=int, default=int).tumbling(1, grace=2)


@app.agent(hits)
async def count(stream):
    async for key, _ in stream.items():
        counts[key] += 1
"""


def test_late_events_are_counted_where_an_operator_looks(shell: Shell) -> None:
    """Dropping them is what was asked for; how many were dropped is what nobody knew."""
    (shell.path / "late.py").write_text(LATE)
    worker = shell.start("-A", "late", "worker", "--web", "127.0.0.1:0")
    lines = "".join(f'a:{{"at_ms": {at_ms}}}\n' for at_ms in (1_000, 9_000, 1_500, 2_000, 8_500))
    worker.wait_for(r"state=running positions")
    shell.ok("produce", "hits", "-s", ":", "-q", stdin=lines)
    worker.wait_for(r"table=counts partition=0 a write came too late for the window that starts at 1000 ms")
    said = "2 writes to table counts came after their window was closed"
    until("counted", lambda: said in " ".join(shell.run("-A", "late", "doctor").out.split()))
    assert worker.text.count("too late") == 1
    assert worker.stop() == 0
