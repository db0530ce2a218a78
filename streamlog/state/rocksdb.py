"""The store in RocksDB, through rocksdict in raw mode: one database per task, one column family per table.

What using rocksdict taught us, each guarded below and tested:

- Options of column families that already exist are silently dropped on reopening unless they are passed again: the
  block cache becomes a private 8 MB and bloom filters vanish. We always pass them, and check that they took effect.
- An iterator that meets a damaged block just ends. A scan that looks finished asks the iterator's status.
- Iterators made from its snapshots read the present. An iterator by itself stays at the moment it was made and can be
  moved anywhere, so a snapshot here is one iterator per table.
- A column family handle or an iterator that is still referenced keeps the database open and its lock held after
  `close`. Scans hold an iterator only while they read a chunk; handles and snapshots are let go in `close`.

Commits are one WriteBatch with the write-ahead log and without sync: a killed process loses nothing, a power cut loses
commits from the end. RocksDB syncs older log files before it flushes any one column family, so tables never part ways.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from operator import itemgetter
from types import TracebackType
from typing import Any, Self, TypeAlias
from uuid import UUID

import msgspec
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from streamlog.env import Storage
from streamlog.errors import EnvironmentFailure, UserError
from streamlog.state.store import (
    Change,
    CommitBatch,
    Position,
    Row,
    SourceOffset,
    StoreClosed,
    StoreCorrupt,
    StoreLocked,
    succeed,
)

logger = logging.getLogger(__name__)

CACHE_BYTES = 128 * 1024 * 1024
"""Blocks read from disk and memtables, of all stores of a process. Hot rows are in TableState's dicts already."""

MEMTABLE_BYTES = 64 * 1024 * 1024
"""Of these, at most so much for memtables; then the largest is flushed. A restore of many tasks stays within it too."""

WRITE_BUFFER_BYTES = 16 * 1024 * 1024
"""Memtable of one table. Larger ones mean fewer flushes; a task has several tables and a worker many tasks."""

BLOOM_BITS_PER_KEY = 10
"""1 % false positives: a key that does not exist (a new one to count) rarely touches a block."""

BLOCK_BYTES = 8 * 1024
"""Rows are small and read one by one: smaller blocks cost memory for the index, larger ones CPU to unpack."""

FILES_OPEN_MAX = 256
"""Per database. A worker with a hundred tasks must stay below common limits of open files."""

LOG_BYTES_MAX = 64 * 1024 * 1024
"""Of write-ahead log before RocksDB flushes what holds it back: bounds how much a crashed store replays when opened."""

BULK_ROWS_MIN = 20_000
"""From so many rows it pays to leave the write-ahead log out and to flush instead. Measured for a million rows in
random order: 1.0 s, against 1.3 to 4 s with the log, and 1.8 s as sorted files, because Python has to sort them."""

BULK_SLICE_ROWS = 8_000
"""Rows sorted, then written, at a time: some 4 ms each. rocksdict holds the GIL while it writes, so that this is how
long the event loop waits."""

BULK_FLUSH_BYTES = 6 * 1024 * 1024
"""Flushed by us, which releases the GIL, before the memtable (twice this with its overhead) is full: a write that waits
for RocksDB's own flush waits with the GIL held."""

LEVEL0_FILES_MAX = 24
"""Files a bulk write leaves unsorted before it compacts, again without the GIL."""

LEVEL0_FILES_NEVER = 1 << 20
"""RocksDB's own brakes on writes would stop the event loop; ours stop the thread that restores."""

SCAN_CHUNK_ROWS_MIN, SCAN_CHUNK_ROWS_MAX = 32, 1024
"""Rows read under one iterator. Chunks begin small because most scans are, and double."""

STORE_FORMAT = 1
"""Layout of the metadata in the default column family; a store with another number is not ours to touch."""

_FORMAT_KEY = b"format"
_POSITION_PREFIX, _SOURCE_PREFIX = b"p/", b"s/"
_TABLE_PREFIX = "table:"  # "default" is RocksDB's own family, and a table may have that name


