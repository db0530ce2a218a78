"""A store in plain Python: tables without a disk, and the stand-in for RocksDB when a cluster is simulated.

The engine plays the disk: what a store committed stays with the engine when the store is closed, and `crash` takes the
store away as a killed process or a power cut would. Same contract as RocksDB, checked by the same tests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from streamlog.state.store import (
    Change,
    CommitBatch,
    Position,
    Row,
    SourceOffset,
    StoreClosed,
    StoreLocked,
    succeed,
)

UNSYNCED_COMMITS_MAX = 64
"""Commits a power cut may take back. RocksDB loses what the kernel had not written out, some seconds of commits."""


@dataclass(slots=True)
class _Table:
    rows: dict[bytes, bytes] = field(default_factory=dict)
    shared: bool = False
    """A snapshot reads `rows`: copy them before the next change."""
    ordered: list[bytes] | None = None
    """The keys in order, made when a scan wants them; None after a key came or went."""

    def keys(self) -> list[bytes]:
        if self.ordered is None:
            self.ordered = sorted(self.rows)
        return self.ordered

    def put(self, key: bytes, value: bytes | None) -> bytes | None:
        """Apply one change and return the value before it."""
        if self.shared:
            self.rows, self.shared = dict(self.rows), False
        before = self.rows.get(key)
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value
        if (before is None) != (value is None):
            self.ordered = None
        return before


@dataclass(slots=True)
class _Undo:
    """What one commit replaced, newest change last; None where nothing was."""

    rows: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)
    positions: list[tuple[str, Position | None]] = field(default_factory=list)
    source_offsets: list[tuple[tuple[str, int], SourceOffset | None]] = field(default_factory=list)


@dataclass(slots=True)
class _Image:
    """The disk's view of one store."""

    tables: dict[str, _Table] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    source_offsets: dict[tuple[str, int], SourceOffset] = field(default_factory=dict)
    unsynced: list[_Undo] = field(default_factory=list)

    def apply(self, batch: CommitBatch) -> None:
        undo = _Undo()
        for name, changes in batch.rows.items():
            table = self.tables.setdefault(name, _Table())
            undo.rows += [(name, key, table.put(key, value)) for key, value in changes]
        for name, position in batch.positions.items():
            undo.positions.append((name, self.positions.get(name)))
            self.positions[name] = succeed(position, self.positions.get(name))
        for source, offset in batch.source_offsets.items():
            undo.source_offsets.append((source, self.source_offsets.get(source)))
            self.source_offsets[source] = offset
        self.unsynced.append(undo)
        del self.unsynced[:-UNSYNCED_COMMITS_MAX]

    def take_back(self) -> None:
        undo = self.unsynced.pop()
        for name, key, value in reversed(undo.rows):
            self.tables[name].put(key, value)
        for name, position in undo.positions:
            if position is None:
                del self.positions[name]
            else:
                self.positions[name] = position
        for source, offset in undo.source_offsets:
            if offset is None:
                del self.source_offsets[source]
            else:
                self.source_offsets[source] = offset


class _MemoryReader:
    """Reads of an image; a snapshot is a frozen image."""

    def __init__(self, image: _Image) -> None:
        self._image: _Image | None = image

    def get(self, table: str, key: bytes) -> bytes | None:
        found = self._open().tables.get(table)
        return None if found is None else found.rows.get(key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Row]:
        found = self._open().tables.get(table)
        if found is None or limit == 0:
            return
        keys = found.keys()
        keys = keys[bisect_left(keys, start) : len(keys) if stop is None else bisect_left(keys, stop)]
        seen = 0
        for key in reversed(keys) if reverse else keys:
            value = self.get(table, key)
            if value is not None:
                yield key, value
                seen += 1
                if seen == limit:
                    return

    def positions(self) -> Mapping[str, Position]:
        return self._open().positions

    def close(self) -> None:
        self._image = None

    def _open(self) -> _Image:
        if self._image is None:
            raise StoreClosed("the store was closed")
        return self._image


class MemorySnapshot(_MemoryReader):
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryStore(_MemoryReader):
    """One task's tables in memory. Made by `MemoryEngine.open`."""

    def __init__(self, engine: MemoryEngine, path: str, image: _Image) -> None:
        super().__init__(image)
        self._engine = engine
        self._path = path
        self._snapshots: dict[int, MemorySnapshot] = {}

    @property
    def path(self) -> str:
        return self._path

    def commit(self, batch: CommitBatch) -> None:
        self._open().apply(batch)

    def source_offsets(self) -> Mapping[tuple[str, int], SourceOffset]:
        return self._open().source_offsets

    def ingest(self, table: str, rows: Sequence[Change], position: Position | None) -> None:
        self._open().apply(CommitBatch({table: rows}, {} if position is None else {table: position}))

    def tables(self) -> list[str]:
        return sorted(self._open().tables)

    def drop_table(self, table: str) -> None:
        image = self._open()
        image.unsynced.clear()  # durable, like all that came before it
        image.positions.pop(table, None)
        image.tables.pop(table, None)

    def approximate_count(self, table: str) -> int:
        found = self._open().tables.get(table)
        return 0 if found is None else len(found.rows)

    def snapshot(self) -> MemorySnapshot:
        image = self._open()
        for table in image.tables.values():
            table.shared = True
        frozen = {name: _Table(table.rows, True, table.ordered) for name, table in image.tables.items()}
        snapshot = MemorySnapshot(_Image(frozen, dict(image.positions)))
        self._snapshots = {number: other for number, other in self._snapshots.items() if other._image is not None}
        self._snapshots[id(snapshot)] = snapshot
        return snapshot

    def close(self) -> None:
        if self._image is not None:
            super().close()
            for snapshot in self._snapshots.values():
                snapshot.close()
            self._engine._forget(self._path)


class MemoryEngine:
    """Opens stores in memory and keeps what they committed, as a disk would."""

    name = "memory"

    def __init__(self) -> None:
        self._images: dict[str, _Image] = {}
        self._open: dict[str, MemoryStore] = {}

    def open(self, path: str) -> MemoryStore:
        if path in self._open:
            raise StoreLocked(f"{path} is open")
        store = self._open[path] = MemoryStore(self, path, self._images.setdefault(path, _Image()))
        return store

    def destroy(self, path: str) -> None:
        assert path not in self._open, "destroy is for closed stores"
        self._images.pop(path, None)

    def quarantine(self, path: str) -> str:
        number = 1
        while f"{path}.corrupt-{number}" in self._images:
            number += 1
        self._images[f"{path}.corrupt-{number}"] = self._images.pop(path, _Image())
        return f"{path}.corrupt-{number}"

    def crash(self, path: str, lost_commits: int = 0) -> None:
        """The process dies at this point; a power cut also takes back the last `lost_commits` commits."""
        store = self._open.get(path)
        if store is not None:
            store.close()
        image = self._images.get(path, _Image())
        for _ in range(min(lost_commits, len(image.unsynced))):
            image.take_back()
        image.unsynced.clear()

    def _forget(self, path: str) -> None:
        self._open.pop(path, None)
