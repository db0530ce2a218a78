"""Reading this worker's parts of tables from outside the agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from streamlog.errors import UserError
from streamlog.state.query import TableReader, WindowedReader
from streamlog.streams.globals import GlobalTables
from streamlog.streams.plan import Plan
from streamlog.streams.status import RestoreStatus
from streamlog.streams.tables import Table
from streamlog.streams.task import ReadOnly, Task, TaskState

LocalReader: TypeAlias = TableReader[Any, Any] | WindowedReader[Any, Any]


def local_readers(
    plan: Plan,
    tasks: Mapping[int, Task],
    global_tables: GlobalTables | None,
    name: str,
    restoring: Callable[[int], Sequence[RestoreStatus]] = lambda number: (),
) -> dict[int, LocalReader]:
    """Readers of the partitions of table `name` that this worker has, by partition; a global table's is under 0.

    A task that is still restoring answers from what it has; `restoring` says what a task's tables lack.
    Raises: UserError: the app has no such table.
    """
    table = next((one for one in plan.tables if one.name == name), None)
    if table is None:
        known = ", ".join(sorted(one.name for one in plan.tables)) or "none"
        raise UserError(f"app {plan.app_id} has no table {name}; its tables: {known}")
    if table.kind == "global":
        if global_tables is None or global_tables.store is None:
            return {}
        state = global_tables.states[name]
        return {
            0: TableReader(
                name,
                global_tables.store,
                table.key_serde,
                table.value_serde,
                lag=lambda: None if state.is_ready else sum(one.total - one.restored for one in state.progress()),
                on_unreadable=state.pass_over,
            )
        }
    readers: dict[int, LocalReader] = {}
    for number, task in sorted(tasks.items()):
        if task.store is not None and number < task.topology.table_partitions(name):
            readers[number] = _reader(table, task, restoring)
    return readers


def _reader(table: Table[Any, Any], task: Task, restoring: Callable[[int], Sequence[RestoreStatus]]) -> LocalReader:
    assert task.store is not None, "checked by the caller"
    running = task.state in (TaskState.RUNNING, TaskState.REVOKING)
    state: Any = task.state_of(table) if running else None
    if isinstance(state, ReadOnly):
        state = state.state

    def lag() -> int | None:
        if running:
            return 0
        return next((one.total - one.restored for one in restoring(task.number) if one.table == table.name), None)

    if table.windows is not None:
        return WindowedReader(table.name, task.store, table.key_serde, table.value_serde, state=state, lag=lag)
    return TableReader(table.name, task.store, table.key_serde, table.value_serde, state=state, lag=lag)
