"""A restored table is the fold of its changelog, wherever the restore began, was interrupted or was lied to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.env import Env, real_env
from streamlog.errors import EnvironmentFailure
from streamlog.serde import key_serde_for, table_value_serde_for
from streamlog.state.changelog import (
    DELETE_RETENTION_MS,
    RestoredTable,
    changelog_configs,
    changelog_topic,
    restored_table,
)
from streamlog.state.logs import LogState, Plan, plan
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.restore import Restorer, RestoreResult
from streamlog.state.store import CommitBatch, Position
from streamlog.state.table import index_name
from streamlog.state.windowed import WindowedState
from streamlog.state.windows import Windows
from tests.state.simulated_log import Log, ManualClock, SimulatedReader

TABLE = restored_table("app", "counts")
TOPIC = "app-counts-changelog"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def env(clock: ManualClock) -> Iterator[Env]:
    env = replace(real_env(), clock=clock)
    yield env
    env.offload.close()


@pytest.fixture
def reader() -> SimulatedReader:
    return SimulatedReader()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryEngine().open("task-0")


async def restored(
    reader: SimulatedReader, env: Env, store: MemoryStore, *tables: RestoredTable, chunk_rows_max: int = 1000
) -> RestoreResult:
    restorer = Restorer(reader, env, chunk_rows_max=chunk_rows_max)
    try:
        return await restorer.restore(store, tables or [TABLE], 0)
    finally:
        await restorer.close()


def rows(store: MemoryStore, table: str = "counts") -> dict[bytes, bytes]:
    return dict(store.scan(table))


def fill(log: Log, count: int = 100, keys: int = 10) -> None:
    for number in range(count):
        log.append(b"k%d" % (number % keys), None if number % 7 == 0 else b"v%d" % number)


def test_the_names_are_kafka_streams_like_and_nothing_is_deleted_by_age() -> None:
    """Names and settings live in clusters: changing them loses state."""
    assert changelog_topic("flights", "delay_min") == "flights-delay_min-changelog"
    assert changelog_configs()["cleanup.policy"] == "compact"
    assert changelog_configs()["delete.retention.ms"] == str(DELETE_RETENTION_MS)


async def test_a_restore_from_nothing_folds_the_whole_changelog(
    reader: SimulatedReader, env: Env, store: MemoryStore, clock: ManualClock
) -> None:
    """Tombstones delete, the last value wins, and the position is the log's end."""
    log = reader.log(TOPIC)
    fill(log)
    result = await restored(reader, env, store)
    assert rows(store) == log.state()
    assert store.positions()["counts"] == Position(100, log.topic_id, 0, clock.now_ms)
    assert (result.records, result.rebuilt, result.ends) == (100, {}, {"counts": 100})


async def test_an_empty_changelog_is_restored_at_once(reader: SimulatedReader, env: Env, store: MemoryStore) -> None:
    """And one that was emptied by compaction or deletion, wherever it ends."""
    reader.log(TOPIC)
    await restored(reader, env, store)
    assert store.positions()["counts"].offset == 0
    log = reader.log("app-other-changelog")
    log.start = log.end = 50
    await restored(reader, env, store, restored_table("app", "other"))
    assert store.positions()["other"].offset == 50
    assert reader.fetches == 0