class RocksEngine:
    """Opens RocksDB stores. One per process: all its stores share one block cache and one memtable budget."""

    name = "rocksdb"

    def __init__(
        self, storage: Storage, *, cache_bytes: int = CACHE_BYTES, memtable_bytes: int = MEMTABLE_BYTES
    ) -> None:
        self._storage = storage
        self._cache = Cache(cache_bytes)
        self._cache_bytes = cache_bytes
        self._memtables = WriteBufferManager.new_write_buffer_manager_with_cache(memtable_bytes, False, self._cache)

    @property
    def memory_bytes(self) -> int:
        """Blocks and memtables of all stores; the memtables are charged to the cache."""
        return self._cache.get_usage()

    def options(self) -> Options:
        """Options of every database and of every column family."""
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_block_size(BLOCK_BYTES)
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
        blocks.set_format_version(5)
        # Index and filter blocks live in the shared cache, so that the number of files does not add memory beside it.
        blocks.set_cache_index_and_filter_blocks(True)
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        options.set_block_based_table_factory(blocks)
        options.set_write_buffer_manager(self._memtables)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_max_write_buffer_number(4)
        options.set_level_zero_slowdown_writes_trigger(LEVEL0_FILES_NEVER)
        options.set_level_zero_stop_writes_trigger(LEVEL0_FILES_NEVER)
        options.set_max_open_files(FILES_OPEN_MAX)
        options.set_max_total_wal_size(LOG_BYTES_MAX)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1024 * 1024)
        options.set_stats_dump_period_sec(0)
        return options

    def open(self, path: str) -> RocksStore:
        self._storage.make_directory(path)
        try:
            families = self._families(path)
            db = Rdict(path, self.options(), column_families={name: self.options() for name in families})
        except Exception as error:
            raise _failure(path, error) from error
        try:
            store = RocksStore(self, path, db, families)
        except BaseException:
            db.close()
            raise
        store.check_options(self._cache_bytes)
        return store

    def _families(self, path: str) -> list[str]:
        if not self._storage.exists(f"{path}/CURRENT"):
            return []
        return [name for name in Rdict.list_cf(path, self.options()) if name != "default"]

    def destroy(self, path: str) -> None:
        if self._storage.exists(path):
            self._storage.remove_tree(path)

    def quarantine(self, path: str) -> str:
        number = 1
        while self._storage.exists(f"{path}.corrupt-{number}"):
            number += 1
        target = f"{path}.corrupt-{number}"
        self._storage.rename(path, target)
        return target


