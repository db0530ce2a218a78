"""`Table`: a dict that survives, one part of it on each task.

A table is a declaration with a slot number. Inside a body, its part is `states[slot]` of the cursor: one context
variable, one list index. Everything with state is in `streamlog.state`.

Values may be changed in place, `table[key].append(x)`, as in a dict: the task notices when it commits, as long as the
event that got them is not over. What is changed later has to be set again; so have values that came from `items()`, and
one that is changed after half a cache full of other rows was read (some 100,000 small ones).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar, overload

from streamlog.errors import UserError
from streamlog.serde import Serde, check_key_of_dict, key_serde_for, separator, table_value_serde_for
from streamlog.state.changelog import changelog_topic
from streamlog.state.windowed import WindowedState
from streamlog.state.windows import Windows
from streamlog.streams.context import Cell, Outbox, Outside
from streamlog.streams.cursor import Cursor, current
from streamlog.streams.durations import milliseconds_of, window_milliseconds
from streamlog.streams.record import to_timestamp_ms
from streamlog.streams.topic import Topic, check_name, check_partitions
from streamlog.streams.topology import TableKind

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()
_cursor = current.get


class Rows(Protocol[K, V]):
    """A table's part on one task, as `Table` uses it."""

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def contains(self, key: K) -> bool: ...
    def offer(self, key: K, default: Callable[[], V]) -> V: ...
    def items(self) -> Iterator[tuple[K, V]]: ...
    def keys(self) -> Iterator[K]: ...
    def values(self) -> Iterator[V]: ...
    def set(self, key: K, value: V) -> None: ...
    def delete(self, key: K) -> None: ...


class Unavailable:
    """Stands in the slot of a table that has no part on a task: any use says why."""

    __slots__ = ("_why",)

    def __init__(self, why: str) -> None:
        object.__setattr__(self, "_why", why)

    def __getattr__(self, name: str) -> NoReturn:
        raise UserError(self._why)


