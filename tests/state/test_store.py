"""The store contract, for RocksDB and for memory: both against a dict, reopened and crashed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamlog.env import RealStorage
from streamlog.state.memory import MemoryEngine
from streamlog.state.rocksdb import BULK_ROWS_MIN, RocksEngine
from streamlog.state.store import (
    Change,
    CommitBatch,
    Position,
    SourceOffset,
    Store,
    StoreClosed,
    StoreEngine,
    StoreLocked,
)

Rows: TypeAlias = dict[str, dict[bytes, bytes]]

ID = UUID(int=7)


@pytest.fixture(params=["memory", "rocksdb"])
def engine(request: pytest.FixtureRequest) -> StoreEngine:
    return MemoryEngine() if request.param == "memory" else RocksEngine(RealStorage())


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "task-0")


@pytest.fixture
def store(engine: StoreEngine, path: str) -> Iterator[Store]:
    store = engine.open(path)
    yield store
    store.close()


def test_a_commit_carries_rows_positions_and_source_offsets(engine: StoreEngine, store: Store, path: str) -> None:
    """All of them come back after reopening, with topic id and leader epoch."""
    position = Position(12, ID, 3, 1000)
    offset = SourceOffset(7, ID, 2)
    store.commit(CommitBatch({"a": [(b"k", b"v")], "b": [(b"k", b"w")]}, {"a": position}, {("topic/odd", 1): offset}))
    for _ in range(2):
        assert (store.get("a", b"k"), store.get("b", b"k"), store.get("c", b"k")) == (b"v", b"w", None)
        assert store.get_many("a", [b"x", b"k"]) == [None, b"v"]
        assert store.get_many("nowhere", [b"k"]) == [None]
        assert dict(store.positions()) == {"a": position}
        assert dict(store.source_offsets()) == {("topic/odd", 1): offset}
        assert store.tables() == ["a", "b"]
        store.close()
        store = engine.open(path)
    store.close()


def test_a_commit_that_does_not_know_the_topic_id_keeps_it(engine: StoreEngine, store: Store, path: str) -> None:
    """Only a restore looks it up; without it a topic that was made again would go unnoticed."""
    store.commit(CommitBatch(positions={"a": Position(1, ID, 4)}))
    store.commit(CommitBatch(positions={"a": Position(2)}))
    assert store.positions()["a"] == Position(2, ID)
    store.close()
    store = engine.open(path)
    assert store.positions()["a"] == Position(2, ID)
    store.close()


def test_scans_are_sorted_bounded_and_go_both_ways(store: Store) -> None:
    """From start, up to but without stop, over more rows than one chunk holds."""
    keys = [b"%05d" % number for number in range(3000)]
    store.commit(CommitBatch({"t": [(key, b"v" + key) for key in reversed(keys)]}))
    rows = [(key, b"v" + key) for key in keys]
    assert list(store.scan("t")) == rows
    assert list(store.scan("t", reverse=True)) == rows[::-1]
    assert list(store.scan("t", b"00010", b"02000")) == rows[10:2000]
    assert list(store.scan("t", b"00010", b"02000", reverse=True)) == rows[10:2000][::-1]
    assert list(store.scan("t", b"00010", limit=100)) == rows[10:110]
    assert list(store.scan("t", reverse=True, limit=100)) == rows[-1:-101:-1]
    assert list(store.scan("t", b"5", b"1")) == []
    assert list(store.scan("t", limit=0)) == []
    assert list(store.scan("t", stop=b"")) == list(store.scan("t", stop=b"", reverse=True)) == []
    assert list(store.scan("nowhere")) == []


def test_a_scan_sees_each_row_once_while_others_are_written(store: Store) -> None:
    """Rows that exist throughout come exactly once, whatever happens around them."""
    keys = [b"%05d" % number for number in range(0, 4000, 2)]
    store.commit(CommitBatch({"t": [(key, b"v") for key in keys]}))
    seen = []
    for count, (key, _) in enumerate(store.scan("t")):
        seen.append(key)
        if count % 50 == 0:
            store.commit(CommitBatch({"t": [(b"%05d" % (2 * count + 1), b"new"), (b"%05d" % (4000 - count), b"v")]}))
    assert [key for key in seen if key in set(keys)] == keys
    assert seen == sorted(set(seen))


def test_the_empty_key_is_a_key(store: Store) -> None:
    """Windowed tables keep their mark there."""
    store.commit(CommitBatch({"t": [(b"", b"mark"), (b"\x00", b"row")]}))
    assert store.get("t", b"") == b"mark"
    assert list(store.scan("t")) == [(b"", b"mark"), (b"\x00", b"row")]
    assert list(store.scan("t", reverse=True)) == [(b"\x00", b"row"), (b"", b"mark")]
    assert list(store.scan("t", b"\x00")) == [(b"\x00", b"row")]
    store.commit(CommitBatch({"t": [(b"", None)]}))
    assert store.get("t", b"") is None


@pytest.mark.parametrize("count", [10, BULK_ROWS_MIN])
def test_ingest_replaces_deletes_and_moves_the_position(store: Store, count: int) -> None:
    """As one batch and in bulk, over rows that are there already."""
    store.commit(CommitBatch({"t": [(b"%06d" % 1, b"old"), (b"%06d" % 2, b"old"), (b"z", b"kept")]}))
    rows: list[Change] = [(b"%06d" % number, b"new") for number in range(count)]
    rows[2] = (b"%06d" % 2, None)
    store.ingest("t", rows, Position(99, ID))
    expected = [(key, value) for key, value in rows if value is not None]
    assert list(store.scan("t")) == [*expected, (b"z", b"kept")]
    assert store.positions()["t"] == Position(99, ID)
    store.ingest("t", [(b"%06d" % 1, b"newer")], None)
    assert store.get("t", b"%06d" % 1) == b"newer"
    assert store.positions()["t"] == Position(99, ID)


def test_a_dropped_table_is_empty_and_has_no_position(engine: StoreEngine, store: Store, path: str) -> None:
    """Also after reopening, and it can be written again."""
    store.commit(CommitBatch({"a": [(b"k", b"v")], "b": [(b"k", b"v")]}, {"a": Position(1), "b": Position(2)}))
    store.drop_table("a")
    store.drop_table("nowhere")
    for _ in range(2):
        assert store.get("a", b"k") is None
        assert list(store.scan("a")) == []
        assert dict(store.positions()) == {"b": Position(2)}
        assert store.tables() == ["b"]
        store.close()
        store = engine.open(path)
    store.commit(CommitBatch({"a": [(b"k2", b"v")]}, {"a": Position(3)}))
    assert list(store.scan("a")) == [(b"k2", b"v")]
    store.close()


def test_a_snapshot_sees_one_moment(store: Store) -> None:
    """Rows and positions, over several tables, while the store goes on."""
    store.commit(CommitBatch({"a": [(b"k", b"1")], "b": [(b"k", b"1")]}, {"a": Position(1)}))
    with store.snapshot() as snapshot:
        store.commit(CommitBatch({"a": [(b"k", b"2")], "b": [(b"k", None), (b"l", b"2")]}, {"a": Position(2)}))
        store.commit(CommitBatch({"c": [(b"k", b"2")]}))
        assert snapshot.get("a", b"k") == b"1"
        assert list(snapshot.scan("b")) == [(b"k", b"1")]
        assert list(snapshot.scan("c")) == []
        assert snapshot.get_many("b", [b"k", b"l"]) == [b"1", None]
        assert dict(snapshot.positions()) == {"a": Position(1)}
    assert list(store.scan("b")) == [(b"l", b"2")]
    with pytest.raises(StoreClosed):
        snapshot.get("a", b"k")


def test_a_store_that_is_open_is_locked(engine: StoreEngine, store: Store, path: str) -> None:
    """An earlier incarnation of the task may still be closing."""
    with pytest.raises(StoreLocked):
        engine.open(path)
    store.close()
    engine.open(path).close()


def test_closing_ends_scans_and_snapshots_and_frees_the_lock(engine: StoreEngine, store: Store, path: str) -> None:
    """A query in flight fails; it neither ends early as if complete nor keeps the store from its next owner."""
    store.commit(CommitBatch({"t": [(b"%05d" % number, b"v") for number in range(3000)]}))
    scan, snapshot = store.scan("t"), store.snapshot()
    snapshot_scan = snapshot.scan("t")
    next(scan)
    next(snapshot_scan)
    store.close()
    store.close()
    for late in (scan, snapshot_scan):
        with pytest.raises(StoreClosed):
            list(late)
    attempts: list[Callable[[], object]] = [
        lambda: store.get("t", b"k"),
        lambda: store.get_many("t", [b"k"]),
        lambda: list(store.scan("t")),
        lambda: store.commit(CommitBatch({"t": [(b"k", b"v")]})),
        lambda: store.ingest("t", [(b"k", b"v")], None),
        lambda: store.drop_table("t"),
        lambda: store.approximate_count("t"),
        store.positions,
        store.source_offsets,
        store.tables,
        store.snapshot,
        lambda: snapshot.get("t", b"00001"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreClosed):
            attempt()
    engine.open(path).close()


def test_a_destroyed_store_is_empty_when_opened_again(engine: StoreEngine, store: Store, path: str) -> None:
    """And destroying what is not there is fine."""
    store.commit(CommitBatch({"t": [(b"k", b"v")]}, {"t": Position(1)}))
    store.close()
    engine.destroy(path)
    engine.destroy(path)
    reopened = engine.open(path)
    assert reopened.tables() == []
    assert dict(reopened.positions()) == {}
    reopened.close()


def test_a_count_is_about_right(store: Store) -> None:
    """Exact in memory; RocksDB estimates."""
    store.commit(CommitBatch({"t": [(b"%05d" % number, b"v") for number in range(1000)]}))
    assert 900 <= store.approximate_count("t") <= 1100
    assert store.approximate_count("nowhere") == 0


KEYS = st.binary(max_size=3)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=6)
BATCHES = st.dictionaries(st.sampled_from(["a", "b"]), CHANGES, max_size=2)


def apply(model: Rows, table: str, changes: dict[bytes, bytes | None]) -> None:
    rows = model.setdefault(table, {})
    for key, value in changes.items():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


class RocksAndMemoryAgainstDict(RuleBasedStateMachine):
    """RocksDB == memory == dict, over commits, ingests, drops, snapshots, reopens and kills."""

    directory: Path

    @initialize()
    def open(self) -> None:
        self.engines: list[StoreEngine] = [RocksEngine(RealStorage()), MemoryEngine()]
        self.path = str(self.directory / "task-0")
        self.engines[0].destroy(self.path)
        self.stores = [engine.open(self.path) for engine in self.engines]
        self.model: Rows = {}
        self.positions: dict[str, Position] = {}
        self.source_offsets: dict[tuple[str, int], SourceOffset] = {}
        self.count = 0

    @rule(batch=BATCHES, source=st.integers(0, 2))
    def commit(self, batch: dict[str, dict[bytes, bytes | None]], source: int) -> None:
        self.count += 1
        positions = {table: Position(self.count, ID, 1, self.count) for table in batch}
        offsets = {("topic", source): SourceOffset(self.count, ID, 1)}
        for store in self.stores:
            rows = {table: list(changes.items()) for table, changes in batch.items()}
            store.commit(CommitBatch(dict(rows), dict(positions), dict(offsets)))
        for table, changes in batch.items():
            apply(self.model, table, changes)
        self.positions.update(positions)
        self.source_offsets.update(offsets)

    @rule(table=st.sampled_from(["a", "b"]), changes=CHANGES)
    def ingest(self, table: str, changes: dict[bytes, bytes | None]) -> None:
        self.count += 1
        for store in self.stores:
            store.ingest(table, sorted(changes.items()), Position(self.count))
        apply(self.model, table, changes)
        before = self.positions.get(table)
        self.positions[table] = Position(self.count, None if before is None else before.topic_id)

    @rule(table=st.sampled_from(["a", "b"]))
    def drop(self, table: str) -> None:
        for store in self.stores:
            store.drop_table(table)
        self.model.pop(table, None)
        self.positions.pop(table, None)

    @rule()
    def reopen(self) -> None:
        for store in self.stores:
            store.close()
        self.stores = [engine.open(self.path) for engine in self.engines]

    @precondition(lambda self: hasattr(self, "stores"))
    @rule(batch=BATCHES)
    def snapshot(self, batch: dict[str, dict[bytes, bytes | None]]) -> None:
        before = {table: sorted(rows.items()) for table, rows in self.model.items()}
        positions = dict(self.positions)
        snapshots = [store.snapshot() for store in self.stores]
        self.commit(batch, 0)
        for snapshot in snapshots:
            assert {table: list(snapshot.scan(table)) for table in before} == before
            assert dict(snapshot.positions()) == positions
            snapshot.close()

    @rule(start=KEYS, stop=st.none() | KEYS, reverse=st.booleans(), limit=st.none() | st.integers(0, 3))
    def scan(self, start: bytes, stop: bytes | None, reverse: bool, limit: int | None) -> None:
        for table in ("a", "b"):
            rows = sorted(self.model.get(table, {}).items(), reverse=reverse)
            rows = [row for row in rows if row[0] >= start and (stop is None or row[0] < stop)][:limit]
            for store in self.stores:
                assert list(store.scan(table, start, stop, reverse=reverse, limit=limit)) == rows

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        for store in self.stores:
            for table in ("a", "b"):
                expected = self.model.get(table, {}).get(key)
                assert store.get(table, key) == expected
                assert store.get_many(table, [key, key]) == [expected, expected]

    @invariant()
    def equal(self) -> None:
        for store in getattr(self, "stores", []):
            for table in ("a", "b"):
                assert list(store.scan(table)) == sorted(self.model.get(table, {}).items())
            assert dict(store.positions()) == self.positions
            assert dict(store.source_offsets()) == self.source_offsets

    def teardown(self) -> None:
        for store in getattr(self, "stores", []):
            store.close()


def test_rocks_and_memory_are_the_same_store(tmp_path: Path) -> None:
    """The simulation's stand-in does what production does."""
    from hypothesis.stateful import run_state_machine_as_test

    class Machine(RocksAndMemoryAgainstDict):
        directory = tmp_path

    run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


