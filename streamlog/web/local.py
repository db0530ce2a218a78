"""The rows that this worker owns: tables of its tasks, read in place.

Reads run on the worker's event loop, between events, so they see whole events and need no lock. They go around the
cache (state/query.py) and a page bounds how long one takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamlog.client.partitioner import partition_for_key
from streamlog.errors import StreamlogError, UserError
from streamlog.serde import Serde, table_value_serde_for
from streamlog.state.query import Staleness as TableStaleness
from streamlog.state.query import TableReader, WindowedReader
from streamlog.state.store import StoreClosed
from streamlog.state.windows import TIME_MS_MAX, TIME_MS_MIN
from streamlog.streams.local_queries import LocalReader
from streamlog.streams.tables import Table
from streamlog.streams.task import ReadOnly, Task, TaskState
from streamlog.streams.worker import Worker
from streamlog.web.answers import Found, Row, Rows, Staleness, TableInfo
from streamlog.web.elsewhere import ROWS_ASKED_MAX, is_elsewhere

READABLE = (TaskState.RUNNING, TaskState.REVOKING)


class NotOwner(StreamlogError):
    """The partition belongs to another worker, as far as this one knows."""


class NotReady(StreamlogError):
    """The partition is ours and cannot be read yet; the message says why."""


class LocalTables:
    """See the module's essay."""

    def __init__(self, worker: Worker) -> None:
        """Of a worker whose topology is resolved."""
        self._worker = worker
        self._tables: dict[str, Table[Any, Any]] = {table.name: table for table in worker.plan.tables}
        self._values: dict[str, Serde[Any]] = {
            table.name: table_value_serde_for(table.value_type) for table in worker.plan.tables
        }

        self._infos = {name: self._describe(name) for name in sorted(self._tables)}

    # --- which tables ---------------------------------------------------------------------------------------------

    def infos(self) -> list[TableInfo]:
        """By name."""
        return list(self._infos.values())

    def info(self, name: str) -> TableInfo:
        """Raises UserError, which lists the tables there are."""
        self.table(name)
        return self._infos[name]

    def _describe(self, name: str) -> TableInfo:
        table = self._tables[name]
        node = self._worker.topology.table(name)
        return TableInfo(
            name=name,
            kind=node.kind,
            key=table.key_serde.name,
            value=node.value,
            partitions=1 if node.kind == "global" else self._worker.topology.table_partitions(name),
            changelog=node.changelog,
            window_size_ms=None if table.windows is None else table.windows.size_ms,
            window_step_ms=None if table.windows is None else table.windows.step_ms,
        )

    def table(self, name: str) -> Table[Any, Any]:
        """Raises UserError, which lists the tables there are."""
        found = self._tables.get(name)
        if found is None:
            known = ", ".join(sorted(self._tables)) or "none"
            raise UserError(f"app {self._worker.program.id} has no table {name!r}; its tables: {known}")
        return found

    def encode_value(self, name: str, value: Any) -> bytes:
        return self._values[name].encode(value)

    def decode_value(self, name: str, data: bytes) -> Any:
        return self._values[name].decode(data)

    def partition_of(self, name: str, key: bytes) -> int:
        return partition_for_key(key, self.info(name).partitions)

    # --- reading --------------------------------------------------------------------------------------------------

    def get_many(
        self,
        name: str,
        partition: int,
        keys: Sequence[bytes],
        start_ms: int | None,
        *,
        committed: bool,
        stale: bool = False,
    ) -> Found:
        """`stale`: from a partition that is still being restored too.

        Raises: NotOwner, NotReady; UserError: no such table, or a key or window that does not fit it.
        """
        table = self.table(name)
        if not keys:
            raise UserError("no keys to look up")
        decoded = [table.key_serde.decode(key) for key in keys]
        values: list[Any]
        try:
            if table.windows is None:
                reader, task = self._reader(table, partition, stale)
                many = reader.get_many(decoded, committed=committed)
                values, staleness = many.value, many.staleness
            elif start_ms is None:
                raise UserError(f"table {name} has windows: say which")
            else:
                windowed, task = self._windowed_reader(table, partition, stale)
                found = [windowed.get(key, start_ms, committed=committed) for key in decoded]
                values, staleness = [one.value for one in found], found[-1].staleness
        except StoreClosed as error:
            raise NotReady(f"partition {partition} is being given up") from error
        encoded = [None if value is None else self.encode_value(name, value) for value in values]
        elsewhere = table.kind == "source" and task is not None and None in encoded and self._is_elsewhere(table, task)
        return Found(values=encoded, staleness=_staleness(task, staleness), elsewhere=elsewhere)

    def _is_elsewhere(self, table: Table[Any, Any], task: Task) -> bool:
        state = task.state_of(table)
        if not isinstance(state, ReadOnly):
            return False  # it is being restored
        return is_elsewhere(state.state.some_keys(ROWS_ASKED_MAX), task.number, self.info(table.name).partitions)

    def windows(
        self,
        name: str,
        partition: int,
        key: bytes,
        from_ms: int,
        to_ms: int,
        limit: int,
        *,
        committed: bool,
        stale: bool = False,
    ) -> Rows:
        """Windows of one key, oldest first."""
        table = self.table(name)
        if table.windows is None:
            raise UserError(f"table {name} has no windows")
        try:
            reader, task = self._windowed_reader(table, partition, stale)
            decoded = table.key_serde.decode(key)
            answer = reader.windows(decoded, from_ms, to_ms, limit=limit, committed=committed)
        except StoreClosed as error:
            raise NotReady(f"partition {partition} is being given up") from error
        rows = [Row(key, self.encode_value(name, value), start_ms) for start_ms, value in answer.value]
        return Rows(rows=rows, cursor=None, staleness=[_staleness(task, answer.staleness)])

    def scan(
        self,
        name: str,
        partition: int,
        *,
        prefix: bytes = b"",
        from_ms: int = TIME_MS_MIN,
        to_ms: int = TIME_MS_MAX,
        cursor: bytes | None,
        limit: int,
        committed: bool,
        stale: bool = False,
    ) -> Rows:
        """A page of one partition, by key bytes."""
        table = self.table(name)
        encode_key = table.key_serde.encode
        try:
            if table.windows is None:
                reader, task = self._reader(table, partition, stale)
                plain = reader.prefix(prefix, cursor=cursor, limit=limit, committed=committed)
                rows = [Row(encode_key(key), self.encode_value(name, value)) for key, value in plain.rows]
                return Rows(rows=rows, cursor=plain.cursor, staleness=[_staleness(task, plain.staleness)])
            windowed, task = self._windowed_reader(table, partition, stale)
            page = windowed.scan(from_ms, to_ms, cursor=cursor, limit=limit, committed=committed)
        except StoreClosed as error:
            raise NotReady(f"partition {partition} is being given up") from error
        rows = [Row(encode_key(key), self.encode_value(name, value), start_ms) for (key, start_ms), value in page.rows]
        rows = [row for row in rows if row.key.startswith(prefix)]
        return Rows(rows=rows, cursor=page.cursor, staleness=[_staleness(task, page.staleness)])

    # --- inside ---------------------------------------------------------------------------------------------------

    def _task(self, partition: int, stale: bool) -> Task:
        assignment = self._worker.assignment
        task = None if assignment is None else assignment.tasks.get(partition)
        if task is None:
            missing = self._worker.missing_topics()
            if missing:
                raise UserError(
                    f"app {self._worker.program.id} reads topic {', '.join(missing)}, which does not exist any more: "
                    f"its tables can be read again when the topic is there again"
                )
            raise NotOwner(f"partition {partition} is not on this worker")
        if task.state not in READABLE and not (stale and task.store is not None):
            raise NotReady(self._why_not_ready(task))
        return task

    def _why_not_ready(self, task: Task) -> str:
        assert self._worker.assignment is not None, "tasks are part of the assignment"
        error = self._worker.assignment.errors.get(task.number)
        if error is not None:
            return f"partition {task.number} cannot be opened: {error}"
        for status in self._worker.status().tasks:
            if status.number == task.number and status.restoring:
                done = sum(one.restored for one in status.restoring)
                total = sum(one.total for one in status.restoring)
                return f"partition {task.number} is being restored ({done:,} of {total:,} changes)"
        return f"partition {task.number} is {task.state.value}"

    def _reader(self, table: Table[Any, Any], partition: int, stale: bool) -> tuple[TableReader[Any, Any], Task | None]:
        """Of a table without windows."""
        reader, task = self._any_reader(table, partition, stale)
        assert isinstance(reader, TableReader), "the caller looked"
        return reader, task

    def _windowed_reader(
        self, table: Table[Any, Any], partition: int, stale: bool
    ) -> tuple[WindowedReader[Any, Any], Task | None]:
        reader, task = self._any_reader(table, partition, stale)
        assert isinstance(reader, WindowedReader), "the caller looked"
        return reader, task

    def _any_reader(self, table: Table[Any, Any], partition: int, stale: bool) -> tuple[LocalReader, Task | None]:
        """Raises: NotOwner, NotReady."""
        task = None if table.kind == "global" else self._task(partition, stale)
        readers = self._worker.query(table.name)
        if partition not in readers:
            raise NotReady(f"table {table.name} is not open yet")
        return readers[partition], task


def _staleness(task: Task | None, of_table: TableStaleness) -> Staleness:
    if task is None:
        return Staleness(
            partition=0, state="running", position=None, lag=of_table.lag, committed=of_table.committed, behind=None
        )
    ends = [(source.position, source.end_offset) for _, source in sorted(task.sources.items())]
    known = [max(0, end - position) for position, end in ends if end is not None]
    return Staleness(
        partition=task.number,
        state=task.state.value,
        position=of_table.position,
        lag=of_table.lag,
        committed=of_table.committed,
        behind=sum(known) if known else None,
    )
