"""A disk with a page cache: what a file system promises across a power cut, and nothing more.

A process that is killed loses nothing here: the cache is the kernel's. When the power goes, a file keeps what was
synced and, of what was done to it since, a part: the first so many operations and perhaps some bytes of the next one,
or any subset of its dirty pages, or a new size with zeros where bytes should be. A directory keeps what was synced
and, of the entries made, renamed and removed since, a part: in order over the whole disk (a journal), in order within
each directory, or any of them. A rename is one change and never half of one.

Syncing a file does not sync its name. A sync that fails drops what it should have written and says so once: the
cache goes on serving bytes that the disk will never have.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from random import Random
from typing import TypeAlias

PAGE_BYTES = 4096
SECTOR_BYTES = 512
CAPACITY_BYTES = 1 << 40


class Names(Enum):
    """Which of the unsynced changes of directories a power cut leaves."""

    JOURNAL = "journal"
    """The first so many of all: ext4, xfs."""
    PREFIX = "prefix"
    """Of each directory the first so many."""
    UNORDERED = "unordered"
    """Any of them: what POSIX promises, a file system without a journal."""


@dataclass(slots=True, eq=False)
class Inode:
    """A file."""

    content: bytearray = field(default_factory=bytearray)
    """As the page cache has it."""
    durable: bytearray = field(default_factory=bytearray)
    """As the disk has it."""
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    """In order: (position, bytes written), or (size, None) for a truncation."""

    def write(self, data: bytes, position: int) -> None:
        _write(self.content, data, position)
        self.unsynced.append((position, data))

    def truncate(self, size_bytes: int) -> None:
        _truncate(self.content, size_bytes)
        self.unsynced.append((size_bytes, None))

    def sync(self) -> None:
        for position, data in self.unsynced:
            _apply(self.durable, position, data)
        self.unsynced.clear()

    def lose(self) -> None:
        """A sync has failed: the dirty pages count as clean."""
        self.unsynced.clear()

    def cut_power(self, random: Random) -> str:
        """Keep a part of what was not synced. Says how the part was chosen."""
        if not self.unsynced and self.content == self.durable:
            return ""
        how = random.choice(("none", "all", "prefix", "prefix", "zeros", "pages"))
        before, unsynced = bytes(self.content), self.unsynced
        if how == "all":
            self.sync()
        elif how == "pages":
            self._keep_pages(random)
        elif how != "none" and unsynced:
            kept = random.randrange(len(unsynced) + 1)
            for position, data in unsynced[:kept]:
                _apply(self.durable, position, data)
            if kept < len(unsynced):
                position, data = unsynced[kept]
                if data is not None:
                    _write(self.durable, data[: random.randrange(len(data) + 1)], position)
            if how == "zeros" and len(before) > len(self.durable):
                end = random.choice((len(before), random.randrange(len(self.durable), len(before) + 1)))
                _truncate(self.durable, end)
        self.content = bytearray(self.durable)
        self.unsynced = []
        return how

    def _keep_pages(self, random: Random) -> None:
        """Any subset of the dirty pages, and of the sectors of one of them."""
        size_bytes = random.choice((len(self.durable), len(self.content)))
        kept = bytearray(self.durable)
        _truncate(kept, size_bytes)
        torn = random.randrange(size_bytes // PAGE_BYTES + 1)
        for start in range(0, size_bytes, PAGE_BYTES):
            step = SECTOR_BYTES if start // PAGE_BYTES == torn else PAGE_BYTES
            for at in range(start, min(start + PAGE_BYTES, size_bytes), step):
                if random.random() < 0.5:
                    part = self.content[at : min(at + step, size_bytes)]
                    kept[at : at + len(part)] = part
        self.durable = kept


def _write(target: bytearray, data: bytes, position: int) -> None:
    if position > len(target):
        target.extend(bytes(position - len(target)))
    target[position : position + len(data)] = data


def _truncate(target: bytearray, size_bytes: int) -> None:
    if size_bytes < len(target):
        del target[size_bytes:]
    else:
        target.extend(bytes(size_bytes - len(target)))


def _apply(target: bytearray, position: int, data: bytes | None) -> None:
    if data is None:
        _truncate(target, position)
    else:
        _write(target, data, position)


@dataclass(slots=True, eq=False)
class Directory:
    entries: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)


Node: TypeAlias = Inode | Directory

Edit: TypeAlias = tuple[Directory, str, Node | None]
"""This name in this directory now means that, or nothing."""


class SimDisk:
    """One machine's disk. Paths are absolute."""

    def __init__(self, random: Random, names: Names = Names.JOURNAL, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.root = Directory()
        self.names = names
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.locks: dict[str, object] = {}
        """Locked paths and who holds each."""
        self.was_full = False
        """Whether a write has ever not fit."""
        self._random = random
        self._unsynced: list[tuple[Edit, ...]] = []

    # -- looking ----------------------------------------------------------------------------------------------

    def find(self, path: str) -> Node | None:
        node: Node | None = self.root
        for name in _names(path):
            if not isinstance(node, Directory):
                return None
            node = node.entries.get(name)
        return node

    def node(self, path: str) -> Node:
        """Raises FileNotFoundError, NotADirectoryError."""
        node = self.find(path)
        if node is None:
            parent = path.rpartition("/")[0]
            if parent and isinstance(self.node(parent), Inode):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return node

    def file(self, path: str) -> Inode:
        """Raises FileNotFoundError, NotADirectoryError, IsADirectoryError."""
        node = self.node(path)
        if isinstance(node, Directory):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        return node

    def directory(self, path: str) -> Directory:
        """Raises FileNotFoundError, NotADirectoryError."""
        node = self.node(path)
        if isinstance(node, Inode):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
        return node

    def walk(self, path: str = "/") -> Iterator[tuple[str, Inode]]:
        """Every file below `path`, sorted."""
        node = self.directory(path)
        for name in sorted(node.entries):
            child = node.entries[name]
            at = f"{path.rstrip('/')}/{name}"
            if isinstance(child, Inode):
                yield at, child
            else:
                yield from self.walk(at)

    # -- changing names ---------------------------------------------------------------------------------------

    def create(self, path: str) -> Inode:
        """A new empty file under a name that is free."""
        inode = Inode()
        self._edit((*self._place(path), inode))
        return inode

    def make_directory(self, path: str) -> None:
        parent = ""
        for name in _names(path):
            parent = f"{parent}/{name}"
            if self.find(parent) is None:
                self._edit((*self._place(parent), Directory()))
        self.directory(path)

    def rename(self, source: str, target: str) -> None:
        old_place, new_place = self._place(source), self._place(target)
        node = self.node(source)
        replaced = self.find(target)
        if isinstance(node, Inode) and isinstance(replaced, Directory):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", target)
        if isinstance(node, Directory) and isinstance(replaced, Inode):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", target)
        if isinstance(replaced, Directory) and replaced is not node and replaced.entries:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", target)
        if replaced is node:
            return
        if isinstance(replaced, Inode):
            self.used_bytes -= len(replaced.content)
        self._edit((*old_place, None), (*new_place, node))

    def remove(self, path: str) -> None:
        inode = self.file(path)
        self.used_bytes -= len(inode.content)
        self._edit((*self._place(path), None))

    def remove_tree(self, path: str) -> None:
        directory = self.directory(path)
        for name in list(directory.entries):
            child = f"{path}/{name}"
            if isinstance(directory.entries[name], Directory):
                self.remove_tree(child)
            else:
                self.remove(child)
        self._edit((*self._place(path), None))

    def sync_directory(self, path: str) -> None:
        directory = self.directory(path)
        left: list[tuple[Edit, ...]] = []
        for change in self._unsynced:
            if any(edit[0] is directory for edit in change):
                _make_durable(change)
            else:
                left.append(change)
        self._unsynced = left

    def _place(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return self.directory(parent or "/"), name

    def _edit(self, *change: Edit) -> None:
        for directory, name, node in change:
            if node is None:
                directory.entries.pop(name, None)
            else:
                directory.entries[name] = node
        self._unsynced.append(change)

    # -- the power --------------------------------------------------------------------------------------------

    def cut_power(self) -> str:
        """Forget what was not synced, as chance decides. Says what became of it, for the trace."""
        random = self._random
        changes, self._unsynced = self._unsynced, []
        kept = self._kept(changes)
        for change in kept:
            _make_durable(change)
        _revert(self.root)
        fates = [(path, inode.cut_power(random)) for path, inode in self.walk()]
        self.used_bytes = sum(len(inode.content) for _, inode in self.walk())
        files = " ".join(f"{path}:{fate}" for path, fate in fates if fate)
        return f"{len(kept)} of {len(changes)} names kept ({self.names.value}) {files}".rstrip()

    def _kept(self, changes: list[tuple[Edit, ...]]) -> list[tuple[Edit, ...]]:
        random = self._random
        if self.names is Names.JOURNAL:
            return changes[: random.randrange(len(changes) + 1)]
        if self.names is Names.UNORDERED:
            return [change for change in changes if random.random() < 0.5]
        directories = list(dict.fromkeys(change[0][0] for change in changes))
        kept: list[tuple[Edit, ...]] = []
        for directory in directories:
            mine = [change for change in changes if change[0][0] is directory]
            kept += mine[: random.randrange(len(mine) + 1)]
        return kept


@lru_cache(maxsize=4096)
def _names(path: str) -> tuple[str, ...]:
    assert path.startswith("/"), f"{path}: a simulated disk has no working directory"
    return tuple(name for name in path.split("/") if name)


def _make_durable(change: tuple[Edit, ...]) -> None:
    for directory, name, node in change:
        if node is None:
            directory.durable.pop(name, None)
        else:
            directory.durable[name] = node


def _revert(directory: Directory) -> None:
    directory.entries = dict(directory.durable)
    for child in directory.entries.values():
        if isinstance(child, Directory):
            _revert(child)
