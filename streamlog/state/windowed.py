"""Windowed tables: one row per key and window; late records turned away, old rows expired.

Everything follows from stream time, the highest timestamp seen, so that a replay decides the same. Three things are
kept in the store, in the same commit:

- the rows, under key bytes + window start;
- an index of the rows by window start, so that expiry finds the oldest rows without a scan over all. It is
  derived from the rows: the changelog does not carry it, and a restore makes it again (`index_change`);
- a mark, under the empty key, with stream time. It is in the changelog too: after a restore on another machine no late
  record is let in.

Without grace and retention nothing is ever late, closed or expired, and there is neither index nor mark.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Generic, TypeVar, overload

from streamlog.serde import Data, Serde, SerdeError, table_value_serde_for
from streamlog.state.store import Change, Store
from streamlog.state.table import CACHE_BYTES_MAX, ENTRY_BYTES, DirtyRows, TableState, index_name
from streamlog.state.windows import (
    NEVER_MS,
    START_BYTES,
    TIME_MS_MAX,
    TIME_MS_MIN,
    Windows,
    clamp_ms,
    decode_start,
    encode_start,
    index_key,
    row_key,
    row_key_of_index,
    split_row_key,
)

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

MARK_KEY = b""
"""Row of the mark. Window rows have at least 8 bytes of key, so it is no row's key, and it sorts before all."""

FIRST_ROW = b"\x00"
"""Where a scan over window rows begins: after the mark."""

EXPIRED_ROWS_MAX = 10_000
"""Rows one commit expires, some 50 ms of work. The rest waits for the next commit, hidden from reads meanwhile."""

LOOKED_UP_WINDOWS_MAX = 32
"""Up to so many windows of a key are looked up one by one, in cache; beyond that one scan is cheaper."""


class _Nothing:
    """A default that is no user's value."""


_NOTHING = _Nothing()


