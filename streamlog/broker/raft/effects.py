"""What the core wants done, in the order in which it has to be done.

The order is the contract: an election state that is persisted after the reply that promises it is a vote that a crash
takes back. Appends and truncations are no effects: the core does them itself through `ReplicatedLog`, and only
what `flushed_offset` covers is ever counted as being there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from streamlog.broker.raft.messages import ReplicaKey, Request, Response, SnapshotId
from streamlog.broker.raft.peers import Peer


@dataclass(frozen=True, slots=True)
class PersistElection:
    """Make these durable before any effect that follows in the list. A failure is the end of the node."""

    epoch: int
    leader_id: int | None
    voted_for: ReplicaKey | None


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; its outcome comes back with the number: `on_response` or `on_failure`."""

    peer: Peer
    number: int
    request: Request


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request that came in under `token`."""

    token: int
    response: Response


@dataclass(frozen=True, slots=True)
class Flush:
    """Make the log durable up to its present end, beside everything else, then call `on_flushed`."""


@dataclass(frozen=True, slots=True)
class HighWatermarkMoved:
    """Everything below is committed, for ever."""

    high_watermark: int


@dataclass(frozen=True, slots=True)
class SnapshotLoaded:
    """The log was replaced by this snapshot: whoever folds it begins anew there."""

    snapshot_id: SnapshotId


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """Someone else leads, nobody does, or this replica does: then its first record stands at `start_offset`."""

    epoch: int
    leader_id: int | None
    start_offset: int | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A peer says what cannot be, unless somebody lost what he had promised to keep. For the log, and for people."""

    text: str


Effect: TypeAlias = PersistElection | Send | Reply | Flush | HighWatermarkMoved | SnapshotLoaded | LeaderChanged | Alarm
