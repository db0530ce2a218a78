"""The write-back cache: it never loses a write, and a hot key never asks the store."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamlog.errors import UserError
from streamlog.serde import SerdeError, can_change, key_serde_for, table_value_serde_for
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.store import CommitBatch
from streamlog.state.table import ENTRY_BYTES, DirtyRows, TableState


class Point(msgspec.Struct):
    x: int


def counts(store: MemoryStore, cache_entries: int = 1000, **more: Any) -> TableState[str, int]:
    """A table of counters whose cache holds about `cache_entries`."""
    return TableState(
        "counts",
        store,
        key_serde_for(str),
        table_value_serde_for(int),
        cache_bytes_max=cache_entries * ENTRY_BYTES,
        **more,
    )


def commit(
    table: TableState[Any, Any], store: MemoryStore, timestamp_ms: int = 0, held: Collection[str] = ()
) -> DirtyRows:
    dirty = table.take_dirty(timestamp_ms, held)
    store.commit(CommitBatch({table.name: dirty.changes()}))
    table.committed(dirty)
    return dirty


@pytest.fixture
def store() -> MemoryStore:
    return MemoryEngine().open("task-0")


def test_a_write_is_read_back_before_and_after_the_commit(store: MemoryStore) -> None:
    """And by a table that begins with an empty cache."""
    table = counts(store)
    table.set("a", 1)
    assert table.get("a") == 1
    commit(table, store)
    assert table.get("a") == 1
    assert counts(store).get("a") == 1


def test_each_dirty_key_is_written_once_however_often_it_changed(store: MemoryStore) -> None:
    """The point of the cache."""
    table = counts(store)
    for number in range(100):
        table.set("a", number)
    assert commit(table, store, 7).rows == [(b"a", b"\x01\x63", 7)]
    assert commit(table, store).rows == []


def test_hot_and_absent_keys_ask_the_store_once(store: MemoryStore) -> None:
    """Absence is cached too: counting a new key costs one look-up."""
    table = counts(store)
    for _ in range(10):
        assert table.get("nobody") is None
        assert table.get("nobody", 5) == 5
        assert not table.contains("nobody")
    assert table.loads == 1


def test_a_deleted_key_is_a_tombstone_and_an_absent_one_is_nothing(store: MemoryStore) -> None:
    """A tombstone for every key that never was would fill the changelog."""
    table = counts(store)
    table.set("a", 1)
    commit(table, store)
    table.delete("a")
    table.get("b")
    table.delete("b")
    assert table.get("a") is None
    assert commit(table, store).rows == [(b"a", None, 0)]
    assert store.get("counts", b"a") is None


def test_none_is_a_value_like_any_other(store: MemoryStore) -> None:
    """The caller's default must not stand in for a stored None."""
    table: TableState[str, int | None] = TableState("t", store, key_serde_for(str), table_value_serde_for(int | None))
    table.set("a", None)
    commit(table, store)
    assert table.get("a", 3) is None
    assert table.contains("a")


def test_writes_during_a_commit_belong_to_the_next_one(store: MemoryStore) -> None:
    """Processing goes on while the changelog is flushed."""
    table = counts(store)
    table.set("a", 1)
    table.set("b", 1)
    dirty = table.take_dirty(0)
    table.set("a", 2)
    assert (table.get("a"), table.get("b")) == (2, 1)
    store.commit(CommitBatch({"counts": dirty.changes()}))
    table.committed(dirty)
    assert (table.get("a"), table.get("b")) == (2, 1)
    assert commit(table, store).rows == [(b"a", b"\x01\x02", 0)]


def test_an_abandoned_commit_is_dirty_again_with_the_latest_values(store: MemoryStore) -> None:
    """Including keys that did not change since."""
    table = counts(store)
    table.set("a", 1)
    table.set("b", 1)
    dirty = table.take_dirty(0)
    table.set("a", 2)
    table.delete("b")
    table.abandon(dirty)
    assert sorted(commit(table, store).rows) == [(b"a", b"\x01\x02", 0), (b"b", None, 0)]


