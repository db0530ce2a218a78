"""Stores that are locked are waited for, damaged ones set aside, cancelled openings closed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlog.env import Env, real_env
from streamlog.errors import UserError
from streamlog.state.memory import MemoryEngine
from streamlog.state.opening import close_stores, open_store
from streamlog.state.rocksdb import RocksEngine
from streamlog.state.store import CommitBatch, StoreEngine


@pytest.fixture
def env() -> Iterator[Env]:
    env = real_env()
    yield env
    env.offload.close()


@pytest.fixture(params=["memory", "rocksdb"])
def engine(request: pytest.FixtureRequest, env: Env) -> StoreEngine:
    return MemoryEngine() if request.param == "memory" else RocksEngine(env.storage)


async def test_a_store_that_is_being_closed_is_waited_for(env: Env, engine: StoreEngine, tmp_path: Path) -> None:
    """A task moves from one worker to another of the same process."""
    path = str(tmp_path / "task-0")
    first = await open_store(engine, env, path)
    opening = asyncio.ensure_future(open_store(engine, env, path))
    await asyncio.sleep(0.1)
    assert not opening.done()
    await close_stores(env, [first])
    await close_stores(env, [await opening])


async def test_a_store_in_use_names_directory_and_remedy(env: Env, engine: StoreEngine, tmp_path: Path) -> None:
    """After a bounded time."""
    path = str(tmp_path / "task-0")
    first = await open_store(engine, env, path)
    with pytest.raises(UserError, match=r"task-0 is in use: .* another data directory"):
        await open_store(engine, env, path, lock_wait_ms=60)
    await close_stores(env, [first])


async def test_a_store_of_another_process_is_in_use_until_that_process_is_killed(env: Env, tmp_path: Path) -> None:
    """RocksDB's lock dies with its process."""
    path = str(tmp_path / "task-0")
    code = (
        "import sys\nfrom streamlog.env import RealStorage\nfrom streamlog.state.rocksdb import RocksEngine\n"
        f"store = RocksEngine(RealStorage()).open({path!r})\nprint('open', flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == b"open\n"
    engine = RocksEngine(env.storage)
    with pytest.raises(UserError, match="is in use"):
        await open_store(engine, env, path, lock_wait_ms=60)
    opening = asyncio.ensure_future(open_store(engine, env, path))
    other.kill()
    other.wait()
    other.stdout.close()
    other.stdin.close()
    await close_stores(env, [await opening])


async def test_a_damaged_store_is_set_aside_and_an_empty_one_opened(
    env: Env, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a log line that says where it went and why."""
    path = tmp_path / "task-0"
    engine = RocksEngine(env.storage)
    store = await open_store(engine, env, str(path))
    store.commit(CommitBatch({"t": [(b"k", b"v")]}))
    await close_stores(env, [store])
    (path / "CURRENT").write_bytes(b"garbage")
    store = await open_store(engine, env, str(path))
    assert store.get("t", b"k") is None
    assert "task-0.corrupt-1 reason=" in caplog.text
    assert (tmp_path / "task-0.corrupt-1" / "CURRENT").read_bytes() == b"garbage"
    await close_stores(env, [store])


async def test_a_cancelled_opening_leaves_the_store_closed(env: Env, engine: StoreEngine, tmp_path: Path) -> None:
    """A rebalance may take the task away while its store is being opened."""
    path = str(tmp_path / "task-0")
    for _ in range(10):
        opening = asyncio.ensure_future(open_store(engine, env, path))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        engine.open(path).close()
