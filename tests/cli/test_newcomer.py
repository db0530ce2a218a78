"""Every command as somebody meets it who has not read anything: pipes that end, streams that are closed, terminals."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tests.cli.shell import Shell, flight_line

STREAMLOG = f"{sys.executable} -m streamlog"

LOOKING = [
    "topics list",
    "topics describe flights",
    "groups list",
    "topics list --json",
    "doctor",
    "-A flights_app tables",
]


def script(shell: Shell, line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=shell.path,
        env=shell.env,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", [*LOOKING, "--help", "topics --help", "consume flights --from-beginning"])
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_leaves_ends_a_command_quietly(on_broker: Shell, command: str, reader: str) -> None:
    """With success, however far it had come, and without a word."""
    on_broker.run("topics", "create", "flights")
    on_broker.ok("produce", "flights", "-s", ":", stdin=flight_line("AA") * 100)
    on_broker.ok(
        "consume", "flights", "--group", "readers", "--from-beginning", "-n", "1"
    )  # so that there is one to list
    done = script(on_broker, f"{STREAMLOG} {command} | {reader}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["topics list", "produce closed", "--version", "doctor"])
def test_a_command_without_standard_streams_works_all_the_same(on_broker: Shell, command: str, closed: str) -> None:
    """As from a daemon, or a shell that closed them; nothing that is opened later may take their numbers."""
    on_broker.run("topics", "create", "closed")
    done = script(on_broker, f"{STREAMLOG} {command} {closed} {'' if '<' in closed else '</dev/null'}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_watch_ends_when_nobody_reads_it(shell: Shell) -> None:
    """Also while no row changes."""
    shell.worker()
    watching = f"timeout 30 {STREAMLOG} tables watch flights delay_min | true"
    assert script(shell, watching).returncode == 0


@pytest.mark.parametrize(("no_color", "colored"), [("1", False), ("", True)])
def test_no_color_is_respected(on_broker: Shell, no_color: str, colored: bool) -> None:
    """On a terminal: https://no-color.org."""
    on_broker.run("topics", "create", "colors")
    for command in (["topics", "list"], ["doctor"]):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlog", *command],
            cwd=on_broker.path,
            env={**on_broker.env, "NO_COLOR": no_color, "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
        )
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # a terminal nobody has open any more
            pass
        os.close(ours)
        assert process.wait(60) == 0
        assert (b"\x1b[" in shown) is colored


def test_changing_a_topic_that_is_not_there_says_so_at_once(on_broker: Shell) -> None:
    """Instead of trying for ten seconds, as one does with a topic that was just created."""
    done = on_broker.run("topics", "alter", "nope", "--config", "retention.ms=1")
    assert done.code == 1
    assert done.err == "streamlog: topic 'nope' does not exist; create it first (UNKNOWN_TOPIC_OR_PARTITION)\n"


def test_a_file_in_the_place_of_a_data_directory_is_called_one(shell: Shell) -> None:
    """Not by its errno."""
    (shell.path / "file").write_text("")
    for command in (["broker", "--listen", "127.0.0.1:0"], ["-A", "flights_app", "worker"]):
        refused = shell.run(*command, "--data-dir", "file")
        assert (refused.code, "cannot be used: it is a file" in refused.err) == (1, True), refused.err


def test_a_group_of_workers_is_not_open_to_consumers(on_broker: Shell) -> None:
    """What to do stands beside Kafka's code."""
    on_broker.run("topics", "create", "flights", "--partitions", "4")
    worker = on_broker.worker(tasks=1)
    refused = on_broker.run("consume", "flights", "--group", "flights")
    assert (refused.code, "take another group" in refused.err) == (1, True), refused.err
    assert worker.stop() == 0
