"""A global table is complete when it says so, stays live, and survives what happens to its topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from streamlog.env import Env, real_env
from streamlog.errors import EnvironmentFailure
from streamlog.serde import SerdeError, key_serde_for, serde_for
from streamlog.state.changelog import DELETE_RETENTION_MS
from streamlog.state.freshness import LOOK_MS_MAX, SHOWN_FOR_EVER_MS
from streamlog.state.global_table import GlobalTableState
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.store import StoreClosed
from tests.state.simulated_log import Log, ManualClock, SimulatedReader


@pytest.fixture
def env() -> Iterator[Env]:
    env = real_env()
    yield env
    env.offload.close()


@pytest.fixture
def reader() -> SimulatedReader:
    reader = SimulatedReader()
    for partition in range(3):
        reader.log("rates", partition)
    return reader


@pytest.fixture
def store() -> MemoryStore:
    return MemoryEngine().open("global")


def fill(reader: SimulatedReader, count: int = 100, seed: int = 0) -> None:
    random = Random(seed)
    for number in range(count):
        key = random.randrange(20)
        value = None if random.random() < 0.2 else b"%d" % number
        reader.log("rates", key % 3).append(b"k%d" % key, value)


def expected(reader: SimulatedReader) -> dict[str, int]:
    return {
        key.decode(): int(value)
        for (topic, _), log in reader.logs.items()
        for key, value in log.state().items()
        if topic == "rates"
    }


@asynccontextmanager
async def following(
    reader: SimulatedReader, env: Env, store: MemoryStore, shown_ms: int = DELETE_RETENTION_MS
) -> AsyncIterator[GlobalTableState[str, int]]:
    table = GlobalTableState(
        "rates",
        "rates",
        store,
        key_serde_for(str),
        serde_for(int),
        reader,
        env,
        delete_retention_ms=shown_ms,
        retry_ms=1,
        partitions_poll_ms=1,
    )
    await table.open()
    try:
        yield table
    finally:
        await table.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(env: Env, clock: ManualClock) -> Env:
    return replace(env, clock=clock)


def delete_and_forget(reader: SimulatedReader, key: bytes) -> None:
    log = reader.log("rates", 0)
    log.append(key, None)
    log.append(b"newer", b"1")
    log.compact(drop_tombstones=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_is_complete_when_ready_and_live_afterwards(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """All partitions; updates and deletions arrive without anybody asking."""
    fill(reader)
    async with following(reader, env, store) as table:
        await table.ready()
        assert dict(table.items()) == expected(reader)
        assert table.positions() == {number: reader.log("rates", number).end for number in range(3)}
        assert table.progress() == []
        for _ in range(3):
            assert table.get("k1", -1) == expected(reader).get("k1", -1)
            reader.log("rates", 1).append(b"k1", b"77")
            await until(lambda: table.get("k1") == 77)
            reader.log("rates", 1).append(b"k1", None)
            await until(lambda: not table.contains("k1"))
    assert reader.offsets == {}


async def test_a_row_that_cannot_be_read_does_not_take_the_others_away(
    reader: SimulatedReader, env: Env, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Scans pass over it and name it once; who asks for its key hears why there is no answer; and it can be mended."""
    log = reader.log("rates", 0)
    for key, value in ((b"a", b"1"), (b"\xff", b"2"), (b"b", b'"three"'), (b"c", b"4")):
        log.append(key, value)
    async with following(reader, env, store) as table:
        await table.ready()
        for _ in range(2):
            assert list(table.items()) == [("a", 1), ("c", 4)]
            assert list(table.keys()) == ["a", "b", "c"]
        assert caplog.text.count("row passed over") == 2
        with pytest.raises(SerdeError, match="table rates, key 'b'"):
            table.get("b")
        log.append(b"b", b"3")
        await until(lambda: len(list(table.items())) == 3)
        assert dict(table.items()) == {"a": 1, "b": 3, "c": 4}


