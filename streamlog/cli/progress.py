"""How a worker is doing, at a glance: bars on a terminal (display.py), a line now and then in a log."""

from __future__ import annotations

import asyncio
import logging

from streamlog.cli.logs import console
from streamlog.cli.pace import PaceMeter
from streamlog.streams.worker import Worker

log = logging.getLogger(__name__)

LINE_S = 10.0
"""Between lines of a log, as long as something moves."""


async def show_progress(worker: Worker) -> None:
    """Until cancelled."""
    terminal = console()
    if terminal is None:
        await _log_lines(worker)
    else:
        from streamlog.cli.display import draw  # a tenth of a worker's start, which a log has no use for

        await draw(worker, terminal)


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
