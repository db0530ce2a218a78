"""Windows against brute force; late, closed and expired windows against a dict that forgets nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamlog.errors import UserError
from streamlog.serde import SerdeError, key_serde_for, table_value_serde_for
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.store import CommitBatch
from streamlog.state.table import ENTRY_BYTES, DirtyRows, index_name
from streamlog.state.windowed import MARK_KEY, WindowedState
from streamlog.state.windows import (
    TIME_MS_MAX,
    TIME_MS_MIN,
    Windows,
    decode_start,
    encode_start,
    index_key,
    row_key,
    row_key_of_index,
    split_row_key,
)


@st.composite
def any_windows(draw: st.DrawFn) -> Windows:
    size_ms = draw(st.integers(1, 50))
    return Windows(
        size_ms,
        draw(st.integers(1, size_ms)),
        draw(st.none() | st.integers(0, 20)),
        draw(st.none() | st.integers(0, 60)),
    )


@settings(deadline=None)
@given(any_windows(), st.integers(-1000, 1000))
@example(Windows(10, 3), 0)
@example(Windows(10, 10), -1)
def test_windows_for_is_every_aligned_window_that_contains_the_moment(windows: Windows, timestamp_ms: int) -> None:
    """Brute force over all starts, negative ones too."""
    expected = [
        start
        for start in range(timestamp_ms - 2 * windows.size_ms, timestamp_ms + 2 * windows.size_ms)
        if start % windows.step_ms == 0 and start <= timestamp_ms < start + windows.size_ms
    ]
    assert windows.windows_for(timestamp_ms) == expected
    assert expected


@settings(deadline=None)
@given(any_windows(), st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_closed_and_expired_are_what_their_definitions_say(windows: Windows, start: int, stream_time: int) -> None:
    """Closed when end + grace <= stream time, expired when end + max(retention, grace) <= stream time."""
    end = start + windows.size_ms
    keep = max(windows.grace_ms or 0, windows.retention_ms or 0)
    if windows.grace_ms is None and windows.retention_ms is None:
        assert start > windows.closed_start_ms(stream_time)
        assert start > windows.expired_start_ms(stream_time)
        return
    grace = keep if windows.grace_ms is None else windows.grace_ms
    assert (start <= windows.closed_start_ms(stream_time)) == (end + grace <= stream_time)
    assert (start <= windows.expired_start_ms(stream_time)) == (end + keep <= stream_time)
    assert windows.expired_start_ms(stream_time) <= windows.closed_start_ms(stream_time)


@settings(deadline=None)
@given(st.binary(max_size=12), st.integers(TIME_MS_MIN, TIME_MS_MAX))
def test_row_and_index_keys_round_trip(key: bytes, start_ms: int) -> None:
    """Whatever bytes a key has."""
    row = row_key(key, start_ms)
    assert split_row_key(row) == (key, start_ms)
    assert row_key_of_index(index_key(row)) == row
    assert decode_start(encode_start(start_ms)) == start_ms


@settings(deadline=None)
@given(st.integers(TIME_MS_MIN, TIME_MS_MAX), st.integers(TIME_MS_MIN, TIME_MS_MAX))
def test_encoded_starts_sort_as_the_starts_do(one: int, other: int) -> None:
    """Negative starts come first: the index depends on it."""
    assert (encode_start(one) < encode_start(other)) == (one < other)


def test_sizes_that_make_no_sense_are_refused() -> None:
    """With the reason."""
    for size, step, grace in [(0, 1, None), (5, 0, None), (5, 6, None), (5, 5, -1)]:
        with pytest.raises(UserError):
            Windows(size, step, grace)


class Late(list[tuple[int, int]]):
    """Window start and stream time of each write that came too late."""

    def add(self, start_ms: int, stream_time_ms: int) -> None:
        self.append((start_ms, stream_time_ms))


def counts(store: MemoryStore, windows: Windows, late: Late | None = None, **more: Any) -> WindowedState[str, int]:
    on_late = None if late is None else late.add
    return WindowedState(
        "counts", store, key_serde_for(str), table_value_serde_for(int), windows, on_late=on_late, **more
    )


def commit(table: WindowedState[str, int], store: MemoryStore) -> DirtyRows:
    dirty = table.take_dirty(0)
    batch = CommitBatch()
    dirty.add_to(batch)
    store.commit(batch)
    table.committed(dirty)
    return dirty


def count(table: WindowedState[str, int], key: str, timestamp_ms: int) -> None:
    for start_ms in table.admit(timestamp_ms):
        table.set(key, start_ms, table.get(key, start_ms, 0) + 1)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryEngine().open("task-0")


def test_a_late_record_is_dropped_counted_and_reported(store: MemoryStore) -> None:
    """Once stream time has passed end + grace; one moment earlier it still counts."""
    late = Late()
    table = counts(store, Windows(10, 10, 5, 100), late)
    count(table, "a", 14)
    count(table, "a", 9)
    count(table, "a", 15)
    count(table, "a", 8)
    assert table.get("a", 0) == 1
    assert late == [(0, 15)]
    assert not table.set("a", 0, 99)
    assert not table.delete("a", 0)


def test_without_grace_and_retention_nothing_is_ever_late_or_expired(store: MemoryStore) -> None:
    """And nothing but rows is written."""
    table = counts(store, Windows(10, 10))
    count(table, "a", 10**12)
    count(table, "a", 0)
    assert table.get("a", 0) == 1
    assert [key for key, _, _ in commit(table, store).rows] == [row_key(b"a", 10**12), row_key(b"a", 0)]
    assert store.tables() == ["counts"]


def test_expired_rows_are_deleted_from_table_index_and_changelog(store: MemoryStore) -> None:
    """And hidden from reads at once, so that when the commit comes does not matter."""
    table = counts(store, Windows(10, 10, 0, 20))
    count(table, "a", 5)
    count(table, "b", 15)
    commit(table, store)
    count(table, "c", 30)
    assert table.get("a", 0) is None
    assert list(table.items()) == [("b", 10, 1), ("c", 30, 1)]
    dirty = commit(table, store)
    assert (row_key(b"a", 0), None, 0) in dirty.rows
    assert [key for key, _ in store.scan("counts", b"\x00")] == [row_key(b"b", 10), row_key(b"c", 30)]
    assert [key for key, _ in store.scan(index_name("counts"))] == [
        index_key(row_key(b"b", 10)),
        index_key(row_key(b"c", 30)),
    ]


def test_a_row_written_and_expired_between_two_commits_leaves_nothing(store: MemoryStore) -> None:
    """The index never knew it, so nobody would delete it later."""
    table = counts(store, Windows(10, 10, 0))
    count(table, "a", 5)
    count(table, "b", 50)
    commit(table, store)
    assert [key for key, _ in store.scan("counts", b"\x00")] == [row_key(b"b", 50)]


def test_expiry_goes_on_after_a_restart(store: MemoryStore) -> None:
    """The index is in the store: windows of an earlier incarnation expire too."""
    table = counts(store, Windows(10, 10, 0))
    for number in range(20):
        count(table, str(number), number * 5)
    commit(table, store)
    table = counts(store, Windows(10, 10, 0))
    assert table.stream_time_ms == 95
    count(table, "new", 200)
    commit(table, store)
    assert [key for key, _ in store.scan("counts", b"\x00")] == [row_key(b"new", 200)]


def test_a_late_record_is_late_after_a_restart_too(store: MemoryStore) -> None:
    """Stream time is in the store."""
    table = counts(store, Windows(10, 10, 0))
    count(table, "a", 100)
    commit(table, store)
    late = Late()
    table = counts(store, Windows(10, 10, 0), late)
    count(table, "a", 5)
    assert late == [(0, 100)]


def test_the_windows_of_one_key_are_read_without_its_neighbours(store: MemoryStore) -> None:
    """Keys that begin with this key's bytes lie in between; both ways of reading agree."""
    table = counts(store, Windows(10, 10))
    neighbours = ["a", "a\x00", "a\x7f\x01", "b", ""]
    for key in neighbours:
        for start_ms in range(-500, 500, 10):
            table.set(key, start_ms, start_ms)
    commit(table, store)
    table.set("a", 500, 500)
    assert list(table.of_key("a", -20, 20)) == [(-20, -20), (-10, -10), (0, 0), (10, 10)]
    assert list(table.of_key("a")) == [(start_ms, start_ms) for start_ms in range(-500, 510, 10)]
    assert list(table.of_key("a", -499, 495)) == [(start_ms, start_ms) for start_ms in range(-490, 500, 10)]


