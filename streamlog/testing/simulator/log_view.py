"""What stands in a log, read from the simulated disk: checks do nothing on behalf of the nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streamlog.broker.log.file_names import LOG_SUFFIX, file_name
from streamlog.broker.log.partition import PartitionLog
from streamlog.testing.simulator.disk import Directory, SimDisk
from streamlog.testing.simulator.machine import Process
from streamlog.wire.records import CorruptBatch, iter_batch_headers

NO_EPOCH: Final = -1


class Entry(NamedTuple):
    """A batch. Two that are equal are the same one: the checksum covers all but offset and epoch."""

    base_offset: int
    next_offset: int
    epoch: int
    crc: int


@dataclass(slots=True)
class LogView:
    """One replica's log, as far as it has been looked at."""

    disk: SimDisk
    directory: str
    entries: dict[int, Entry] = field(default_factory=dict)
    """By base offset, in order."""
    fresh: list[tuple[Entry, int]] = field(default_factory=list)
    """What the last `look` found, each with the epoch of the batch before it (-1: unknown)."""
    _state: tuple[Process | None, int] = (None, -1)
    _positions: dict[str, int] = field(default_factory=dict)
    _end_offset: int = -1

    @property
    def end_offset(self) -> int:
        """Where what has been looked at ends; -1: nowhere yet."""
        return self._end_offset

    def look(self, process: Process | None, log: PartitionLog, closed_end: int | None = None) -> None:
        """Read what has been appended since the last look; everything after a restart or a truncation.

        `closed_end`, of a compacted log: below it batches may have lost records, and are not taken in. Only the active
        segment is read, which is never compacted; what was taken in before stays as it was written.
        """
        self.fresh = []
        state = (process, log.generation)
        if state != self._state:
            self._forget(state)
        if self._end_offset != log.log_end_offset:
            first = "" if closed_end is None else file_name(log.active.base_offset, LOG_SUFFIX)
            self._read(log.log_end_offset, first, closed_end or 0)

    def read_disk(self) -> None:
        """Read what is on the disk of a machine on which nothing runs."""
        self.fresh = []
        self._forget((None, -1))
        self._read(None)

    def _forget(self, state: tuple[Process | None, int]) -> None:
        self.entries.clear()
        self._positions.clear()
        self._state, self._end_offset = state, -1

    def _read(self, end_offset: int | None, first: str = "", closed_end: int = 0) -> None:
        found = self.disk.find(self.directory)
        names = sorted(found.entries) if isinstance(found, Directory) else []
        epoch = next(reversed(self.entries.values())).epoch if self.entries else NO_EPOCH
        for name in names:
            if not name.endswith(LOG_SUFFIX) or name < first:
                continue
            position = self._positions.get(name, 0)
            content = bytes(self.disk.file(f"{self.directory}/{name}").content[position:])
            try:
                for at, header in iter_batch_headers(content):
                    if end_offset is not None and header.base_offset >= end_offset:
                        break
                    entry = Entry(header.base_offset, header.next_offset, header.leader_epoch, header.crc)
                    if header.base_offset >= closed_end:
                        if header.base_offset not in self.entries:
                            self.fresh.append((entry, epoch))
                        self.entries[header.base_offset] = entry
                    epoch = header.leader_epoch
                    self._positions[name] = position + at + header.size_bytes
                    self._end_offset = header.next_offset
            except CorruptBatch:
                return  # torn: the end of what recovery will find
