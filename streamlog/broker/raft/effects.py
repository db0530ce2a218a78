"""What the core wants done, in the order in which it has to be done.

The order is the contract: an election state that is persisted after the reply that promises it is a vote that a crash
takes back. Appends and truncations are no effects: the core does them itself through `ReplicatedLog`, and only
what `flushed_offset` covers is ever counted as being there.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from streamlog.broker.raft.messages import ReplicaKey, Request, Response, SnapshotId
from streamlog.broker.raft.peers import Peer


class PersistElection(msgspec.Struct, frozen=True):
    """Make these durable before any effect that follows in the list. A failure is the end of the node."""

    epoch: int
    leader_id: int | None
    voted_for: ReplicaKey | None


class Send(msgspec.Struct, frozen=True):
    """Send a request; its outcome comes back with the number: `on_response` or `on_failure`."""

    peer: Peer
    number: int
    request: Request


class Reply(msgspec.Struct, frozen=True):
    """Answer the request that came in under `token`."""

    token: int
    response: Response


class Flush(msgspec.Struct, frozen=True):
    """Make the log durable up to its present end, beside everything else, then call `on_flushed`."""


class HighWatermarkMoved(msgspec.Struct, frozen=True):
    """Everything below is committed, for ever."""

    high_watermark: int


class SnapshotLoaded(msgspec.Struct, frozen=True):
    """The log was replaced by this snapshot: whoever folds it begins anew there."""

    snapshot_id: SnapshotId


class LeaderChanged(msgspec.Struct, frozen=True):
    """Someone else leads, nobody does, or this replica does: then its first record stands at `start_offset`."""

    epoch: int
    leader_id: int | None
    start_offset: int | None = None


class Alarm(msgspec.Struct, frozen=True):
    """A peer says what cannot be, unless somebody lost what he had promised to keep. For the log, and for people."""

    text: str


Effect: TypeAlias = PersistElection | Send | Reply | Flush | HighWatermarkMoved | SnapshotLoaded | LeaderChanged | Alarm
