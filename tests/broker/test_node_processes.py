"""Nodes of a cluster as processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.broker.nodes import BROKER, CONTROLLER, Nodes, combined


def start(found: Nodes, number: int) -> subprocess.Popen[str]:
    settings = [f"{name}={value}" for name, value in found.values(number).items()]
    return subprocess.Popen(
        [sys.executable, "-m", "streamlog", "broker", "--data-dir", found.directory(number), *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_node_that_waits_for_the_others_can_be_stopped(tmp_path: Path, number: int) -> None:
    """As cleanly as one that serves."""
    found = Nodes(tmp_path, combined())
    process = start(found, 1)
    time.sleep(1.0)  # into its start, whose end it cannot reach
    assert process.poll() is None
    assert end(process, number) == 0
    await found.close()


@pytest.mark.parametrize("roles", [combined(), {1: CONTROLLER, 11: BROKER}], ids=["combined", "separate"])
async def test_processes_make_a_cluster(tmp_path: Path, roles: dict[int, str]) -> None:
    """Each says that it is ready, and ends when it is told to, with nothing to recover."""
    found = Nodes(tmp_path, roles)
    processes = [start(found, number) for number in roles]
    try:
        for process in processes:
            assert "ready on" in first_line(process)
    finally:
        codes = [end(process) for process in reversed(processes)]
        await found.close()
    assert codes == [0] * len(roles)
    brokers = [number for number, role in roles.items() if "broker" in role]
    assert all((tmp_path / str(number) / ".kafka_cleanshutdown").exists() for number in brokers)
