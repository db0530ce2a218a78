"""How a worker is doing, at a glance: bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamlog.cli.logs import console
from streamlog.streams.status import WorkerStatus
from streamlog.streams.worker import Worker

log = logging.getLogger(__name__)

REFRESH_S = 0.5
LINE_S = 10.0
"""Between lines of a log, as long as something moves."""

BAR_WIDTH = 30
BARS_MAX = 8
"""Bars on the screen at a time: tables that restore, the furthest behind first."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast records are processed, over the last interval."""

    per_s: float
    behind: int | None
    """Records in the log that were not fetched yet; None before anybody said where the log ends."""


async def show_progress(worker: Worker) -> None:
    """Until cancelled."""
    terminal = console()
    if terminal is None:
        await _log_lines(worker)
    else:
        await _draw(worker, terminal)


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


async def _log_lines(worker: Worker) -> None:
    meter = PaceMeter(worker)
    while True:
        await asyncio.sleep(LINE_S)
        status = worker.status()
        pace = meter.measure(status)
        restoring = [one for task in status.tasks for one in task.restoring if one.restored < one.total]
        if pace.per_s >= 1 or restoring:
            left = sum(one.total - one.restored for one in restoring)
            log.info(
                "app=%s tasks=%d events_per_s=%.0f behind=%s restoring=%d restore_left=%d",
                status.app_id,
                len(status.tasks),
                pace.per_s,
                "?" if pace.behind is None else pace.behind,
                len(restoring),
                left,
            )


async def _draw(worker: Worker, terminal: Console) -> None:
    meter = PaceMeter(worker)
    with Live(console=terminal, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            status = worker.status()
            live.update(picture(status, meter.measure(status)), refresh=True)
            await asyncio.sleep(REFRESH_S)


def picture(status: WorkerStatus, pace: Pace) -> Group:
    """The display: a bar for each table that restores, and a line about everything."""
    parts: list[Table | Text] = []
    restoring = [(task.number, one) for task in status.tasks for one in task.restoring if one.restored < one.total]
    if restoring:
        restoring.sort(key=lambda pair: pair[1].restored - pair[1].total)
        grid = Table.grid(padding=(0, 2))
        for number, one in restoring[:BARS_MAX]:
            left_s = (one.total - one.restored) / one.rate if one.rate else None
            grid.add_row(
                f"restoring {one.table}, partition {number}",
                ProgressBar(one.total, one.restored, width=BAR_WIDTH),
                f"{one.restored:,} / {one.total:,}",
                one.blocked or ("" if left_s is None else f"{left_s:,.0f} s left"),
            )
        parts.append(grid)
        if len(restoring) > BARS_MAX:
            parts.append(Text(f"and {len(restoring) - BARS_MAX} more", style="dim"))
    running = sum(task.state == "running" for task in status.tasks)
    words = [f"{status.app_id} {status.state}", f"{running} of {len(status.tasks)} partitions"]
    words.append(f"{pace.per_s:,.0f} events/s")
    if pace.behind is not None:
        words.append("up to date" if pace.behind == 0 else f"{pace.behind:,} behind")
    line = Text("  ".join(words), style="dim")
    if status.error:
        line.append(f"  {status.error}", style="yellow")
    failed = sum(bool(task.failures) for task in status.tasks)
    if failed:
        line.append(f"  {failed} stopped", style="red")
    parts.append(line)
    return Group(*parts)
