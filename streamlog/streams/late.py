"""Writes that came too late for their window: they are dropped, as windows with grace= promise, and counted here."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class LateWrites:
    """Of one task. The first of each table is named in the log; how many there were is in the status."""

    def __init__(self, partition: int) -> None:
        self.counts: dict[str, int] = {}  # by table
        self._partition = partition

    def listener(self, table: str) -> Callable[[int, int], None]:
        """Told of each write to `table`: the window's start, and stream time, both in ms."""

        def on_late(start_ms: int, stream_time_ms: int) -> None:
            if table not in self.counts:
                log.warning(
                    "table=%s partition=%d a write came too late for the window that starts at %d ms, and was dropped: "
                    "stream time is %d ms. Further ones are counted in the status; grace= leaves windows open longer",
                    table,
                    self._partition,
                    start_ms,
                    stream_time_ms,
                )
            self.counts[table] = self.counts.get(table, 0) + 1

        return on_late
