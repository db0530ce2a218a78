"""The simulated disk answers as the real file system does, as long as nothing crashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeAlias

import pytest

from streamlog.env import DirectoryLock, File, RealStorage, Storage
from streamlog.testing.simulator.disk import SimDisk
from streamlog.testing.simulator.storage import DiskFaults, DiskKnobs, SimStorage

STEPS = 400
NAMES = ["a", "b", "d1/x", "d1/y", "d1/e/z", "d2/x", "d1", "d2", "d1/e", "a.tmp"]
Answer: TypeAlias = object


class NoUser:
    def check(self) -> None:
        return None

    def spend(self, cost_ns: int) -> None:
        return None


def simulated() -> SimStorage:
    storage = SimStorage(SimDisk(Random(1)), NoUser(), DiskFaults(), DiskKnobs(), Random(1))
    storage.make_directory("/top")
    return storage


class Script:
    """A random sequence of calls, the same for every storage that plays it."""

    def __init__(self, seed: int, storage: Storage, root: str) -> None:
        self.random = Random(seed)
        self.storage = storage
        self.root = root
        self.files: list[File] = []
        self.locks: dict[str, DirectoryLock | None] = {}
        self.calls: list[tuple[str, Callable[[], Answer]]] = [
            (name.removeprefix("do_"), getattr(self, name)) for name in sorted(dir(self)) if name.startswith("do_")
        ]

    def play(self) -> list[str]:
        return [self.step() for _ in range(STEPS)]

    def step(self) -> str:
        name, call = self.random.choice(self.calls)
        try:
            answer = call()
        except OSError as error:
            return f"{name}: {type(error).__name__} {error.errno}"
        return f"{name}: {answer!r}"

    def path(self) -> str:
        return f"{self.root}/{self.random.choice(NAMES)}"

    def data(self) -> bytes:
        return self.random.randbytes(self.random.randrange(20))

    def file(self) -> File:
        if not self.files:
            raise OSError(0, "no file is open")
        return self.random.choice(self.files)

    def do_open(self) -> Answer:
        path, create = self.path(), self.random.random() < 0.8
        if self.storage.is_directory(path):
            return None
        self.files.append(self.storage.open_file(path, create=create))
        return self.files[-1].size()

    def do_append(self) -> None:
        self.file().append(self.data())

    def do_append_parts(self) -> None:
        parts = [self.data(), self.data()]
        self.file().append_parts(parts)

    def do_pwrite(self) -> None:
        data, position = self.data(), self.random.randrange(25)
        if data:
            self.file().pwrite(data, position)

    def do_pread(self) -> Answer:
        size_bytes, position = self.random.randrange(40), self.random.randrange(25)
        return self.file().pread(size_bytes, position)

    def do_size(self) -> Answer:
        return self.file().size()

    def do_truncate(self) -> None:
        size_bytes = self.random.randrange(25)
        self.file().truncate(size_bytes)

    def do_fdatasync(self) -> None:
        self.file().fdatasync()

    def do_read_bytes(self) -> Answer:
        return self.storage.read_bytes(self.path())

    def do_write_atomic(self) -> None:
        path, data = self.path(), self.data()
        if self.storage.is_directory(path) or self.storage.is_directory(path + ".tmp"):
            return
        self.storage.write_atomic(path, data)

    def do_exists(self) -> Answer:
        return self.storage.exists(self.path())

    def do_is_directory(self) -> Answer:
        return self.storage.is_directory(self.path())

    def do_list(self) -> Answer:
        return self.storage.list(self.path())

    def do_make_directory(self) -> None:
        path = self.path()
        if not self.storage.exists(path):
            self.storage.make_directory(path)

    def do_rename(self) -> None:
        source, target = self.path(), self.path()
        nested = target.startswith(f"{source}/") or source.startswith(f"{target}/")
        if not nested:
            self.storage.rename(source, target)

    def do_remove(self) -> None:
        self.storage.remove(self.path())

    def do_remove_tree(self) -> None:
        if self.random.random() < 0.2:
            self.storage.remove_tree(self.path())

    def do_sync_directory(self) -> None:
        self.storage.sync_directory(self.path())

    def do_lock(self) -> Answer:
        path = f"{self.root}/.lock{self.random.randrange(2)}"
        lock = self.storage.lock(path)
        if lock is not None:
            self.locks[path] = lock
        return lock is not None

    def do_release(self) -> Answer:
        for lock in self.locks.values():
            if lock is not None:
                lock.release()
        return None


@pytest.mark.parametrize("seed", range(25))
def test_simulated_disk_answers_as_the_real_one_does(seed: int, tmp_path: Path) -> None:
    """Every answer and every error of a random sequence of calls is the same, and so is what is there in the end."""
    real = Script(seed, RealStorage(), str(tmp_path))
    expected = real.play()
    played = Script(seed, simulated(), "/top")
    assert played.play() == expected
    for file in real.files:
        file.close()
    real.do_release()


def test_files_of_a_killed_process_are_whole_and_those_of_a_power_cut_are_what_was_synced() -> None:
    """What was synced is there after any power cut; a prefix of the rest may be."""
    for seed in range(200):
        storage = SimStorage(SimDisk(Random(seed)), NoUser(), DiskFaults(), DiskKnobs(), Random(seed))
        storage.make_directory("/top")
        storage.sync_directory("/")
        file = storage.open_file("/top/log", create=True)
        file.append(b"synced")
        file.fdatasync()
        storage.sync_directory("/top")
        file.append(b" and not")
        storage.disk.cut_power()
        left = storage.read_bytes("/top/log")
        assert left.startswith(b"synced")
        assert len(left) <= len(b"synced and not")


def test_failed_sync_loses_its_pages_for_good() -> None:
    """After a sync that failed another one succeeds, and proves nothing (fsyncgate)."""
    faults = DiskFaults()
    storage = SimStorage(SimDisk(Random(1)), NoUser(), faults, DiskKnobs(), Random(1))
    file = storage.open_file("/log", create=True)
    storage.sync_directory("/")
    file.append(b"gone")
    faults.errors["sync"] = 1
    with pytest.raises(OSError, match="Input/output"):
        file.fdatasync()
    file.append(b"kept")
    file.fdatasync()
    assert storage.read_bytes("/log") == b"gonekept"
    storage.disk.cut_power()
    assert storage.read_bytes("/log") == bytes(4) + b"kept"


def test_full_disk_takes_what_fits() -> None:
    """A write that does not fit leaves its beginning behind and raises ENOSPC, as the kernel does."""
    disk = SimDisk(Random(1), capacity_bytes=10)
    storage = SimStorage(disk, NoUser(), DiskFaults(), DiskKnobs(), Random(1))
    file = storage.open_file("/log", create=True)
    file.append(b"1234567")
    with pytest.raises(OSError, match="No space left"):
        file.append(b"89012345")
    assert storage.read_bytes("/log") == b"1234567890"[:7] + b"890"
    file.truncate(7)
    assert disk.used_bytes == 7