class RocksStore:
    """The open database of one task. Made by `RocksEngine.open`."""

    def __init__(self, engine: RocksEngine, path: str, db: Rdict, families: list[str]) -> None:
        self._engine = engine
        self._path = path
        self._db: Rdict | None = db
        self._families: dict[str, Rdict] = {}
        self._handles: dict[str, Any] = {}  # ColumnFamily, which rocksdict does not type
        self._positions: dict[str, Position] = {}
        self._source_offsets: dict[tuple[str, int], SourceOffset] = {}
        self._snapshots: dict[int, RocksSnapshot] = {}
        self._damaged = False
        self._unsynced, self._synced, self._unlogged = WriteOptions(), WriteOptions(), WriteOptions()
        self._synced.sync = True
        setattr(self._unlogged, "disable_wal", True)  # noqa: B010  # a property, although rocksdict's stub has a method
        for name in families:
            self._adopt(name.removeprefix(_TABLE_PREFIX), db.get_column_family(name))
        self._load_metadata(db)

    def _adopt(self, table: str, family: Rdict) -> Rdict:
        self._families[table] = family
        self._handles[table] = self._opened().get_column_family_handle(_TABLE_PREFIX + table)
        return family

    def _load_metadata(self, db: Rdict) -> None:
        stored = db.get(_FORMAT_KEY)
        if stored is None:
            db.put(_FORMAT_KEY, b"%d" % STORE_FORMAT)
        elif stored != b"%d" % STORE_FORMAT:
            raise UserError(
                f"the state store {self._path} has format {stored!r} and this release reads {STORE_FORMAT}: use the "
                "release that wrote it, or remove the directory and let its tables restore from their changelogs"
            )
        self._positions, self._source_offsets = _decode_metadata(_scan(lambda: partial(_read, db), self._fail))

    def check_options(self, cache_bytes: int) -> None:
        """Every table must read through the process's cache, whatever rocksdict made of our options."""
        for table, family in self._families.items():
            found = family.property_int_value("rocksdb.block-cache-capacity")
            assert found == cache_bytes, f"{self._path}: table {table} has a block cache of its own ({found} bytes)"

    @property
    def path(self) -> str:
        return self._path

    # --- reads ----------------------------------------------------------------------------------------------------

    def get(self, table: str, key: bytes) -> bytes | None:
        family = self._family(table)
        if family is None:
            return None
        try:
            value: bytes | None = family.get(key)
        except Exception as error:
            raise self._fail(error) from error
        return value

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        family = self._family(table)
        if family is None:
            return [None] * len(keys)
        try:
            values: list[bytes | None] | None = family.get(list(keys))
        except Exception as error:
            raise self._fail(error) from error
        return values if values is not None else []

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Row]:
        # The family is looked up again for each chunk: after `close` the scan fails instead of ending early.
        return _scan(partial(self._chunks, table), self._fail, start, stop, reverse, limit)

    def _chunks(self, table: str) -> _Chunks | None:
        family = self._family(table)
        return None if family is None else partial(_read, family)

    def positions(self) -> Mapping[str, Position]:
        self._opened()
        return self._positions

    def source_offsets(self) -> Mapping[tuple[str, int], SourceOffset]:
        self._opened()
        return self._source_offsets

    def tables(self) -> list[str]:
        self._opened()
        return sorted(self._families)

    def approximate_count(self, table: str) -> int:
        family = self._family(table)
        return 0 if family is None else family.property_int_value("rocksdb.estimate-num-keys") or 0

    def snapshot(self) -> RocksSnapshot:
        db = self._opened()
        while True:
            # An iterator per column family; they are of one moment if no write came between.
            before = db.latest_sequence_number()
            parts = {table: family.iter() for table, family in list(self._families.items())}
            metadata = db.iter()
            if db.latest_sequence_number() == before:
                break
        snapshot = RocksSnapshot(parts, metadata, self._fail)
        self._snapshots = {number: other for number, other in self._snapshots.items() if not other.closed}
        self._snapshots[id(snapshot)] = snapshot
        return snapshot

    # --- writes ---------------------------------------------------------------------------------------------------

    def commit(self, batch: CommitBatch) -> None:
        db = self._opened()
        writes = WriteBatch(raw_mode=True)
        for table, changes in batch.rows.items():
            if changes:
                # Sorted keys go into a memtable a third faster; the sort is stable, so the later of two changes wins.
                self._fill(writes, table, sorted(changes, key=itemgetter(0)))
        writes.set_default_column_family(None)
        positions = {table: succeed(new, self._positions.get(table)) for table, new in batch.positions.items()}
        for table, position in positions.items():
            writes[_POSITION_PREFIX + table.encode()] = _encode_position(position)
        for source, offset in batch.source_offsets.items():
            writes[_source_key(source)] = _encode_source_offset(offset)
        self._write(db, writes, self._unsynced)
        self._positions.update(positions)
        self._source_offsets.update(batch.source_offsets)

    def _fill(self, writes: WriteBatch, table: str, changes: Sequence[Change]) -> None:
        self._make_family(table)
        writes.set_default_column_family(self._handles[table])
        for key, value in changes:
            if value is None:
                del writes[key]
            else:
                writes[key] = value

    def _write(self, db: Rdict, writes: WriteBatch, how: WriteOptions) -> None:
        try:
            if len(writes):
                db.write(writes, how)
        except Exception as error:
            raise self._fail(error) from error

    def ingest(self, table: str, rows: Sequence[Change], position: Position | None) -> None:
        if len(rows) < BULK_ROWS_MIN:
            self.commit(CommitBatch({table: rows}, {} if position is None else {table: position}))
            return
        db, family = self._opened(), self._make_family(table)
        unflushed_bytes = 0
        for start in range(0, len(rows), BULK_SLICE_ROWS):
            writes = WriteBatch(raw_mode=True)
            # Sorted keys go into a memtable twice as fast, and a slice is small enough to sort under the GIL.
            self._fill(writes, table, sorted(rows[start : start + BULK_SLICE_ROWS], key=itemgetter(0)))
            unflushed_bytes += writes.size_in_bytes()
            self._write(db, writes, self._unlogged)
            if unflushed_bytes >= BULK_FLUSH_BYTES:
                self._flush(family)
                unflushed_bytes = 0
        self._flush(family)  # the rows are durable before the position says so
        if position is not None:
            self.commit(CommitBatch(positions={table: position}))

    def _flush(self, family: Rdict) -> None:
        try:
            family.flush()
            if int(family.property_value("rocksdb.num-files-at-level0") or 0) >= LEVEL0_FILES_MAX:
                family.compact_range(None, None)
        except Exception as error:
            raise self._fail(error) from error

    def drop_table(self, table: str) -> None:
        db = self._opened()
        # Synced, and first: dropping a family is durable at once, and a position that outlives its rows is data loss.
        writes = WriteBatch(raw_mode=True)
        del writes[_POSITION_PREFIX + table.encode()]
        self._write(db, writes, self._synced)
        self._positions.pop(table, None)
        family = self._families.pop(table, None)
        if family is not None:
            del self._handles[table]
            try:
                family.close()
                db.drop_column_family(_TABLE_PREFIX + table)
            except Exception as error:
                raise self._fail(error) from error

    def close(self) -> None:
        db, self._db = self._db, None
        if db is None:
            return
        for snapshot in self._snapshots.values():
            snapshot.close()
        self._handles.clear()
        families, self._families = self._families, {}
        failure: Exception | None = None
        for handle in (*families.values(), db):  # all of them: one that stays open keeps the lock
            try:
                handle.close()
            except Exception as error:
                failure = failure or _failure(self._path, error)
        if self._damaged:
            target = self._engine.quarantine(self._path)
            logger.warning("store=%s state=corrupt moved_to=%s", self._path, target)
        if failure is not None:
            raise failure

    # --- plumbing -------------------------------------------------------------------------------------------------

    def _opened(self) -> Rdict:
        if self._db is None:
            raise StoreClosed(f"the state store {self._path} was closed")
        return self._db

    def _family(self, table: str) -> Rdict | None:
        family = self._families.get(table)
        if family is None:
            self._opened()
        return family

    def _make_family(self, table: str) -> Rdict:
        family = self._families.get(table)
        if family is not None:
            return family
        db = self._opened()
        try:
            return self._adopt(table, db.create_column_family(_TABLE_PREFIX + table, self._engine.options()))
        except Exception as error:
            raise self._fail(error) from error

    def _fail(self, error: Exception) -> Exception:
        if self._db is None:
            return StoreClosed(f"the state store {self._path} was closed")
        failure = _failure(self._path, error)
        self._damaged = self._damaged or isinstance(failure, StoreCorrupt)
        return failure