def test_a_row_is_indexed_once(store: MemoryStore) -> None:
    """Counting up a window does not write its index entry at every commit."""
    table = counts(store, Windows(10, 10, 100))
    count(table, "a", 5)
    assert len(commit(table, store).index) == 1
    count(table, "a", 6)
    assert commit(table, store).index == []


def test_the_new_key_hook_sees_the_key_without_its_window(store: MemoryStore) -> None:
    """Partitions are chosen by key."""
    seen: list[bytes] = []
    table = counts(store, Windows(10, 10), on_new_key=seen.append)
    count(table, "a", 5)
    assert seen == [b"a"]


def test_a_window_out_of_range_is_an_error_and_no_crash(store: MemoryStore) -> None:
    """Timestamps come from outside."""
    late = Late()
    table = counts(store, Windows(1000, 1000, 5), late)
    count(table, "a", TIME_MS_MIN)
    assert len(late) == 1
    with pytest.raises(SerdeError, match="out of range"):
        table.set("a", TIME_MS_MAX + 1, 1)
    count(table, "a", TIME_MS_MAX)
    assert commit(table, store).rows[-1][0] == MARK_KEY


class WindowsAgainstHistory(RuleBasedStateMachine):
    """In = counted + late; the store keeps only what is not expired."""

    @initialize(windows=any_windows(), cache_entries=st.sampled_from([4, 1000]))
    def open(self, windows: Windows, cache_entries: int) -> None:
        assume(windows.keep_ms is not None)
        self.windows, self.cache_bytes = windows, cache_entries * ENTRY_BYTES
        self.engine = MemoryEngine()
        self.store = self.engine.open("task-0")
        self.stream_time = -(10**9)
        self.model: dict[tuple[str, int], int] = {}
        self.sent = self.counted = 0
        self.late_before = 0
        self.load()
        self.saved: Any = None
        self.save()

    def load(self) -> None:
        self.late = Late()
        self.table = counts(self.store, self.windows, self.late, cache_bytes_max=self.cache_bytes)

    def save(self) -> None:
        late = self.late_before + len(self.late)
        self.saved = (dict(self.model), self.stream_time, self.sent, self.counted, late)

    @rule(key=st.sampled_from(["a", "a\x00", "b"]), timestamp_ms=st.integers(-100, 400))
    def record(self, key: str, timestamp_ms: int) -> None:
        self.stream_time = max(self.stream_time, timestamp_ms)
        for start in self.windows.windows_for(timestamp_ms):
            self.sent += 1
            if start > self.windows.closed_start_ms(self.stream_time):
                self.model[key, start] = self.model.get((key, start), 0) + 1
                self.counted += 1
        count(self.table, key, timestamp_ms)

    @rule()
    def commit(self) -> None:
        commit(self.table, self.store)
        self.save()

    @rule()
    def crash(self) -> None:
        self.engine.crash("task-0")
        self.store = self.engine.open("task-0")
        model, self.stream_time, self.sent, self.counted, self.late_before = self.saved
        self.model = dict(model)
        self.load()

    @invariant()
    def accounting_adds_up(self) -> None:
        assert self.sent == self.counted + self.late_before + len(self.late)

    @invariant()
    def reads_are_what_is_kept(self) -> None:
        kept = {
            window: value
            for window, value in self.model.items()
            if window[1] > self.windows.expired_start_ms(self.stream_time)
        }
        assert {(key, start): value for key, start, value in self.table.items()} == kept
        for key in ("a", "a\x00", "b"):
            assert list(self.table.of_key(key)) == sorted(
                (start, value) for (owner, start), value in kept.items() if owner == key
            )

    def teardown(self) -> None:
        if not hasattr(self, "saved"):
            return
        for _ in range(3):
            self.commit()
        rows = {split_row_key(key) for key, _ in self.store.scan("counts", b"\x00")}
        expired = self.windows.expired_start_ms(self.stream_time)
        assert rows == {(key.encode(), start) for key, start in self.model if start > expired}
        assert {split_row_key(row_key_of_index(key)) for key, _ in self.store.scan(index_name("counts"))} == rows