async def test_a_changelog_that_ends_in_markers_and_gaps_is_restored_to_its_end(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """The end is an offset, not a record."""
    log = reader.log(TOPIC)
    fill(log)
    for _ in range(5):
        log.marker()
    log.compact(drop_tombstones=True)
    await restored(reader, env, store)
    assert rows(store) == log.state()
    assert store.positions()["counts"].offset == 105


async def test_a_restore_goes_on_at_the_stored_position(reader: SimulatedReader, env: Env, store: MemoryStore) -> None:
    """Only the tail is read again."""
    log = reader.log(TOPIC)
    fill(log)
    await restored(reader, env, store)
    for number in range(10):
        log.append(b"new%d" % number, b"v")
    result = await restored(reader, env, store)
    assert result.records == 10
    assert rows(store) == log.state()
    assert (await restored(reader, env, store)).records == 0
    assert store.positions()["counts"].leader_epoch == 0


async def test_records_without_a_key_are_passed_over(reader: SimulatedReader, env: Env, store: MemoryStore) -> None:
    """Anybody can write to a topic."""
    log = reader.log(TOPIC)
    log.append(None, b"junk")
    log.append(b"k", b"v")
    await restored(reader, env, store)
    assert rows(store) == {b"k": b"v"}


@pytest.mark.parametrize("change", ["made again", "beyond the log's end", "before the log's start", "was cut", "away"])
async def test_a_log_that_is_not_the_one_we_knew_is_read_from_its_start(
    reader: SimulatedReader, env: Env, store: MemoryStore, clock: ManualClock, change: str
) -> None:
    """The rows of the other log are dropped, with a reason."""
    log = reader.log(TOPIC)
    fill(log)
    await restored(reader, env, store)
    if change == "made again":
        log = reader.logs[TOPIC, 0] = Log(UUID(int=2))
        fill(log, 200, keys=3)
    elif change == "beyond the log's end":
        log.truncate(40)
    elif change == "before the log's start":
        fill(log, 50, keys=3)
        log.delete_before(120)
    elif change == "was cut":
        log.truncate(40)
        fill(log, 100, keys=3)
    else:
        fill(log, 10, keys=3)
        log.compact(drop_tombstones=True)
        clock.now_ms += DELETE_RETENTION_MS + 1
    result = await restored(reader, env, store)
    assert change in result.rebuilt["counts"]
    assert rows(store) == log.state()
    assert store.positions()["counts"].offset == log.end


async def test_a_position_is_as_old_as_the_last_end_that_was_reached(
    reader: SimulatedReader, env: Env, store: MemoryStore, clock: ManualClock
) -> None:
    """A restore that was interrupted again and again for longer than deletions are shown has missed some."""
    log = reader.log(TOPIC)
    fill(log)
    await restored(reader, env, store)
    reached_at_ms = clock.now_ms
    fill(log, 100)
    for log.held_at in (120, 150, 180):
        clock.now_ms += DELETE_RETENTION_MS // 4
        restorer = Restorer(reader, env, chunk_rows_max=1)
        work = asyncio.ensure_future(restorer.restore(store, [TABLE], 0))
        async with asyncio.timeout(10):
            while store.positions()["counts"].offset < log.held_at - 10:
                await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait([work])
        await restorer.close()
        assert log.held_at - 10 <= store.positions()["counts"].offset < log.end
        assert store.positions()["counts"].at_ms == reached_at_ms
    log.held_at = None
    log.compact(drop_tombstones=True)
    clock.now_ms += DELETE_RETENTION_MS // 2
    result = await restored(reader, env, store)
    assert "away" in result.rebuilt["counts"]
    assert rows(store) == log.state()
    assert store.positions()["counts"].at_ms == clock.now_ms


async def test_a_restore_that_takes_longer_than_deletions_are_shown_begins_again_once(
    reader: SimulatedReader, env: Env, store: MemoryStore, clock: ManualClock
) -> None:
    """What is read after that may have had deletions. From the beginning there is nothing that could be deleted."""
    log = reader.log(TOPIC)
    fill(log)
    await restored(reader, env, store)
    fill(log, 200)

    def take_long() -> None:
        log.compact(drop_tombstones=True)
        clock.now_ms += DELETE_RETENTION_MS + 1

    reader.on_fetch.extend((reader.fetches + number, take_long) for number in (2, 30, 40))
    result = await restored(reader, env, store)
    assert "away" in result.rebuilt["counts"]
    assert rows(store) == log.state()


async def test_a_store_that_was_away_for_long_but_missed_nothing_is_kept(
    reader: SimulatedReader, env: Env, store: MemoryStore, clock: ManualClock
) -> None:
    """An idle table is not rebuilt after a weekend."""
    fill(reader.log(TOPIC))
    await restored(reader, env, store)
    clock.now_ms += 10 * DELETE_RETENTION_MS
    result = await restored(reader, env, store)
    assert (result.records, result.rebuilt) == (0, {})


@pytest.mark.parametrize("change", ["truncate", "delete"])
async def test_a_log_that_changes_under_a_restore_is_read_again(
    reader: SimulatedReader, env: Env, store: MemoryStore, change: str
) -> None:
    """Out of range, or cut by an unclean election, in the middle."""
    log = reader.log(TOPIC)
    fill(log, 1000)

    def alter() -> None:
        if change == "truncate":
            log.truncate(5)
            reader.offsets[TOPIC, 0] = min(reader.offsets[TOPIC, 0], 5)
            fill(log, 300, keys=4)
        else:
            log.delete_before(900)

    reader.on_fetch.append((20, alter))
    await restored(reader, env, store)
    assert rows(store) == log.state()
    assert store.positions()["counts"].offset == log.end


async def test_rows_of_a_restore_that_never_finished_are_dropped(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """Rows without a position are of unknown age: a deletion among them may be compacted away by now."""
    store.commit(CommitBatch({"counts": [(b"stale", b"v")], index_name("counts"): [(b"stale", b"")]}))
    log = reader.log(TOPIC)
    log.append(b"k", b"v")
    await restored(reader, env, store)
    assert rows(store) == {b"k": b"v"}
    assert store.tables() == ["counts"]


async def test_many_tables_of_many_tasks_are_restored_by_one_reader(reader: SimulatedReader, env: Env) -> None:
    """Beside each other, and each to its own store."""
    restorer = Restorer(reader, env)
    tables = [restored_table("app", name) for name in ("a", "b", "c")]
    for number, table in enumerate(tables):
        for partition in range(4):
            fill(reader.log(table.topic, partition), 50 + 37 * number + 11 * partition)
    stores = [MemoryEngine().open(f"task-{partition}") for partition in range(4)]
    await asyncio.gather(*(restorer.restore(store, tables, number) for number, store in enumerate(stores)))
    for partition, store in enumerate(stores):
        for table in tables:
            assert rows(store, table.name) == reader.log(table.topic, partition).state()
    assert reader.offsets == {}
    assert restorer.progress() == []
    await restorer.close()


async def test_a_failure_of_the_reader_fails_the_restore_and_the_next_one_works(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """The task tries again later; it does not hang."""
    log = reader.log(TOPIC)
    fill(log)
    reader.failure = EnvironmentFailure("nobody answers at 127.0.0.1:1")
    restorer = Restorer(reader, env)
    with pytest.raises(EnvironmentFailure, match="nobody answers"):
        await restorer.restore(store, [TABLE], 0)
    reader.failure = None
    await restorer.restore(store, [TABLE], 0)
    assert rows(store) == log.state()
    await restorer.close()


async def test_a_restore_that_gets_nothing_says_what_it_waits_for_and_gives_up(
    reader: SimulatedReader, env: Env, store: MemoryStore, clock: ManualClock
) -> None:
    """No hang without a diagnosis."""
    log = reader.log(TOPIC)
    fill(log)
    log.silent = True
    restorer = Restorer(reader, env, stall_timeout_ms=60_000, silence_ms=10)
    work = asyncio.ensure_future(restorer.restore(store, [TABLE], 0))
    while (
        not (progress := restorer.progress()) or progress[0].blocked is None or "no records" not in progress[0].blocked
    ):
        clock.mono += 1
        await asyncio.sleep(0.005)
    assert "at offset 0 of 100" in (progress[0].blocked or "")
    assert (progress[0].restored, progress[0].total) == (0, 100)
    clock.mono += 60_000
    with pytest.raises(EnvironmentFailure, match=r"restoring table counts got stuck: no records of .* 0 of 100"):
        await work
    assert reader.offsets == {}
    await restorer.close()


async def test_progress_counts_offsets_and_estimates_the_end(
    reader: SimulatedReader, env: Env, store: MemoryStore, clock: ManualClock
) -> None:
    """For a progress bar."""
    log = reader.log(TOPIC)
    fill(log, 500)
    restorer = Restorer(reader, env)
    work = asyncio.ensure_future(restorer.restore(store, [TABLE], 0))
    seen = []
    while not work.done():
        clock.mono += 1
        seen += restorer.progress()
        await asyncio.sleep(0)
    await work
    await restorer.close()
    halfway = next(one for one in seen if 0 < one.restored < 500)
    assert halfway.total == 500
    assert halfway.rate > 0
    assert halfway.eta_ms is not None
    assert [one.restored for one in seen] == sorted(one.restored for one in seen)


def test_the_plan_keeps_rows_only_of_the_same_unbroken_log() -> None:
    """The rule by itself."""
    log = LogState(10, 100, UUID(int=1), None)
    assert plan(Position(50, UUID(int=1), 3, 1000), log, 2000, 5000) == Plan(50)
    assert plan(Position(50), log, 2000, 5000) == Plan(50)
    assert plan(Position(100, UUID(int=1), 3, 0), log, 10**9, 5000) == Plan(100)
    assert plan(None, log, 0, 5000).rebuild is not None
    for position in (Position(50, UUID(int=2)), Position(101), Position(9), Position(50, at_ms=0)):
        assert plan(position, log, 10_000, 5000).rebuild is not None, position
    assert plan(Position(50, leader_epoch=2), LogState(10, 100, None, 49), 0, 5000).rebuild is not None
    assert plan(Position(50, leader_epoch=2), LogState(10, 100, None, 50), 0, 5000) == Plan(50)


RECORDS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.none() | st.binary(max_size=2)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    rounds=st.lists(st.tuples(RECORDS, st.sampled_from(["", "compact", "marker"]), st.integers(0, 30)), max_size=4),
    lost=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
async def test_interrupted_and_crashed_restores_end_in_the_fold_of_the_log(
    rounds: list[tuple[list[tuple[bytes, bytes | None]], str, int]], lost: int, seed: int
) -> None:
    """Each round writes, cancels a restore somewhere, cuts power, and goes on; no deletion is ever missed."""
    env = real_env()
    engine = MemoryEngine()
    reader = SimulatedReader(seed)
    log = reader.log(TOPIC)
    try:
        for records, change, turns in rounds:
            for key, value in records:
                log.append(key, value)
            if change == "compact":
                log.compact()
            elif change == "marker":
                log.marker()
            store = engine.open("task-0")
            work = asyncio.ensure_future(restored(reader, env, store, chunk_rows_max=2))
            for _ in range(turns):
                await asyncio.sleep(0)
            work.cancel()
            await asyncio.wait([work])
            assert reader.offsets == {}
            engine.crash("task-0", lost_commits=lost)
        store = engine.open("task-0")
        await restored(reader, env, store)
        assert rows(store) == log.state()
        assert store.positions()["counts"].offset == log.end
    finally:
        env.offload.close()


@settings(max_examples=100, deadline=None)
@given(
    commits=st.lists(
        st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.none() | st.binary(max_size=2)), max_size=12
    ),
    lost=st.integers(0, 12),
)
async def test_after_a_power_cut_the_tail_of_the_changelog_makes_it_right(
    commits: list[dict[bytes, bytes | None]], lost: int
) -> None:
    """The write-ahead log is not synced: the store may be older than what Kafka has committed, never torn.

    Each commit goes to the changelog and then to the store, as a task does it; the power cut takes any number of
    commits from the store's end; the replay from the position that is left gives the state before the cut.
    """
    env = real_env()
    engine = MemoryEngine()
    reader = SimulatedReader()
    log = reader.log(TOPIC)
    store = engine.open("task-0")
    store.commit(CommitBatch(positions={"counts": Position(0, log.topic_id, 0)}))
    for changes in commits:
        for key, value in changes.items():
            log.append(key, value)
        store.commit(CommitBatch({"counts": list(changes.items())}, {"counts": Position(log.end, log.topic_id, 0)}))
    before = rows(store)
    engine.crash("task-0", lost_commits=min(lost, len(commits)))
    store = engine.open("task-0")
    await restored(reader, env, store)
    env.offload.close()
    assert rows(store) == before == log.state()
    assert store.positions()["counts"].offset == log.end


async def test_a_windowed_table_comes_back_with_its_index_and_stream_time(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """On another machine: expiry goes on, late records stay late."""
    windows = Windows(10, 10, 5, 100)
    table = restored_table("app", "counts", windows)
    log = reader.log(table.topic)

    def open_state(store: MemoryStore) -> WindowedState[str, int]:
        return WindowedState("counts", store, key_serde_for(str), table_value_serde_for(int), windows)

    def commit(state: WindowedState[str, int], store: MemoryStore) -> None:
        dirty = state.take_dirty(state.stream_time_ms)
        batch = CommitBatch()
        dirty.add_to(batch)
        for key, value, _ in dirty.rows:
            log.append(key, value)
        batch.positions["counts"] = Position(log.end, log.topic_id)
        store.commit(batch)
        state.committed(dirty)

    state = open_state(store)
    for timestamp_ms in (1, 2, 11, 25, 140):
        for start_ms in state.admit(timestamp_ms):
            state.set("k", start_ms, state.get("k", start_ms, 0) + 1)
        commit(state, store)

    other = MemoryEngine().open("task-0")
    await restored(reader, env, other, table)
    assert rows(other) == rows(store)
    assert rows(other, index_name("counts")) == rows(store, index_name("counts"))
    again = open_state(other)
    assert again.stream_time_ms == 140
    assert not again.set("k", 0, 1)
