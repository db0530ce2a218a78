"""Nodes of a cluster as processes of their own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamlog.client.admin import Admin, NewTopic
from tests.broker.nodes import BROKER, CONTROLLER, WAIT_S, Nodes, combined


def start(found: Nodes, number: int) -> subprocess.Popen[str]:
    settings = [f"{name}={value}" for name, value in found.values(number).items()]
    command = [sys.executable, "-m", "streamlog", "broker", "--data-dir", found.directory(number), *settings]
    with log_of(found, number).open("a") as log:
        return subprocess.Popen([*command, "--log-level", "INFO"], stdout=subprocess.PIPE, stderr=log, text=True)


def log_of(found: Nodes, number: int) -> Path:
    return found.path / f"{number}.log"


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def address_in(line: str) -> str:
    """From what a broker says when it is ready."""
    assert "ready on" in line, line
    return line.split("ready on ")[1].split()[0]


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_node_that_waits_for_the_others_can_be_stopped(tmp_path: Path, number: int) -> None:
    """As cleanly as one that serves."""
    found = Nodes(tmp_path, combined())
    process = start(found, 1)
    await found.until(
        lambda: "quorum epoch=" in log_of(found, 1).read_text()
    )  # it has begun, and cannot end, its start
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


async def test_a_broker_that_was_frozen_for_long_follows_a_snapshot(tmp_path: Path) -> None:
    """The log that it would need is gone. What was deleted meanwhile is gone there too; what is new can be written."""
    found = Nodes(tmp_path, combined(), metadata_log_max_record_bytes_between_snapshots="2000")
    processes = {number: start(found, number) for number in (1, 2, 3)}
    try:
        addresses = {number: address_in(first_line(process)) for number, process in processes.items()}
        async with Admin(addresses[1], env=found.env) as admin:
            quorum = await admin.describe_quorum()
            frozen = next(number for number in (2, 3) if number != quorum.leader_id)
            others = {number: address for number, address in addresses.items() if number != frozen}
            placed = {0: [frozen]}
            await admin.create_topics([NewTopic("kept", replicas=placed), NewTopic("gone", replicas=placed)])
            processes[frozen].send_signal(signal.SIGSTOP)
        async with Admin(list(others.values()), env=found.env) as admin:
            await admin.delete_topics(["gone"])
            for number in range(40):
                await admin.create_topics([NewTopic(f"new-{number}", 1, 1)])
        processes[frozen].send_signal(signal.SIGCONT)
        await found.until(lambda: "metadata reloaded from snapshot" in log_of(found, frozen).read_text())
        async with Admin(addresses[frozen], env=found.env) as admin, asyncio.timeout(WAIT_S):
            await admin.create_topics([NewTopic("after", replicas=placed)])

        def kept() -> set[str]:
            return {path.name for path in (tmp_path / str(frozen)).iterdir() if path.is_dir()}

        await found.until(lambda: {"kept-0", "after-0"} <= kept() and "gone-0" not in kept())
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGCONT)
        codes = [end(process) for process in processes.values()]
        await found.close()
    assert codes == [0, 0, 0]