def test_entries_sort_by_key_bytes_and_include_what_is_not_committed(store: MemoryStore) -> None:
    """Deleted rows are hidden, changed rows show their new value, forwards and backwards."""
    table = counts(store)
    for key in "bdfh":
        table.set(key, 1)
    commit(table, store)
    table.set("c", 2)
    table.delete("d")
    dirty = table.take_dirty(0)
    table.set("f", 3)
    table.set("z", 4)
    assert list(table.items()) == [("b", 1), ("c", 2), ("f", 3), ("h", 1), ("z", 4)]
    assert list(table.scan(reverse=True)) == [("z", 4), ("h", 1), ("f", 3), ("c", 2), ("b", 1)]
    assert list(table.keys()) == ["b", "c", "f", "h", "z"]
    assert list(table.values()) == [1, 2, 3, 1, 4]
    assert list(table.scan(b"c", b"h")) == [("c", 2), ("f", 3)]
    assert list(table.scan(limit=2)) == [("b", 1), ("c", 2)]
    assert list(table.scan(limit=0)) == []
    table.committed(dirty)


def test_the_new_key_hook_sees_a_key_once_and_can_refuse_it(store: MemoryStore) -> None:
    """Reading a key first, as `+=` does, does not hide it from the hook; a refused write leaves nothing behind."""
    seen: list[bytes] = []

    def check(key: bytes) -> None:
        seen.append(key)
        if key == b"foreign":
            raise UserError("belongs to partition 3")

    table = counts(store, on_new_key=check)
    for _ in range(3):
        table.set("a", table.get("a", 0) + 1)
        commit(table, store)
    table.set("b", 1)
    table.set("b", 2)
    assert seen == [b"a", b"b"]
    with pytest.raises(UserError, match="partition 3"):
        table.set("foreign", 1)
    assert table.get("foreign") is None
    assert commit(table, store).rows == [(b"b", b"\x01\x02", 0)]


def test_memory_is_bounded_by_entries(store: MemoryStore) -> None:
    """A scan over ten million keys by `get` must not become ten million entries."""
    table = counts(store, cache_entries=100)
    for number in range(1000):
        table.set(str(number), number)
        if number % 10 == 9:
            commit(table, store)
        assert table.cache_entries <= 220
    for number in range(1000):
        assert table.get(str(number)) == number
        assert table.cache_entries <= 220


def test_memory_is_bounded_by_bytes(store: MemoryStore) -> None:
    """Few large values weigh as much as many small ones."""
    table: TableState[int, str] = TableState(
        "texts", store, key_serde_for(int), table_value_serde_for(str), cache_bytes_max=1_000_000
    )
    for number in range(100):
        table.set(number, "x" * 25_000)
        commit(table, store)
        assert table.cache_entries <= 22
    assert all(table.get(number) == "x" * 25_000 for number in range(100))
    assert table.cache_entries <= 22


def test_a_cache_full_of_changes_says_so_and_still_keeps_them_all(store: MemoryStore) -> None:
    """Dirty entries are never dropped: the task has to commit."""
    table = counts(store, cache_entries=100)
    for number in range(1000):
        table.set(str(number), number)
    assert table.dirty_full
    assert len(commit(table, store).rows) == 1000
    assert not table.dirty_full


def test_a_value_that_does_not_fit_is_refused_and_names_table_and_key(store: MemoryStore) -> None:
    """At once, in the hands of who sets it: the row is as it was."""
    table = counts(store)
    table.set("good", 1)
    for wrong in (object(), "1", True, None, 1.5, 2**64, -(2**63) - 1):
        with pytest.raises(SerdeError, match="table counts, key 'bad': cannot write"):
            table.set("bad", wrong)  # type: ignore[arg-type] # what an untyped program does
        with pytest.raises(SerdeError, match="table counts, key 'good'"):
            table.set("good", wrong)  # type: ignore[arg-type]
    assert table.get("bad") is None
    assert commit(table, store).rows == [(b"good", b"\x01\x01", 0)]


def test_a_value_that_reads_as_another_is_kept_as_it_is_read(store: MemoryStore) -> None:
    """So that a body sees the same before and after a restart."""
    table: TableState[str, Point] = TableState("t", store, key_serde_for(str), table_value_serde_for(Point))
    point = Point(1)
    table.set("same", point)
    assert table.get("same") is point
    table.set("dict", {"x": 2})  # type: ignore[arg-type] # what an untyped program does
    assert table.get("dict") == Point(2)