class Table(Generic[K, V]):
    """A partitioned table. Usable inside agents; from anywhere else, query it with `streamlog.connect` or
    `app.query`."""

    kind: TableKind = "table"

    def __init__(
        self,
        name: str,
        key: Any,
        value: Any,
        *,
        slot: int,
        cell: Cell,
        default: Callable[[], V] | None = None,
        partitions: int | None = None,
        source: Topic[K, V] | None = None,
    ) -> None:
        self.name = check_name(name, "table")
        self.default = default
        self.partitions = check_partitions(partitions, f"table {name}")
        self.source = source
        """The topic that the table follows; None for tables that agents write."""
        self.slot = slot
        self.value_type = value
        if source is not None:
            if self.kind == "table":
                self.kind = "source"
            self.key_serde: Serde[K] = source.key_serde
            self.value_serde: Serde[V] = source.value_serde
        else:
            self.key_serde = key_serde_for(key, what=f"table {name}, key")
            self.value_serde = table_value_serde_for(value, "" if self.kind != "global" else f"table {name}")
        check_key_of_dict(self.key_serde.type, f"table {name}")
        self.windows: Windows | None = None
        self._windowed: WindowedTable[K, V] | None = None
        self._cell = cell

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def changelog(self) -> str:
        """The topic that the table is a fold of."""
        return self.source.name if self.source is not None else changelog_topic(self._cell.app_id, self.name)

    # --- reading --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        """The value of `key`, or a fresh default, which is stored if it is changed (`table[key].append(x)`).

        Raises: KeyError: there is neither.
        """
        try:
            value: V | _Missing = _cursor().states[self.slot].get(key, MISSING)
        except (LookupError, TypeError):
            self._misused()
        if isinstance(value, _Missing):
            if self.default is None:
                raise KeyError(key)
            return self._rows().offer(key, self.default)
        return value

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of `key`, or `default`; the table's own default plays no part."""
        return self._rows().get(key, default)

    def __contains__(self, key: K) -> bool:
        return self._rows().contains(key)

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def items(self) -> Iterator[tuple[K, V]]:
        """All rows of this task's partition, sorted by the keys' bytes. Goes through the store: not for every event."""
        return self._rows().items()

    def keys(self) -> Iterator[K]:
        return self._rows().keys()

    def values(self) -> Iterator[V]:
        return self._rows().values()

    # --- writing --------------------------------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        """Set, or with None delete.

        Raises: UserError: key or value do not fit their types, the key belongs to another partition, or the table
                follows a topic.
        """
        if value is None:
            self.__delitem__(key)
            return
        try:
            _cursor().states[self.slot].set(key, value)
        except (LookupError, TypeError):
            self._misused()

    def __delitem__(self, key: K) -> None:
        """Deleting a key that is absent is fine: events are processed at least once."""
        self._rows().delete(key)

    @overload
    def pop(self, key: K) -> V | None: ...
    @overload
    def pop(self, key: K, default: D) -> V | D: ...
    def pop(self, key: K, default: Any = None) -> Any:
        """Delete `key` and return its value, or `default`."""
        value = self.get(key, default)
        del self[key]
        return value

    def setdefault(self, key: K, value: V) -> V:
        """The value of `key`; `value` is stored first if there is none."""
        found = self.get(key, MISSING)
        if isinstance(found, _Missing):
            self[key] = value
            return self.get(key, value)
        return found

    # --- windows --------------------------------------------------------------------------------------------------

    def tumbling(
        self,
        size: float | timedelta | None = None,
        *,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        grace: float | timedelta | None = None,
        expires: float | timedelta | None = None,
    ) -> WindowedTable[K, V]:
        """One value per key and window of event time; windows of `size` follow each other without a gap.

        Args: grace: how long after a window's end records for it still count; default for ever.
              expires: how long after its end a window is kept for queries; default as long as grace.
        """
        size_ms = window_milliseconds(size, hours, minutes, seconds, f"table {self.name}.tumbling")
        return self._with(size_ms, size_ms, grace, expires)

    def hopping(
        self,
        size: float | timedelta,
        step: float | timedelta,
        *,
        grace: float | timedelta | None = None,
        expires: float | timedelta | None = None,
    ) -> WindowedTable[K, V]:
        """The same with windows of `size` that begin every `step`: an event counts in several of them."""
        what = f"table {self.name}.hopping"
        return self._with(milliseconds_of(size, what), milliseconds_of(step, what), grace, expires)

    def _with(
        self, size_ms: int, step_ms: int, grace: float | timedelta | None, expires: float | timedelta | None
    ) -> WindowedTable[K, V]:
        if self.kind not in ("table", "set"):
            reason = {"source": "follows a topic", "global": "is global"}.get(self.kind, "has windows already")
            raise UserError(f"table {self.name} {reason}: declare another table for these windows")
        self.windows = Windows(size_ms, step_ms, _span_ms(grace, "grace="), _span_ms(expires, "expires="))
        self.kind = "windowed"
        self._windowed = WindowedTable(self)
        return self._windowed

    # --- inside ---------------------------------------------------------------------------------------------------

    def _rows(self) -> Rows[K, V]:
        cursor = _cursor(None)
        if cursor is None or self.windows is not None:
            self._misused()
        rows: Rows[K, V] = cursor.states[self.slot]  # states of all tables are in one list
        return rows

    def _misused(self) -> NoReturn:
        """Say what is wrong; anything else goes on as the exception that it is."""
        if self.windows is not None:
            raise UserError(f"table {self.name} has windows: use what tumbling() or hopping() returned")
        if _cursor(None) is None:
            raise UserError(_used_outside(self.name, self._cell))
        raise  # noqa: PLE0704  # it is called where an exception is being handled

    def _lookup(self, key: K) -> V | None:
        return self._rows().get(key)


class SetTable(Table[K, "frozenset[V]"], Generic[K, V]):
    """A table of sets. Rows are rewritten as a whole: fine for some hundred members a key, not for thousands."""

    kind = "set"

    def add(self, key: K, member: V) -> None:
        row = self.get(key, frozenset[V]())
        if member not in row:
            self[key] = row | {member}

    def discard(self, key: K, member: V) -> None:
        """Remove `member` if it is there; a set that gets empty is deleted."""
        row = self.get(key, frozenset[V]())
        if member in row:
            rest = row - {member}
            if rest:
                self[key] = rest
            else:
                del self[key]


class GlobalTable(Table[K, V]):
    """A table that every worker has as a whole.

    Reads see what the changelog has brought to this worker; a write goes to the changelog and comes back from there, so
    it is not seen at once, and of two writes to a key the later one in the changelog stays.
    """

    kind = "global"

    def _rows(self) -> Rows[K, V]:
        cursor = _cursor(None)
        rows: Rows[K, V] = (
            self._cell.get(f"reading global table {self.name}").global_state(self.name)
            if cursor is None
            else cursor.states[self.slot]
        )
        return rows

    def __getitem__(self, key: K) -> V:
        value = self._rows().get(key, MISSING)
        if isinstance(value, _Missing):
            if self.default is None:
                raise KeyError(key)
            return self.default()
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._append(key, None if value is None else self.value_serde.encode(value))

    def __delitem__(self, key: K) -> None:
        self._append(key, None)

    def setdefault(self, key: K, value: V) -> V:
        found = self.get(key, MISSING)
        if isinstance(found, _Missing):
            self[key] = value  # which is not seen yet
            return value
        return found

    def _append(self, key: K, value: bytes | None) -> None:
        if self.source is not None:
            raise UserError(f"global table {self.name} follows topic {self.source.name}: send to the topic instead")
        cursor = _cursor(None)
        outbox: Outbox | Outside
        if cursor is not None:
            outbox = cursor.lane.outbox
            timestamp_ms = max(cursor.timestamp_ms, 0) if cursor.has_event else cursor.lane.wall_ms()
        else:
            runtime = self._cell.get(f"writing global table {self.name}")
            outbox, timestamp_ms = runtime.outbox, runtime.wall_ms()
        outbox.append(self.changelog, None, self.key_serde.encode(key), value, timestamp_ms)


class WindowedTable(Generic[K, V]):
    """A table with one value per key and window. `table[key]` is the set of windows around the current event."""

    def __init__(self, table: Table[K, V]) -> None:
        self.table = table
        self.name = table.name
        assert table.windows is not None, "made by Table._with"
        self._separate = separator(table.value_serde)
        self.windows = table.windows

    def __repr__(self) -> str:
        return f"<WindowedTable {self.name}>"

    def __getitem__(self, key: K) -> WindowSet[K, V]:
        try:
            cursor = _cursor()
        except LookupError:
            self._outside()
        return WindowSet(self.table, self.windows, cursor, key)

    def __setitem__(self, key: K, value: V | WindowSet[K, V]) -> None:
        """Set every window that contains the event's time; with None, delete them. `table[key] += 1` ends here with
        its windows written already."""
        if isinstance(value, WindowSet):
            if value.table is not self.table or value.key != key:
                raise UserError(
                    f"table {self.name}: {self.name}[{key!r}] = ... was given {value!r}, not a value: write .current() "
                    "behind them"
                )
        elif value is None:
            del self[key]
        else:
            windows = self[key]
            for number, start_ms in enumerate(windows._admitted()):
                own = value if not number or self._separate is None else self._separate(value)
                windows._state.set(key, start_ms, own)

    def __delitem__(self, key: K) -> None:
        """Delete the windows that contain the event's time."""
        windows = self[key]
        for start_ms in windows._admitted():
            windows._state.delete(key, start_ms)

    def __contains__(self, key: K) -> bool:
        """Whether the newest window that contains the event's time has a value."""
        windows = self[key]
        return windows._state.get(key, windows._start_ms(windows._event_ms()), MISSING) is not MISSING

    def __iter__(self) -> Iterator[K]:
        raise UserError(
            f"table {self.name} has windows: iterate over its items(), which gives key, window start and value"
        )

    def of_key(self, key: K, since_ms: int, until_ms: int) -> list[tuple[int, V]]:
        """The windows of a key that start in [since_ms, until_ms), oldest first, as (start, value)."""
        return list(self._rows().of_key(key, since_ms, until_ms))

    def items(self) -> Iterator[tuple[K, int, V]]:
        """All rows of this task's partition as (key, window start in ms, value)."""
        return self._rows().items()

    def _rows(self) -> WindowedState[K, V]:
        cursor = _cursor(None)
        if cursor is None:
            self._outside()
        rows: WindowedState[K, V] = cursor.states[self.table.slot]
        return rows

    def _outside(self) -> NoReturn:
        raise UserError(_used_outside(self.name, self.table._cell))


