"""Group commit and the waiting for offsets."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest

from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.waiters import OffsetWaiters
from streamlog.env import Scope
from tests.broker.log.faulty_storage import fail_next_sync, faulty_env
from tests.broker.log.harness import NOW_MS, Bench, append, batch_of

T = TypeVar("T")


@dataclass
class SlowOffload:
    """Work is done when the test says so."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    runs: int = 0

    async def run(self, work: Callable[[], T]) -> T:
        await self.gate.wait()
        self.runs += 1
        return work()

    def close(self) -> None:
        pass


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_everybody_who_appends_during_a_sync_shares_the_next_one(tmp_path: Path) -> None:
    """A hundred appends: one sync for the first, one for all that came meanwhile."""
    env, _ = faulty_env()
    offload = SlowOffload()
    env = replace(env, offload=offload)
    log = Bench(tmp_path / "orders-0", env=env).open()
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)
        append(log, batch_of(b"first"))
        first = scope.spawn("first", flusher.flushed(log, 1))
        await settle()
        others = []
        for number in range(100):
            append(log, batch_of(b"x"))
            others.append(scope.spawn(f"{number}", flusher.flushed(log, number + 2)))
        await settle()
        assert not first.done()
        offload.gate.set()
        await asyncio.wait_for(asyncio.gather(first, *others), 10)
        assert offload.runs == 2
        assert log.flushed_offset == 101
    log.abandon()


async def test_acknowledged_records_were_synced_before(tmp_path: Path) -> None:
    """The log file, and with the first flush its directory and the one above, are synced before anybody is told."""
    env, faults = faulty_env()
    log = Bench(tmp_path / "orders-0", env=env).open()
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)
        append(log, batch_of(b"1"))
        faults.operations.clear()
        await flusher.flushed(log, 1)
        assert faults.operations.count("fdatasync") >= 1
        assert faults.operations.count("sync_directory") == 2
        append(log, batch_of(b"2"))
        faults.operations.clear()
        await flusher.flushed(log, 2)
        assert faults.operations == ["fdatasync"]
    log.abandon()


async def test_failed_sync_takes_the_partition_offline_for_good(tmp_path: Path) -> None:
    """Nobody is told that a record is safe, then or after a second sync that would succeed."""
    env, faults = faulty_env()
    log = Bench(tmp_path / "orders-0", env=env).open()
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)
        append(log, batch_of(b"1"))

        def fail(name: str, path: str) -> None:
            if name == "fdatasync":
                raise OSError(5, "Input/output error")

        faults.before = fail
        with pytest.raises(PartitionOffline):
            await flusher.flushed(log, 1)
        faults.before = lambda name, path: None
        with pytest.raises(PartitionOffline):
            await flusher.flushed(log, 1)
        with pytest.raises(PartitionOffline):
            append(log, batch_of(b"2"))
    log.abandon()


async def test_a_sync_that_fails_after_its_cancellation_is_known_to_whoever_closes(tmp_path: Path) -> None:
    """A broker that stops cancels its checkpoints; closing would sync again, and be told that all is well."""
    env, faults = faulty_env()
    offload = SlowOffload()
    env = replace(env, offload=offload)
    log = Bench(tmp_path / "orders-0", env=env).open()
    async with Scope("test") as scope:
        append(log, batch_of(b"1"))
        checkpoint = asyncio.ensure_future(Flusher(env, scope).checkpoint(log))
        await settle()
        fail_next_sync(faults)
        checkpoint.cancel()
        await settle()
        assert not checkpoint.done()
        offload.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await checkpoint
        log.close()
        assert log.failure is not None
        assert log.recovery_point == 0


async def test_sync_that_failed_in_a_checkpoint_is_not_repeated_for_those_who_wait(tmp_path: Path) -> None:
    """A second sync would succeed and prove nothing: whoever waits is told that the partition is offline."""
    env, faults = faulty_env()
    offload = SlowOffload()
    env = replace(env, offload=offload)
    log = Bench(tmp_path / "orders-0", env=env).open()
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)
        append(log, batch_of(b"1"))
        checkpoint = asyncio.ensure_future(flusher.checkpoint(log))
        await settle()
        waiting = asyncio.ensure_future(flusher.flushed(log, 1))
        await settle()
        fail_next_sync(faults)
        offload.gate.set()
        for future in (checkpoint, waiting):
            with pytest.raises(PartitionOffline):
                await future
        assert log.flushed_offset == 0
    log.abandon()


