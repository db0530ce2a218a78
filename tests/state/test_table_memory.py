"""What leaves the cache, and when: whatever it is, the table is a dict of its values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamlog.errors import UserError
from streamlog.serde import SerdeError, key_serde_for, table_value_serde_for
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.store import CommitBatch
from streamlog.state.table import ENTRY_BYTES, DirtyRows, TableState


class Row(msgspec.Struct):
    n: int = 0
    notes: list[str] = []


class Fixed(msgspec.Struct, frozen=True):
    n: int


@dataclass(frozen=True)
class Kind:
    """A type of values: how to make one, and how to change one in place, where that can be done."""

    type: Any
    make: Callable[[int], Any]
    change: Callable[[Any, int], Any] | None = None


KINDS = {
    "int": Kind(int, int),
    "long str": Kind(str, lambda n: str(n) * 100),
    "frozen record": Kind(Fixed, Fixed),
    "tuple": Kind(tuple[int, str], lambda n: (n, "x")),
    "list": Kind(list[int], lambda n: [n], list.append),
    "long list": Kind(list[int], lambda n: [n] * 100, list.append),
    "dict of lists": Kind(dict[str, list[int]], lambda n: {"x": [n]}, lambda v, n: v.setdefault("x", []).append(n)),
    "set": Kind(set[int], lambda n: {n}, lambda v, n: v.symmetric_difference_update({n})),
    "record": Kind(Row, Row, lambda v, n: v.notes.append(str(n))),
    "field": Kind(Row, Row, lambda v, n: setattr(v, "n", v.n + n + 1)),
}
KEYS = "abcdefgh"
Keys = st.sampled_from(KEYS)
Numbers = st.integers(0, 9)


def table_of(kind: Any, store: MemoryStore, cache_bytes_max: int, **more: Any) -> TableState[str, Any]:
    return TableState(
        "rows",
        store,
        key_serde_for(str),
        table_value_serde_for(kind),
        cache_bytes_max=cache_bytes_max,
        watch=True,
        **more,
    )


class TableAgainstDict(RuleBasedStateMachine):
    """A body reads, changes in place, sets, deletes and scans; commits begin, end and fail; generations turn."""

    @initialize(kind=st.sampled_from(sorted(KINDS)), cache_bytes=st.sampled_from([1, 2 * ENTRY_BYTES, 1500, 10**6]))
    def open(self, kind: str, cache_bytes: int) -> None:
        self.kind, self.cache_bytes = KINDS[kind], cache_bytes
        self.store = MemoryEngine().open("task-0")
        self.table = self.new_life()
        self.model: dict[str, Any] = {}
        self.durable: dict[str, Any] = {}
        self.in_commit: tuple[DirtyRows, dict[str, Any]] | None = None

    def new_life(self) -> TableState[str, Any]:
        return table_of(self.kind.type, self.store, self.cache_bytes)

    def item(self, key: str) -> Any:
        """`table[key]` of a table with a default."""
        value = self.table.get(key)
        assert value == self.model.get(key)
        if value is None:
            value = self.table.offer(key, self.kind.type)
        return value

    def change(self, key: str, value: Any, number: int) -> None:
        assert self.kind.change is not None
        self.kind.change(value, number)
        self.kind.change(self.model.setdefault(key, self.kind.type()), number)

    @rule(key=Keys)
    def read(self, key: str) -> None:
        assert self.table.get(key) == self.model.get(key)

    @rule(key=Keys)
    def ask(self, key: str) -> None:
        assert self.table.contains(key) == (key in self.model)

    @rule()
    def read_all(self) -> None:
        assert {key: value for key in KEYS if (value := self.table.get(key)) is not None} == self.model

    @rule(key=Keys, number=Numbers)
    def write(self, key: str, number: int) -> None:
        self.table.set(key, self.kind.make(number))
        self.model[key] = self.kind.make(number)

    @rule(key=Keys)
    def remove(self, key: str) -> None:
        self.table.delete(key)
        self.model.pop(key, None)

    @rule(key=Keys)
    def only_look(self, key: str) -> None:
        self.table.peek(key)
        if self.kind.change is not None:
            self.item(key)

    @precondition(lambda self: self.kind.change)
    @rule(key=Keys, number=Numbers)
    def change_one(self, key: str, number: int) -> None:
        self.change(key, self.item(key), number)

    @precondition(lambda self: self.kind.change)
    @rule(keys=st.lists(Keys, min_size=2, max_size=2, unique=True), number=Numbers)
    def change_two_that_were_read_before(self, keys: list[str], number: int) -> None:
        values = [self.item(key) for key in keys]
        for key, value in zip(keys, values, strict=True):
            self.change(key, value, number)

    @precondition(lambda self: self.kind.change)
    @rule(key=Keys, number=Numbers)
    def change_after_a_scan(self, key: str, number: int) -> None:
        value = self.item(key)
        assert dict(self.table.items()) == self.model
        self.change(key, value, number)

    @precondition(lambda self: self.kind.change)
    @rule(key=Keys, other=Keys, number=Numbers)
    def change_after_a_write(self, key: str, other: str, number: int) -> None:
        value = self.item(key)
        if other != key:
            self.write(other, number)
        self.change(key, value, number)

    @precondition(lambda self: self.in_commit is None)
    @rule()
    def begin_commit(self) -> None:
        self.in_commit = self.table.take_dirty(0), copy.deepcopy(self.model)

    @precondition(lambda self: self.in_commit is not None)
    @rule()
    def finish_commit(self) -> None:
        assert self.in_commit is not None
        dirty, self.durable = self.in_commit
        self.store.commit(CommitBatch({"rows": dirty.changes()}))
        assert dict(self.new_life().items()) == self.durable
        self.table.committed(dirty)
        self.in_commit = None

    @precondition(lambda self: self.in_commit is not None)
    @rule()
    def fail_commit(self) -> None:
        assert self.in_commit is not None
        self.table.abandon(self.in_commit[0])
        self.in_commit = None

    @rule()
    def die(self) -> None:
        self.table, self.in_commit = self.new_life(), None
        self.model = copy.deepcopy(self.durable)

    @rule()
    def scan(self) -> None:
        assert list(self.table.items()) == sorted(self.model.items())

    @invariant()
    def what_waits_for_a_commit_is_in_memory(self) -> None:
        table = self.table
        assert {key for key, _ in table.uncommitted()} <= table._recent.keys()
        assert table._watched.keys() <= table._recent.keys()
        assert table._watched_old.keys() <= table._recent.keys() | table._old.keys()


def test_a_table_is_a_dict_of_values_of_any_kind() -> None:
    """Whatever is changed in place, and whichever cache is too small for it."""
    run_state_machine_as_test(
        TableAgainstDict,
        settings=settings(max_examples=100, stateful_step_count=40, deadline=None, report_multiple_bugs=False),
    )


@pytest.fixture
def store() -> MemoryStore:
    return MemoryEngine().open("task-0")


def row_of(table: TableState[str, Any], key: str) -> Any:
    """`table[key]` of a table of lists with a default."""
    row = table.get(key)
    return table.offer(key, list) if row is None else row


def commit(table: TableState[Any, Any], store: MemoryStore) -> DirtyRows:
    dirty = table.take_dirty(0)
    store.commit(CommitBatch({table.name: dirty.changes()}))
    table.committed(dirty)
    return dirty


def test_more_rows_than_fit_into_memory_are_looked_at_and_changed(store: MemoryStore) -> None:
    """As a worker does after a restart; the row at which the generations turn is watched as well."""
    table = table_of(list[int], store, 10 * ENTRY_BYTES)
    for number in range(100):
        table.set(f"k{number}", [number])
    commit(table, store)
    table = table_of(list[int], store, 10 * ENTRY_BYTES)
    for round_ in range(3):
        for number in range(100):
            row = row_of(table, f"k{number}")
            assert row[0] == number
            if round_:
                row.append(round_)
        assert len(commit(table, store).rows) == (100 if round_ else 0)
    assert all(row[1:] == [1, 2] for row in table_of(list[int], store, 10**6).values())


@pytest.mark.parametrize("first", ["a", "absent"])
def test_a_row_is_watched_when_another_one_fills_the_cache(store: MemoryStore, first: str) -> None:
    """Of two rows that a body reads, and then changes, the first would be forgotten; once in so many events."""
    store.commit(CommitBatch({"rows": [(key.encode(), b"\x01\x90") for key in "abc"]}))
    table = table_of(list[int], store, ENTRY_BYTES)
    table.get("c")
    one, other = row_of(table, first), row_of(table, "b")
    one.append(1)
    other.append(2)
    assert commit(table, store).rows == sorted([(first.encode(), b"\x01\x91\x01", 0), (b"b", b"\x01\x91\x02", 0)])


@pytest.mark.parametrize("key", ["a", "absent"])
def test_a_row_that_is_changed_after_a_scan_is_watched_still(store: MemoryStore, key: str) -> None:
    """`row = table[key]; row.append(sum(map(len, table.values())))`; the scan may also be a query's."""
    store.commit(CommitBatch({"rows": [(b"a", b"\x01\x90")]}))
    table = table_of(list[int], store, 10**6)
    row = row_of(table, key)
    row.append(len(list(table.items())))
    assert table.get(key) == [1]
    assert commit(table, store).rows == [(key.encode(), b"\x01\x91\x01", 0)]


