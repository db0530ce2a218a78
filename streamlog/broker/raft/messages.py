"""What the replicas of the metadata quorum tell each other, as values.

The driver turns Kafka's requests into these and back (`rpc.py`). Answers share their first fields: an error code, and
who leads which epoch as far as the answering replica knows, so that any answer corrects an asker that is behind.

Sources: KIP-595 (Vote, BeginQuorumEpoch, EndQuorumEpoch, Fetch), KIP-630 (FetchSnapshot), KIP-853 (voters that change),
KIP-996 (pre-vote), KIP-1166 (the follower's high watermark), KIP-1186 (voters that join by themselves).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from streamlog.wire.compiler import Buffer
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.schema import ZERO_UUID


class ReplicaKey(NamedTuple):
    """A replica: a node on one disk. The same node with another disk has forgotten its votes, and is another replica.

    The directory is ZERO_UUID where nobody knows it: with kraft.version 0 voters are known by number alone.
    """

    id: int
    directory_id: UUID = ZERO_UUID

    def __str__(self) -> str:
        return f"{self.id}" if self.directory_id == ZERO_UUID else f"{self.id}@{self.directory_id}"


class Endpoint(NamedTuple):
    """Where a replica listens, by listener name."""

    name: str
    host: str
    port: int


Endpoints: TypeAlias = tuple[Endpoint, ...]


class Position(NamedTuple):
    """The end of a log: the epoch of its last record, and the offset behind it. The greater one holds more."""

    epoch: int
    end_offset: int


class SnapshotId(NamedTuple):
    """Everything below `end_offset` is in the snapshot; `epoch` is that of the last record in it."""

    end_offset: int
    epoch: int

    @property
    def file_name(self) -> str:
        return f"{self.end_offset:020d}-{self.epoch:010d}.checkpoint"


class VersionRange(NamedTuple):
    """Levels of kraft.version, both ends included."""

    low: int
    high: int


class VoteRequest(msgspec.Struct, frozen=True):
    """`candidate` asks for the vote of `voter` in `epoch`; with `pre_vote`, whether it would get it."""

    voter: ReplicaKey | None
    epoch: int
    candidate: ReplicaKey
    log_end: Position
    pre_vote: bool


class BeginQuorumEpochRequest(msgspec.Struct, frozen=True):
    """The leader of `epoch` makes itself known."""

    voter: ReplicaKey | None
    epoch: int
    leader_id: int
    endpoints: Endpoints


class EndQuorumEpochRequest(msgspec.Struct, frozen=True):
    """The leader of `epoch` steps down and says who should stand next, the best first."""

    epoch: int
    leader_id: int
    candidates: tuple[ReplicaKey, ...]
    endpoints: Endpoints


class FetchRequest(msgspec.Struct, frozen=True):
    """`replica` has everything below `offset`, the last of it from `last_epoch`, and wants more."""

    replica: ReplicaKey
    epoch: int
    offset: int
    last_epoch: int
    wait_ms_max: int
    bytes_max: int
    high_watermark: int
    """What the replica knows to be committed; -1: nothing."""


class FetchSnapshotRequest(msgspec.Struct, frozen=True):
    replica: ReplicaKey
    epoch: int
    snapshot_id: SnapshotId
    position: int
    bytes_max: int


class AddVoterRequest(msgspec.Struct, frozen=True):
    voter: ReplicaKey
    endpoints: Endpoints
    timeout_ms: int
    ack_when_committed: bool = True


class RemoveVoterRequest(msgspec.Struct, frozen=True):
    voter: ReplicaKey


class UpdateVoterRequest(msgspec.Struct, frozen=True):
    epoch: int
    voter: ReplicaKey
    endpoints: Endpoints
    versions: VersionRange


class VersionsRequest(msgspec.Struct, frozen=True):
    """Which levels of kraft.version do you know? (ApiVersions)"""


Request: TypeAlias = (
    VoteRequest
    | BeginQuorumEpochRequest
    | EndQuorumEpochRequest
    | FetchRequest
    | FetchSnapshotRequest
    | AddVoterRequest
    | RemoveVoterRequest
    | UpdateVoterRequest
    | VersionsRequest
)


class Answer(msgspec.Struct, frozen=True):
    """What every answer begins with."""

    error: ErrorCode
    epoch: int
    leader_id: int | None
    leader_endpoints: Endpoints


class VoteResponse(msgspec.Struct, frozen=True):
    answer: Answer
    granted: bool


class BeginQuorumEpochResponse(msgspec.Struct, frozen=True):
    answer: Answer


class EndQuorumEpochResponse(msgspec.Struct, frozen=True):
    answer: Answer


class FetchResponse(msgspec.Struct, frozen=True):
    """Records from the asked offset on; or where the asker's log leaves the leader's; or the snapshot it needs."""

    answer: Answer
    high_watermark: int = -1
    log_start_offset: int = -1
    records: Buffer = b""
    diverging: Position | None = None
    """The newest epoch not above the asker's that the leader knows, and where it ends there."""
    snapshot_id: SnapshotId | None = None


class FetchSnapshotResponse(msgspec.Struct, frozen=True):
    answer: Answer
    snapshot_id: SnapshotId
    size_bytes: int = 0
    position: int = 0
    data: Buffer = b""


class VoterChangeResponse(msgspec.Struct, frozen=True):
    """To adding, removing and updating a voter alike."""

    answer: Answer
    message: str = ""


class VersionsResponse(msgspec.Struct, frozen=True):
    """`versions` None: the peer does not know kraft.version."""

    error: ErrorCode
    versions: VersionRange | None


Response: TypeAlias = (
    VoteResponse
    | BeginQuorumEpochResponse
    | EndQuorumEpochResponse
    | FetchResponse
    | FetchSnapshotResponse
    | VoterChangeResponse
    | VersionsResponse
)