async def test_checkpoint_that_a_truncation_overtakes_leaves_no_snapshot(tmp_path: Path) -> None:
    """The producer state it wrote tells of records that are gone."""
    env, _ = faulty_env()
    offload = SlowOffload()
    env = replace(env, offload=offload)
    bench = Bench(tmp_path / "orders-0", env=env)
    log = bench.open()
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)
        for number in range(4):
            append(log, batch_of(b"x", producer=(7, 0, number)))
        checkpoint = asyncio.ensure_future(flusher.checkpoint(log))
        await settle()
        log.truncate_to(1, NOW_MS)
        for number in range(6):
            append(log, batch_of(b"y", producer=(8, 0, number)))
        offload.gate.set()
        assert not await checkpoint
        assert log.recovery_point == 0
        assert await flusher.checkpoint(log)
    bench.save(log)
    live = log.producers.encode_snapshot()
    log = bench.crash(log)
    assert log.producers.encode_snapshot() == live
    assert [path.name for path in bench.directory.glob("*.snapshot")] == ["00000000000000000007.snapshot"]
    log.abandon()


async def test_truncation_during_a_sync_does_not_count_as_flushed(tmp_path: Path) -> None:
    """What replaced the truncated records has to be synced itself; who waits for the truncated ones is told."""
    env, _ = faulty_env()
    offload = SlowOffload()
    env = replace(env, offload=offload)
    log = Bench(tmp_path / "orders-0", env=env).open()
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)
        for _ in range(4):
            append(log, batch_of(b"x"))
        waiting = asyncio.ensure_future(flusher.flushed(log, 4))
        await settle()
        log.truncate_to(1, NOW_MS)
        append(log, batch_of(b"new"))
        offload.gate.set()
        with pytest.raises(PartitionOffline, match="truncated"):
            await waiting
        assert log.flushed_offset == 2
        assert offload.runs == 2
    log.abandon()


async def test_what_is_appended_in_place_of_flushed_records_is_flushed_anew(tmp_path: Path) -> None:
    """After a truncation the same offsets hold other records, which no sync has seen yet."""
    env, faults = faulty_env()
    log = Bench(tmp_path / "orders-0", env=env).open()
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)
        append(log, batch_of(b"1"))
        append(log, batch_of(b"2"))
        await flusher.flushed(log, 2)
        log.truncate_to(1, NOW_MS)
        append(log, batch_of(b"another 2"))
        faults.operations.clear()
        await flusher.flushed(log, 2)
        assert faults.operations.count("fdatasync") >= 1
        assert log.flushed_offset == 2
    log.abandon()


async def test_checkpoint_moves_the_recovery_point_to_the_log_end(tmp_path: Path) -> None:
    """And says so once."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    async with Scope("test") as scope:
        flusher = Flusher(bench.env, scope)
        append(log, batch_of(b"x"))
        assert await flusher.checkpoint(log)
        assert (log.recovery_point, log.flushed_offset) == (1, 1)
        assert not await flusher.checkpoint(log)
    log.abandon()


async def test_waiters_are_woken_by_their_offset_and_only_then() -> None:
    """In any order of waiting; a cancelled one leaves nothing."""
    waiters = OffsetWaiters(5)
    await waiters.reached(5)
    async with Scope("test") as scope:
        late, early, gone = (scope.spawn(f"{offset}", waiters.reached(offset)) for offset in (9, 7, 8))
        await settle()
        gone.cancel()
        waiters.advance(7)
        await settle()
        assert early.done()
        assert not late.done()
        waiters.advance(9)
        await late
        assert len(waiters) == 0


async def test_waiters_learn_that_waiting_is_in_vain() -> None:
    """Those who wait, and those who would."""
    waiters = OffsetWaiters(0)
    future = asyncio.ensure_future(waiters.reached(1))
    await settle()
    waiters.fail(PartitionOffline("gone"))
    with pytest.raises(PartitionOffline):
        await future
    with pytest.raises(PartitionOffline):
        await waiters.reached(1)


async def test_checkpoint_of_many_logs_leaves_nothing_for_their_close(tmp_path: Path) -> None:
    """Every log is checkpointed, also behind one whose disk fails; that one is offline and keeps its recovery point."""
    env, faults = faulty_env()
    logs = [Bench(tmp_path / f"orders-{number}", env=env).open() for number in range(10)]
    for log in logs:
        append(log, batch_of(b"1"))
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)

        def fail_in_one(name: str, path: str) -> None:
            if name == "fdatasync" and "orders-3" in path:
                raise OSError(errno.EIO, "broken disk", path)

        faults.before = fail_in_one
        await flusher.checkpoint_all(logs)
    assert logs[3].failure is not None
    assert logs[3].recovery_point == 0
    assert all(log.begin_checkpoint() is None for log in logs if log is not logs[3])
    for log in logs:
        log.abandon()
