"""Queries see what the task sees, say how old it is, and leave no trace in the cache."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.errors import UserError
from streamlog.serde import key_serde_for, table_value_serde_for
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.query import PAGE_ROWS_MAX, Staleness, TableReader, WindowedReader, after_prefix
from streamlog.state.store import CommitBatch, Position
from streamlog.state.table import TableState
from streamlog.state.windowed import WindowedState
from streamlog.state.windows import Windows

KEY, VALUE = key_serde_for(str), table_value_serde_for(int)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryEngine().open("task-0")


@pytest.fixture
def table(store: MemoryStore) -> TableState[str, int]:
    """Committed a..j = 0..9, then uncommitted: b = 100, c deleted, x = 101."""
    table = TableState("t", store, KEY, VALUE)
    for number, key in enumerate("abcdefghij"):
        table.set(key, number)
    dirty = table.take_dirty(0)
    store.commit(CommitBatch({"t": dirty.changes()}, {"t": Position(10)}))
    table.committed(dirty)
    table.set("b", 100)
    table.delete("c")
    table.set("x", 101)
    return table


@pytest.fixture
def reader(store: MemoryStore, table: TableState[str, int]) -> TableReader[str, int]:
    return TableReader("t", store, KEY, VALUE, state=table)


def test_a_live_answer_includes_what_is_not_committed_and_says_so(reader: TableReader[str, int]) -> None:
    """And the committed one leaves it out."""
    assert reader.get("b").value == 100
    assert reader.get("b").staleness == Staleness(10, 0, False)
    assert reader.get("b", committed=True).value == 1
    assert reader.get("b", committed=True).staleness == Staleness(10, 0, True)
    assert reader.get_many(["a", "c", "x"]).value == [0, None, 101]
    assert reader.get_many(["a", "c", "x"], committed=True).value == [0, 2, None]


def test_a_row_that_cannot_be_read_is_named(store: MemoryStore) -> None:
    """Among a million rows somebody has to find it; it came from a topic that anybody may write to."""
    store.commit(CommitBatch({"t": [(b"good", VALUE.encode(1)), (b"x", b"hello")]}))
    reader = TableReader("t", store, KEY, VALUE)
    for read in (partial(reader.get, "x"), reader.scan):
        with pytest.raises(UserError, match=r"table t, key 'x': .*hello.*\. Write that key again"):
            read()


def test_a_live_answer_after_a_commit_is_committed(
    reader: TableReader[str, int], table: TableState[str, int], store: MemoryStore
) -> None:
    """While the commit runs it is not."""
    dirty = table.take_dirty(0)
    assert not reader.get("b").staleness.committed
    store.commit(CommitBatch({"t": dirty.changes()}, {"t": Position(13)}))
    table.committed(dirty)
    assert reader.get("b").staleness == Staleness(13, 0, True)


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_together_are_the_scan(reader: TableReader[str, int], committed: bool, reverse: bool, limit: int) -> None:
    """No row twice, none left out, at any page size, both ways."""
    cursor, rows = None, []
    while True:
        page = reader.scan("b", "i", cursor=cursor, limit=limit, reverse=reverse, committed=committed)
        rows += page.rows
        cursor = page.cursor
        if cursor is None:
            break
    expected = [(key, "abcdefghij".index(key)) for key in "bcdefgh"]
    if not committed:
        expected = [("b", 100), *expected[2:]]
    assert rows == (expected[::-1] if reverse else expected)


def test_a_prefix_scan_finds_exactly_the_keys_with_the_prefix(store: MemoryStore) -> None:
    """Also at the end of the key space."""
    names = ["a", "ab", "abc", "ac", "b", "\U0010ffff", "\U0010ffffx"]
    table = TableState("t", store, KEY, VALUE)
    for name in names:
        table.set(name, 1)
    reader = TableReader("t", store, KEY, VALUE, state=table)
    assert [key for key, _ in reader.prefix(b"ab").rows] == ["ab", "abc"]
    assert [key for key, _ in reader.prefix(b"").rows] == sorted(names)
    assert [key for key, _ in reader.prefix("\U0010ffff".encode()).rows] == ["\U0010ffff", "\U0010ffffx"]


@settings(deadline=None)
@given(st.binary(max_size=4), st.binary(max_size=6))
def test_after_prefix_bounds_a_prefix(prefix: bytes, key: bytes) -> None:
    """Brute force."""
    bound = after_prefix(prefix)
    assert key.startswith(prefix) == (key >= prefix and (bound is None or key < bound))


def test_queries_do_not_disturb_the_cache(store: MemoryStore, table: TableState[str, int]) -> None:
    """A web crawler must not push out what processing needs."""
    cold = TableState("t", store, KEY, VALUE)
    reader = TableReader("t", store, KEY, VALUE, state=cold)
    for key in "abcxyz":
        reader.get(key)
    reader.scan(limit=100)
    assert cold.cache_entries == 0


def test_a_table_that_is_being_restored_answers_with_its_lag(store: MemoryStore, table: TableState[str, int]) -> None:
    """Stale, and it says how much."""
    reader = TableReader("t", store, KEY, VALUE, lag=lambda: 4321)
    assert reader.get("b").value == 1
    assert reader.get("b").staleness == Staleness(10, 4321, True)
    assert len(reader.scan().rows) == 10


def test_a_snapshot_can_be_read_too(store: MemoryStore, table: TableState[str, int]) -> None:
    """For long exports."""
    with store.snapshot() as snapshot:
        store.commit(CommitBatch({"t": [(b"a", None)]}))
        reader = TableReader("t", snapshot, KEY, VALUE)
        assert reader.get("a").value == 0


@pytest.mark.parametrize("limit", [0, -1, PAGE_ROWS_MAX + 1])
def test_a_page_is_bounded(reader: TableReader[str, int], limit: int) -> None:
    """A query may not hold the event loop for long."""
    with pytest.raises(UserError, match="read on with the cursor"):
        reader.scan(limit=limit)


def test_windows_of_a_key_and_of_a_time(store: MemoryStore) -> None:
    """Longer keys in between are left out, expired windows are not found."""
    state = WindowedState("w", store, KEY, VALUE, Windows(10, 10, 0, 50))
    for timestamp_ms in range(0, 100, 10):
        for key in ("a", "a\x00", "b"):
            for start_ms in state.admit(timestamp_ms):
                state.set(key, start_ms, start_ms)
    dirty = state.take_dirty(0)
    batch = CommitBatch()
    dirty.add_to(batch)
    store.commit(batch)
    state.committed(dirty)
    state.set("a", 90, 91)
    reader = WindowedReader("w", store, KEY, VALUE, state=state)
    expired = state.expired_start_ms
    live = [start_ms for start_ms in range(0, 90, 10) if start_ms > expired]
    assert reader.windows("a").value == [*((start_ms, start_ms) for start_ms in live), (90, 91)]
    assert reader.windows("a", 50, 70).value == [(50, 50), (60, 60)]
    assert reader.windows("a", limit=2, reverse=True).value == [(90, 91), (80, 80)]
    assert reader.windows("a", 80, committed=True).value == [(80, 80), (90, 90)]
    assert reader.windows("a", 0, 10).value == []
    assert reader.get("a", 90).value == 91
    assert reader.get("a", 0).value is None
    cursor, rows = None, []
    while True:
        page = reader.scan(70, 90, cursor=cursor, limit=4)
        rows += page.rows
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(rows) == [((key, start_ms), start_ms) for key in ("a", "a\x00", "b") for start_ms in (70, 80)]
