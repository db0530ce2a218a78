"""The write-back cache over one table of one task: where agents read and write.

A hot key costs one dict operation to read and two to write; RocksDB costs ten times that. So writes stay in memory
until the task commits, and each key that changed is then written once to the changelog and once to the store, however
often it changed.

Three dicts, keyed by the decoded key:

    recent   every entry in use: dirty, in commit, and clean ones read or written since the last turn
    old      the generation before: an entry found here moves to `recent`; the rest goes all at once at the next turn
    dirty    keys written since the last commit began, with their bytes (values are in `recent`)

and while a commit runs, `in_commit`: the keys it carries. Invariants: dirty and in_commit are subsets of recent, so a
read never asks the store for a row the store does not have yet; and an entry leaves memory only by a turn, which keeps
both. A turn comes before an entry is brought in, never after: what a call has found or written is in `recent` when it
returns. Absence is an entry like any other (`_ABSENT`), so that a key that does not exist is looked up once.

Commits overlap with processing: `take_dirty` encodes what changed and starts the next round of changes at once; the
caller sends the rows to the changelog, writes them to the store, then says `committed`; or `abandon`, which makes them
dirty again.

Values that can be changed in place (lists, records) are watched where a table is made with `watch`: who gets one may
change it and need not `set` it again. `watched` has the clean values that were given out, and the defaults that were
given out for keys without a row, with the bytes they had then. When changes are taken, and before a scan, what differs
from its bytes counts as set. Two generations of it turn with those of the rows, so a value is watched until changes are
taken, or until about as much as half the cache was read after it. `take_dirty` is told which values are in the hands of
an event that is not over: they are watched on, with the bytes they have then. Whoever holds a value longer has to `set`
it, or the change is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final, Generic, TypeVar, overload

from streamlog.serde import Serde, SerdeError, can_change, check_key_of_dict
from streamlog.state.store import Change, CommitBatch, Store

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

CACHE_BYTES_MAX = 64 * 1024 * 1024
"""Memory for the clean entries of one table of one task: some 300,000 small ones. Streams divides a worker's budget."""

ENTRY_BYTES = 200
"""What a small entry costs: two dict slots, a str key, an int or a small Struct."""

SMALL_VALUE_BYTES = 64
"""Encoded values up to this are covered by ENTRY_BYTES; larger ones are charged one by one."""

DECODED_BYTES_PER_ENCODED_BYTE = 4
"""Python objects are this much larger than their msgpack; measured on Structs and lists of small numbers."""


class _Mark:
    """A value that no user can have."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


_ABSENT: Final = _Mark("absent")
_UNKNOWN: Final = _Mark("unknown")


@dataclass(frozen=True, slots=True)
class DirtyRows:
    """What one table contributes to one commit: send `rows` to the changelog, then `add_to` the store's batch."""

    table: str
    rows: list[tuple[bytes, bytes | None, int]]
    """Key bytes, value bytes (None deletes), timestamp in ms: the records for the changelog."""
    index: list[Change] = field(default_factory=list)
    """Changes of the table's expiry index, when it has one; derived from rows, so the changelog does not carry them."""

    def changes(self) -> list[Change]:
        """The rows as the store wants them."""
        return [(key, value) for key, value, _ in self.rows]

    def add_to(self, batch: CommitBatch) -> None:
        """Everything the store has to write for this table, except its position."""
        if self.rows:
            batch.rows[self.table] = self.changes()
        if self.index:
            batch.rows[index_name(self.table)] = self.index


def index_name(table: str) -> str:
    """The store's table for the expiry index of `table`; topics, and so tables, cannot have a slash in their names."""
    return f"{table}/expiry"


