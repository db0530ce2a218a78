"""The driver of the metadata quorum: its files, its log, and who is told what is committed.

`__cluster_metadata-0/` holds a partition's log in Kafka's format, `quorum-state` (the vote), and snapshots. Records
go in with `append`, which gives the offset of the last of them at once; `commit` waits until that offset is committed,
and by then `on_committed` has been called. With one voter committed means synced; several appends share a sync.

A sync that fails is the end of this node: what it has promised is not certain any more (KIP-595 has no other answer).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, assert_never
from uuid import UUID

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.partition import Origin, PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.retention import delete_old_segments
from streamlog.broker.log.waiters import OffsetWaiters
from streamlog.broker.metadata.topic_names import CLUSTER_METADATA
from streamlog.broker.raft.messages import SnapshotId
from streamlog.broker.raft.snapshot import (
    DamagedSnapshot,
    Snapshot,
    decode_snapshot,
    encode_control_records,
    encode_snapshot,
    encode_values,
    parse_name,
)
from streamlog.broker.raft.sole_voter import AppendControl, PersistElection, SoleVoter
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure, RemoteProtocolError
from streamlog.wire.internal.control import ControlType, LeaderChangeMessage
from streamlog.wire.internal.quorum_state import QuorumState, decode_quorum_state, encode_quorum_state
from streamlog.wire.internal.voters import KRaftVersionRecord, Voter, VotersRecord
from streamlog.wire.message import Message
from streamlog.wire.records import decode_records, iter_batch_headers

log = logging.getLogger(__name__)

DIRECTORY_NAME: Final = f"{CLUSTER_METADATA}-0"
QUORUM_STATE_FILE: Final = "quorum-state"

READ_BYTES: Final = 1024 * 1024
"""How much of the log is read at a time when it is replayed."""

LOG_CONFIG: Final = LogConfig(
    retention_ms=-1, retention_bytes=-1, max_message_bytes=8 * 1024 * 1024, segment_bytes=64 * 1024 * 1024
)
"""Nothing is deleted by age: only a snapshot makes records superfluous. 8 MiB is Kafka's limit for a batch."""

METADATA_TOPIC_ID: Final = UUID(int=1)
"""Kafka's."""

SNAPSHOTS_KEPT: Final = 2
"""The newest, and the one before it in case the newest is damaged."""


class CommittedRecord(NamedTuple):
    offset: int
    value: bytes


