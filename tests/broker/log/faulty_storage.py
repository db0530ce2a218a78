"""A file system that fails when told to: the real one behind env's seam, with a fault at the N-th change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from streamlog.env import Buffer, DirectoryLock, Env, File, Storage, real_env


class PowerCut(BaseException):
    """The process ends here. Not an Exception: no handler may tidy up."""


class Faults:
    """Decides what happens at each operation; `before(name, path)` may raise."""

    def __init__(self) -> None:
        self.before: Callable[[str, str], None] = lambda name, path: None
        self.write_bytes_left: int | None = None
        """How many more bytes fit on the disk; None: no limit."""
        self.operations: list[str] = []

    def meet(self, name: str, path: str) -> None:
        self.operations.append(name)
        self.before(name, path)


class FaultyFile:
    def __init__(self, file: File, faults: Faults) -> None:
        self._file = file
        self._faults = faults

    @property
    def path(self) -> str:
        return self._file.path

    def append(self, data: Buffer) -> None:
        self._faults.meet("append", self.path)
        left = self._faults.write_bytes_left
        if left is not None:
            if len(data) > left:
                self._file.append(memoryview(data)[:left])
                self._faults.write_bytes_left = 0
                raise OSError(28, "No space left on device")
            self._faults.write_bytes_left = left - len(data)
        self._file.append(data)

    def append_parts(self, parts: Sequence[Buffer]) -> None:
        for part in parts:
            self.append(part)

    def pwrite(self, data: Buffer, position: int) -> None:
        self._faults.meet("pwrite", self.path)
        if self._faults.write_bytes_left is not None and len(data) > self._faults.write_bytes_left:
            raise OSError(28, "No space left on device")
        self._file.pwrite(data, position)

    def pread(self, size_bytes: int, position: int) -> bytes:
        return self._file.pread(size_bytes, position)

    def size(self) -> int:
        return self._file.size()

    def truncate(self, size_bytes: int) -> None:
        self._faults.meet("truncate", self.path)
        self._file.truncate(size_bytes)

    def fdatasync(self) -> None:
        self._faults.meet("fdatasync", self.path)
        self._file.fdatasync()

    def close(self) -> None:
        self._file.close()


class FaultyStorage:
    def __init__(self, storage: Storage, faults: Faults) -> None:
        self._storage = storage
        self._faults = faults

    def open_file(self, path: str, *, create: bool = False) -> File:
        if create and not self._storage.exists(path):
            self._faults.meet("create", path)
        return FaultyFile(self._storage.open_file(path, create=create), self._faults)

    def read_bytes(self, path: str) -> bytes:
        return self._storage.read_bytes(path)

    def write_atomic(self, path: str, data: Buffer) -> None:
        self._faults.meet("write_atomic", path)
        self._storage.write_atomic(path, data)

    def exists(self, path: str) -> bool:
        return self._storage.exists(path)

    def is_directory(self, path: str) -> bool:
        return self._storage.is_directory(path)

    def list(self, path: str) -> list[str]:
        return self._storage.list(path)

    def make_directory(self, path: str) -> None:
        self._faults.meet("make_directory", path)
        self._storage.make_directory(path)

    def rename(self, source: str, target: str) -> None:
        self._faults.meet("rename", source)
        self._storage.rename(source, target)

    def remove(self, path: str) -> None:
        self._faults.meet("remove", path)
        self._storage.remove(path)

    def remove_tree(self, path: str) -> None:
        self._faults.meet("remove_tree", path)
        self._storage.remove_tree(path)

    def sync_directory(self, path: str) -> None:
        self._faults.meet("sync_directory", path)
        self._storage.sync_directory(path)

    def lock(self, path: str) -> DirectoryLock | None:
        return self._storage.lock(path)

    def free_bytes(self, path: str) -> int:
        return self._storage.free_bytes(path)


def faulty_env() -> tuple[Env, Faults]:
    env = real_env()
    faults = Faults()
    return replace(env, storage=FaultyStorage(env.storage, faults)), faults


def fail_next_sync(faults: Faults) -> None:
    """Of a file's data; the ones after it succeed."""

    def before(name: str, path: str) -> None:
        if name == "fdatasync":
            faults.before = lambda name, path: None
            raise OSError(5, "Input/output error")

    faults.before = before


def cut_power_at(faults: Faults, number: int) -> None:
    """End the process before the `number`-th change from now (0: the next one)."""
    start = len(faults.operations)

    def before(name: str, path: str) -> None:
        if len(faults.operations) - start > number:
            raise PowerCut(f"{name} {path}")

    faults.before = before