class WindowSet(Generic[K, V]):
    """The windows of one key around the current event."""

    __slots__ = ("_cursor", "_default", "_state", "_windows", "key", "table")

    def __init__(self, table: Table[K, V], windows: Windows, cursor: Cursor, key: K) -> None:
        self.key = key
        self.table = table
        self._cursor = cursor
        self._windows = windows
        self._default = table.default
        self._state: WindowedState[K, V] = cursor.states[table.slot]

    def __repr__(self) -> str:
        return f"the windows of {self.key!r} in table {self.table.name}"

    # Several values are neither equal to one nor true, and saying False would be silent.

    def __eq__(self, other: object) -> bool:
        self._no_value()

    __hash__ = None  # type: ignore[assignment]  # as Python sets it for a class with __eq__

    def __bool__(self) -> bool:  # noqa: PLE0304  # it does not return
        self._no_value()

    def _no_value(self) -> NoReturn:
        name = f"{self.table.name}[{self.key!r}]"
        raise UserError(f"{name} is a set of windows; compare a value: {name}.current()")

    # --- writing: every window that contains the event's time, unless it is closed already ------------------------

    def apply(self, change: Callable[[V], V]) -> WindowSet[K, V]:
        """Replace the value of each window by `change(value)`. Events that come too late for a window leave it
        alone."""
        state, key = self._state, self.key
        for start_ms in self._admitted():
            value = state.get(key, start_ms, MISSING)
            changed = change(self._fresh() if isinstance(value, _Missing) else value)
            if changed is None:
                raise UserError(
                    f"table {self.table.name}: the function given to apply() returned None; it has to return the new "
                    "value. Delete windows with del"
                )
            state.set(key, start_ms, changed)
        return self

    def __iadd__(self, other: V) -> WindowSet[K, V]:
        cursor = self._cursor
        if cursor.index < 0:
            self._event_ms()
        self._state.add(self.key, cursor.reading.timestamps_ms[cursor.index], other, self._default or self._fresh)
        return self

    def _each(self, operate: Callable[[Any, Any], Any], other: V) -> WindowSet[K, V]:
        return self.apply(lambda value: operate(value, other))

    def __isub__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.sub, other)

    def __imul__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.mul, other)

    def __itruediv__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.truediv, other)

    def __ifloordiv__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.floordiv, other)

    def __imod__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.mod, other)

    def __ipow__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.pow, other)

    def __iand__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.and_, other)

    def __ior__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.or_, other)

    def __ixor__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.xor, other)

    def __ilshift__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.lshift, other)

    def __irshift__(self, other: V) -> WindowSet[K, V]:
        return self._each(operator.rshift, other)

    # --- reading: one window --------------------------------------------------------------------------------------

    def current(self) -> V:
        """The newest window that contains the event's time. Raises: KeyError: no value there, and no default."""
        return self._at_ms(self._event_ms())

    def delta(self, ago: float | timedelta) -> V:
        """The window that was current `ago` (seconds) before the event."""
        return self._at_ms(self._event_ms() - milliseconds_of(ago, "delta()"))

    def at(self, moment: datetime | float) -> V:
        """The newest window that contains `moment`: a datetime, ms as int or seconds as float."""
        return self._at_ms(to_timestamp_ms(moment))

    def now(self) -> V:
        """The window that contains this moment of the wall clock."""
        return self._at_ms(self._cursor.lane.wall_ms())

    def _at_ms(self, timestamp_ms: int) -> V:
        start_ms = self._start_ms(timestamp_ms)
        value = self._state.get(self.key, start_ms, MISSING)
        return self._state.offer(self.key, start_ms, self._fresh) if isinstance(value, _Missing) else value

    def _start_ms(self, timestamp_ms: int) -> int:
        return timestamp_ms - timestamp_ms % self._windows.step_ms

    def _fresh(self) -> V:
        if self._default is None:
            raise KeyError(self.key)
        return self._default()

    def _event_ms(self) -> int:
        if not self._cursor.has_event:
            raise UserError("a window was used before the first event: there is no event time yet")
        timestamp_ms = self._cursor.timestamp_ms
        self._state.advance(timestamp_ms)  # values that are only changed in place get no write that would
        return timestamp_ms

    def _admitted(self) -> list[int]:
        return self._state.admit(self._event_ms())


def _used_outside(table: str, cell: Cell) -> str:
    return (
        f"table {table} was used outside an agent: its rows belong to the tasks of the workers. Read them with "
        f"streamlog.connect(..., app={cell.app_id!r}) or app.query({table!r}); write them in an agent"
    )


def _span_ms(span: float | timedelta | None, what: str) -> int | None:
    if span is None:
        return None
    if span == 0 or span == timedelta():
        return 0
    return milliseconds_of(span, what)