def test_a_value_that_was_spoilt_in_place_takes_nothing(store: MemoryStore) -> None:
    """The commit fails as a whole; the other rows are not half taken."""
    table: TableState[str, Point] = TableState("t", store, key_serde_for(str), table_value_serde_for(Point))
    point = Point(1)
    table.set("good", Point(5))
    table.set("bad", point)
    point.x = "one"  # type: ignore[assignment] # what an untyped program does
    with pytest.raises(SerdeError, match=r"table t, key 'bad': .*Expected `int`, got `str` - at `\$.x`"):
        table.take_dirty(0)
    table.delete("bad")
    assert sorted(commit(table, store).rows) == [(b"bad", None, 0), (b"good", b"\x01\x81\xa1x\x05", 0)]


def test_a_row_that_cannot_be_read_names_table_and_key(store: MemoryStore) -> None:
    """Which row of ten million is it?"""
    store.commit(CommitBatch({"counts": [(b"k", b"\x01\xa1x")]}))
    with pytest.raises(SerdeError, match=r"table counts, key 'k'.*row int.*another name, or .*reset"):
        counts(store).get("k")
    with pytest.raises(SerdeError, match="table counts, key 'k'"):
        list(counts(store).items())


def test_keys_that_can_change_are_refused(store: MemoryStore) -> None:
    """At the declaration, with the remedy."""

    class Loose(msgspec.Struct):
        a: int

    with pytest.raises(UserError, match="frozen=True"):
        TableState("t", store, key_serde_for(Loose), table_value_serde_for(int))


KEYS = st.sampled_from("abcdefghij")


class CacheAgainstDict(RuleBasedStateMachine):
    """Whatever the interleaving of writes, turns, commits and failures: the table is the dict, and so is the store."""

    @initialize(cache_entries=st.sampled_from([2, 4, 8, 1000]))
    def open(self, cache_entries: int) -> None:
        self.store = MemoryEngine().open("task-0")
        self.cache_entries = cache_entries
        self.table = counts(self.store, cache_entries)
        self.model: dict[str, int] = {}
        self.in_commit: tuple[DirtyRows, dict[str, int]] | None = None

    @rule(key=KEYS, value=st.integers(0, 100))
    def write(self, key: str, value: int) -> None:
        self.table.set(key, value)
        self.model[key] = value

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.table.delete(key)
        self.model.pop(key, None)

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        assert self.table.get(key) == self.model.get(key)
        assert self.table.contains(key) == (key in self.model)

    @precondition(lambda self: self.in_commit is None)
    @rule()
    def begin_commit(self) -> None:
        self.in_commit = self.table.take_dirty(0), dict(self.model)

    @precondition(lambda self: self.in_commit is not None)
    @rule()
    def finish_commit(self) -> None:
        assert self.in_commit is not None
        dirty, expected = self.in_commit
        self.store.commit(CommitBatch({"counts": dirty.changes()}))
        assert dict(counts(self.store).items()) == expected
        self.table.committed(dirty)
        self.in_commit = None

    @precondition(lambda self: self.in_commit is not None)
    @rule()
    def fail_commit(self) -> None:
        assert self.in_commit is not None
        self.table.abandon(self.in_commit[0])
        self.in_commit = None

    @invariant()
    def scans_show_every_entry(self) -> None:
        assert list(self.table.items()) == sorted(self.model.items())
        assert list(self.table.scan(b"c", b"g", reverse=True)) == sorted(
            ((key, value) for key, value in self.model.items() if "c" <= key < "g"), reverse=True
        )


TestCacheAgainstDict = CacheAgainstDict.TestCase
TestCacheAgainstDict.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


