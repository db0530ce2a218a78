"""The metadata log on disk, as the core sees it: a partition's log, and snapshot files beside it.

`__cluster_metadata-0/` holds segments in Kafka's format and `{end offset}-{epoch}.checkpoint` files. The log begins at
the end of one of these; the newest says who votes, with what the log adds behind it. A snapshot that somebody else
sends is written to a file of another name until it is whole.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from streamlog.broker.log.partition import Origin, PartitionLog
from streamlog.broker.log.refusal import AppendRefused
from streamlog.broker.log.retention import delete_old_segments
from streamlog.broker.raft.messages import Position, SnapshotId
from streamlog.broker.raft.replicated_log import ControlRecord, RefusedBatches, VotersAt
from streamlog.broker.raft.snapshot import (
    DamagedSnapshot,
    Snapshot,
    decode_snapshot,
    encode_control_records,
    encode_snapshot,
    encode_values,
    parse_name,
)
from streamlog.broker.raft.voters import BOOTSTRAP_OFFSET
from streamlog.env import Buffer, Env, File
from streamlog.errors import EnvironmentFailure, RemoteProtocolError
from streamlog.wire.internal.control import ControlType, LeaderChangeMessage, decode_control_key
from streamlog.wire.internal.voters import KRaftVersionRecord, VotersRecord
from streamlog.wire.message import Message
from streamlog.wire.records import CorruptBatch, UnsupportedMagic, decode_records, iter_batch_headers

log = logging.getLogger(__name__)

READ_BYTES: Final = 1024 * 1024
"""How much of the log is read at a time when it is replayed."""

SNAPSHOTS_KEPT: Final = 2
"""The newest, and the one before it in case the newest is damaged."""

PART_SUFFIX: Final = ".part"
"""Of a snapshot that is not whole yet; Kafka's names for these have this ending too."""

SNAPSHOT_BYTES_MAX: Final = 1024 * 1024 * 1024
"""A leader's snapshot that is larger is refused: folded, it would not fit into memory either."""


class CommittedRecord(NamedTuple):
    offset: int
    value: bytes


