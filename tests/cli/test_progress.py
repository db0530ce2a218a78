"""What a person sees of a worker: bars while it restores, one line when it runs."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from streamlog.cli.display import picture
from streamlog.cli.pace import Pace
from streamlog.streams.status import PartitionStatus, RestoreStatus, TaskStatus, WorkerStatus

RUNNING = TaskStatus(0, "running", (PartitionStatus("t", 0, 10, 8, 12, False),), (), ())
STATUS = WorkerStatus("flights", "p", "127.0.0.1:6066", "running", True, (RUNNING,), 3, 5, 0, None)


def _shown(status: WorkerStatus, pace: Pace) -> str:
    console = Console(width=100, record=True, force_terminal=False, file=None, quiet=False)
    with console.capture() as captured:
        console.print(picture(status, pace))
    return captured.get()


def test_a_running_worker_is_one_line() -> None:
    """Partitions, pace, and how far behind."""
    assert _shown(STATUS, Pace(1234.5, 2)) == "flights running  1 of 1 partitions  1,234 events/s  2 behind\n"
    assert _shown(STATUS, Pace(0, 0)) == "flights running  1 of 1 partitions  0 events/s  up to date\n"


def test_a_restoring_table_is_a_bar_with_the_time_left() -> None:
    """The furthest behind first; what blocks it instead of a time when something does."""
    small = RestoreStatus("small", 900, 1_000, 50.0, None)
    large = RestoreStatus("large", 1_000, 9_000, 100.0, None)
    stuck = RestoreStatus("stuck", 0, 1, 0.0, "no leader for 12 s")
    restoring = replace(RUNNING, number=1, state="restoring", restoring=(small, large, stuck))
    lines = _shown(replace(STATUS, tasks=(RUNNING, restoring)), Pace(0, None)).splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["large,", "small,", "stuck,"]
    assert "1,000 / 9,000" in lines[0]
    assert "80 s left" in lines[0]
    assert "no leader for 12 s" in lines[2]
    assert lines[3] == "flights running  1 of 2 partitions  0 events/s"


def test_trouble_is_part_of_the_line() -> None:
    """A broker that is away, and partitions that stand still."""
    failed = replace(RUNNING, failures=("ValueError",))
    shown = _shown(replace(STATUS, tasks=(failed,), error="reading: no broker"), Pace(0, 0))
    assert "reading: no broker" in shown
    assert "1 stopped" in shown
