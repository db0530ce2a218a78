"""A process that is killed with -9 while it appends: what it acknowledged is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamlog.broker.log.config import LogConfig
from tests.broker.log.harness import Bench, append, batch_of, values_of

pytestmark = pytest.mark.crash

KILLS = 25
ACKS_BEFORE_KILL = 40

CONFIG = LogConfig(segment_bytes=20_000, index_interval_bytes=500)


def child(directory: str, recovery_point: int) -> None:
    """Append for ever; print each offset once it is appended, and each recovery point once it is reached."""
    bench = Bench(Path(directory), CONFIG, recovery_point=recovery_point)
    log = bench.open()
    while True:
        base_offset = append(log, batch_of(b"%d" % log.log_end_offset)).base_offset
        print("appended", base_offset, flush=True)
        if base_offset % 37 == 0:
            bench.checkpoint(log)
            print("checkpointed", bench.recovery_point, flush=True)


def test_killed_again_and_again_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Each life goes on where the one before was cut off, and walks only what follows its last checkpoint."""
    recovery_point = last = 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", __name__, str(tmp_path / "orders-0"), str(recovery_point)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(ACKS_BEFORE_KILL):
            what, offset = process.stdout.readline().split()
            if what == "appended":
                last = int(offset)
            else:
                recovery_point = int(offset)
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout:
            what, _, offset = line.strip().partition(" ")
            if what == "checkpointed" and line.endswith("\n"):
                recovery_point = int(offset)
        process.stdout.close()
        process.wait()
        log = Bench(tmp_path / "orders-0", CONFIG, recovery_point=recovery_point).open()
        values = values_of(log)
        assert list(values) == list(range(log.log_end_offset))
        assert all(value == b"%d" % offset for offset, value in values.items())
        assert log.log_end_offset > last
        log.abandon()


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]))
