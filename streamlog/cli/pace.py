"""How fast a worker is, and how far behind: what its log lines and its display show."""

from __future__ import annotations

from dataclasses import dataclass

from streamlog.streams.status import WorkerStatus
from streamlog.streams.worker import Worker


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast records are processed, over the last interval."""

    per_s: float
    behind: int | None
    """Records in the log that were not fetched yet; None before anybody said where the log ends."""


class PaceMeter:
    """Measures the pace between calls."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._positions: dict[tuple[str, int], int] = {}
        self._at_ms = worker.env.clock.mono_ms()

    def measure(self, status: WorkerStatus) -> Pace:
        now_ms = self._worker.env.clock.mono_ms()
        positions = {(one.topic, one.partition): one.position for task in status.tasks for one in task.partitions}
        moved = sum(position - self._positions.get(one, position) for one, position in positions.items())
        elapsed_ms = max(now_ms - self._at_ms, 1)
        self._positions, self._at_ms = positions, now_ms
        ends = [one for task in status.tasks for one in task.partitions if one.end_offset is not None]
        behind = sum(max(0, (one.end_offset or 0) - one.position) for one in ends) if ends else None
        return Pace(max(moved, 0) * 1000 / elapsed_ms, behind)
