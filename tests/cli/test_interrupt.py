"""Ctrl-C at any moment, and brokers that do not answer: no traceback, no long silence."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from tests.cli.shell import Shell, until


@pytest.mark.parametrize("module", ["click", "croniter", "flights_app"])
def test_ctrl_c_during_imports_ends_quietly(shell: Shell, module: str) -> None:
    """What takes long is stood in for by a module that sleeps: a library of the command's, of a worker's, the app."""
    (shell.path / f"{module}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    worker = shell.start("-A", "flights_app", "worker")
    worker.wait_for("importing")
    worker.send_signal(signal.SIGINT)
    assert worker.ends() == 130
    assert worker.text.split() == ["importing"]


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


def _children(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return len(file.read().split())


def _closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"
