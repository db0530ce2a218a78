"""A broker whose disk takes no writes for a while: who produces is told, and loses nothing."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.cli.shell import Shell


def test_produce_says_that_it_waits_for_the_disk_and_that_it_goes_on(shell: Shell, tmp_path: Path) -> None:
    """One line at either end; the records arrive. A limit on the size of files stands in for a full disk."""
    broker = shell.start("broker", "--data-dir", str(tmp_path / "broker"), "--listen", "127.0.0.1:0")
    address = broker.wait_for(r" ready on (\S+)")[1]
    shell.ok("topics", "create", "t", "--broker", address)
    (tmp_path / "lines").write_text("line\n" * 1000)
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    produce = shell.start("produce", "t", "lines", "--broker", address)
    produce.wait_for(r"streamlog: waiting: t-0 is refused by its broker, trying again: .*\(KAFKA_STORAGE_ERROR\)")
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert produce.ends() == 0
    lines = produce.text.splitlines()
    assert len(lines) == 3, produce.text
    assert lines[1].startswith("streamlog: going on: the broker takes writes again after ")
    assert lines[2] == "1,000 records written to t."
    assert shell.ok("consume", "t", "--until-end", "--broker", address) == "line\n" * 1000