class WindowedState(Generic[K, V]):
    """One windowed table of one task."""

    def __init__(
        self,
        name: str,
        store: Store,
        key: Serde[K],
        value: Serde[V],
        windows: Windows,
        *,
        on_new_key: Callable[[bytes], None] | None = None,
        on_absent_key: Callable[[bytes], None] | None = None,
        on_late: Callable[[int, int], None] | None = None,
        on_ahead: Callable[[int], int] | None = None,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        watch: bool = False,
        on_given: Callable[[tuple[K, int]], None] | None = None,
    ) -> None:
        """A windowed table `name` of `store`.

        Args:    on_new_key, on_absent_key: as for TableState, with the bytes of the key without the window.
                 watch: as for TableState; on_given too, with key and window start.
                 on_late: called with window start and stream time for each write that came too late.
                 on_ahead: called with stream time when it passes what this returned last, where windows close.
        """
        self.name = name
        self.windows = windows
        self.on_late = on_late
        self.stream_time_ms = NEVER_MS
        self._on_ahead = on_ahead
        self._expected_ms = TIME_MS_MAX if on_ahead is None else NEVER_MS  # stream time beyond it is told of
        self._store = store
        self._tumbles_ms = windows.size_ms if windows.size_ms == windows.step_ms else None
        self._indexes = windows.keep_ms is not None
        # Both as in `Windows`, computed once: stream time moves with almost every event.
        self._close_after_ms = -windows.closed_start_ms(0) if self._indexes else 0
        self._expire_after_ms = -windows.expired_start_ms(0) if self._indexes else 0
        self._closed_start_ms = NEVER_MS  # windows that start here or before are closed
        self._expired_start_ms = NEVER_MS  # windows that start here or before are gone
        self._expire_from = b""  # index key: rows before it have been expired, as far as this incarnation knows
        self._marked: int | None = None  # what the mark in the store says
        self._mark_in_commit: int | None = None
        self._indexed: dict[bytes, None] = {}  # rows whose index entry is known to be in the store
        self._indexed_max = cache_bytes_max // ENTRY_BYTES
        self._table: TableState[tuple[K, int], V] = TableState(
            name,
            store,
            window_key_serde(key),
            value,
            on_new_key=None if on_new_key is None else lambda data: on_new_key(data[:-START_BYTES]),
            on_absent_key=None if on_absent_key is None else lambda data: on_absent_key(data[:-START_BYTES]),
            cache_bytes_max=cache_bytes_max,
            watch=watch,
        )
        self._table.on_given = on_given
        # Most rows are born when their window is the newest, and asking the store for them costs more than counting.
        # Windows that start later have no row outside of memory:
        self._stored_start_ms = self._newest_stored_ms()
        self._set_start_ms = NEVER_MS  # newest start that `set` was called with: it may be ahead of stream time
        self._table.absent = self._is_new
        self._table.on_leave = self._on_leave
        self._encode_key = key.encode
        self._dirty: tuple[DirtyRows, DirtyRows] | None = None  # what the inner table gave, and what we made of it
        self._load_mark()

    # --- time -----------------------------------------------------------------------------------------------------

    def advance(self, stream_time_ms: int) -> None:
        """Stream time is at least this. Never goes back."""
        if stream_time_ms > self.stream_time_ms:
            self.stream_time_ms = stream_time_ms
            if self._indexes:  # otherwise nothing ever closes
                self._closed_start_ms = max(NEVER_MS, stream_time_ms - self._close_after_ms)
                self._expired_start_ms = max(NEVER_MS, stream_time_ms - self._expire_after_ms)
                if stream_time_ms > self._expected_ms and self._on_ahead is not None:
                    self._expected_ms = self._on_ahead(stream_time_ms)

    def admit(self, timestamp_ms: int) -> list[int]:
        """Starts of the windows a record of this time still counts for; the closed ones are reported as late."""
        if timestamp_ms > self.stream_time_ms:
            self.advance(timestamp_ms)
        if self._tumbles_ms is not None:
            start_ms = timestamp_ms - timestamp_ms % self._tumbles_ms
            return [start_ms] if start_ms > self._closed_start_ms or not self._is_late(start_ms) else []
        starts = self.windows.windows_for(timestamp_ms)
        if starts[0] > self._closed_start_ms:
            return starts
        return [start_ms for start_ms in starts if not self._is_late(start_ms)]

    def _is_late(self, start_ms: int) -> bool:
        if start_ms > self._closed_start_ms:
            return False
        if self.on_late is not None:
            self.on_late(start_ms, self.stream_time_ms)
        return True

    # --- reads and writes -----------------------------------------------------------------------------------------

    @overload
    def get(self, key: K, start_ms: int) -> V | None: ...
    @overload
    def get(self, key: K, start_ms: int, default: D) -> V | D: ...
    def get(self, key: K, start_ms: int, default: Any = None) -> Any:
        """The value of one window of a key; an expired window has none, whether or not its row is deleted yet.

        That of a closed window is a copy: it is too late to change it, in place as well as with `set`.
        """
        if start_ms <= self._closed_start_ms:
            return default if start_ms <= self._expired_start_ms else self._table.copy((key, start_ms), default)
        return self._table.get((key, start_ms), default)

    def set(self, key: K, start_ms: int, value: V) -> bool:
        """Write, unless the window is closed: then the write is reported as late, dropped, and False comes back."""
        if start_ms <= self._closed_start_ms and self._is_late(start_ms):
            return False
        if start_ms > self._set_start_ms:
            self._set_start_ms = start_ms
        self._table.set((key, start_ms), value)
        return True

    def offer(self, key: K, start_ms: int, default: Callable[[], V]) -> V:
        """As for TableState; a value of a closed window that is changed stays a value of nobody."""
        if start_ms <= self._closed_start_ms:
            return default()
        self._set_start_ms = max(start_ms, self._set_start_ms)
        return self._table.offer((key, start_ms), default)

    def add(self, key: K, timestamp_ms: int, amount: Any, fresh: Callable[[], V]) -> None:
        """Add `amount` to every window that a record of this time still counts for; absent values begin as `fresh()`.

        The same as admit, get and set for each of them, in one call: this is what a windowed count pays per event.
        """
        table = self._table
        for start_ms in self.admit(timestamp_ms):
            window = (key, start_ms)
            value: Any = table.get(window, _NOTHING)
            table.set(window, (fresh() if value is _NOTHING else value) + amount)

    def delete(self, key: K, start_ms: int) -> bool:
        """Delete; late as for `set`."""
        if start_ms <= self._closed_start_ms and self._is_late(start_ms):
            return False
        self._table.delete((key, start_ms))
        return True

    def of_key(self, key: K, from_ms: int = TIME_MS_MIN, to_ms: int = TIME_MS_MAX) -> Iterator[tuple[int, V]]:
        """Windows of one key with from_ms <= start < to_ms, oldest first, as (start, value)."""
        step_ms = self.windows.step_ms
        from_ms, to_ms = clamp_ms(max(from_ms, self._expired_start_ms + 1)), clamp_ms(to_ms)
        first_ms = -(-from_ms // step_ms) * step_ms
        if (to_ms - first_ms) // step_ms < LOOKED_UP_WINDOWS_MAX:
            for start_ms in range(first_ms, to_ms, step_ms):
                value = self.get(key, start_ms, _NOTHING)
                if not isinstance(value, _Nothing):
                    yield start_ms, value
            return
        key_bytes = self._encode_key(key)
        found = False
        for (other, start_ms), value in self._table.scan(row_key(key_bytes, from_ms), row_key(key_bytes, to_ms)):
            if other == key:  # rows of longer keys that begin with this one's bytes can lie in between
                found = True
                yield start_ms, value
        if not found and self._table.on_absent_key is not None:
            self._table.on_absent_key(row_key(key_bytes, from_ms))

    def items(self, from_ms: int = TIME_MS_MIN, to_ms: int = TIME_MS_MAX) -> Iterator[tuple[K, int, V]]:
        """All windows with from_ms <= start < to_ms, as (key, start, value), in no useful order."""
        from_ms = max(from_ms, self._expired_start_ms + 1)
        for (key, start_ms), value in self._table.scan(FIRST_ROW):
            if from_ms <= start_ms < to_ms:
                yield key, start_ms, value

    # --- commit ---------------------------------------------------------------------------------------------------

    @property
    def dirty_count(self) -> int:
        return self._table.dirty_count

    @property
    def dirty_full(self) -> bool:
        return self._table.dirty_full

    def take_dirty(self, timestamp_ms: int, held: Collection[tuple[K, int]] = ()) -> DirtyRows:
        """As for TableState, a key being key and window start; rows that expired are deletions among the rows, and the
        index and the mark come along."""
        self._expire()
        inner = self._table.take_dirty(timestamp_ms, held)
        if not self._indexes:
            self._dirty = inner, inner
            return inner
        gone = self._gone_before()
        rows: list[tuple[bytes, bytes | None, int]] = []
        index: list[Change] = []
        for row in inner.rows:
            key, data, _ = row
            if data is not None and key in self._indexed and key[-START_BYTES:] > gone:
                rows.append(row)
                continue
            entry = index_key(key)
            if data is not None and entry < gone:  # written and expired between two commits: the index never knew it
                row, data = (key, None, timestamp_ms), None
            rows.append(row)
            if data is None:
                index.append((entry, None))
            elif key not in self._indexed:
                index.append((entry, b""))
        if self.stream_time_ms > NEVER_MS and self.stream_time_ms != self._marked:
            self._mark_in_commit = self.stream_time_ms
            rows.append((MARK_KEY, _MARK.encode((self.stream_time_ms, b"")), timestamp_ms))
        outer = DirtyRows(self.name, rows, index)
        self._dirty = inner, outer
        return outer

    def committed(self, dirty: DirtyRows) -> None:
        inner = self._finish(dirty)
        for entry, value in dirty.index:
            if value is None:
                self._indexed.pop(row_key_of_index(entry), None)
            else:
                self._indexed[row_key_of_index(entry)] = None
        if len(self._indexed) > self._indexed_max:
            self._indexed.clear()  # costs writing some entries again, nothing else
        self._marked = self._marked if self._mark_in_commit is None else self._mark_in_commit
        self._mark_in_commit = None
        self._table.committed(inner)

    def abandon(self, dirty: DirtyRows) -> None:
        inner = self._finish(dirty)
        self._mark_in_commit = None
        self._table.abandon(inner)

    def _finish(self, dirty: DirtyRows) -> DirtyRows:
        assert self._dirty is not None, "no commit is under way"
        inner, outer = self._dirty
        assert dirty is outer, "this is not what take_dirty gave"
        self._dirty = None
        return inner

    def _expire(self) -> None:
        """Delete committed rows that are no longer kept, oldest first, some at a time."""
        gone = self._gone_before()
        if self._expire_from >= gone:
            return
        decode = self._table.decode_key
        entries = list(self._store.scan(index_name(self.name), self._expire_from, gone, limit=EXPIRED_ROWS_MAX))
        for entry, _ in entries:
            self._table.delete(decode(row_key_of_index(entry)))
        self._expire_from = entries[-1][0] + b"\x00" if len(entries) == EXPIRED_ROWS_MAX else gone

    def _gone_before(self) -> bytes:
        """Index keys before this are expired."""
        if self._expired_start_ms == NEVER_MS:
            return b""
        return encode_start(self._expired_start_ms + 1)

    def _is_new(self, window: tuple[K, int]) -> bool:
        return window[1] > self._stored_start_ms

    def _on_leave(self, changed: bool) -> None:
        """What leaves is in the store; what was there before still is, also what an earlier life wrote."""
        newest_ms = TIME_MS_MAX if changed else max(self.stream_time_ms, self._set_start_ms)
        self._stored_start_ms = max(self._stored_start_ms, newest_ms)

    def _newest_stored_ms(self) -> int:
        """Newest start in the store: the end of its index; without an index nobody knows, unless there are no rows."""
        if self._indexes:
            for entry, _ in self._store.scan(index_name(self.name), reverse=True, limit=1):
                return decode_start(entry[:START_BYTES])
            return NEVER_MS
        for _ in self._store.scan(self.name, limit=1):
            return TIME_MS_MAX
        return NEVER_MS

    def _load_mark(self) -> None:
        data = self._store.get(self.name, MARK_KEY) if self._indexes else None
        if data is not None:
            self._marked, _ = _MARK.decode(data)
            self.advance(self._marked)

    @property
    def table(self) -> TableState[tuple[K, int], V]:
        """The rows, keyed by (key, window start), expired ones included. For queries; writes go through this class."""
        return self._table

    @property
    def expired_start_ms(self) -> int:
        """Windows that start here or before are expired."""
        return self._expired_start_ms

    @property
    def cache_entries(self) -> int:
        return self._table.cache_entries

    def approximate_count(self) -> int:
        return self._table.approximate_count()


def index_change(change: Change) -> Change | None:
    """The index's part in a row's change, for a restore; the mark has none."""
    key, value = change
    return None if key == MARK_KEY else (index_key(key), None if value is None else b"")


_MARK: Serde[tuple[int, bytes]] = table_value_serde_for(tuple[int, bytes])
"""Stream time, and empty bytes: room for how far the results of closed windows were given out."""


def window_key_serde(key: Serde[K]) -> Serde[tuple[K, int]]:
    """Serde of (key, window start) as row keys."""
    encode_key, decode_key = key.encode, key.decode

    def encode(window: tuple[K, int]) -> bytes:
        try:
            return row_key(encode_key(window[0]), window[1])
        except OverflowError:
            raise SerdeError(f"window start {window[1]} ms is out of range") from None

    def decode(data: Data) -> tuple[K, int]:
        key_bytes, start_ms = split_row_key(bytes(data))
        return decode_key(key_bytes), start_ms

    return Serde(key.type, f"window of {key.name}", encode, decode)
