"""Reading tables from outside their task: web requests, `app.query`, the command line.

Every answer says how stale it is, because it may come from a table that is still being restored. Queries never disturb
processing: they leave the cache as it is, and a page bounds how long one of them holds the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from streamlog.errors import UserError
from streamlog.serde import Serde, SerdeError
from streamlog.state.store import Reader
from streamlog.state.table import TableState
from streamlog.state.windowed import FIRST_ROW, WindowedState, window_key_serde
from streamlog.state.windows import TIME_MS_MAX, TIME_MS_MIN

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

PAGE_ROWS = 100
PAGE_ROWS_MAX = 10_000
"""Rows of one page: some 10 ms. Whoever wants more asks again with the cursor."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """How old an answer is."""

    position: int | None
    """Changelog offset that the committed rows reach, exclusive; None before the first commit."""
    lag: int | None
    """Changelog records that are known to be missing: 0 on the task that owns the table, the rest of a restore
    otherwise; None when nobody knows."""
    committed: bool
    """Whether all of it is committed. An answer that is not may include changes that an abort takes back."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    value: T
    staleness: Staleness


@dataclass(frozen=True, slots=True)
class Page(Generic[K, V]):
    """Some rows of a scan, in order of key bytes."""

    rows: list[tuple[K, V]]
    cursor: bytes | None
    """Where the next page begins; None: there is none."""
    staleness: Staleness


class TableReader(Generic[K, V]):
    """Queries one table of one task, or of a restore or standby that has no live state yet."""

    def __init__(
        self,
        name: str,
        store: Reader,
        key: Serde[K],
        value: Serde[V],
        *,
        state: TableState[K, V] | None = None,
        lag: Callable[[], int | None] = lambda: 0,
        on_unreadable: Callable[[bytes, SerdeError], None] | None = None,
    ) -> None:
        """
        Args:    store: the task's store, or a snapshot of it.
                 state: the live table with what is not committed yet; None: only what the store has.
                 lag: records the store is known to lack now.
                 on_unreadable: as for TableState.
        """
        self.name = name
        self._store = store
        self._key, self._value = key, value
        self._state = state
        self._lag = lag
        self._on_unreadable = on_unreadable

    def get(self, key: K, *, committed: bool = False) -> Answer[V | None]:
        """The value of one key, None when it has none. `committed`: leave out what a commit has not reached yet."""
        return Answer(self._get(key, committed), self._staleness(committed))

    def get_many(self, keys: Sequence[K], *, committed: bool = False) -> Answer[list[V | None]]:
        """The values of `keys`, in their order. Raises: UserError: more than PAGE_ROWS_MAX at once."""
        _check_limit(len(keys))
        return Answer([self._get(key, committed) for key in keys], self._staleness(committed))

    def scan(
        self,
        start: K | None = None,
        stop: K | None = None,
        *,
        cursor: bytes | None = None,
        limit: int = PAGE_ROWS,
        reverse: bool = False,
        committed: bool = False,
    ) -> Page[K, V]:
        """A page of the keys start <= key < stop, by key bytes: text sorts as text, but int keys as their digits.

        Args:    cursor: of the page before; start, stop and reverse as they were then.
        """
        low = b"" if start is None else self._key.encode(start)
        high = None if stop is None else self._key.encode(stop)
        return self._page(low, high, cursor, limit, reverse, committed)

    def prefix(
        self, prefix: bytes, *, cursor: bytes | None = None, limit: int = PAGE_ROWS, committed: bool = False
    ) -> Page[K, V]:
        """A page of the keys whose bytes begin with `prefix`."""
        return self._page(prefix, after_prefix(prefix), cursor, limit, False, committed)

    def approximate_count(self) -> int | None:
        """About how many rows there are; None of a snapshot."""
        return None if self._state is None else self._state.approximate_count()

    def _get(self, key: K, committed: bool) -> V | None:
        if self._state is not None and not committed:
            return self._state.peek(key)
        data = self._store.get(self.name, self._key.encode(key))
        return None if data is None else self._decode_row(key, data)

    def _page(
        self, low: bytes, high: bytes | None, cursor: bytes | None, limit: int, reverse: bool, committed: bool
    ) -> Page[K, V]:
        _check_limit(limit)
        if cursor is not None:
            low, high = (low, cursor) if reverse else (max(low, cursor), high)
        found = list(islice(self._rows(low, high, reverse, committed), limit))
        next_cursor = None
        if len(found) == limit:
            last = self._key.encode(found[-1][0])
            next_cursor = last if reverse else last + b"\x00"
        return Page(found, next_cursor, self._staleness(committed))

    def _rows(self, low: bytes, high: bytes | None, reverse: bool, committed: bool) -> Iterator[tuple[K, V]]:
        if self._state is not None and not committed:
            yield from self._state.scan(low, high, reverse=reverse)
            return
        for key, data in self._store.scan(self.name, low, high, reverse=reverse):
            try:
                decoded = self._key.decode(key)
                row = self._decode_row(decoded, data)
            except SerdeError as error:
                if self._on_unreadable is None:
                    raise
                self._on_unreadable(key, error)
            else:
                yield decoded, row

    def _decode_row(self, key: K, data: bytes) -> V:
        try:
            return self._value.decode(data)
        except SerdeError as error:
            raise SerdeError(
                f"table {self.name}, key {key!r}: {error}. Write that key again where the table's rows come from"
            ) from error

    def _staleness(self, committed: bool) -> Staleness:
        position = self._store.positions().get(self.name)
        clean = self._state is None or not self._state.has_uncommitted
        return Staleness(None if position is None else position.offset, self._lag(), committed or clean)


