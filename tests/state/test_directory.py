"""Slots are owned, tasks are found again, and only what nobody uses is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamlog.env import Env, RealClock, real_env
from streamlog.errors import UserError
from streamlog.state.directory import CLEANUP_DELAY_MS, StateDirectory, remove_tasks, tasks_kept
from streamlog.state.rocksdb import RocksEngine


class ManualClock(RealClock):
    def __init__(self) -> None:
        self.now_ms = 0

    def mono_ms(self) -> int:
        return self.now_ms


CLUSTER = "q1w2E3r4T5y6U7i8O9p0-_"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def env(clock: ManualClock) -> Iterator[Env]:
    env = replace(real_env(), clock=clock)
    yield env
    env.offload.close()


@pytest.fixture
def engine(env: Env) -> RocksEngine:
    return RocksEngine(env.storage)


def claim(env: Env, path: Path) -> StateDirectory:
    return StateDirectory.claim(env, str(path), "app", CLUSTER)


def test_two_workers_get_two_directories(env: Env, tmp_path: Path) -> None:
    """The second one does not crash on the first one's lock."""
    first, second = claim(env, tmp_path), claim(env, tmp_path)
    assert (first.slot, second.slot) == (0, 1)
    assert first.path != second.path
    first.release()
    third = claim(env, tmp_path)
    assert third.slot == 0
    third.release()
    second.release()


def test_a_worker_takes_the_free_slot_with_the_most_tasks(env: Env, engine: RocksEngine, tmp_path: Path) -> None:
    """Started in another order than before, workers find their state again."""
    first, second = claim(env, tmp_path), claim(env, tmp_path)
    engine.open(first.task_path("0")).close()
    engine.open(second.task_path("1")).close()
    engine.open(second.task_path("2")).close()
    first.release()
    second.release()
    again = claim(env, tmp_path)
    assert again.slot == 1
    assert again.tasks() == ["1", "2"]
    again.release()


def test_a_killed_worker_leaves_its_slot_free(env: Env, tmp_path: Path) -> None:
    """The lock is the operating system's: no stale lock file stops the next start."""
    code = (
        "import sys\nfrom streamlog.env import real_env\nfrom streamlog.state.directory import StateDirectory\n"
        f"owned = StateDirectory.claim(real_env(), {str(tmp_path)!r}, 'app', {CLUSTER!r})\n"
        "print(owned.slot, flush=True)\n"
        "sys.stdin.read()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdin is not None
    assert worker.stdout.readline() == b"0\n"
    second = claim(env, tmp_path)
    assert second.slot == 1
    worker.kill()
    worker.wait()
    worker.stdout.close()
    worker.stdin.close()
    third = claim(env, tmp_path)
    assert third.slot == 0
    third.release()
    second.release()


def test_stale_tasks_are_removed_after_the_delay_and_never_while_in_use(
    env: Env, clock: ManualClock, engine: RocksEngine, tmp_path: Path
) -> None:
    """A task that comes back within the delay keeps its state."""
    directory = claim(env, tmp_path)
    for task in ("0", "1", "2"):
        engine.open(directory.task_path(task)).close()
    os.mkdir(directory.path + "/task-7.corrupt-1")
    directory.closed("1")
    directory.closed("2")
    clock.now_ms = CLEANUP_DELAY_MS - 1
    assert directory.remove_stale(engine) == []
    directory.task_path("2")
    clock.now_ms = 10 * CLEANUP_DELAY_MS
    assert directory.remove_stale(engine) == ["1"]
    assert directory.tasks() == ["0", "2"]
    directory.release()

    directory = claim(env, tmp_path)
    assert directory.remove_stale(engine) == []
    clock.now_ms += CLEANUP_DELAY_MS
    assert directory.remove_stale(engine) == ["0", "2"]
    directory.release()


def test_a_layout_of_a_later_release_is_refused(env: Env, tmp_path: Path) -> None:
    """And left alone, with its lock free."""
    directory = claim(env, tmp_path)
    directory.release()
    Path(directory.path, "format").write_bytes(b"9\n")
    for _ in range(2):
        with pytest.raises(UserError, match="has format '9'"):
            claim(env, tmp_path)


@pytest.mark.parametrize("app_id", ["", ".", "..", "a/b", "a b", "ü"])
def test_an_app_id_that_is_no_directory_is_refused(env: Env, tmp_path: Path, app_id: str) -> None:
    """It must not walk out of the data directory."""
    with pytest.raises(UserError, match="app id"):
        StateDirectory.claim(env, str(tmp_path), app_id, CLUSTER)


def test_each_cluster_has_state_of_its_own(env: Env, engine: RocksEngine, tmp_path: Path) -> None:
    """Whatever a broker calls its cluster, the state stays below the app's directory."""
    root = tmp_path / "app"
    for cluster in (CLUSTER, "another", "..", "a/b", "", "ü" * 20):
        directory = StateDirectory.claim(env, str(tmp_path), "app", cluster)
        assert directory.slot == 0
        assert directory.tasks() == []
        engine.open(directory.task_path("0")).close()
        assert Path(directory.path).parent.parent == root
        directory.release()
    assert len(list(root.iterdir())) == 6
    again = claim(env, tmp_path)
    assert again.tasks() == ["0"]
    again.release()


def test_state_is_removed_only_where_no_worker_runs(env: Env, engine: RocksEngine, tmp_path: Path) -> None:
    """All of it or nothing, what was set aside included; a worker finds its directory and name again."""
    first, second = claim(env, tmp_path), claim(env, tmp_path)
    for directory in (first, second):
        engine.open(directory.task_path("0")).close()
    engine.quarantine(second.task_path("0"))
    first.release()
    with pytest.raises(UserError, match="worker-1: stop it first"):
        remove_tasks(env.storage, str(tmp_path), "app", CLUSTER)
    kept = [f"{first.path}/task-0", f"{second.path}/task-0.corrupt-1"]
    assert tasks_kept(env.storage, str(tmp_path), "app", CLUSTER) == kept
    second.release()
    assert remove_tasks(env.storage, str(tmp_path), "app", CLUSTER) == kept
    assert remove_tasks(env.storage, str(tmp_path), "app", CLUSTER) == []
    assert remove_tasks(env.storage, str(tmp_path), "never-ran", CLUSTER) == []
    assert Path(first.path, "lock").exists()
