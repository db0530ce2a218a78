"""The quorum of one, on real files: epochs, commits, replay, snapshots, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.raft.effects import Send
from streamlog.broker.raft.messages import FetchRequest
from streamlog.broker.raft.quorum import DIRECTORY_NAME, Quorum, QuorumSettings
from streamlog.env import Scope, real_env
from streamlog.errors import EnvironmentFailure
from streamlog.wire.internal.quorum_state import decode_quorum_state
from streamlog.wire.uuids import uuid_to_text


@dataclass
class Opened:
    quorum: Quorum
    logs: LogDirectory
    replayed: list[bytes]


@asynccontextmanager
async def opened(path: Path, *, clean: bool = True) -> AsyncIterator[Opened]:
    """A quorum that is opened, replayed and started; closed cleanly or as by a crash."""
    env = real_env()
    logs = LogDirectory.open(env, str(path), node_id=1, now_ms=0)
    scope = Scope("test")
    quorum = Quorum.open(env, logs, Flusher(env, scope), scope, QuorumSettings(1), 0)
    loaded = quorum.load_snapshot()
    start_offset = 0 if loaded is None else loaded[0].end_offset
    values = [] if loaded is None else list(loaded[1].values)
    await quorum.start()
    values += [record.value for record in quorum.records(start_offset, quorum.committed_end_offset)]
    try:
        yield Opened(quorum, logs, values)
    finally:
        quorum.close()
        await scope.close()
        if clean:
            logs.close()
        else:
            logs.abandon()
        env.offload.close()


async def append(quorum: Quorum, *values: bytes) -> int:
    offset = quorum.append(values, 1_000)
    await quorum.commit(offset)
    return offset


@pytest.mark.parametrize("clean", [True, False])
async def test_what_was_committed_is_replayed(tmp_path: Path, clean: bool) -> None:
    """After a clean stop and after a crash."""
    async with opened(tmp_path, clean=clean) as first:
        await append(first.quorum, b"a", b"b")
        await append(first.quorum, b"c")
    async with opened(tmp_path) as second:
        assert second.replayed == [b"a", b"b", b"c"]


async def test_every_start_begins_an_epoch_that_is_on_disk_first(tmp_path: Path) -> None:
    """The vote is durable before anything is written under it."""
    for epoch in (1, 2, 3):
        async with opened(tmp_path, clean=epoch != 2) as found:
            state, version = decode_quorum_state((tmp_path / DIRECTORY_NAME / "quorum-state").read_bytes())
            assert (found.quorum.epoch, state.leader_epoch, state.leader_id, version) == (epoch, epoch, 1, 1)
            assert found.quorum.log.partition.leader_epoch == epoch


async def test_commits_are_told_in_order_and_before_their_waiters(tmp_path: Path) -> None:
    """Who awaits a commit finds it published."""
    async with opened(tmp_path) as found:
        told: list[int] = []
        found.quorum.on_committed = told.append
        last = [found.quorum.append([b"x"], 0) for _ in range(10)][-1]
        await found.quorum.commit(last)
        assert told == sorted(told)
        assert told[-1] == last + 1


async def test_a_commit_needs_nobody_to_wait_for_it(tmp_path: Path) -> None:
    """A client that leaves does not take its record with it."""
    async with opened(tmp_path) as found:
        committed = asyncio.Event()
        found.quorum.on_committed = lambda end_offset: committed.set()
        found.quorum.append([b"x"], 0)
        async with asyncio.timeout(5):
            await committed.wait()


async def test_a_snapshot_replaces_the_log_before_it(tmp_path: Path) -> None:
    """Start reads the snapshot and what came after; older ones and the log below them go."""
    async with opened(tmp_path) as first:
        for number in range(4):
            await append(first.quorum, b"%d" % number)
            first.quorum.write_snapshot([b"fold to %d" % number], first.quorum.committed_end_offset)
        await append(first.quorum, b"after")
        start_offset = first.quorum.log.partition.log_start_offset
    names = sorted(path.name for path in (tmp_path / DIRECTORY_NAME).glob("*.checkpoint"))
    assert len(names) == 2
    assert start_offset == int(names[0][:20])
    async with opened(tmp_path) as second:
        assert second.replayed == [b"fold to 3", b"after"]


async def test_a_damaged_snapshot_is_passed_over(tmp_path: Path) -> None:
    """The one before it and more of the log do."""
    async with opened(tmp_path) as first:
        for number in range(2):
            await append(first.quorum, b"%d" % number)
            first.quorum.write_snapshot([b"fold to %d" % number], first.quorum.committed_end_offset)
    newest = max((tmp_path / DIRECTORY_NAME).glob("*.checkpoint"))
    newest.write_bytes(newest.read_bytes()[:-1])
    async with opened(tmp_path) as second:
        assert second.replayed == [b"fold to 0", b"1"]


async def test_a_missing_snapshot_is_a_clear_failure(tmp_path: Path) -> None:
    """The log begins later than any snapshot reaches: nothing is made up."""
    async with opened(tmp_path) as first:
        for _ in range(3):
            await append(first.quorum, b"x")
            first.quorum.write_snapshot([], first.quorum.committed_end_offset)
    for path in (tmp_path / DIRECTORY_NAME).glob("*.checkpoint"):
        path.unlink()
    with pytest.raises(EnvironmentFailure, match="no snapshot"):
        async with opened(tmp_path):
            pass


async def test_another_disk_under_the_same_number_is_refused(tmp_path: Path) -> None:
    """A voter that has forgotten its votes is another voter (KIP-853)."""
    async with opened(tmp_path) as found:
        await append(found.quorum, b"x")
    properties = tmp_path / "meta.properties"
    lines = properties.read_text().splitlines()
    others = [
        "directory.id=" + uuid_to_text(UUID(int=1)) if line.startswith("directory.id") else line for line in lines
    ]
    properties.write_text("\n".join(others) + "\n")
    with pytest.raises(EnvironmentFailure, match="voters"):
        async with opened(tmp_path):
            pass


async def test_a_failed_sync_ends_the_waiters_and_the_node(tmp_path: Path) -> None:
    """Nothing is promised after it."""
    async with opened(tmp_path) as found:
        found.quorum.log.partition.failure = "the disk is gone"
        with pytest.raises(PartitionOffline):
            found.quorum.append([b"x"], 0)


async def test_a_fetch_that_waits_ends_before_it_is_given_up(tmp_path: Path) -> None:
    """With a short request timeout an idle leader would never be heard."""
    env = real_env()
    logs = LogDirectory.open(env, str(tmp_path), node_id=1, now_ms=0)
    scope = Scope("test")
    settings = QuorumSettings(
        1, bootstrap=(("127.0.0.1", 1),), is_controller=False, request_timeout_ms=500, fetch_timeout_ms=3_000
    )
    quorum = Quorum.open(env, logs, Flusher(env, scope), scope, settings, 0)
    (request,) = [effect.request for effect in quorum.core.on_start(0) if isinstance(effect, Send)]
    assert isinstance(request, FetchRequest)
    assert request.wait_ms_max == 250
    quorum.close()
    await scope.close()
    logs.close()
    env.offload.close()
