"""The display of a worker on a terminal: a bar for each table that restores, a line of pace below the log."""

from __future__ import annotations

import asyncio

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamlog.cli.pace import Pace, PaceMeter
from streamlog.streams.status import WorkerStatus
from streamlog.streams.worker import Worker

REFRESH_S = 0.5

BAR_WIDTH = 30
BARS_MAX = 8
"""Bars on the screen at a time: tables that restore, the furthest behind first."""


async def draw(worker: Worker, terminal: Console) -> None:
    """Until cancelled."""
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
