"""A broker whose disk takes no writes for a while: who produces is told, and loses nothing."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Shell, flight_line, until
from tests.small_disk import fill, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2 << 20) as path:
        yield path


def test_a_broker_on_a_full_disk_says_what_is_full_and_starts_when_there_is_room(shell: Shell, disk: Path) -> None:
    """Not an errno: the path, and what to do. What was written before is there."""
    start = ("broker", "--data-dir", str(disk / "log"), "--listen", "127.0.0.1:0", "log.index.size.max.bytes=4096")
    broker = shell.start(*start)
    address = broker.wait_for(r" ready on (\S+)")[1]
    shell.ok("topics", "create", "t", "--broker", address)
    shell.ok("produce", "t", "--broker", address, stdin="line\n" * 10)
    broker.kill()
    ballast = fill(disk)
    refused = shell.start(*start)
    assert refused.ends() == 3
    assert f"{disk}/log" in refused.text
    assert "The disk is full. What was acknowledged is still there; free some space, then start again." in refused.text
    ballast.unlink()
    address = shell.start(*start).wait_for(r" ready on (\S+)")[1]
    assert shell.ok("consume", "t", "--until-end", "--broker", address) == "line\n" * 10


def test_a_worker_whose_embedded_log_has_no_room_says_so(shell: Shell, disk: Path) -> None:
    """Its broker cannot even write its log; nobody else would tell."""
    fill(disk)
    worker = shell.start("-A", "flights_app", "worker", "--data-dir", str(disk))
    assert worker.ends() == 1
    assert "No space left on device" in worker.text
    assert "Free some space" in worker.text


@pytest.mark.parametrize(("records_before", "waits_for"), [(10, "writing to t-0"), (0, "getting a producer id")])
def test_produce_says_that_it_waits_for_the_disk_and_that_it_goes_on(
    shell: Shell, tmp_path: Path, records_before: int, waits_for: str
) -> None:
    """One line at either end; the records arrive. A limit on the size of files stands in for a full disk."""
    broker = shell.start("broker", "--data-dir", str(tmp_path / "broker"), "--listen", "127.0.0.1:0")
    address = broker.wait_for(r" ready on (\S+)")[1]
    shell.ok("topics", "create", "t", "--broker", address)
    if records_before:
        shell.ok("produce", "t", "--broker", address, stdin="line\n" * records_before)
    (tmp_path / "lines").write_text("line\n" * 1000)
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (64, unlimited))
    produce = shell.start("produce", "t", "lines", "--broker", address)
    produce.wait_for(f"streamlog: {waits_for}: refused for now, trying again: ")
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    assert produce.ends() == 0
    lines = produce.text.splitlines()
    assert len(lines) == 3, produce.text
    assert "KAFKA_STORAGE_ERROR" in lines[0] or "no producer id" in lines[0]
    assert lines[1].startswith("streamlog: going on after ")
    assert lines[2] == "1,000 records written to t."
    assert shell.ok("consume", "t", "--until-end", "--broker", address) == "line\n" * (records_before + 1000)


def test_a_worker_whose_state_has_no_room_goes_on_when_there_is_some(on_broker: Shell) -> None:
    """It says what is full, stays, and has processed everything a moment after."""
    with small_disk(on_broker.path / "disk", 16 << 20) as disk:
        on_broker.ok("topics", "create", "flights", "--partitions", "4")
        worker = on_broker.worker("--data-dir", str(disk))
        ballast = fill(disk)
        lines = "".join(flight_line(f"{number:05d}{'x' * 100}") for number in range(20_000))
        on_broker.ok("produce", "flights", "-s", ":", stdin=lines)
        worker.wait_for("No space left on device")
        ballast.unlink()

        def counted() -> bool:
            (group,) = json.loads(on_broker.ok("groups", "describe", "flights", "--json"))
            return all(one["lag"] == 0 for one in group["partitions"])

        until("all flights are processed", counted)
        worker.send_signal(signal.SIGTERM)
        assert worker.ends() == 0
    assert "Traceback" not in worker.text