class MetadataLog:
    """Implements `ReplicatedLog`. Errors of the disk are PartitionOffline or OSError: the end of this node."""

    def __init__(self, env: Env, directory: str, partition: PartitionLog) -> None:
        self._env = env
        self._directory = directory
        self.partition = partition
        self.bytes_since_snapshot = 0
        self._controls: list[int] = []  # base offsets of control batches behind the newest snapshot
        self._draft: tuple[SnapshotId, File, int] | None = None  # being received: name, file, bytes so far
        self._snapshots = list_snapshots(env, directory)
        self._newest: tuple[SnapshotId, Snapshot] | None = None
        self._load()

    def _load(self) -> None:
        """Find the newest whole snapshot, and the control records of the log behind it."""
        self._newest = None
        for snapshot_id in reversed(self._snapshots):
            try:
                snapshot = decode_snapshot(self._env.storage.read_bytes(self._path(snapshot_id)))
            except DamagedSnapshot as error:
                log.error("metadata snapshot %s is ignored: %s", snapshot_id.file_name, error)
                continue
            self._newest = snapshot_id, snapshot
            if snapshot_id.end_offset:
                self._env.hooks.sometimes("metadata snapshot loaded")
            break
        for stale in [found for found in self._snapshots if self._newest is None or found > self._newest[0]]:
            self._snapshots.remove(stale)
        partition = self.partition
        start_offset = 0 if self._newest is None else self._newest[0].end_offset
        if self._newest is not None and not self._leads_to(self._newest[0]):
            # A snapshot was received, and a crash came before the log gave way to it.
            self._env.hooks.sometimes("metadata log gave way to a snapshot after a crash")
            partition.truncate_fully_and_start_at(start_offset, self._env.clock.wall_ms())
        if start_offset < partition.log_start_offset:
            raise EnvironmentFailure(
                f"{self._directory} begins at offset {partition.log_start_offset}, and no snapshot reaches up to "
                "there; restore the missing .checkpoint file from a backup"
            )
        self._controls = []
        self.bytes_since_snapshot = 0
        for data in self._chunks(start_offset, partition.log_end_offset):
            self.bytes_since_snapshot += len(data)
            self._controls += [header.base_offset for _, header in iter_batch_headers(data) if header.is_control]

    def _leads_to(self, snapshot_id: SnapshotId) -> bool:
        """Whether the snapshot is the fold of this log's beginning: two logs that agree about the epoch at an offset
        agree about everything below. What a log has there of another epoch was never committed."""
        offset = snapshot_id.end_offset - 1
        if offset >= self.partition.log_end_offset:
            return False
        return offset < self.partition.log_start_offset or self.epoch_at(offset) == snapshot_id.epoch

    def take_snapshot(self) -> tuple[SnapshotId, Snapshot] | None:
        """The newest whole snapshot, decoded. It is not kept in memory: a second call reads it again."""
        found = self._newest
        if found is None:
            return None
        snapshot_id, snapshot = found
        if not snapshot.values and snapshot_id.end_offset > 0:
            snapshot = decode_snapshot(self._env.storage.read_bytes(self._path(snapshot_id)))
        self._newest = snapshot_id, snapshot._replace(values=[])
        return snapshot_id, snapshot

    # -- where it stands --------------------------------------------------------------------------------------

    @property
    def start_offset(self) -> int:
        return self.partition.log_start_offset

    @property
    def end_offset(self) -> int:
        return self.partition.log_end_offset

    @property
    def flushed_offset(self) -> int:
        return self.partition.flushed_offset

    @property
    def last_epoch(self) -> int:
        newest = 0 if self._newest is None else self._newest[0].epoch
        return max(self.partition.leader_epoch, newest)

    def end_of_epoch(self, epoch: int) -> Position | None:
        if epoch >= self.last_epoch:
            return Position(self.last_epoch, self.end_offset)
        entries = self.partition.epochs.entries()
        if entries and epoch >= entries[0][0]:
            return Position(*self.partition.end_offset_for_epoch(epoch))
        base = self._base()
        if base is None or epoch < base.epoch:
            return None
        return Position(base.epoch, base.end_offset)

    def _base(self) -> SnapshotId | None:
        """The snapshot that the log goes on from; None where it begins at the beginning."""
        start_offset = self.partition.log_start_offset
        return next((found for found in self._snapshots if found.end_offset == start_offset and start_offset), None)

    # -- reading ----------------------------------------------------------------------------------------------

    def read(self, offset: int, bytes_max: int) -> Buffer:
        return self.partition.read(offset, bytes_max, end_offset=self.end_offset).data

    def records(self, start_offset: int, end_offset: int) -> Iterator[CommittedRecord]:
        """Records of the state machine in [start_offset, end_offset)."""
        for data in self._chunks(start_offset, end_offset):
            for position, header in iter_batch_headers(data):
                if header.is_control:
                    continue
                columns = decode_records(data, position, header)
                for at, value in zip(columns.offsets, columns.values, strict=True):
                    if start_offset <= at < end_offset and value is not None:
                        yield CommittedRecord(at, value)

    def _chunks(self, start_offset: int, end_offset: int) -> Iterator[Buffer]:
        offset = start_offset
        while offset < end_offset:
            found = self.partition.read(offset, READ_BYTES, end_offset=end_offset)
            yield found.data
            offset = found.next_offset

    def epoch_at(self, offset: int) -> int:
        data = self.partition.read(offset, 1, end_offset=self.end_offset).data
        return next(iter_batch_headers(data))[1].leader_epoch

    def voter_records(self, start_offset: int) -> Iterable[VotersAt]:
        newest = self._newest
        if newest is not None and start_offset <= newest[0].end_offset:
            snapshot_id, snapshot = newest
            at = snapshot_id.end_offset - 1 if snapshot_id.end_offset else BOOTSTRAP_OFFSET
            if snapshot.voters is not None:
                yield VotersAt(at, KRaftVersionRecord(kraft_version=snapshot.kraft_version))
                yield VotersAt(at, snapshot.voters)
        for offset in self._controls[bisect_left(self._controls, start_offset) :]:
            yield from self._voters_in_batch(offset)

    def _voters_in_batch(self, offset: int) -> Iterator[VotersAt]:
        data = self.partition.read(offset, 1, end_offset=self.end_offset).data
        position, header = next(iter_batch_headers(data))
        columns = decode_records(data, position, header)
        for at, key, value in zip(columns.offsets, columns.keys, columns.values, strict=True):
            match decode_control_key(key or b""):
                case ControlType.KRAFT_VERSION:
                    yield VotersAt(at, KRaftVersionRecord.decode(value or b"", 0))
                case ControlType.KRAFT_VOTERS:
                    yield VotersAt(at, VotersRecord.decode(value or b"", 0))
                case _:
                    pass

    # -- appending and cutting --------------------------------------------------------------------------------

    def append_values(self, epoch: int, values: Sequence[bytes], now_ms: int) -> int:
        """Append records of the state machine as one batch. Returns the last one's offset. Raises PartitionOffline."""
        return self._append(encode_values(list(values), base_offset=0, epoch=epoch, now_ms=now_ms), epoch, now_ms)

    def append_control(self, epoch: int, records: Sequence[ControlRecord]) -> None:
        now_ms = self._env.clock.wall_ms()
        named: list[tuple[ControlType, Message]] = [(_control_type(record), record) for record in records]
        self._controls.append(self.end_offset)
        self._append(encode_control_records(named, base_offset=0, epoch=epoch, now_ms=now_ms), epoch, now_ms)

    def _append(self, batch: bytearray, epoch: int, now_ms: int) -> int:
        self.bytes_since_snapshot += len(batch)
        return self.partition.append(batch, leader_epoch=epoch, now_ms=now_ms, origin=Origin.COORDINATOR).last_offset

    def append_batches(self, batches: Buffer, epoch_max: int) -> None:
        data = bytearray(batches)
        controls: list[int] = []
        epoch, offset = self.last_epoch, self.end_offset
        try:
            for _, header in iter_batch_headers(data):
                if header.base_offset != offset or not epoch <= header.leader_epoch <= epoch_max:
                    raise RefusedBatches(
                        f"a batch at {header.base_offset} of epoch {header.leader_epoch} does not follow "
                        f"{offset} and epoch {epoch}"
                    )
                epoch, offset = header.leader_epoch, header.next_offset
                if header.is_control:
                    controls.append(header.base_offset)
            self.partition.append(data, leader_epoch=epoch_max, now_ms=self._env.clock.wall_ms(), origin=Origin.REPLICA)
        except (CorruptBatch, UnsupportedMagic, RemoteProtocolError, AppendRefused) as error:
            raise RefusedBatches(str(error)) from error
        self.bytes_since_snapshot += len(data)
        self._controls += controls

    def truncate_to(self, offset: int) -> None:
        del self._controls[bisect_left(self._controls, offset) :]
        self.partition.truncate_to(offset, self._env.clock.wall_ms())

    # -- snapshots --------------------------------------------------------------------------------------------

    def latest_snapshot(self) -> SnapshotId | None:
        found = self._snapshots[-1] if self._snapshots else None
        return found if found is not None and found.end_offset > 0 else None

    def snapshot_size(self, snapshot_id: SnapshotId) -> int | None:
        if snapshot_id not in self._snapshots:
            return None
        file = self._env.storage.open_file(self._path(snapshot_id))
        try:
            return file.size()
        finally:
            file.close()

    def read_snapshot(self, snapshot_id: SnapshotId, position: int, bytes_max: int) -> Buffer:
        file = self._env.storage.open_file(self._path(snapshot_id))
        try:
            return file.pread(bytes_max, position)
        finally:
            file.close()

    def store_snapshot(
        self, snapshot_id: SnapshotId, values: Sequence[bytes], voters: VotersRecord | None, kraft_version: int
    ) -> None:
        """Keep a snapshot of what is committed, and let go of the log below the one before it."""
        now_ms = self._env.clock.wall_ms()
        data = encode_snapshot(values, epoch=snapshot_id.epoch, voters=voters, last_timestamp_ms=now_ms, now_ms=now_ms)
        self._env.storage.write_atomic(self._path(snapshot_id), data)
        self._env.hooks.sometimes("metadata snapshot written")
        self._snapshots.append(snapshot_id)
        self._newest = snapshot_id, Snapshot([], voters, now_ms, kraft_version)
        self.bytes_since_snapshot = 0
        del self._controls[: bisect_left(self._controls, snapshot_id.end_offset)]
        self._drop_old()
        partition = self.partition
        partition.delete_records_before(self._snapshots[0].end_offset)
        delete_old_segments(partition, now_ms)
        log.info("metadata snapshot %s bytes=%d", snapshot_id.file_name, len(data))

    def _drop_old(self, kept: int = SNAPSHOTS_KEPT) -> None:
        for stale in self._snapshots[:-kept]:
            self._env.storage.remove(self._path(stale))
        del self._snapshots[:-kept]

    def begin_snapshot(self, snapshot_id: SnapshotId) -> None:
        self._drop_draft()
        path = self._path(snapshot_id) + PART_SUFFIX
        file = self._env.storage.open_file(path, create=True)
        file.truncate(0)
        self._draft = snapshot_id, file, 0

    def write_snapshot_part(self, data: Buffer) -> None:
        assert self._draft is not None, "a snapshot was begun"
        snapshot_id, file, size_bytes = self._draft
        if size_bytes + len(data) <= SNAPSHOT_BYTES_MAX:
            file.append(data)
        self._draft = snapshot_id, file, size_bytes + len(data)

    def finish_snapshot(self) -> bool:
        assert self._draft is not None, "a snapshot was begun"
        snapshot_id, file, _ = self._draft
        path = self._path(snapshot_id)
        storage = self._env.storage
        try:
            decode_snapshot(storage.read_bytes(path + PART_SUFFIX))
        except DamagedSnapshot as error:
            log.error("metadata snapshot %s was received damaged: %s", snapshot_id.file_name, error)
            self._drop_draft()
            return False
        file.fdatasync()
        file.close()
        self._draft = None
        storage.rename(path + PART_SUFFIX, path)
        storage.sync_directory(self._directory)
        self.partition.truncate_fully_and_start_at(snapshot_id.end_offset, self._env.clock.wall_ms())
        self._snapshots = [found for found in self._snapshots if found < snapshot_id] + [snapshot_id]
        self._drop_old(kept=1)
        self._load()
        return True

    def _drop_draft(self) -> None:
        if self._draft is not None:
            snapshot_id, file, _ = self._draft
            self._draft = None
            file.close()
            with suppress(FileNotFoundError):
                self._env.storage.remove(self._path(snapshot_id) + PART_SUFFIX)

    def close(self) -> None:
        """Leave no open file behind. The partition is its directory's to close."""
        self._drop_draft()

    def _path(self, snapshot_id: SnapshotId) -> str:
        return f"{self._directory}/{snapshot_id.file_name}"


def list_snapshots(env: Env, directory: str) -> list[SnapshotId]:
    """Snapshots in a metadata log's directory, oldest first."""
    found = (parse_name(name) for name in env.storage.list(directory))
    return sorted(snapshot_id for snapshot_id in found if snapshot_id is not None)


def _control_type(record: ControlRecord) -> ControlType:
    match record:
        case LeaderChangeMessage():
            return ControlType.LEADER_CHANGE
        case KRaftVersionRecord():
            return ControlType.KRAFT_VERSION
        case VotersRecord():
            return ControlType.KRAFT_VOTERS
