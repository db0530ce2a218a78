"""A metadata log in plain Python, with a disk that forgets what was not synced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from streamlog.broker.raft.messages import Position, SnapshotId
from streamlog.broker.raft.replicated_log import ControlRecord, RefusedBatches, VotersAt
from streamlog.wire.compiler import Buffer
from streamlog.wire.internal.control import LeaderChangeMessage
from streamlog.wire.internal.voters import KRaftVersionRecord, VotersRecord


class Entry(NamedTuple):
    """A batch of one record."""

    epoch: int
    kind: str
    """data, leader, version or voters."""
    value: bytes


class StoredSnapshot(NamedTuple):
    """What a snapshot file holds: the fold, and who votes."""

    fold: bytes
    kraft_version: int | None
    voters: bytes | None


class MemoryLog:
    """Offsets count entries. `entries[0]` stands at `start_offset`."""

    def __init__(self, formatted: StoredSnapshot | None = None) -> None:
        self.entries: list[Entry] = []
        self.start_offset = 0
        self.flushed_offset = 0
        self.snapshots: dict[SnapshotId, bytes] = {}
        self.base = SnapshotId(0, 0)  # what the log goes on from
        if formatted is not None:
            self.snapshots[self.base] = msgspec.msgpack.encode(formatted)
        self._draft: tuple[SnapshotId, bytearray] | None = None
        self.cuts: list[int] = []
        """Where the log was truncated, for whoever watches."""

    @property
    def end_offset(self) -> int:
        return self.start_offset + len(self.entries)

    @property
    def last_epoch(self) -> int:
        return self.entries[-1].epoch if self.entries else self.base.epoch

    def epoch_at(self, offset: int) -> int:
        return self.entries[offset - self.start_offset].epoch

    def end_of_epoch(self, epoch: int) -> Position | None:
        if epoch < self.base.epoch or (self.start_offset == 0 and self.entries and epoch < self.entries[0].epoch):
            return None
        found = Position(self.base.epoch, self.start_offset)
        for offset, entry in enumerate(self.entries, self.start_offset):
            if entry.epoch > epoch:
                break
            found = Position(entry.epoch, offset + 1)
        return found

    def read(self, offset: int, bytes_max: int) -> Buffer:
        taken: list[Entry] = []
        size = 0
        for entry in self.entries[offset - self.start_offset :]:
            size += len(entry.value) + 8
            if taken and size > bytes_max:
                break
            taken.append(entry)
        return msgspec.msgpack.encode((offset, taken))

    def append_data(self, epoch: int, *values: bytes) -> None:
        """The leader's state machine appends."""
        self.entries += [Entry(epoch, "data", value) for value in values]

    def append_control(self, epoch: int, records: Sequence[ControlRecord]) -> None:
        for record in records:
            match record:
                case LeaderChangeMessage():
                    kind = "leader"
                case KRaftVersionRecord():
                    kind = "version"
                case VotersRecord():
                    kind = "voters"
            self.entries.append(Entry(epoch, kind, record.encode(0)))

    def append_batches(self, batches: Buffer, epoch_max: int) -> None:
        try:
            offset, entries = msgspec.msgpack.decode(batches, type=tuple[int, list[Entry]])
        except msgspec.DecodeError as error:
            raise RefusedBatches(str(error)) from error
        if offset != self.end_offset:
            raise RefusedBatches(f"offset {offset} does not follow {self.end_offset}")
        epoch = self.last_epoch
        for entry in entries:
            if not epoch <= entry.epoch <= epoch_max:
                raise RefusedBatches(f"epoch {entry.epoch} after {epoch}, at most {epoch_max}")
            epoch = entry.epoch
        self.entries += entries

    def truncate_to(self, offset: int) -> None:
        self.cuts.append(offset)
        del self.entries[offset - self.start_offset :]
        self.flushed_offset = min(self.flushed_offset, offset)

    def voter_records(self, start_offset: int) -> Iterable[VotersAt]:
        if start_offset <= self.start_offset and self.base in self.snapshots:
            stored = msgspec.msgpack.decode(self.snapshots[self.base], type=StoredSnapshot)
            at = self.start_offset - 1
            if stored.kraft_version is not None and stored.voters is not None:
                yield VotersAt(at, KRaftVersionRecord(kraft_version=stored.kraft_version))
                yield VotersAt(at, VotersRecord.decode(stored.voters, 0))
        for offset, entry in enumerate(self.entries, self.start_offset):
            if offset >= start_offset:
                if entry.kind == "version":
                    yield VotersAt(offset, KRaftVersionRecord.decode(entry.value, 0))
                elif entry.kind == "voters":
                    yield VotersAt(offset, VotersRecord.decode(entry.value, 0))

    # -- snapshots --------------------------------------------------------------------------------------------

    def latest_snapshot(self) -> SnapshotId | None:
        return max((found for found in self.snapshots if found.end_offset > 0), default=None)

    def snapshot_size(self, snapshot_id: SnapshotId) -> int | None:
        data = self.snapshots.get(snapshot_id)
        return None if data is None else len(data)

    def read_snapshot(self, snapshot_id: SnapshotId, position: int, bytes_max: int) -> Buffer:
        return self.snapshots[snapshot_id][position : position + bytes_max]

    def begin_snapshot(self, snapshot_id: SnapshotId) -> None:
        self._draft = snapshot_id, bytearray()

    def write_snapshot_part(self, data: Buffer) -> None:
        assert self._draft is not None, "a snapshot was begun"
        self._draft[1].extend(data)

    def finish_snapshot(self) -> bool:
        assert self._draft is not None, "a snapshot was begun"
        snapshot_id, data = self._draft
        self._draft = None
        try:
            msgspec.msgpack.decode(data, type=StoredSnapshot)
        except msgspec.DecodeError:
            return False
        self.snapshots = {snapshot_id: bytes(data)}
        self.base = snapshot_id
        self.entries.clear()
        self.start_offset = self.flushed_offset = snapshot_id.end_offset
        return True

    def store_snapshot(self, end_offset: int, stored: StoredSnapshot) -> SnapshotId:
        """Write a snapshot of what is committed, and let go of the log below it."""
        snapshot_id = SnapshotId(end_offset, self.epoch_at(end_offset - 1))
        self.snapshots = {snapshot_id: msgspec.msgpack.encode(stored)}
        del self.entries[: end_offset - self.start_offset]
        self.start_offset, self.base = end_offset, snapshot_id
        self.flushed_offset = max(self.flushed_offset, end_offset)
        return snapshot_id

    # -- faults -----------------------------------------------------------------------------------------------

    def crash(self, kept_offset: int) -> None:
        """Forget what was not synced, from `kept_offset` on."""
        assert kept_offset >= self.flushed_offset, "what is synced stays"
        del self.entries[kept_offset - self.start_offset :]
        self.flushed_offset = self.end_offset
        self._draft = None
