"""`env.Storage` on a simulated disk: the time that calls take, the errors that disks give, the moment to crash in.

Every call is one step; composite ones (`write_atomic`, `remove_tree`) are the steps a real one is made of. Between any
two steps the process may be killed or the power may go: `DiskFaults.crash_in` counts down to it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from streamlog.env import Buffer
from streamlog.testing.simulator.disk import Directory, Inode, SimDisk


@dataclass(slots=True)
class DiskKnobs:
    """How long a healthy disk takes."""

    call_ns: int = 2_000
    """A read or a write: the page cache."""
    byte_ns: float = 0.3
    sync_ns: int = 300_000
    """About; each sync draws between a third of it and three times as much."""


@dataclass(slots=True)
class DiskFaults:
    """What is wrong with a disk just now."""

    slow_factor: int = 1
    errors: dict[str, int] = field(default_factory=dict)
    """Step ("write", "sync", "read", "name") -> how many of the next ones fail with EIO."""
    crash_in: int | None = None
    """Steps until `on_crash`; None: no such plan."""
    crash_at: str = ""
    """Which steps count for that; empty: all that change something."""
    on_crash: Callable[[], None] = lambda: None
    has_failed: bool = False
    """Whether it has ever reported an error: then partitions may be offline."""
    felt: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Step that fails, "slow" or "full" -> who is told when a process feels that for the first time."""

    def feel(self, what: str) -> None:
        told = self.felt.pop(what, None)
        if told is not None:
            told()


class User(Protocol):
    """The process that uses the disk."""

    def check(self) -> None:
        """Raise NodeDead if it is."""
        ...

    def spend(self, cost_ns: int) -> None:
        """A call has blocked for so long."""
        ...


class SimFile:
    def __init__(self, storage: SimStorage, path: str, inode: Inode) -> None:
        self._storage = storage
        self._path = path
        self._inode = inode
        self._position = len(inode.content)
        self._is_open = True

    @property
    def path(self) -> str:
        return self._path

    def append(self, data: Buffer) -> None:
        # As write(2) does: what got into the file before an error moves the position too.
        start = self._position
        try:
            self._write(bytes(data), start)
        finally:
            self._position = max(start, min(len(self._inode.content), start + len(data)))

    def append_parts(self, parts: Sequence[Buffer]) -> None:
        if parts:
            self.append(b"".join(parts))

    def pwrite(self, data: Buffer, position: int) -> None:
        self._write(bytes(data), position)

    def _write(self, data: bytes, position: int) -> None:
        try:
            self._step("write", len(data))
        except OSError:
            self._put(data[: self._storage.part_written(len(data))], position)
            raise
        inode = self._inode
        grown = position + len(data) - len(inode.content)
        room = self._storage.disk.capacity_bytes - self._storage.disk.used_bytes
        fits = data if grown <= room else data[: max(len(data) - (grown - max(room, 0)), 0)]
        self._put(fits, position)
        if len(fits) < len(data):
            self._storage.disk.was_full = True
            self._storage.feel("full")
            self._storage.on_full()
            raise OSError(errno.ENOSPC, "No space left on device", self._path)

    def _put(self, data: bytes, position: int) -> None:
        if data:
            before = len(self._inode.content)
            self._inode.write(data, position)
            self._storage.disk.used_bytes += len(self._inode.content) - before

    def pread(self, size_bytes: int, position: int) -> bytes:
        self._step("read", size_bytes)
        return bytes(self._inode.content[position : position + size_bytes])

    def size(self) -> int:
        self._step("look", 0)
        return len(self._inode.content)

    def truncate(self, size_bytes: int) -> None:
        self._step("write", 0)
        before = len(self._inode.content)
        self._inode.truncate(size_bytes)
        self._storage.disk.used_bytes += size_bytes - before
        self._position = size_bytes

    def fdatasync(self) -> None:
        try:
            self._step("sync", 0)
        except OSError:
            self._inode.lose()
            raise
        self._inode.sync()

    def close(self) -> None:
        self._is_open = False

    def _step(self, kind: str, size_bytes: int) -> None:
        if not self._is_open:
            raise OSError(errno.EBADF, "Bad file descriptor", self._path)
        self._storage.step(kind, self._path, size_bytes)