class WindowedReader(Generic[K, V]):
    """Queries one windowed table. Windows that are expired are not found, if there is a live state to know them."""

    def __init__(
        self,
        name: str,
        store: Reader,
        key: Serde[K],
        value: Serde[V],
        *,
        state: WindowedState[K, V] | None = None,
        lag: Callable[[], int | None] = lambda: 0,
    ) -> None:
        self._key = key
        self._state = state
        inner = None if state is None else state.table
        self._rows: TableReader[tuple[K, int], V] = TableReader(
            name, store, window_key_serde(key), value, state=inner, lag=lag
        )

    def get(self, key: K, start_ms: int, *, committed: bool = False) -> Answer[V | None]:
        """The value of one window of a key."""
        answer = self._rows.get((key, start_ms), committed=committed)
        return answer if start_ms > self._expired_start_ms else Answer(None, answer.staleness)

    def windows(
        self,
        key: K,
        from_ms: int = TIME_MS_MIN,
        to_ms: int = TIME_MS_MAX,
        *,
        limit: int = PAGE_ROWS,
        reverse: bool = False,
        committed: bool = False,
    ) -> Answer[list[tuple[int, V]]]:
        """Windows of one key with from_ms <= start < to_ms, oldest first (newest with `reverse`)."""
        from_ms = max(from_ms, self._expired_start_ms + 1)
        if from_ms >= to_ms:
            return Answer([], self._rows.get((key, TIME_MS_MAX), committed=committed).staleness)
        found: list[tuple[int, V]] = []
        cursor: bytes | None = None
        while True:
            page = self._rows.scan(
                (key, from_ms), (key, to_ms), cursor=cursor, limit=limit, reverse=reverse, committed=committed
            )
            # Rows of longer keys that begin with this one's bytes can lie in between.
            found += [(start_ms, value) for (other, start_ms), value in page.rows if other == key]
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                return Answer(found[:limit], page.staleness)

    def scan(
        self,
        from_ms: int = TIME_MS_MIN,
        to_ms: int = TIME_MS_MAX,
        *,
        cursor: bytes | None = None,
        limit: int = PAGE_ROWS,
        committed: bool = False,
    ) -> Page[tuple[K, int], V]:
        """A page of all keys' windows with from_ms <= start < to_ms, by key. It may be short, or empty, before the end:
        `limit` bounds the rows that are looked at."""
        page = self._rows.prefix(b"", cursor=cursor or FIRST_ROW, limit=limit, committed=committed)
        from_ms = max(from_ms, self._expired_start_ms + 1)
        rows = [(window, value) for window, value in page.rows if from_ms <= window[1] < to_ms]
        return Page(rows, page.cursor, page.staleness)

    @property
    def _expired_start_ms(self) -> int:
        return TIME_MS_MIN - 1 if self._state is None else self._state.expired_start_ms


def after_prefix(prefix: bytes) -> bytes | None:
    """The first bytes that sort after everything with this prefix; None when nothing does."""
    stripped = prefix.rstrip(b"\xff")
    return None if not stripped else stripped[:-1] + bytes([stripped[-1] + 1])


def _check_limit(limit: Any) -> None:
    if not isinstance(limit, int) or not 0 < limit <= PAGE_ROWS_MAX:
        raise UserError(f"a page has 1 to {PAGE_ROWS_MAX} rows, not {limit!r}; read on with the cursor")