async def test_a_row_that_is_changed_in_place_is_the_readers_own(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """All tasks of a worker read the same rows."""
    reader.log("lists", 0).append(b"a", b"[1]")
    table: GlobalTableState[str, list[int]] = GlobalTableState(
        "lists", "lists", store, key_serde_for(str), serde_for(list[int]), reader, env
    )
    await table.open()
    await table.ready()
    for _ in range(2):
        row = table.get("a", [])
        assert row == [1]
        row.append(2)
    assert table.get("b", [5]) == [5]
    await table.close()


async def test_an_empty_topic_is_ready_at_once(reader: SimulatedReader, env: Env, store: MemoryStore) -> None:
    """There is nothing to wait for."""
    async with following(reader, env, store) as table:
        await table.ready()
        assert list(table.items()) == []


async def test_it_goes_on_at_its_position_after_a_restart(reader: SimulatedReader, env: Env) -> None:
    """And after a crash that took commits back."""
    engine = MemoryEngine()
    for seed in range(4):
        fill(reader, seed=seed)
        store = engine.open("global")
        async with following(reader, env, store) as table:
            await table.ready()
            assert dict(table.items()) == expected(reader)
        engine.crash("global", lost_commits=seed)
    store = engine.open("global")
    async with following(reader, env, store) as table:
        await table.ready()
        assert dict(table.items()) == expected(reader)


@pytest.mark.parametrize("change", ["made again", "cut", "deleted"])
async def test_a_topic_that_changed_is_read_again(
    reader: SimulatedReader, env: Env, store: MemoryStore, change: str
) -> None:
    """While it is followed; rows of the old log are gone."""
    fill(reader)
    async with following(reader, env, store) as table:
        await table.ready()
        log = reader.log("rates", 1)
        if change == "made again":
            log = reader.logs["rates", 1] = Log(UUID(int=9))
        elif change == "cut":
            log.truncate(3)
            reader.offsets["rates", 1] = 3
        else:
            log.delete_before(log.end)
            log.append(b"x", b"0")
            log.delete_before(log.end)
        log.append(b"fresh", b"1")
        await until(lambda: dict(table.items()) == expected(reader) and table.is_ready)


async def test_it_stays_readable_while_the_cluster_is_away_and_says_why(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """It loads on when the cluster comes back."""
    fill(reader)
    async with following(reader, env, store) as table:
        await table.ready()
        before = expected(reader)
        reader.failure = EnvironmentFailure("nobody answers")
        await until(lambda: table.failure is not None)
        fill(reader, seed=5)
        assert dict(table.items()) == before
        reader.failure = None
        await until(lambda: dict(table.items()) == expected(reader))
        assert table.failure is None


async def test_new_partitions_are_found(reader: SimulatedReader, env: Env, store: MemoryStore) -> None:
    """Topics grow."""
    async with following(reader, env, store) as table:
        await table.ready()
        reader.log("rates", 3).append(b"new", b"1")
        await until(lambda: table.get("new") == 1)


async def test_waiting_for_a_table_that_is_closed_ends(reader: SimulatedReader, env: Env, store: MemoryStore) -> None:
    """With an error, not never."""
    reader.log("rates", 0).append(b"k", b"1")
    reader.log("rates", 0).silent = True
    async with following(reader, env, store) as table:
        waiting = asyncio.ensure_future(table.ready())
        await until(lambda: [one.total for one in table.progress()] == [1])
        assert not waiting.done()
    with pytest.raises(StoreClosed, match="closed before it was complete"):
        await waiting


async def test_remains_without_a_valid_position_are_dropped(
    reader: SimulatedReader, env: Env, store: MemoryStore
) -> None:
    """A crash in the middle of a rebuild."""
    fill(reader)
    async with following(reader, env, store) as table:
        await table.ready()
    assert store.positions()["rates"].offset == 0
    store.drop_table("rates")
    async with following(reader, env, store) as table:
        await table.ready()
        assert dict(table.items()) == expected(reader)


@pytest.mark.parametrize("shown_ms", [0, 5_000, DELETE_RETENTION_MS])
async def test_a_deletion_that_the_topic_has_forgotten_is_found_after_a_restart(
    reader: SimulatedReader, timed: Env, store: MemoryStore, clock: ManualClock, shown_ms: int
) -> None:
    """Away for longer than the topic, not any topic, shows that a key was deleted."""
    reader.log("rates", 0).append(b"gone", b"1")
    async with following(reader, timed, store, shown_ms) as table:
        await table.ready()
    delete_and_forget(reader, b"gone")
    clock.now_ms += shown_ms + 1
    async with following(reader, timed, store, shown_ms) as table:
        await table.ready()
        assert dict(table.items()) == expected(reader) == {"newer": 1}


@pytest.mark.parametrize(("shown_ms", "away_ms"), [(5_000, 5_000), (SHOWN_FOR_EVER_MS, 2**50)])
async def test_what_nothing_can_be_missing_of_is_not_read_again(
    reader: SimulatedReader,
    timed: Env,
    store: MemoryStore,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    shown_ms: int,
    away_ms: int,
) -> None:
    """A short absence; a topic that is not compacted."""
    reader.log("rates", 0).append(b"a", b"1")
    async with following(reader, timed, store, shown_ms) as table:
        await table.ready()
    reader.log("rates", 0).append(b"a", b"2")
    clock.now_ms += away_ms
    async with following(reader, timed, store, shown_ms) as table:
        await table.ready()
        assert dict(table.items()) == {"a": 2}
    assert "rebuilding" not in caplog.text


async def test_a_table_that_was_idle_for_long_and_followed_is_not_read_again(
    reader: SimulatedReader, timed: Env, store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It was at the topic's end all the time, and wrote that down, for the life after a crash too."""
    reader.log("rates", 0).append(b"a", b"1")
    async with following(reader, timed, store) as table:
        await table.ready()
        for _ in range(10):
            clock.now_ms += DELETE_RETENTION_MS - 1
            await until(lambda: store.positions()["rates/0"].at_ms == clock.now_ms)
    clock.now_ms += LOOK_MS_MAX
    reader.log("rates", 0).append(b"a", b"2")
    async with following(reader, timed, store) as table:
        await table.ready()
        assert dict(table.items()) == {"a": 2}
    assert "rebuilding" not in caplog.text


async def test_a_position_is_as_old_as_the_last_end_that_was_reached(
    reader: SimulatedReader, timed: Env, store: MemoryStore, clock: ManualClock
) -> None:
    """Reading on for a while, without ever reaching the end, does not make the rows complete."""
    reader.log("rates", 0).append(b"gone", b"1")
    async with following(reader, timed, store) as table:
        await table.ready()
    began_at_ms = clock.now_ms
    log = reader.log("rates", 0)
    for number in range(6):
        log.append(b"a", b"%d" % number)
    for log.held_at in (3, 5):
        clock.now_ms += DELETE_RETENTION_MS // 2
        async with following(reader, timed, store) as table:
            await until(lambda: store.positions()["rates/0"].offset == log.held_at)
        assert not table.is_ready
        assert store.positions()["rates/0"].at_ms == began_at_ms
    log.held_at = None
    delete_and_forget(reader, b"gone")
    clock.now_ms += 10
    async with following(reader, timed, store) as table:
        await table.ready()
        assert dict(table.items()) == expected(reader)


async def test_a_table_that_is_read_for_the_first_time_may_take_longer_than_deletions_are_shown(
    reader: SimulatedReader, timed: Env, store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing in it yet that could have been deleted."""
    fill(reader)
    reader.log("rates", 0).held_at = 2
    async with following(reader, timed, store) as table:
        await until(lambda: reader.offsets.get(("rates", 0)) == 2)
        clock.now_ms += DELETE_RETENTION_MS + 1
        reader.log("rates", 0).held_at = None
        await table.ready()
        assert dict(table.items()) == expected(reader)
    assert "rebuilding" not in caplog.text


async def test_a_worker_that_stood_still_for_long_reads_the_table_again(
    reader: SimulatedReader, timed: Env, store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And says that it is not ready meanwhile; reading from the beginning may take as long as it likes."""
    reader.log("rates", 0).append(b"gone", b"1")
    reader.log("rates", 0).append(b"stays", b"1")
    async with following(reader, timed, store) as table:
        await table.ready()
        clock.now_ms += DELETE_RETENTION_MS + 1
        delete_and_forget(reader, b"gone")
        reader.log("rates", 0).held_at = 3
        await until(lambda: not table.is_ready and table.positions().get(0) == 3)
        assert dict(table.items()) == {"stays": 1}
        assert [one.total for one in table.progress()] == [4]
        clock.now_ms += DELETE_RETENTION_MS + 1
        reader.log("rates", 0).held_at = None
        await until(lambda: table.is_ready)
        assert dict(table.items()) == expected(reader) == {"stays": 1, "newer": 1}
    assert caplog.text.count("rebuilding") == 1