@settings(max_examples=100, deadline=None)
@given(st.lists(BATCHES, max_size=8), st.integers(0, 10))
def test_a_power_cut_takes_whole_commits_from_the_end(
    batches: list[dict[str, dict[bytes, bytes | None]]], lost: int
) -> None:
    """The in-memory store loses what a disk would lose: never half a commit, never one in the middle."""
    engine = MemoryEngine()
    store = engine.open("task-0")
    for number, batch in enumerate(batches):
        rows = {table: list(changes.items()) for table, changes in batch.items()}
        store.commit(CommitBatch(dict(rows), {"a": Position(number)}, {("t", 0): SourceOffset(number)}))
    engine.crash("task-0", lost_commits=lost)
    with pytest.raises(StoreClosed):
        store.tables()
    kept = batches[: max(0, len(batches) - lost)]
    model: Rows = {}
    for batch in kept:
        for table, changes in batch.items():
            apply(model, table, changes)
    store = engine.open("task-0")
    for table in ("a", "b"):
        assert list(store.scan(table)) == sorted(model.get(table, {}).items())
    assert dict(store.positions()) == ({"a": Position(len(kept) - 1)} if kept else {})
    assert dict(store.source_offsets()) == ({("t", 0): SourceOffset(len(kept) - 1)} if kept else {})
