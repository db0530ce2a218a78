"""`streamlog broker`: one line when ready, one message when not, and exit codes that tell why."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.broker.running import BrokerProcess


def run(*arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamlog", "broker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_one_line_says_where_it_listens_and_keeps_its_data(tmp_path: Path) -> None:
    """Nothing else is printed."""
    with BrokerProcess(tmp_path) as broker:
        assert broker.line == f"streamlog broker 1 ready on {broker.address} (data in {tmp_path})\n"
        running = json.loads((tmp_path / "broker.json").read_text())
        assert (running["pid"], running["listen"]) == (broker.process.pid, broker.address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, the clean marker, no message."""
    with BrokerProcess(tmp_path) as broker:
        broker.process.send_signal(number)
        _, error = broker.process.communicate(timeout=20)
        assert (broker.process.returncode, error) == (0, "")
    assert (tmp_path / ".kafka_cleanshutdown").exists()


def test_it_stops_when_nobody_has_been_connected_for_long_enough(tmp_path: Path) -> None:
    """--exit-when-idle: not while somebody is."""
    with BrokerProcess(tmp_path, "--exit-when-idle", "0.4") as broker:
        host, port = broker.address.split(":")
        with closing(socket.create_connection((host, int(port)))):
            time.sleep(1)
            assert broker.process.poll() is None
        assert broker.process.wait(20) == 0
    assert (tmp_path / ".kafka_cleanshutdown").exists()


def test_a_properties_file_is_read_and_overridden(tmp_path: Path) -> None:
    """Settings on the command line win; unknown names are warned about."""
    file = tmp_path / "server.properties"
    file.write_text(f"node.id=7\nlisteners=PLAINTEXT://127.0.0.1:1\nlog.dirs={tmp_path / 'data'}\nno.such.name=1\n")
    with BrokerProcess(tmp_path / "data", "--config", str(file)) as broker:
        assert broker.line.startswith("streamlog broker 7 ready on 127.0.0.1:")
        broker.process.terminate()
        _, error = broker.process.communicate(timeout=20)
    assert error == "streamlog broker: unknown setting no.such.name is ignored\n"


def test_a_directory_in_use_is_a_user_error(tmp_path: Path) -> None:
    """One sentence, no traceback, exit code 1."""
    with BrokerProcess(tmp_path):
        second = run("--data-dir", str(tmp_path), "--listen", "127.0.0.1:0")
    assert second.returncode == 1
    assert "is in use by another process" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_a_taken_port_is_a_system_error(tmp_path: Path) -> None:
    """Exit code 3, and what to do; the directory is free again afterwards."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        refused = run("--data-dir", str(tmp_path), "--listen", f"127.0.0.1:{port}")
    assert refused.returncode == 3
    assert refused.stderr == (
        f"streamlog broker: 127.0.0.1:{port} is in use by another process; stop it, or choose another port "
        "with --listen\n"
    )
    with BrokerProcess(tmp_path) as broker:
        assert broker.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--listen", "nowhere"], 2, "HOST:PORT"),
        (["num.partitions=0"], 1, "num.partitions"),
        (["--config", "/no/such/file"], 1, "/no/such/file"),
        (["ssl.keystore.location=/x"], 1, "TLS"),
        (["--no-such-option"], 2, "--no-such-option"),
        (["not a setting"], 2, "NAME=VALUE"),
        (["--exit-when-idle", "soon"], 2, "--exit-when-idle"),
    ],
)
def test_a_wrong_setting_is_one_message(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    """User errors are 1, usage errors 2; never a traceback."""
    result = run("--data-dir", str(tmp_path / "data"), *arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_data_directory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no default to surprise anybody."""
    monkeypatch.delenv("STREAMLOG_DATA_DIR", raising=False)
    result = run()
    assert (result.returncode, "--data-dir" in result.stderr) == (1, True)


def test_a_damaged_directory_is_named(tmp_path: Path) -> None:
    """The message says which file."""
    with BrokerProcess(tmp_path) as broker:
        broker.stop()
    (tmp_path / "meta.properties").write_text("nonsense")
    result = run("--data-dir", str(tmp_path), "--listen", "127.0.0.1:0")
    assert result.returncode == 3
    assert "meta.properties" in result.stderr
    assert "Traceback" not in result.stderr


def test_another_node_id_is_a_user_error(tmp_path: Path) -> None:
    """A directory belongs to one node."""
    with BrokerProcess(tmp_path) as broker:
        broker.stop()
    result = run("--data-dir", str(tmp_path), "--listen", "127.0.0.1:0", "node.id=2")
    assert (result.returncode, "node 1" in result.stderr) == (1, True)
