"""Modules of users that do more than declare an app, and addresses that are none."""

from __future__ import annotations

import pytest

from tests.cli.shell import Shell


def test_a_module_that_ends_the_program_is_told_where(shell: Shell) -> None:
    """`sys.exit` at import ended the command without a word, and with the module's own code."""
    (shell.path / "script.py").write_text("import sys\n\nsys.exit(0)\n")
    done = shell.run("-A", "script", "agents")
    assert done.code == 1
    assert "script ends the program while it is imported" in done.err
    assert "script.py, line 3" in done.err
    assert "Traceback" not in done.err


def test_a_thread_of_the_app_does_not_keep_a_command_alive(shell: Shell) -> None:
    """Who waits for the command gets its output, its code, and the name of what would not end."""
    (shell.path / "threaded.py").write_text(
        "import threading, time\n"
        "import streamlog\n"
        "app = streamlog.App('threaded')\n"
        "threading.Thread(target=time.sleep, args=(600,), name='poller').start()\n"
    )
    done = shell.run("-A", "threaded", "agents")
    assert done.code == 0
    assert "ended while threads still ran: poller" in done.err


@pytest.mark.parametrize("address", ["a b:9092", "localhost:port", "host/path:1"])
def test_an_address_that_is_none_is_refused_at_once(shell: Shell, address: str) -> None:
    """Instead of being looked up for ten seconds."""
    done = shell.run("topics", "list", "--broker", address)
    assert done.code == 1
    assert "is not a broker address; write host:port" in done.err


def test_a_group_with_members_says_what_stands_in_the_way(on_broker: Shell) -> None:
    """The bare code of the answer told nobody what to do."""
    on_broker.ok("topics", "create", "flights", "--partitions", "4")
    worker = on_broker.worker()
    done = on_broker.run("groups", "delete", "flights")
    assert done.code == 1
    assert "it has members; stop them first" in done.err
    assert worker.stop() == 0
