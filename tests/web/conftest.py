"""A shell as in tests/cli: workers here are real processes too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import CARRIERS, Running, Shell, flight_line, until


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, list[Running], str]]:
    """Two workers with a half of the rows each, and the log's address: CARRIERS with delays 1.0 to 8.0."""
    shell = Shell(tmp_path_factory.mktemp("flights"))
    try:
        yield from _running(shell)
    finally:
        shell.close()


def _running(shell: Shell) -> Iterator[tuple[Shell, list[Running], str]]:
    workers = two_workers(shell)
    address = workers[0].wait_for(r"started broker=(\S+)")[1]
    produce_delays(shell)
    yield shell, workers, address
    for worker in workers:
        worker.stop()


def two_workers(shell: Shell) -> list[Running]:
    """Two workers that have settled: two of the four partitions each."""
    workers = [shell.worker()]
    workers.append(shell.worker(tasks=2))

    def settled() -> bool:
        (group,) = shell.run("groups", "describe", "flights", "--json").json
        owners = [one["member"] for one in group["partitions"] if one["topic"] == "flights"]
        return group["state"] == "Stable" and sorted(map(owners.count, set(owners))) == [2, 2]

    until("each has two partitions", settled)
    return workers


def produce_delays(shell: Shell) -> None:
    lines = [flight_line(carrier, number, hour=number) for number, carrier in enumerate(CARRIERS, 1)]
    shell.ok("produce", "flights", "-s", ":", "-q", stdin="".join(lines))

    def caught_up() -> bool:
        rows = shell.ok("tables", "scan", "flights", "delay_min").splitlines()
        return len(rows) == len(CARRIERS)

    until("all rows are there", caught_up)