class RocksSnapshot:
    """All tables of a store at one moment."""

    def __init__(self, parts: dict[str, RdictIter], metadata: RdictIter, fail: _Fail) -> None:
        self._parts: dict[str, RdictIter] | None = parts
        self._fail = fail
        self._positions, _ = _decode_metadata(_scan(lambda: partial(_walk, metadata), fail))

    @property
    def closed(self) -> bool:
        return self._parts is None

    def get(self, table: str, key: bytes) -> bytes | None:
        for _, value in self.scan(table, key, key + b"\x00"):
            return value
        return None

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
        return _scan(partial(self._chunks, table), self._fail, start, stop, reverse, limit)

    def _chunks(self, table: str) -> _Chunks | None:
        iterator = self._opened().get(table)
        return None if iterator is None else partial(_walk, iterator)

    def positions(self) -> Mapping[str, Position]:
        self._opened()
        return self._positions

    def _opened(self) -> dict[str, RdictIter]:
        if self._parts is None:
            raise StoreClosed("the snapshot was closed")
        return self._parts

    def close(self) -> None:
        self._parts = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- scans --------------------------------------------------------------------------------------------------------

_Fail: TypeAlias = Callable[[Exception], Exception]
_Chunks: TypeAlias = Callable[[bytes, bytes | None, bool, int], list[Row]]
"""(start, stop, reverse, wanted) -> the first rows of that range; fewer than wanted only at its end."""