class Quorum:
    """Opened, then replayed, then started; afterwards it leads until the node stops."""

    def __init__(
        self,
        env: Env,
        directory: str,
        flusher: Flusher,
        scope: Scope,
        partition: PartitionLog,
        voter: SoleVoter,
    ) -> None:
        self._env = env
        self._directory = directory
        self._flusher = flusher
        self._scope = scope
        self.partition = partition
        self.voter = voter
        self.committed_end_offset = 0
        """Exclusive: everything below is committed, and `on_committed` has been told."""
        self.on_committed: Callable[[int], None] = lambda end_offset: None
        """Called with the new end offset, in order, before any `commit` that waited for it returns."""
        self.snapshot_end_offset = 0
        """End offset of the newest snapshot; 0 when there is none but the one a cluster is formatted with."""
        self.bytes_since_snapshot = 0
        self._commits = False  # a task syncs what is appended
        self._waiters = OffsetWaiters(0)  # for committed_end_offset

    @classmethod
    def open(cls, env: Env, logs: LogDirectory, flusher: Flusher, scope: Scope, voter: Voter, now_ms: int) -> Quorum:
        """Open the metadata log of a data directory; a new directory is formatted first.

        Raises EnvironmentFailure or PartitionOffline.
        """
        directory = f"{logs.path}/{DIRECTORY_NAME}"
        if not env.storage.is_directory(directory):
            _format(env, directory, voter, now_ms)
        path = f"{directory}/{QUORUM_STATE_FILE}"
        state: QuorumState | None = None
        if env.storage.exists(path):
            try:
                state, _ = decode_quorum_state(env.storage.read_bytes(path))
            except RemoteProtocolError as error:
                raise EnvironmentFailure(f"{path} is damaged: {error}") from error
        snapshots = list_snapshots(env, directory)
        start = snapshots[-1] if snapshots else SnapshotId(0, 0)
        partition = logs.open_partition(CLUSTER_METADATA, 0, METADATA_TOPIC_ID, LOG_CONFIG, now_ms)
        core = SoleVoter(voter, state, max(partition.leader_epoch, start.epoch))
        return cls(env, directory, flusher, scope, partition, core)

    # -- at start ---------------------------------------------------------------------------------------------

    def load_snapshot(self) -> tuple[SnapshotId, Snapshot] | None:
        """The newest snapshot that is whole; None when there is none. The log goes on from its end."""
        for snapshot_id in reversed(list_snapshots(self._env, self._directory)):
            try:
                snapshot = decode_snapshot(self._env.storage.read_bytes(f"{self._directory}/{snapshot_id.file_name}"))
            except DamagedSnapshot as error:
                log.error("metadata snapshot %s is ignored: %s", snapshot_id.file_name, error)
                continue
            self.snapshot_end_offset = snapshot_id.end_offset
            if snapshot_id.end_offset:
                self._env.hooks.sometimes("metadata snapshot loaded")
            return snapshot_id, snapshot
        return None

    def replay(self, start_offset: int) -> Iterator[CommittedRecord]:
        """All records of the log from an offset on, control records left out.

        A quorum of one had nobody to lose an argument with: what is in its log is committed. The log that recovery
        left behind is what counts from here on, acknowledged or not.
        """
        partition = self.partition
        if start_offset < partition.log_start_offset:
            raise EnvironmentFailure(
                f"{self._directory} begins at offset {partition.log_start_offset}, and no snapshot reaches up to "
                "there; restore the missing .checkpoint file from a backup"
            )
        end_offset = partition.log_end_offset
        offset = start_offset
        while offset < end_offset:
            read = partition.read(offset, READ_BYTES, end_offset=end_offset)
            for position, header in iter_batch_headers(read.data):
                if header.is_control:
                    continue
                columns = decode_records(read.data, position, header)
                for at, value in zip(columns.offsets, columns.values, strict=True):
                    if at >= start_offset and value is not None:
                        yield CommittedRecord(at, value)
            self.bytes_since_snapshot += len(read.data)
            offset = read.next_offset
        self.committed_end_offset = end_offset
        self._waiters.advance(end_offset)

    async def start(self, now_ms: int) -> None:
        """Become leader of the next epoch. Returns when its first record is committed, and with it all before."""
        empty = self.partition.log_end_offset == 0
        for effect in self.voter.on_start(log_is_empty=empty):
            match effect:
                case PersistElection(state):
                    self._env.storage.write_atomic(
                        f"{self._directory}/{QUORUM_STATE_FILE}", encode_quorum_state(state, 1)
                    )
                case AppendControl(epoch, records):
                    named: list[tuple[ControlType, Message]] = [(_control_type(record), record) for record in records]
                    batch = encode_control_records(named, base_offset=0, epoch=epoch, now_ms=now_ms)
                    await self.commit(self._append(batch, now_ms))
                case _:
                    assert_never(effect)
        log.info("quorum epoch=%d role=leader leo=%d", self.voter.epoch, self.partition.log_end_offset)

    # -- serving ----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.voter.epoch

    @property
    def next_offset(self) -> int:
        return self.partition.log_end_offset

    def append(self, values: Sequence[bytes], now_ms: int) -> int:
        """Append records as one batch, which is there wholly or not at all. Returns the last one's offset.

        Raises PartitionOffline when the disk refuses; nothing has been appended then.
        """
        assert self.voter.is_leader, "only the leader appends"
        return self._append(encode_values(list(values), base_offset=0, epoch=self.epoch, now_ms=now_ms), now_ms)

    def _append(self, batch: bytearray, now_ms: int) -> int:
        result = self.partition.append(batch, leader_epoch=self.epoch, now_ms=now_ms, origin=Origin.COORDINATOR)
        self.bytes_since_snapshot += len(batch)
        if not self._commits:
            self._commits = True
            self._scope.spawn("commit metadata", self._commit_appended())
        return result.last_offset

    async def commit(self, offset: int) -> None:
        """Return once `offset` is committed. Raises PartitionOffline when it cannot be known any more.

        Cancelling changes nothing about the commit: that does not depend on anybody waiting for it.
        """
        await self._waiters.reached(offset + 1)

    async def _commit_appended(self) -> None:
        """Sync until everything is; then end, until the next append. Its failure is the end of the node."""
        partition = self.partition
        try:
            while partition.flushed_offset < partition.log_end_offset:
                await self._flusher.flushed(partition, partition.log_end_offset)
                self._advance(partition.flushed_offset)
        except PartitionOffline as error:
            self._waiters.fail(error)
            raise
        finally:
            self._commits = False

    def _advance(self, end_offset: int) -> None:
        self.partition.high_watermark = self.committed_end_offset = end_offset
        self.on_committed(end_offset)
        self._waiters.advance(end_offset)

    # -- snapshots --------------------------------------------------------------------------------------------

    def write_snapshot(self, values: Sequence[bytes], end_offset: int, now_ms: int) -> None:
        """Store the fold of everything below `end_offset`, which is committed, and let go of the log below it."""
        assert end_offset <= self.committed_end_offset, "a snapshot holds what is committed"
        snapshot_id = SnapshotId(end_offset, self._epoch_at(end_offset - 1))
        data = encode_snapshot(
            values, epoch=snapshot_id.epoch, voters=self.voter.voter_set, last_timestamp_ms=now_ms, now_ms=now_ms
        )
        self._env.storage.write_atomic(f"{self._directory}/{snapshot_id.file_name}", data)
        self._env.hooks.sometimes("metadata snapshot written")
        self.snapshot_end_offset, self.bytes_since_snapshot = end_offset, 0
        old = list_snapshots(self._env, self._directory)[:-SNAPSHOTS_KEPT]
        for stale in old:
            self._env.storage.remove(f"{self._directory}/{stale.file_name}")
        kept = list_snapshots(self._env, self._directory)[0]
        self.partition.delete_records_before(kept.end_offset)
        delete_old_segments(self.partition, now_ms)
        log.info("metadata snapshot %s bytes=%d", snapshot_id.file_name, len(data))

    def _epoch_at(self, offset: int) -> int:
        """Leader epoch of the record at `offset`."""
        data = self.partition.read(offset, 1, end_offset=self.partition.log_end_offset).data
        return next(iter_batch_headers(data))[1].leader_epoch


