"""A file system in memory that forgets, when the power goes, what was not synced.

A file keeps what `fdatasync` made durable and, beyond that, any prefix of what was appended since, perhaps with
zeros where bytes should be. A directory keeps a prefix of the creations, renames and removals since it was last
synced; a rename is one of them and never half done. This is what ext4 in its default mode may do. With
`unordered`, it keeps any of them, which a file system without a journal may do.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamlog.env import Buffer, DirectoryLock


@dataclass
class Inode:
    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    opened: bool = True


class LossyFile:
    def __init__(self, path: str, inode: Inode) -> None:
        self._path = path
        self._inode = inode

    @property
    def path(self) -> str:
        return self._path

    def append(self, data: Buffer) -> None:
        self._inode.content += data

    def append_parts(self, parts: Sequence[Buffer]) -> None:
        for part in parts:
            self.append(part)

    def pwrite(self, data: Buffer, position: int) -> None:
        content = self._inode.content
        content.extend(bytes(max(position + len(data) - len(content), 0)))
        content[position : position + len(data)] = data

    def pread(self, size_bytes: int, position: int) -> bytes:
        return bytes(self._inode.content[position : position + size_bytes])

    def size(self) -> int:
        return len(self._inode.content)

    def truncate(self, size_bytes: int) -> None:
        content = self._inode.content
        content.extend(bytes(max(size_bytes - len(content), 0)))
        del content[size_bytes:]

    def fdatasync(self) -> None:
        self._inode.durable = bytes(self._inode.content)

    def close(self) -> None:
        pass


Names = dict[str, Inode]


class LossyStorage:
    def __init__(self, seed: int, *, unordered: bool = False) -> None:
        self._random = random.Random(seed)
        self._unordered = unordered
        self._names: Names = {}
        self._durable_names: Names = {}
        self._unsynced: list[tuple[str, Callable[[Names], None]]] = []  # (directory, change), in order
        self._directories = {"/"}

    # --- what a test does ---

    def cut_power(self) -> None:
        """Forget, by chance, some of what was not synced."""
        for directory in sorted({directory for directory, _ in self._unsynced}):
            changes = [change for at, change in self._unsynced if at == directory]
            kept = changes[: self._random.randint(0, len(changes))]
            if self._unordered:
                kept = [change for change in changes if self._random.random() < 0.5]
            for change in kept:
                change(self._durable_names)
        self._names = dict(self._durable_names)
        self._unsynced = []
        for inode in self._names.values():
            inode.content = bytearray(self._what_is_left(inode))
            inode.durable = bytes(inode.content)

    def _what_is_left(self, inode: Inode) -> bytes:
        durable, content = inode.durable, bytes(inode.content)
        if not content.startswith(durable):
            return self._random.choice([durable, content])
        kept = self._random.randint(len(durable), len(content))
        zeros = self._random.choice([0, 0, self._random.randint(0, len(content) - kept)])
        return content[:kept] + bytes(zeros)

    # --- what env.Storage does ---

    def _change(self, path: str, change: Callable[[Names], None]) -> None:
        change(self._names)
        self._unsynced.append((path.rpartition("/")[0], change))

    def _inode(self, path: str) -> Inode:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self._names[path]

    def open_file(self, path: str, *, create: bool = False) -> LossyFile:
        if create and path not in self._names:
            inode = Inode()
            self._change(path, lambda names: names.__setitem__(path, inode))
        return LossyFile(path, self._inode(path))

    def read_bytes(self, path: str) -> bytes:
        return bytes(self._inode(path).content)

    def write_atomic(self, path: str, data: Buffer) -> None:
        inode = Inode(bytearray(data), bytes(data))
        self._change(path, lambda names: names.__setitem__(path, inode))
        self.sync_directory(path.rpartition("/")[0])

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._directories

    def is_directory(self, path: str) -> bool:
        return path in self._directories

    def list(self, path: str) -> list[str]:
        return sorted(name[len(path) + 1 :] for name in self._names if name.rpartition("/")[0] == path)

    def make_directory(self, path: str) -> None:
        self._directories.add(path)

    def rename(self, source: str, target: str) -> None:
        inode = self._inode(source)

        def move(names: Names) -> None:
            names.pop(source, None)
            names[target] = inode

        self._change(source, move)

    def remove(self, path: str) -> None:
        self._inode(path)

        def forget(names: Names) -> None:
            names.pop(path, None)

        self._change(path, forget)

    def remove_tree(self, path: str) -> None:
        for name in [name for name in self._names if name.startswith(f"{path}/")]:
            self.remove(name)

    def sync_directory(self, path: str) -> None:
        for directory, change in self._unsynced:
            if directory == path:
                change(self._durable_names)
        self._unsynced = [entry for entry in self._unsynced if entry[0] != path]

    def lock(self, path: str) -> DirectoryLock | None:
        return None

    def free_bytes(self, path: str) -> int:
        return 1 << 40