class SimDirectoryLock:
    def __init__(self, disk: SimDisk, path: str, user: object) -> None:
        self._disk = disk
        self._path = path
        self._user = user

    def release(self) -> None:
        if self._disk.locks.get(self._path) is self._user:
            del self._disk.locks[self._path]


class SimStorage:
    """One process's way to its machine's disk."""

    def __init__(self, disk: SimDisk, user: User, faults: DiskFaults, knobs: DiskKnobs, random: Random) -> None:
        self.disk = disk
        self.step_count = 0
        self.on_full: Callable[[], None] = lambda: None
        """Told of each write that does not fit."""
        self._user = user
        self._faults = faults
        self._knobs = knobs
        self._random = random

    def step(self, kind: str, path: str, size_bytes: int = 0) -> None:
        """One system call: it takes time, may fail, may be the last thing the process does."""
        self._user.check()
        faults, knobs = self._faults, self._knobs
        if kind == "sync":
            cost_ns = int(knobs.sync_ns * 3 ** (2 * self._random.random() - 1))
        else:
            cost_ns = knobs.call_ns + int(size_bytes * knobs.byte_ns)
        self._user.spend(cost_ns * faults.slow_factor)
        if faults.slow_factor > 1:
            faults.feel("slow")
        if kind == "look":
            return
        self.step_count += 1
        if faults.crash_in is not None and (kind == faults.crash_at if faults.crash_at else kind != "read"):
            faults.crash_in -= 1
            if faults.crash_in <= 0:
                faults.crash_in = None
                faults.on_crash()
                self._user.check()
        if faults.errors.get(kind, 0):
            faults.errors[kind] -= 1
            faults.has_failed = True
            faults.feel(kind)
            raise OSError(errno.EIO, "Input/output error", path)

    def feel(self, what: str) -> None:
        self._faults.feel(what)

    def part_written(self, size_bytes: int) -> int:
        """How much of a write that fails is in the file all the same: a short count, then the error."""
        return self._random.choice((0, self._random.randrange(size_bytes + 1)))

    def open_file(self, path: str, *, create: bool = False) -> SimFile:
        node = self.disk.find(path)
        if node is None and create:
            self.step("name", path)
            return SimFile(self, path, self.disk.create(path))
        self.step("look", path)
        return SimFile(self, path, self.disk.file(path))

    def read_bytes(self, path: str) -> bytes:
        inode = self.disk.file(path)
        self.step("read", path, len(inode.content))
        return bytes(inode.content)

    def write_atomic(self, path: str, data: Buffer) -> None:
        draft = self.open_file(path + ".tmp", create=True)
        draft.truncate(0)
        draft.append(data)
        draft.fdatasync()
        draft.close()
        self.rename(path + ".tmp", path)
        self.sync_directory(path.rpartition("/")[0] or "/")

    def exists(self, path: str) -> bool:
        self.step("look", path)
        return self.disk.find(path) is not None

    def is_directory(self, path: str) -> bool:
        self.step("look", path)
        return isinstance(self.disk.find(path), Directory)

    def list(self, path: str) -> list[str]:
        self.step("look", path)
        return sorted(self.disk.directory(path).entries)

    def make_directory(self, path: str) -> None:
        self.step("name", path)
        self.disk.make_directory(path)

    def rename(self, source: str, target: str) -> None:
        self.step("name", source)
        self.disk.rename(source, target)

    def remove(self, path: str) -> None:
        self.step("name", path)
        self.disk.remove(path)

    def remove_tree(self, path: str) -> None:
        for name, node in sorted(self.disk.directory(path).entries.items()):
            child = f"{path}/{name}"
            self.remove_tree(child) if isinstance(node, Directory) else self.remove(child)
        self.step("name", path)
        self.disk.remove_tree(path)

    def sync_directory(self, path: str) -> None:
        self.step("sync", path)
        self.disk.sync_directory(path)

    def lock(self, path: str) -> SimDirectoryLock | None:
        self.open_file(path, create=True).close()
        if path in self.disk.locks:
            return None
        self.disk.locks[path] = self._user
        return SimDirectoryLock(self.disk, path, self._user)

    def free_bytes(self, path: str) -> int:
        self.step("look", path)
        return max(self.disk.capacity_bytes - self.disk.used_bytes, 0)