class TableState(Generic[K, V]):
    """One table of one task. Single-threaded: the event loop's; the store may be committing in another thread."""

    __slots__ = (
        "_cache_bytes_max",
        "_charge_bytes",
        "_decode_value",
        "_dirty",
        "_encode_key",
        "_encode_value",
        "_fit_value",
        "_in_commit",
        "_key",
        "_large",
        "_large_old",
        "_old",
        "_recent",
        "_store",
        "_turn_at_bytes",
        "_watched",
        "_watched_old",
        "_watches",
        "absent",
        "loads",
        "name",
        "on_absent_key",
        "on_given",
        "on_leave",
        "on_new_key",
        "on_unreadable",
    )

    def __init__(
        self,
        name: str,
        store: Store,
        key: Serde[K],
        value: Serde[V],
        *,
        on_new_key: Callable[[bytes], None] | None = None,
        on_absent_key: Callable[[bytes], None] | None = None,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        watch: bool = False,
    ) -> None:
        """A table `name` of `store`.

        Args:    value: a `table_value_serde_for`, so that rows begin with their format byte.
                 on_new_key: called with the key's bytes when a key that is not known to exist is about to be
                 written; what it raises refuses the write. Rows that came from the store are not asked about again.
                 on_absent_key: called with the key's bytes before a read answers that there is no such row; what it
                 raises refuses the read. Absence that is in the cache was asked about when it got there, so a key
                 is asked about when it is first used, whichever hook that is, and again once it has left the cache.
                 watch: notice what is changed in place; costs nothing where values cannot be.
        Raises:  UserError: keys of this type cannot be looked up.
        """
        check_key_of_dict(key.type, f"table {name}")
        self.name = name
        self.on_new_key = on_new_key
        self.on_absent_key = on_absent_key
        self.absent: Callable[[K], bool] | None = None
        """Whether a key that is not in memory is not in the store either, if its owner can tell without asking it."""
        self.on_given: Callable[[K], None] | None = None
        """Called with the key whose value was given out, or was set, and may be changed in place from now on."""
        self.on_leave: Callable[[bool], None] | None = None
        """Called before rows that the store has may leave memory; True: somebody else wrote rows to the store."""
        self.on_unreadable: Callable[[bytes, SerdeError], None] | None = None
        """Called with the key's bytes for a row that a scan passes over, because its key or its value cannot be read;
        without it such a row ends the scan with the error."""
        self.loads = 0
        """Rows asked of the store: cache misses."""
        self._store = store
        self._key = key
        self._encode_key = key.encode
        self._encode_value = value.encode
        self._decode_value = value.decode
        self._fit_value = value.fit or _itself
        self._recent: dict[K, V | _Mark] = {}
        self._old: dict[K, V | _Mark] = {}
        self._dirty: dict[K, bytes] = {}
        self._in_commit: dict[K, bytes] | None = None
        self._watches = watch and can_change(value.type)
        self._watched: dict[K, tuple[V, bytes]] = {}  # given out since the last turn, with their bytes at that time
        self._watched_old: dict[K, tuple[V, bytes]] = {}  # given out before it
        self._large: dict[K, int] = {}  # encoded size of values in recent beyond SMALL_VALUE_BYTES
        self._large_old: dict[K, int] = {}  # the same for old
        self._cache_bytes_max = cache_bytes_max
        self._charge_bytes = 0  # estimate for recent
        self._turn_at_bytes = cache_bytes_max // 2

    # --- reads ----------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of `key`, or `default`. Raises: SerdeError: the key does not fit, or the stored row does not."""
        value = self._recent.get(key, _UNKNOWN)
        if value is _UNKNOWN:
            value = self._load(key)
        if self._watches:
            value = self._given_out(key, value)
        return default if value is _ABSENT else value

    def offer(self, key: K, default: Callable[[], V]) -> V:
        """A value for a key that `get` has just found to have none: it becomes the row's if it is changed."""
        if not self._watches:
            return default()
        watched = self._watched.get(key) or self._watched_old.get(key)
        if watched is None:
            value = default()
            watched = value, self._encoded(key, value)
        self._watched[key] = watched
        if self.on_given is not None:
            self.on_given(key)
        return watched[0]

    def _given_out(self, key: K, value: V | _Mark) -> V | _Mark:
        """Watch the value of `key` from here on. A default that was given out before may have become its value."""
        if isinstance(value, _Mark):
            watched = self._watched.get(key) or self._watched_old.get(key)
            if watched is None or not self._settle(key, *watched):
                return value
            value = self._recent[key]
        elif key not in self._dirty and key not in self._watched:
            watched = self._watched_old.get(key)
            self._watched[key] = (value, self._encoded(key, value)) if watched is None else watched
        if self.on_given is not None:
            self.on_given(key)
        return value

    def contains(self, key: K) -> bool:
        value = self._recent.get(key, _UNKNOWN)
        if value is _UNKNOWN:
            value = self._load(key)
        if value is _ABSENT and self._watches:
            value = self._given_out(key, value)
        return value is not _ABSENT

    def copy(self, key: K, default: D) -> V | D:
        """Like `get`, but what comes back is nobody's: changing it in place changes no row."""
        value = self._recent.get(key, _UNKNOWN)
        if value is _UNKNOWN:
            value = self._load(key)
        if value is _ABSENT and self._watches:
            value = self._given_out(key, value)
        if isinstance(value, _Mark):
            return default
        return self._decode_row(key, self._encoded(key, value)) if self._watches else value

    def peek(self, key: K) -> V | None:
        """Like `get`, for queries: what processing keeps in cache stays what it is."""
        value = self._recent.get(key, _UNKNOWN)
        if value is _UNKNOWN:
            value = self._old.get(key, _UNKNOWN)
        if not isinstance(value, _Mark):
            return value
        data = None if value is _ABSENT else self._store.get(self.name, self._encode_key(key))
        return None if data is None else self._decode_row(key, data)

    def _load(self, key: K) -> V | _Mark:
        """Bring an entry into `recent`, from the old generation or from the store."""
        if self._charge_bytes > self._turn_at_bytes:
            self._turn()
        value = self._old.get(key, _UNKNOWN)
        size_bytes = 0
        if value is not _UNKNOWN:
            size_bytes = self._large_old.get(key, 0)
        elif self.absent is not None and self.absent(key):
            if self.on_absent_key is not None:
                self.on_absent_key(self._encode_key(key))
            value = _ABSENT
        else:
            self.loads += 1
            key_bytes = self._encode_key(key)
            data = self._store.get(self.name, key_bytes)
            if data is None:
                if self.on_absent_key is not None:
                    self.on_absent_key(key_bytes)
                value = _ABSENT
            else:
                value = self._decode_row(key, data)
                size_bytes = len(data)
        self._recent[key] = value
        self._charge_bytes += ENTRY_BYTES
        if size_bytes > SMALL_VALUE_BYTES:
            self._charge_large(key, size_bytes)
        return value

    def _decode_row(self, key: object, data: bytes) -> V:
        try:
            return self._decode_value(data)
        except SerdeError as error:
            raise SerdeError(f"table {self.name}, key {key!r}: {error}") from error

    def scan(
        self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[K, V]]:
        """Entries with start <= key bytes < stop, sorted by key bytes; what is not committed yet is among them.

        Rows that change while the scan runs are seen as they were, or as they are.
        """
        yield from islice(self._readable(start, stop, reverse), limit)

    def _readable(self, start: bytes, stop: bytes | None, reverse: bool) -> Iterator[tuple[K, V]]:
        for key_bytes, key, value in self._merged(start, stop, reverse):
            if not isinstance(key, _Mark):
                yield key, value
                continue
            try:
                decoded = self._key.decode(key_bytes)
                row = self._decode_row(decoded, value)
            except SerdeError as error:
                if self.on_unreadable is None:
                    raise
                self.on_unreadable(key_bytes, error)
            else:
                yield decoded, row

    def decode_key(self, data: bytes) -> K:
        return self._key.decode(data)

    def items(self) -> Iterator[tuple[K, V]]:
        return self.scan()

    def values(self) -> Iterator[V]:
        for _, value in self.scan():
            yield value

    def keys(self) -> Iterator[K]:
        decode = self._key.decode
        for key_bytes, key, _ in self._merged(b"", None, False):
            try:
                found = decode(key_bytes) if isinstance(key, _Mark) else key
            except SerdeError as error:
                if self.on_unreadable is None:
                    raise
                self.on_unreadable(key_bytes, error)
            else:
                yield found

    def _merged(self, start: bytes, stop: bytes | None, reverse: bool) -> Iterator[tuple[bytes, K | _Mark, Any]]:
        """Sorted union of changes and store: (key bytes, key, value), or (key bytes, unknown, row) from the store."""
        self._settle_all()
        changed = self._changed(start, stop, reverse)
        position, end = 0, len(changed)
        for key_bytes, data in self._store.scan(self.name, start, stop, reverse=reverse):
            while position < end and (
                changed[position][0] > key_bytes if reverse else changed[position][0] < key_bytes
            ):
                if changed[position][2] is not _ABSENT:
                    yield changed[position]
                position += 1
            if position < end and changed[position][0] == key_bytes:
                if changed[position][2] is not _ABSENT:
                    yield changed[position]
                position += 1
            else:
                yield key_bytes, _UNKNOWN, data
        for entry in changed[position:]:
            if entry[2] is not _ABSENT:
                yield entry

    def some_keys(self, count: int) -> list[bytes]:
        """The bytes of up to `count` keys that have a row; a look, not a scan."""
        changed = (data for key, data in self.uncommitted() if self._recent[key] is not _ABSENT)
        stored = (key for key, _ in self._store.scan(self.name, limit=count))
        return list(islice(chain(changed, stored), count))

    def uncommitted(self) -> Iterator[tuple[K, bytes]]:
        """Keys that were written since the last finished commit, deletions included, with their bytes."""
        yield from {**(self._in_commit or {}), **self._dirty}.items()

    def _settle_all(self) -> None:
        """What was changed in place counts as set from here on; it is watched on."""
        for watched in (self._watched_old, self._watched):
            for key, (value, data) in watched.items():
                self._settle(key, value, data)

    def _settle(self, key: K, value: V, data: bytes) -> bool:
        """Whether `value`, which had these bytes when it was given out, was changed in place and so counts as set.

        Whatever it was changed to: what cannot be encoded is found out by `take_dirty`, where it stops the commit. Here
        it would be taken for the fault of whoever looks at another row. It stays the object that its holder has, and
        is not made to fit the type any better: of another one the holder's next change would be lost.
        """
        if key in self._dirty and self._recent[key] is not _ABSENT:
            return False  # written since, or settled already; a key that was deleted has a default that came later
        with suppress(SerdeError):
            if self._encode_value(value) == data:
                return False
        if key not in self._recent:
            self._charge_bytes += ENTRY_BYTES
        self._dirty[key] = self._encode_key(key)
        self._recent[key] = value
        return True

    def _encoded(self, key: K, value: V) -> bytes:
        try:
            return self._encode_value(value)
        except SerdeError as error:
            raise SerdeError(f"table {self.name}, key {key!r}: {error}") from error

    def _changed(self, start: bytes, stop: bytes | None, reverse: bool) -> list[tuple[bytes, K, Any]]:
        """Entries the store may not have yet, sorted by key bytes."""
        recent = self._recent
        entries = [
            (key_bytes, key, recent[key])
            for key, key_bytes in self.uncommitted()
            if key_bytes >= start and (stop is None or key_bytes < stop)
        ]
        entries.sort(key=_first, reverse=reverse)
        return entries

    # --- writes ---------------------------------------------------------------------------------------------------

    def set(self, key: K, value: V) -> None:
        """Write. Raises: SerdeError: key or value do not fit their types; and whatever `on_new_key` raises."""
        try:
            value = self._fit_value(value)
        except SerdeError as error:
            raise SerdeError(f"table {self.name}, key {key!r}: {error}") from error
        if key not in self._dirty:
            self._first_write(key)
        self._recent[key] = value
        if self._watches:
            self._unwatch(key)
            if self.on_given is not None:
                self.on_given(key)

    def delete(self, key: K) -> None:
        """Delete; a key that is known to be absent is left alone."""
        self._unwatch(key)
        if key not in self._dirty:
            if self._recent.get(key) is _ABSENT:
                return
            self._first_write(key)
        self._recent[key] = _ABSENT

    def _unwatch(self, key: K) -> None:
        self._watched.pop(key, None)
        self._watched_old.pop(key, None)

    def _first_write(self, key: K) -> None:
        """Make `key` dirty; its value follows at once."""
        key_bytes = self._encode_key(key)
        before = self._recent.get(key, _UNKNOWN)
        known = before if before is not _UNKNOWN else self._old.get(key, _UNKNOWN)
        if self.on_new_key is not None and (
            known is _UNKNOWN or (known is _ABSENT and self.on_absent_key is None)  # else the read has asked
        ):
            self.on_new_key(key_bytes)
        if before is _UNKNOWN:
            if self._charge_bytes > self._turn_at_bytes:
                self._turn()
            self._recent[key] = _ABSENT  # until the value follows: dirty is a subset of recent
            self._charge_bytes += ENTRY_BYTES
        self._dirty[key] = key_bytes

    def forget(self, changes: Sequence[Change] | None = None) -> None:
        """Somebody else wrote these rows to the store (None: all of them): read them from there again."""
        assert not self.has_uncommitted, f"table {self.name} has changes of its own"
        self._watched.clear()
        self._watched_old.clear()
        if self.on_leave is not None:
            self.on_leave(True)
        if changes is None:
            self._recent.clear()
            self._old.clear()
            return
        for key_bytes, _ in changes:
            try:
                key = self._key.decode(key_bytes)
                self._recent.pop(key, None)
                self._old.pop(key, None)
            except (SerdeError, TypeError):  # TypeError: no key of a dict
                continue  # such a row cannot be in the cache; a scan that meets it says so

    # --- commit ---------------------------------------------------------------------------------------------------

    @property
    def dirty_count(self) -> int:
        """Keys changed since the last `take_dirty`."""
        return len(self._dirty)

    @property
    def has_uncommitted(self) -> bool:
        """Whether reads may show what no finished commit has."""
        return bool(self._dirty or self._in_commit)

    @property
    def dirty_full(self) -> bool:
        """Changes alone fill the cache: commit now, because nothing else can make room."""
        return len(self._dirty) * ENTRY_BYTES > self._cache_bytes_max // 2

    def take_dirty(self, timestamp_ms: int, held: Collection[K] = ()) -> DirtyRows:
        """Encode what changed since the last time and begin the next round; one commit at a time.

        Args:    timestamp_ms: for the changelog records; stream time, so that they expire no earlier than the rows do.
                 held: keys whose values somebody who is not done with them may still change in place.
        Raises:  SerdeError: a value was changed in place since it was set, and does not fit its type any more. Then
                 nothing has been taken.
        """
        assert self._in_commit is None, f"table {self.name}: the commit before was neither finished nor abandoned"
        self._settle_all()
        rows: list[tuple[bytes, bytes | None, int]] = []
        recent, encode = self._recent, self._encoded
        watched_on = {key: watched for key in held if (watched := self._watched.get(key) or self._watched_old.get(key))}
        for key, key_bytes in self._dirty.items():
            value = recent[key]
            if isinstance(value, _Mark):
                rows.append((key_bytes, None, timestamp_ms))
                continue
            data = encode(key, value)
            rows.append((key_bytes, data, timestamp_ms))
            if self._watches and key in held:
                watched_on[key] = watched_on[key][0] if key in watched_on else value, data
            if len(data) > SMALL_VALUE_BYTES:
                self._charge_large(key, len(data))
        self._in_commit, self._dirty = self._dirty, {}
        self._watched = watched_on
        self._watched_old.clear()
        return DirtyRows(self.name, rows)

    def committed(self, dirty: DirtyRows) -> None:
        """The rows are in the store: their entries are clean now, unless changed again."""
        assert self._in_commit is not None, "committed without take_dirty"
        assert len(self._in_commit) == len(dirty.rows), "committed what another take_dirty gave"
        self._in_commit = None
        if self._charge_bytes > self._turn_at_bytes:
            self._turn()

    def abandon(self, dirty: DirtyRows) -> None:
        """The commit failed before the store: its rows are dirty again, with their latest values."""
        assert self._in_commit is not None, "abandon without take_dirty"
        assert len(self._in_commit) == len(dirty.rows), "abandoned what another take_dirty gave"
        self._dirty = {**self._in_commit, **self._dirty}
        self._in_commit = None

    # --- memory ---------------------------------------------------------------------------------------------------

    @property
    def cache_entries(self) -> int:
        return len(self._recent) + len(self._old)

    @property
    def cache_bytes(self) -> int:
        """Estimate for the entries in use; the old generation is at most as large as this once was."""
        return self._charge_bytes

    def approximate_count(self) -> int:
        """About how many rows the table has, uncommitted new ones left out."""
        return self._store.approximate_count(self.name)

    def _charge_large(self, key: K, size_bytes: int) -> None:
        grown_bytes = size_bytes - self._large.get(key, 0)
        self._large[key] = size_bytes
        self._charge_bytes += DECODED_BYTES_PER_ENCODED_BYTE * grown_bytes

    def _turn(self) -> None:
        """Forget the old generation; called when the recent one has grown by half the budget since the last turn.

        Measured from what had to stay, not from zero: were everything dirty, a fixed bound would turn at every write.
        """
        for key, (value, data) in self._watched_old.items():
            self._settle(key, value, data)  # the last chance: nobody watches it from here on
        self._watched_old, self._watched = self._watched, {}
        if self.on_leave is not None:
            self.on_leave(False)
        kept = {key: self._recent[key] for key in (*(self._in_commit or ()), *self._dirty)}
        self._old, self._recent = self._recent, kept
        self._large_old = self._large
        self._large = {key: size_bytes for key, size_bytes in self._large.items() if key in kept}
        self._charge_bytes = len(kept) * ENTRY_BYTES + DECODED_BYTES_PER_ENCODED_BYTE * sum(self._large.values())
        self._turn_at_bytes = self._charge_bytes + self._cache_bytes_max // 2


def _itself(value: V) -> V:
    return value


def _first(entry: tuple[bytes, Any, Any]) -> bytes:
    return entry[0]
