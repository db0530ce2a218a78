"""`EmbeddedLog`: joined, shared, given up, and ended by itself."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlog import embedded
from streamlog.client.admin import Admin
from streamlog.embedded import EmbeddedLog
from streamlog.env import Env, real_env
from streamlog.errors import UserError

PATIENCE_S = 60


@pytest.fixture
def env() -> Iterator[Env]:
    env = real_env()
    yield env
    env.offload.close()


async def test_whoever_comes_later_joins_and_the_last_to_leave_ends_it(env: Env, tmp_path: Path) -> None:
    """One broker for all who open the directory at once; it ends when it has been idle."""
    logs = [EmbeddedLog(env, str(tmp_path), idle_s=0.5) for _ in range(3)]
    await asyncio.gather(*(log.open() for log in logs))
    assert sorted(log.started for log in logs) == [False, False, True]
    assert len({log.address for log in logs}) == 1
    assert embedded.running(env, str(tmp_path)) == logs[0].address
    async with Admin(logs[0].address, env=env) as admin:
        assert await admin.list_topics() == []
    for log in logs[:2]:
        await log.close()
    await asyncio.sleep(1)  # twice the idle time: it must still be there
    assert embedded.running(env, str(tmp_path)) == logs[2].address
    await logs[2].close()
    async with asyncio.timeout(PATIENCE_S):
        while embedded.running(env, str(tmp_path)) is not None:
            await asyncio.sleep(0.05)
    assert not (tmp_path / "log/broker.json").exists()


async def test_a_broker_that_died_is_replaced_at_the_same_address(env: Env, tmp_path: Path) -> None:
    """Who holds the log open notices by itself."""
    async with EmbeddedLog(env, str(tmp_path), idle_s=0.5) as log:
        address = log.address
        first = _pid(tmp_path)
        os.kill(first, 9)
        async with asyncio.timeout(PATIENCE_S):
            while embedded.running(env, str(tmp_path)) is None or _pid(tmp_path) == first:
                await asyncio.sleep(0.05)
        async with Admin(address, env=env) as admin:
            assert (await admin.describe_cluster()).brokers


async def test_a_directory_that_cannot_be_used_is_the_users_to_change(env: Env, tmp_path: Path) -> None:
    """A file where the directory should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the data directory .*/file cannot be used"):
        await EmbeddedLog(env, str(tmp_path / "file")).open()


def test_nothing_runs_where_nothing_ever_ran(env: Env, tmp_path: Path) -> None:
    """And looking leaves no trace."""
    assert embedded.running(env, str(tmp_path / "nothing")) is None
    assert not embedded.exists(env, str(tmp_path / "nothing"))
    assert list(tmp_path.iterdir()) == []


def _pid(path: Path) -> int:
    pid: int = json.loads((path / "log/broker.json").read_text())["pid"]
    return pid
