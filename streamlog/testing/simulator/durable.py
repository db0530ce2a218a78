"""Whether a log's promises are kept by the disk below it: what it calls flushed has to be there without the cache.

A broker that believes itself wrongly looks sound until the power goes at the wrong moment. The simulator owns the disk,
so it need not wait for that: each time a log moves `flushed_offset` or its recovery point, the bytes of its segments
below are compared with the durable ones, and so are the names that lead to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streamlog.broker.log.file_names import LOG_SUFFIX, SWAP_SUFFIX, file_name
from streamlog.broker.log.partition import PartitionLog
from streamlog.testing.simulator.disk import Directory, Inode, SimDisk
from streamlog.wire.records import CorruptBatch, iter_batch_headers


@dataclass(slots=True)
class Promises:
    """One machine's disk, and what was found on it so far."""

    disk: SimDisk
    _seen: dict[PartitionLog, tuple[int, int, int]] = field(default_factory=dict)
    _proved: dict[Inode, int] = field(default_factory=dict)
    """Up to which byte each file was found."""

    def broken(self, log: PartitionLog) -> str:
        """What the log calls flushed and the disk does not have; empty when all of it is there."""
        if log.failure is None and log.config.compact and (lost := self._nameless_segment(log)):
            return lost
        state = (log.flushed_offset, log.recovery_point, log.generation)
        if log.failure is not None or self._seen.get(log) == state:
            return ""
        if log not in self._seen or state[2] != self._seen[log][2]:
            self._proved.clear()  # something may have been cut, and written anew
        self._seen[log] = state
        directory, nameless = self._directory(log.directory)
        if directory is None:
            return ""  # moved away just now
        if nameless and log.flushed_offset > log.log_start_offset:
            return f"the name {nameless} is not on disk"
        return self._broken_segment(log, directory)

    def _nameless_segment(self, log: PartitionLog) -> str:
        """A segment that compaction has put in and that a power cut would take, with nothing in its place."""
        directory, nameless = self._directory(log.directory)
        if directory is None or nameless:
            return ""
        promised = max(log.flushed_offset, log.recovery_point)
        for segment in log.segments:
            name = file_name(segment.base_offset, LOG_SUFFIX)
            if segment.base_offset >= promised:
                break
            if name not in directory.durable and name + SWAP_SUFFIX not in directory.durable:
                return f"{log.directory}/{name} has no name on disk, and {promised} is flushed"
        return ""

    def _broken_segment(self, log: PartitionLog, directory: Directory) -> str:
        promised = max(log.flushed_offset, log.recovery_point)
        base_offsets = [segment.base_offset for segment in log.segments]
        for base_offset, end_offset in zip(base_offsets, [*base_offsets[1:], None], strict=True):
            if base_offset >= promised:
                break
            name = file_name(base_offset, LOG_SUFFIX)
            inode = directory.entries.get(name)
            if not isinstance(inode, Inode):
                continue  # compaction or retention renames it just now
            if directory.durable.get(name) is not inode and not log.config.compact:
                return f"{log.directory}/{name} has no name on disk, and {promised} is flushed"
            is_whole = end_offset is not None and end_offset <= promised
            if not self._has(inode, len(inode.content) if is_whole else -1, promised):
                return f"{log.directory}/{name} is not on disk, and {promised} is flushed"
            if is_whole and _may_grow(inode):
                return f"{log.directory}/{name} was cut, the cut is not on disk, and the log goes on behind it"
        return ""

    def _has(self, inode: Inode, end: int, promised: int) -> bool:
        """Whether the disk has the file up to byte `end`; -1: up to the end of the last batch below `promised`."""
        start = self._proved.get(inode, 0)
        if start > min(len(inode.content), len(inode.durable)):
            start = 0  # it was cut
        if end < 0:
            end = start
            try:
                for position, header in iter_batch_headers(bytes(inode.content), start):
                    if header.base_offset >= promised:
                        break
                    end = position + header.size_bytes
            except CorruptBatch:
                return False
        if inode.durable[start:end] != inode.content[start:end]:
            return False
        self._proved[inode] = end
        return True

    def _directory(self, path: str) -> tuple[Directory | None, str]:
        """The directory, and the first name on the way to it that a power cut would take."""
        node, nameless = self.disk.root, ""
        for name in path.strip("/").split("/"):
            child = node.entries.get(name)
            if not isinstance(child, Directory):
                return None, ""
            if node.durable.get(name) is not child and not nameless:
                nameless = name
            node = child
        return node, nameless


def _may_grow(inode: Inode) -> bool:
    """Whether a power cut may leave more of the file than there is now: it was cut, and the cut is not synced."""
    size_bytes = len(inode.content)
    ends = [position + len(data) for position, data in inode.unsynced if data is not None]
    return max(len(inode.durable), *ends, 0) > size_bytes
