"""Where a worker keeps its state: who owns which directory, what is in it, and what may be thrown away.

    <data_dir>/<app id>/<cluster id>/
        worker-0/               the first worker of this app that uses this data directory; a second one gets worker-1
            lock                held by the operating system while the worker's process lives
            format              layout version of everything below
            task-3/             the RocksDB of task 3
            task-3.corrupt-1/   set aside, for whoever wants to look
            global/             global tables, which every worker has as a whole

State is a copy of what a cluster's changelogs say, and its offsets are places in that cluster's logs. So an app that
moves to another cluster with its data directory has another state there, and finds the first again when it comes back.

A worker takes the free slot that holds the most tasks: after a restart of several workers the state is found again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamlog.env import DirectoryLock, Env, Storage
from streamlog.errors import UserError
from streamlog.state.store import StoreEngine

DIRECTORY_FORMAT = 1

CLEANUP_DELAY_MS = 10 * 60 * 1000
"""Kafka's state.cleanup.delay.ms: a task that went away for a rebalance often comes back within minutes."""

SLOTS_MAX = 1024
"""Workers of one app on one data directory. More is a mistake: they would not share a machine."""

_TASK = re.compile(r"task-([A-Za-z0-9._-]+?)(\.corrupt-\d+)?\Z")
_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")


@dataclass(slots=True)
class StateDirectory:
    """One worker's directory, owned until `release`. Made by `claim`. All methods block, briefly."""

    path: str
    slot: int
    _env: Env
    _lock: DirectoryLock
    _open: dict[str, None]  # tasks whose store may be open: never removed
    _stale_since_ms: dict[str, int]  # tasks that are not ours now, by the monotonic clock

    @classmethod
    def claim(cls, env: Env, data_dir: str, app_id: str, cluster_id: str) -> StateDirectory:
        """Take a slot under `<data_dir>/<app_id>/<cluster_id>`.

        Raises: UserError: no slot is free, the app id is no name for a directory, or a newer release wrote it.
        """
        if not _is_name(app_id):
            raise UserError(
                f"app id {app_id!r} names topics and a directory: use letters, digits, '.', '_' and '-' only"
            )
        root = _root(data_dir, app_id, cluster_id)
        storage = env.storage
        storage.make_directory(root)
        known = _workers(storage, root)
        slots = sorted(range(SLOTS_MAX), key=lambda slot: (-len(_tasks(storage, f"{root}/worker-{slot}", known)), slot))
        for slot in slots:
            path = f"{root}/worker-{slot}"
            storage.make_directory(path)
            lock = storage.lock(f"{path}/lock")
            if lock is not None:
                try:
                    _check_format(storage, path)
                except BaseException:
                    lock.release()
                    raise
                return cls(path, slot, env, lock, {}, {})
        raise UserError(
            f"all {SLOTS_MAX} worker directories of {root} are in use: give this worker another data directory"
        )

    def task_path(self, task: str) -> str:
        """Directory of a task's store. The task is in use from now on, until `closed`."""
        assert _TASK.match(f"task-{task}"), f"{task!r} cannot be part of a directory name"
        self._open[task] = None
        self._stale_since_ms.pop(task, None)
        return f"{self.path}/task-{task}"

    def global_path(self) -> str:
        return f"{self.path}/global"

    def closed(self, task: str) -> None:
        """The task's store is closed; its directory may be removed when it stays away."""
        self._open.pop(task, None)
        self._stale_since_ms[task] = self._env.clock.mono_ms()

    def tasks(self) -> list[str]:
        """Tasks with a directory here, sorted: where state is warm."""
        return _tasks(self._env.storage, self.path, None)

    def remove_stale(self, engine: StoreEngine, cleanup_delay_ms: int = CLEANUP_DELAY_MS) -> list[str]:
        """Remove tasks that have been away for `cleanup_delay_ms`, as far as this process knows; returns them.

        What was found at start counts as away from the first call on.
        """
        now_ms = self._env.clock.mono_ms()
        removed = []
        for task in self.tasks():
            if task in self._open:
                continue
            if now_ms - self._stale_since_ms.setdefault(task, now_ms) >= cleanup_delay_ms:
                engine.destroy(f"{self.path}/task-{task}")
                del self._stale_since_ms[task]
                removed.append(task)
        return removed

    def release(self) -> None:
        """Give the slot up. Every store must be closed."""
        self._lock.release()


def tasks_kept(storage: Storage, data_dir: str, app_id: str, cluster_id: str) -> list[str]:
    """Directories of all tasks of this app that were kept here by any worker, sorted."""
    root = _root(data_dir, app_id, cluster_id)
    workers = [f"{root}/{name}" for name in sorted(_workers(storage, root))] if storage.exists(root) else []
    return [f"{path}/{name}" for path in workers for name in sorted(storage.list(path)) if _TASK.match(name)]


def remove_tasks(storage: Storage, data_dir: str, app_id: str, cluster_id: str) -> list[str]:
    """Remove them, what was set aside included; returns them. Global tables stay.

    Raises: UserError: a worker has one of the directories; nothing was removed.
    """
    root = _root(data_dir, app_id, cluster_id)
    locks: list[DirectoryLock] = []
    try:
        for name in _workers(storage, root) if storage.exists(root) else []:
            lock = storage.lock(f"{root}/{name}/lock")
            if lock is None:
                raise UserError(f"a worker of app {app_id} uses {root}/{name}: stop it first")
            locks.append(lock)
        found = tasks_kept(storage, data_dir, app_id, cluster_id)
        for path in found:
            storage.remove_tree(path)
    finally:
        for lock in locks:
            lock.release()
    return found


def _root(data_dir: str, app_id: str, cluster_id: str) -> str:
    # The cluster says its own id, usually 22 characters of base64: whatever it is, it stays one directory.
    cluster = cluster_id if _is_name(cluster_id) else f"cluster-{cluster_id.encode().hex()}"
    return f"{data_dir}/{app_id}/{cluster}"


def _workers(storage: Storage, root: str) -> list[str]:
    return [name for name in storage.list(root) if re.fullmatch(r"worker-\d+", name)]


def _is_name(text: str) -> bool:
    """Whether the text can be the name of a directory, everywhere."""
    return _NAME.match(text) is not None and text not in (".", "..")


def _tasks(storage: Storage, path: str, known: list[str] | None) -> list[str]:
    """Tasks in a worker's directory; with `known`, only looked for when its name is among them."""
    if known is not None and path.rpartition("/")[2] not in known:
        return []
    matches = [_TASK.match(name) for name in storage.list(path)]
    return sorted(match[1] for match in matches if match is not None and match[2] is None)


def _check_format(storage: Storage, path: str) -> None:
    file = f"{path}/format"
    if not storage.exists(file):
        storage.write_atomic(file, b"%d\n" % DIRECTORY_FORMAT)
        return
    found = storage.read_bytes(file).strip()
    if found != b"%d" % DIRECTORY_FORMAT:
        raise UserError(
            f"the state directory {path} has format {found.decode(errors='replace')!r} and this release reads "
            f"{DIRECTORY_FORMAT}: use the release that wrote it, or remove the directory to restore from changelogs"
        )
