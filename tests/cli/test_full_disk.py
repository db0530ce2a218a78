"""A broker whose disk takes no writes for a while: who produces is told, and loses nothing."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.cli.shell import Shell


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