def _scan(
    find: Callable[[], _Chunks | None],
    fail: _Fail,
    start: bytes = b"",
    stop: bytes | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Iterator[Row]:
    """Rows chunk by chunk. `find` says before each chunk where they come from now: nowhere, if the table is absent."""
    left = limit
    chunk_rows = SCAN_CHUNK_ROWS_MIN
    while left is None or left > 0:
        chunks = find()
        if chunks is None or (stop is not None and stop <= start):
            return
        wanted = chunk_rows if left is None else min(chunk_rows, left)
        try:
            rows = chunks(start, stop, reverse, wanted)
        except Exception as error:
            raise fail(error) from error
        yield from rows
        if len(rows) < wanted:
            return
        if reverse:
            stop = rows[-1][0]
        else:
            start = rows[-1][0] + b"\x00"
        left = None if left is None else left - len(rows)
        chunk_rows = min(2 * chunk_rows, SCAN_CHUNK_ROWS_MAX)


def _read(family: Rdict, start: bytes, stop: bytes | None, reverse: bool, wanted: int) -> list[Row]:
    """A chunk of a store's present: five times as fast as `_walk`, because rocksdict makes the rows."""
    if reverse:
        return _walk(family.iter(), start, stop, reverse, wanted)
    options = ReadOptions()
    if stop is not None:
        options.set_iterate_upper_bound(stop)
    rows: list[Row] = list(islice(family.items(from_key=start, read_opt=options), wanted))  # type: ignore[arg-type]
    if len(rows) < wanted:
        iterator = family.iter(options)
        iterator.seek(rows[-1][0] + b"\x00" if rows else start)
        _check_ended(iterator)
    return rows


def _walk(iterator: RdictIter, start: bytes, stop: bytes | None, reverse: bool, wanted: int) -> list[Row]:
    """A chunk of the moment an iterator stands for."""
    if not reverse:
        iterator.seek(start)
    elif stop is None:
        iterator.seek_to_last()
    else:
        iterator.seek_for_prev(stop)
        if iterator.valid() and iterator.key() == stop:
            iterator.prev()
    rows: list[Row] = []
    step = iterator.prev if reverse else iterator.next
    while iterator.valid():
        key = iterator.key()
        if key < start or (stop is not None and key >= stop):
            return rows
        rows.append((key, iterator.value()))
        if len(rows) == wanted:
            return rows
        step()
    _check_ended(iterator)
    return rows


def _check_ended(iterator: RdictIter) -> None:
    """rocksdict's row iterators end at a damaged block as if there were no more rows; this one knows."""
    if not iterator.valid():
        iterator.status()  # raises


# --- metadata -----------------------------------------------------------------------------------------------------


def _encode_position(position: Position) -> bytes:
    return msgspec.msgpack.encode(
        [position.offset, _encode_id(position.topic_id), position.leader_epoch, position.at_ms]
    )


def _encode_source_offset(offset: SourceOffset) -> bytes:
    return msgspec.msgpack.encode([offset.offset, _encode_id(offset.topic_id), offset.leader_epoch, offset.metadata])


def _source_key(source: tuple[str, int]) -> bytes:
    topic, partition = source
    return _SOURCE_PREFIX + b"%d/" % partition + topic.encode()


def _decode_metadata(rows: Iterable[Row]) -> tuple[dict[str, Position], dict[tuple[str, int], SourceOffset]]:
    positions: dict[str, Position] = {}
    source_offsets: dict[tuple[str, int], SourceOffset] = {}
    for key, value in rows:
        if key.startswith(_POSITION_PREFIX):
            offset, topic_id, leader_epoch, at_ms = msgspec.msgpack.decode(value)
            name = key[len(_POSITION_PREFIX) :].decode()
            positions[name] = Position(offset, _decode_id(topic_id), leader_epoch, at_ms)
        elif key.startswith(_SOURCE_PREFIX):
            offset, topic_id, leader_epoch, metadata = msgspec.msgpack.decode(value)
            partition, _, topic = key[len(_SOURCE_PREFIX) :].decode().partition("/")
            source_offsets[topic, int(partition)] = SourceOffset(offset, _decode_id(topic_id), leader_epoch, metadata)
    return positions, source_offsets


def _encode_id(topic_id: UUID | None) -> bytes:
    return b"" if topic_id is None else topic_id.bytes


def _decode_id(data: bytes) -> UUID | None:
    return UUID(bytes=data) if data else None


def _failure(path: str, error: Exception) -> Exception:
    """RocksDB's errors come as bare exceptions whose text begins with the status; others are not ours to name."""
    text = str(error)
    if type(error) is not Exception:
        return error
    if "/LOCK" in text and ("lock hold" in text or "While lock file" in text):
        return StoreLocked(f"the state store {path} is open elsewhere: {text}")
    if text.startswith("Corruption") or "No such file" in text:
        return StoreCorrupt(f"the state store {path} is damaged: {text}")
    return EnvironmentFailure(f"the state store {path} failed: {text}")
