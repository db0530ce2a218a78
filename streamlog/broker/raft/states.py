"""What a replica of the metadata quorum can be, and what it remembers while it is that.

    Unattached   knows no leader it could ask; waits for an election, or for one to become known
    Prospective  asks whether it would be elected, without disturbing anybody (pre-vote)
    Candidate    stands for election in an epoch of its own
    Leader       appends, and counts who has what
    Follower     fetches from the leader
    Resigned     was leader, tells the others, and waits for one of them to stand

    Unattached  -> Prospective   election timeout               Prospective -> Candidate   a majority would vote for it
    Follower    -> Prospective   the leader is silent           Prospective -> Follower    it would lose; the old leader
    Candidate   -> Prospective   lost, or nobody answered       Prospective -> Unattached  it would lose; no leader
    Candidate   -> Leader        a majority voted for it        Leader      -> Resigned    stop, removal, no majority
    Resigned    -> Unattached    nobody stood for election      any         -> Unattached  a higher epoch, no leader
    any         -> Follower      someone leads this epoch or a higher one

Observers, which do not vote, are Unattached or Follower. Whether a replica votes is no state: the voters in its log say
so, and may change under any of these.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from streamlog.broker.raft.messages import Endpoints, FetchRequest, ReplicaKey, SnapshotId
from streamlog.broker.raft.peers import NEVER_MS, Peer
from streamlog.broker.raft.voters import VoterSet


class Ballot(msgspec.Struct):
    """Who has said what to one candidate. Only votes of those count who vote at the moment of counting."""

    granted: set[int] = set()
    rejected: set[int] = set()

    def record(self, voter_id: int, granted: bool) -> None:
        """The first answer of a voter counts: it cannot change its mind within an epoch. Who was asked beforehand can,
        and is asked anew."""
        if voter_id not in self.granted and voter_id not in self.rejected:
            (self.granted if granted else self.rejected).add(voter_id)

    def is_won(self, voters: VoterSet) -> bool:
        return len(self.granted.intersection(voters.ids)) >= voters.majority

    def is_lost(self, voters: VoterSet) -> bool:
        return len(voters) - len(self.rejected.intersection(voters.ids)) < voters.majority

    def unasked(self, voters: VoterSet) -> list[int]:
        return [voter_id for voter_id in voters.ids if voter_id not in self.granted and voter_id not in self.rejected]


class Unattached(msgspec.Struct):
    election_deadline_ms: int


class Prospective(msgspec.Struct):
    election_deadline_ms: int
    ballot: Ballot
    retries: int = 0
    """Elections lost in a row; the pause after the next grows with it."""
    again_at_ms: int = NEVER_MS
    """When to ask those again who would not vote for us."""


class Candidate(msgspec.Struct):
    election_deadline_ms: int
    ballot: Ballot
    retries: int = 0
    retry_at_ms: int | None = None
    """Set once a voter has refused: when to try again, if the others do not make a majority by then."""


class Download(msgspec.Struct):
    """A snapshot that is fetched instead of records. It outlives the role, not the epoch: only the same leader has the
    same bytes under this name."""

    snapshot_id: SnapshotId
    position: int = 0
    """What we have of it, in bytes."""


class Follower(msgspec.Struct):
    leader: Peer
    fetch_deadline_ms: int
    voter_check_at_ms: int
    """When to see whether the voter set knows us as we are."""
    has_fetched: bool = False
    """The leader has answered a fetch: it is alive, and who asks for pre-votes is not needed."""
    is_leader_gone: bool = False
    """Its connection broke, or it said that it resigns. Until the next answer, anybody may stand."""
    leader_high_watermark: int = -1
    """As last told; ours follows as far as our disk has come."""
    asked_at_ms: int | None = None
    """When the leader was asked for what it has not answered yet."""


class Progress(msgspec.Struct):
    """What the leader knows about one replica."""

    key: ReplicaKey
    end_offset: int = -1
    """Everything below is on that replica's disk; -1: it has not fetched yet."""
    fetched_at_ms: int = -1
    leader_end_offset: int = -1
    """Where the leader's log ended at that fetch."""
    caught_up_at_ms: int = -1
    """When the replica last had everything the leader had."""

    def note_fetch(self, offset: int, leader_end_offset: int, now_ms: int) -> None:
        if offset >= leader_end_offset:
            self.caught_up_at_ms = now_ms
        elif self.leader_end_offset >= 0 and offset >= self.leader_end_offset:
            self.caught_up_at_ms = self.fetched_at_ms
        self.end_offset = offset
        self.fetched_at_ms = now_ms
        self.leader_end_offset = leader_end_offset


class ParkedFetch(msgspec.Struct, frozen=True):
    """A fetch that had nothing to get yet."""

    request: FetchRequest
    expires_at_ms: int


class VoterChange(msgspec.Struct):
    """A change of the voters that somebody waits for; one at a time."""

    token: int
    expires_at_ms: int
    joining: ReplicaKey | None = None
    """The voter to be added, while it is asked which versions it knows."""
    joining_endpoints: Endpoints = ()
    ack_when_committed: bool = True
    offset: int | None = None
    """Of the record with the new voters, once it is appended."""


class Leader(msgspec.Struct):
    start_offset: int
    """Offset of the first record of this epoch. Only with it is anything before it committed."""
    check_quorum_deadline_ms: int
    """A majority has to fetch before."""
    announce_at_ms: int
    """When to tell those voters again who do not fetch."""
    voters: dict[int, Progress]
    observers: dict[ReplicaKey, Progress] = {}
    fetched: set[int] = set()
    """Voters that have fetched since the check quorum deadline was last moved."""
    high_watermark: int | None = None
    """None until a record of this epoch is committed."""
    parked: dict[int, ParkedFetch] = {}
    """By token, in order of arrival."""
    change: VoterChange | None = None


class Resigned(msgspec.Struct):
    election_deadline_ms: int
    unacknowledged: set[int]
    candidates: tuple[ReplicaKey, ...]


State: TypeAlias = Unattached | Prospective | Candidate | Leader | Follower | Resigned
