"""The metadata quorum, as far as it decides (KIP-595).

A voter is unattached, follower, candidate or leader of an epoch. With one voter there is nobody to ask and nobody
who could disagree: it opens its log, votes for itself in the epoch after the newest it knows, and leads. What
stays of Raft even then, and is here: the vote is durable before anything is written under it; a new leader writes a
LeaderChange record first, because only a record of its own epoch may commit those of older ones; a record is committed
when a majority of the voters has it on disk, which for one voter means fsync.

`SoleVoter` decides by returning effects, in the order in which they have to be performed. Elections between several
voters, Fetch-driven replication and changes of the voter set widen this file, not its callers: whoever appends goes
on appending to the leader and being told what is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from streamlog.wire.internal.control import LeaderChangeMessage
from streamlog.wire.internal.control import Voter as VoterId
from streamlog.wire.internal.quorum_state import QuorumState
from streamlog.wire.internal.voters import KRaftVersionRecord, Voter, VotersRecord
from streamlog.wire.schema import ZERO_UUID

KRAFT_VERSION = 1
"""Voters have directory ids and may change (KIP-853)."""


@dataclass(frozen=True, slots=True)
class PersistElection:
    """Make epoch, vote and leader durable before any effect that follows in the list."""

    state: QuorumState


@dataclass(frozen=True, slots=True)
class AppendControl:
    """Append these as one control batch under `epoch`. No record of the epoch precedes them."""

    epoch: int
    records: tuple[LeaderChangeMessage | KRaftVersionRecord | VotersRecord, ...]


Effect: TypeAlias = PersistElection | AppendControl


class SoleVoter:
    """The quorum of one."""

    def __init__(self, voter: Voter, state: QuorumState | None, log_epoch: int) -> None:
        """`state`: what `quorum-state` holds, None on a new disk. `log_epoch`: the newest in the log or a snapshot."""
        self.voter = voter
        self.epoch = max(0 if state is None else state.leader_epoch, log_epoch, 0)
        self.is_leader = False

    @property
    def voter_set(self) -> VotersRecord:
        return VotersRecord(voters=[self.voter])

    def on_start(self, *, log_is_empty: bool) -> list[Effect]:
        """Begin the next epoch and lead it. A new log also gets the voters, which a snapshot would otherwise hold."""
        assert not self.is_leader, "a voter starts once"
        self.epoch += 1
        self.is_leader = True
        myself = VoterId(voter_id=self.voter.voter_id)
        change = LeaderChangeMessage(leader_id=self.voter.voter_id, voters=[myself], granting_voters=[myself])
        records: tuple[LeaderChangeMessage | KRaftVersionRecord | VotersRecord, ...] = (change,)
        if log_is_empty:
            records = (change, KRaftVersionRecord(kraft_version=KRAFT_VERSION), self.voter_set)
        return [PersistElection(self._state()), AppendControl(self.epoch, records)]

    def _state(self) -> QuorumState:
        return QuorumState(
            leader_id=self.voter.voter_id, leader_epoch=self.epoch, voted_id=-1, voted_directory_id=ZERO_UUID
        )