def list_snapshots(env: Env, directory: str) -> list[SnapshotId]:
    """Snapshots in a metadata log's directory, oldest first."""
    found = (parse_name(name) for name in env.storage.list(directory))
    return sorted(snapshot_id for snapshot_id in found if snapshot_id is not None)


def _format(env: Env, directory: str, voter: Voter, now_ms: int) -> None:
    """Make the directory with the snapshot that names the first voter, as `kafka-storage format --standalone` does.

    The directory appears whole or not at all.
    """
    draft = f"{directory}.formatting"
    env.storage.make_directory(draft)
    data = encode_snapshot((), epoch=0, voters=VotersRecord(voters=[voter]), last_timestamp_ms=now_ms, now_ms=now_ms)
    env.storage.write_atomic(f"{draft}/{SnapshotId(0, 0).file_name}", data)
    env.storage.rename(draft, directory)


def check_voter(voters: VotersRecord | None, expected: Voter) -> None:
    """Raise EnvironmentFailure when the log belongs to another quorum, or to another disk of this node."""
    if voters is None:
        return
    numbers = [voter.voter_id for voter in voters.voters]
    if [(voter.voter_id, voter.voter_directory_id) for voter in voters.voters] != [
        (expected.voter_id, expected.voter_directory_id)
    ]:
        raise EnvironmentFailure(
            f"the metadata log belongs to the voters {numbers}, and this is node {expected.voter_id} on a disk that "
            "is not among theirs; start it with the node.id and the data directory that were formatted together"
        )


def _control_type(record: LeaderChangeMessage | KRaftVersionRecord | VotersRecord) -> ControlType:
    match record:
        case LeaderChangeMessage():
            return ControlType.LEADER_CHANGE
        case KRaftVersionRecord():
            return ControlType.KRAFT_VERSION
        case VotersRecord():
            return ControlType.KRAFT_VOTERS