TestWindowsAgainstHistory = WindowsAgainstHistory.TestCase
TestWindowsAgainstHistory.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("grace_ms", [None, 1_000])
@pytest.mark.parametrize("cache_rows", [4, 10_000])
def test_rows_of_new_windows_are_not_looked_for_and_older_ones_are_found(
    store: MemoryStore, grace_ms: int | None, cache_rows: int
) -> None:
    """Rows that left memory, and rows of an earlier life, come from the store; what is newer than both cannot."""
    windows = Windows(10, 10, grace_ms)
    table = counts(store, windows, cache_bytes_max=cache_rows * ENTRY_BYTES)
    for number in range(200):
        table.add(f"key{number % 20}", number, 1, int)
        if number % 10 == 7:
            commit(table, store)
    commit(table, store)
    if cache_rows > 200:
        assert table.table.loads == 0
    reopened = counts(store, windows)
    for reader in (table, reopened):
        for number in range(200):
            reader.add(f"key{number % 20}", number, 1, int)
        assert sum(1 for _ in reader.items()) == 200
        assert {value for _, _, value in reader.items()} == {2}


def test_rows_of_an_earlier_life_are_found_after_an_eviction(store: MemoryStore) -> None:
    """Without an index nobody knows how new they are, and an event of another time says nothing about it."""
    windows = Windows(10, 10)
    first = counts(store, windows)
    first.add("k", 1_000, 1, int)
    commit(first, store)
    second = counts(store, windows)
    second.add("k", 5, 1, int)
    commit(second, store)
    second.table._turn()
    second.table._turn()
    second.add("k", 1_000, 1, int)
    assert second.get("k", 1_000) == 2