def test_a_row_spoilt_in_place_is_the_commits_affair(store: MemoryStore) -> None:
    """Who reads or writes other rows meanwhile is not told off for it, and what they write is not half written."""
    table = table_of(list[int], store, ENTRY_BYTES)
    table.set("other", [7])
    table.set("spoilt", [1])
    commit(table, store)
    row_of(table, "spoilt").append("two")
    for number in range(5):
        table.set(f"k{number}", [number])
    assert table.get("other") == [7]
    assert dict(table.items())["spoilt"] == [1, "two"]
    with pytest.raises(SerdeError, match="table rows, key 'spoilt'"):
        table.take_dirty(0)
    table.set("spoilt", [1, 2])
    assert len(commit(table, store).rows) == 6


def test_a_default_is_asked_about_where_it_is_given_out(store: MemoryStore) -> None:
    """Not in a commit, where no event is there to be asked, nor blamed."""
    asked: list[bytes] = []

    def refuse(key: bytes) -> None:
        asked.append(key)
        if key.startswith(b"foreign"):
            raise UserError("belongs to partition 3")

    table = table_of(list[int], store, ENTRY_BYTES, on_new_key=refuse, on_absent_key=refuse)
    for key in ("mine", "yours", "foreign"):
        try:
            assert table.get(key) is None
        except UserError:
            assert key == "foreign"
        else:
            table.offer(key, list).append(1)
    assert asked == [b"mine", b"yours", b"foreign"]
    assert len(commit(table, store).rows) == 2
    assert asked == [b"mine", b"yours", b"foreign"]


def test_rows_that_are_in_use_again_and_again_weigh_what_they_weigh(store: MemoryStore) -> None:
    """Long rows that a turn moves to the old generation, and a read moves back, are not free from there on."""
    table: TableState[str, str] = TableState(
        "rows", store, key_serde_for(str), table_value_serde_for(str), cache_bytes_max=1_000_000
    )
    for number in range(200):
        table.set(f"k{number}", "x" * 25_000)
        commit(table, store)
    for number in range(200):
        for again in range(max(0, number - 20), number + 1):
            assert table.get(f"k{again}") == "x" * 25_000
        assert table.cache_entries <= 22
