"""Ctrl-C at any moment, and brokers that do not answer: no traceback, no long silence."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from tests.cli.shell import Shell, until
from tests.cli.terminal import CTRL_C, Terminal


@pytest.mark.parametrize("module", ["click", "uvicorn", "flights_app"])
def test_ctrl_c_during_imports_ends_quietly(shell: Shell, module: str) -> None:
    """What takes long is stood in for by a module that sleeps: a library of the command's, of a worker's, the app."""
    (shell.path / f"{module}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    worker = shell.start("-A", "flights_app", "worker")
    worker.wait_for("importing")
    worker.send_signal(signal.SIGINT)
    assert worker.ends() == 130
    assert worker.text.split() == ["importing"]


def test_ctrl_c_ends_what_is_typed_into_produce_quietly(on_broker: Shell) -> None:
    """What was entered is written; that a thread waits at the keyboard is nobody's concern."""
    on_broker.ok("topics", "create", "typed", "-p", "1")
    with Terminal(on_broker, "produce", "typed") as terminal:
        before = terminal.modes_before
        terminal.wait_for("Ctrl-D ends")
        terminal.type(b"one\n")
        until("written", lambda: on_broker.ok("consume", "typed", "--until-end") == "one\n")
        terminal.type(b"tw" + CTRL_C)
        assert terminal.ends() == 130
        assert "streamlog:" not in terminal.text
        assert "Traceback" not in terminal.text
        assert terminal.modes() == before


def test_ctrl_c_in_consume_leaves_the_group(on_broker: Shell) -> None:
    """Else the next consumer waits for the end of a session that nobody has."""
    on_broker.ok("topics", "create", "left", "-p", "1")

    def members() -> str:
        return on_broker.run("groups", "describe", "leavers").out.partition("\n")[0]

    with Terminal(on_broker, "consume", "left", "--group", "leavers") as terminal:
        until("joined", lambda: "Stable" in members())
        terminal.type(CTRL_C)
        assert terminal.ends() == 130
        assert "Traceback" not in terminal.text
    assert members() == "leavers: Empty, 0 members, lag 0"


def test_ctrl_c_while_nobody_answers_ends_at_once(shell: Shell) -> None:
    """A worker that waits for a broker says so, and for what it waits; it has nothing to commit."""
    worker = shell.start("-A", "flights_app", "worker", "--broker", _closed_port())
    worker.wait_for(r"WARNING no broker reached, trying again: cannot connect to 127.0.0.1:\d+: Connection refused")
    began = time.monotonic()
    worker.send_signal(signal.SIGINT)
    assert worker.ends() == 0
    assert time.monotonic() - began < 10
    assert "Traceback" not in worker.text


def test_a_command_that_waits_for_a_broker_says_so_at_once(shell: Shell) -> None:
    """And for how long it tries, where the address is silent rather than closed."""
    refused = shell.start("topics", "list", "--broker", _closed_port())
    refused.wait_for(r"streamlog: no broker reached, trying again: cannot connect to 127.0.0.1:\d+: Connection refused")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        waiting = shell.start("topics", "list", "--broker", address)
        waiting.wait_for(f"streamlog: no answer from {address} yet; trying for 10 s")
        waiting.send_signal(signal.SIGINT)
        assert waiting.ends() == 130
    assert refused.ends() == 3
    assert refused.text.splitlines()[-1].startswith("streamlog: no broker answered at 127.0.0.1:")


def test_ctrl_c_while_supervised_workers_start_ends_them_quietly(shell: Shell) -> None:
    """Also those whose interpreter has not begun to handle signals."""
    parent = shell.start("-A", "flights_app", "worker", "--web", "127.0.0.1:0", "--processes", "2")
    parent.wait_for("running 2 workers")
    until("they are there", lambda: _children(parent.process.pid) >= 2)
    parent.send_signal(signal.SIGINT)
    assert parent.ends() == 0
    assert "Traceback" not in parent.text
    assert "Fatal" not in parent.text


ENDED_AT_ONCE = "ended at once, without the clean stop: what was not committed is processed again"

BUSY = """
import time

from flights_app import app


@app.task
async def hold_the_loop() -> None:
    print("busy", flush=True)
    time.sleep(600)
"""
"""An app whose worker hears of nothing any more."""

SLOW_END = """
import os, time
from flights_app import app


class Slow:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"leaving\\n")
        sleep(1)


slow = Slow()
"""
"""An app whose interpreter takes a second to end, in which Python has no signal handlers any more."""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_ctrl_c_ends_a_busy_worker_at_once_and_says_what_that_means(shell: Shell, processes: int) -> None:
    """Also while a body holds the event loop, which then hears of neither."""
    (shell.path / "busy.py").write_text(BUSY)
    worker = shell.start("-A", "busy:app", "worker", "--web", "127.0.0.1:0", "--processes", str(processes))
    worker.wait_for("busy", count=processes)

    def presses_again() -> bool:
        worker.send_signal(signal.SIGINT)
        return worker.process.poll() is not None

    until("ended", presses_again)
    assert worker.ends() == 130
    assert worker.text.count(ENDED_AT_ONCE) == 1
    assert "Traceback" not in worker.text


def test_ctrl_c_after_the_clean_stop_changes_nothing(shell: Shell) -> None:
    """All is committed; that the interpreter takes a moment to end is nobody's concern."""
    (shell.path / "leaving.py").write_text(SLOW_END)
    worker = shell.start("-A", "leaving:app", "worker", "--web", "127.0.0.1:0")
    worker.wait_for(r"task=\d+ epoch=\d+ state=running", count=4)
    worker.send_signal(signal.SIGINT)
    worker.wait_for("leaving")
    worker.send_signal(signal.SIGINT)
    assert worker.ends() == 0
    assert worker.text.splitlines()[-1] == "leaving"


def _children(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return len(file.read().split())


def _closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"