Rows = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 3), max_size=3))
Ops = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.just("read"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("has"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("clear"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("hold"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("change held"), st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.sampled_from(["commit", "abandon", "scan", "evict", "reopen", "let go"]), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(Ops)
def test_values_changed_in_place_are_those_of_a_dict(ops: list[tuple[str, str, int]]) -> None:
    """A defaultdict of lists that stores a default when somebody has changed it; through commits, evictions and new
    lives. Values that are held are changed behind commits, too, as long as the row is the same list."""
    engine = MemoryEngine()
    store = engine.open("t")
    table = lists(store)
    model: dict[str, list[int]] = {}
    durable: dict[str, list[int]] = {}
    held: dict[str, list[int]] = {}

    def item(key: str) -> list[int]:
        value = table.get(key, None)
        return table.offer(key, list) if value is None else value

    for what, key, number in ops:
        if what == "append":
            item(key).append(number)
            model.setdefault(key, []).append(number)
        elif what == "read":
            assert item(key) == model.get(key, [])
        elif what == "has":
            assert table.contains(key) == (key in model)
            assert table.get(key) == model.get(key)
        elif what == "clear":
            item(key).clear()
            if key in model:
                model[key].clear()
        elif what == "set":
            table.set(key, [number])
            model[key] = [number]
            held.pop(key, None)
        elif what == "hold":
            held[key] = item(key)
        elif what == "change held" and key in held:
            held[key].append(number)
            model.setdefault(key, []).append(number)
        elif what == "let go":
            held.clear()
        elif what == "delete":
            table.delete(key)
            model.pop(key, None)
            held.pop(key, None)
        elif what == "scan":
            assert dict(table.items()) == model
        elif what == "evict":
            table._turn()
            table._turn()
            held.clear()
        elif what == "abandon":
            table.abandon(table.take_dirty(0, held.keys()))
        elif what == "commit":
            commit(table, store, held=held.keys())
            durable = {key: list(value) for key, value in model.items()}
        elif what == "reopen":
            table = lists(store)
            model = {key: list(value) for key, value in durable.items()}
            held.clear()
    assert dict(table.items()) == model
    commit(table, store)
    assert dict(lists(store).items()) == model


def lists(store: MemoryStore) -> TableState[str, list[int]]:
    return TableState("lists", store, key_serde_for(str), table_value_serde_for(list[int]), watch=True)


def test_reading_writes_nothing(store: MemoryStore) -> None:
    """Neither rows that were only looked at, nor defaults."""
    table = lists(store)
    table.set("a", [1])
    commit(table, store)
    assert table.get("a") == [1]
    assert table.offer("b", list) == []
    assert commit(table, store).rows == []
    assert not table.contains("b")


def test_what_cannot_change_is_not_watched() -> None:
    """The cost of a counter stays what it was."""

    class Frozen(msgspec.Struct, frozen=True):
        x: int

    class Holds(msgspec.Struct, frozen=True):
        xs: list[int]

    constant: list[Any] = [
        int,
        str,
        float | None,
        datetime,
        tuple[int, str],
        frozenset[str],
        Frozen,
        tuple[Frozen, ...],
    ]
    for kind in constant:
        assert not can_change(kind)
    changing: list[Any] = [list, dict[str, int], Point, Holds, tuple[Point, ...], list[int] | None, Any, set[int]]
    for kind in changing:
        assert can_change(kind)


HOSTILE_KEYS: list[tuple[Any, Any]] = [
    (float, st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5), st.just(-0.0))),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=3)),
    (int, st.one_of(st.integers(-3, 300), st.booleans(), st.integers(-(2**80), 2**80))),
    (str, st.text(max_size=3)),
    (tuple[str, int], st.tuples(st.text(max_size=2), st.integers(-2, 2))),
    (tuple[float, ...], st.lists(st.one_of(st.integers(0, 3), st.sampled_from([1.0, 2.5])), max_size=2).map(tuple)),
    (frozenset[str], st.frozensets(st.sampled_from("abcdefgh"), max_size=8)),
    (datetime, st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))]))),
    (int | None, st.one_of(st.none(), st.integers(0, 3))),
]


@pytest.mark.parametrize(("kind", "keys"), HOSTILE_KEYS, ids=lambda one: str(one)[:30])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_keys_are_those_of_a_dict(kind: Any, keys: Any, data: st.DataObject) -> None:
    """What a dict takes for one key is one row, in memory, in the store and in a new life; sorted by its bytes."""
    store = MemoryEngine().open("t")
    serde = key_serde_for(kind)
    table: TableState[Any, int] = TableState("t", store, serde, table_value_serde_for(int))
    model: dict[Any, int] = {}
    some = data.draw(st.lists(keys, min_size=1, max_size=6))
    for number in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["set", "get", "delete", "commit", "evict", "reopen"]))
        key = data.draw(st.sampled_from(some))
        if what == "set":
            table.set(key, number)
            model[key] = number
        elif what == "get":
            assert table.get(key) == model.get(key)
            assert table.contains(key) == (key in model)
        elif what == "delete":
            table.delete(key)
            model.pop(key, None)
        elif what == "evict":
            table._turn()
            table._turn()
        else:
            commit(table, store)
            if what == "reopen":
                table = TableState("t", store, serde, table_value_serde_for(int))
        rows = list(table.items())
        assert dict(rows) == model
        assert len(rows) == len(model)
        assert [serde.encode(key) for key, _ in rows] == sorted(serde.encode(key) for key in model)
