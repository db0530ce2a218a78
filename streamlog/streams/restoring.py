"""Restores the tables of tasks from their changelogs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from streamlog.state.changelog import restored_table
from streamlog.state.restore import Restorer
from streamlog.state.store import Store
from streamlog.streams.deletions import Deletions
from streamlog.streams.plan import Plan
from streamlog.streams.status import RestoreStatus
from streamlog.streams.task import Task


class TableRestore:
    """Knows which tables of a task have changelogs. Tables that follow a topic catch up by themselves when they run."""

    def __init__(self, plan: Plan, restorer: Restorer, deletions: Deletions) -> None:
        self._plan = plan
        self._restorer = restorer
        self._deletions = deletions

    async def restore(self, task: Task, store: Store) -> None:
        tables = [
            restored_table(self._plan.app_id, table.name, table.windows)
            for table in self._plan.tables
            if table.kind not in ("source", "global") and task.number < task.topology.table_partitions(table.name)
        ]
        if tables:
            shown_ms = await asyncio.gather(*(self._deletions.shown_ms(table.topic) for table in tables))
            tables = [replace(one, delete_retention_ms=ms) for one, ms in zip(tables, shown_ms, strict=True)]
            await self._restorer.restore(store, tables, task.number)

    def progress(self, number: int) -> Sequence[RestoreStatus]:
        return [
            RestoreStatus(one.table, one.restored, one.total, one.rate, one.blocked)
            for one in self._restorer.progress()
            if one.partition == number
        ]
