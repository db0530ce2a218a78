"""The log as the core sees it: a partition's log in production (`metadata_log.py`), a list in tests.

Offsets, epochs and snapshots behave as in `broker/log`; all calls are synchronous and do what they say at once. Nothing
that is appended counts as kept until `flushed_offset` covers it; truncations and finished snapshots are durable
when the call returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from streamlog.broker.raft.messages import Position, SnapshotId
from streamlog.errors import StreamlogError
from streamlog.wire.compiler import Buffer
from streamlog.wire.internal.control import LeaderChangeMessage
from streamlog.wire.internal.voters import KRaftVersionRecord, VotersRecord

ControlRecord: TypeAlias = LeaderChangeMessage | KRaftVersionRecord | VotersRecord


class RefusedBatches(StreamlogError):
    """What a leader sent does not follow what is here, or is damaged. Nothing was appended."""


class VotersAt(NamedTuple):
    """A record of the log that says who votes, or how."""

    offset: int
    record: VotersRecord | KRaftVersionRecord


class ReplicatedLog(Protocol):
    @property
    def start_offset(self) -> int: ...

    @property
    def end_offset(self) -> int: ...

    @property
    def flushed_offset(self) -> int:
        """Everything below survives a crash."""
        ...

    @property
    def last_epoch(self) -> int:
        """Epoch of the last record, in the log or in the snapshot before it; 0 where there is none."""
        ...

    def end_of_epoch(self, epoch: int) -> Position | None:
        """The newest epoch not above `epoch` that has records here or ends the snapshot, and its end.

        None when the log begins later than that: a snapshot has to say.
        """
        ...

    def read(self, offset: int, bytes_max: int) -> Buffer:
        """Whole batches from `offset` on, at least one; empty at the end."""
        ...

    def append_control(self, epoch: int, records: Sequence[ControlRecord]) -> None:
        """Append one control batch."""
        ...

    def append_batches(self, batches: Buffer, epoch_max: int) -> None:
        """Append what a leader of `epoch_max` sent, as it is. Raises RefusedBatches, and has appended nothing then."""
        ...

    def truncate_to(self, offset: int) -> None: ...

    def voter_records(self, start_offset: int) -> Iterable[VotersAt]:
        """Records from `start_offset` on that say who votes, those of the newest snapshot first if it ends there.

        A snapshot's records stand at its last offset, or at -1 in the one a cluster is formatted with.
        """
        ...

    # -- snapshots --------------------------------------------------------------------------------------------

    def latest_snapshot(self) -> SnapshotId | None:
        """The newest; None when there is none but the one a cluster is formatted with."""
        ...

    def snapshot_size(self, snapshot_id: SnapshotId) -> int | None:
        """Its size in bytes; None when it is not here."""
        ...

    def read_snapshot(self, snapshot_id: SnapshotId, position: int, bytes_max: int) -> Buffer: ...

    def begin_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Somebody else's snapshot will be written here; one that was begun before is dropped."""
        ...

    def write_snapshot_part(self, data: Buffer) -> None: ...

    def finish_snapshot(self) -> bool:
        """The snapshot is complete: it replaces the log, which goes on at its end. False: damaged, and dropped."""
        ...
