"""One replica's memory, and its changes of role. The message families work on it; nothing here answers anybody.

Three things survive a crash: the epoch, the leader and the vote in it. They only ever change in `_enter`, which puts
their persisting in front of everything that follows from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from streamlog.broker.pace import Pace
from streamlog.broker.raft.effects import Effect, HighWatermarkMoved, LeaderChanged, PersistElection, Send
from streamlog.broker.raft.messages import (
    Answer,
    Endpoints,
    Position,
    ReplicaKey,
    Request,
    SnapshotId,
    VersionRange,
)
from streamlog.broker.raft.peers import Outbox, Peer
from streamlog.broker.raft.replicated_log import ControlRecord, ReplicatedLog
from streamlog.broker.raft.states import (
    Ballot,
    Candidate,
    Download,
    Follower,
    Leader,
    Progress,
    Prospective,
    Resigned,
    State,
    Unattached,
)
from streamlog.broker.raft.voters import BOOTSTRAP_OFFSET, VoterHistory, VoterNode, VoterSet
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.control import LeaderChangeMessage
from streamlog.wire.internal.control import Voter as VoterId
from streamlog.wire.internal.voters import KRaftVersionRecord
from streamlog.wire.schema import ZERO_UUID

KRAFT_VERSIONS: Final = VersionRange(0, 1)
"""What we know: voters of the settings (0), and voters that change (1)."""

NO_VOTERS: Final = VoterSet()

FIRST_BOOTSTRAP_ID: Final = -2
"""Bootstrap servers count down from here, as in Kafka; -1 is nobody."""

FETCH_JITTER: Final = 8
"""Followers wait up to this part of a fetch timeout longer than the timeout: some ten elections long by default."""


class RaftConfig(msgspec.Struct, frozen=True):
    """What a replica is told when it starts. Kafka's settings and defaults."""

    key: ReplicaKey
    listener: str
    """Name of the listener by which replicas reach each other."""
    endpoints: Endpoints = ()
    """Our own."""
    versions: VersionRange = KRAFT_VERSIONS
    can_vote: bool = True
    """A controller. It makes everything durable before it says that it has it; brokers, which never vote, need not."""
    static_voters: VoterSet = NO_VOTERS
    bootstrap: tuple[tuple[str, int], ...] = ()
    auto_join: bool = False
    election_timeout_ms: int = 1000
    election_backoff_ms_max: int = 1000
    fetch_timeout_ms: int = 2000
    request_timeout_ms: int = 2000
    retry_backoff_ms: int = 20
    fetch_wait_ms_max: int = 500
    fetch_bytes_max: int = 1024 * 1024
    """Of records, in one answer; a batch that is larger comes whole."""
    snapshot_bytes_max: int = 1024 * 1024
    """Of a snapshot, in one answer."""

    @property
    def patience_ms(self) -> int:
        """How long an answer of the leader may take, until a follower gives up the request, or the leader."""
        return min(self.request_timeout_ms, self.fetch_timeout_ms)


class Replica:
    def __init__(self, config: RaftConfig, log: ReplicatedLog, draw_ms: Callable[[int], int]) -> None:
        """`draw_ms(n)`: a random number in [0, n)."""
        self.config = config
        self.log = log
        self.draw_ms = draw_ms
        self.outbox = Outbox(config.request_timeout_ms, config.retry_backoff_ms)
        self.history = VoterHistory(config.static_voters)
        self.epoch = 0
        self.leader_id: int | None = None
        self.leader_endpoints: Endpoints = ()
        self.voted_for: ReplicaKey | None = None
        self.high_watermark = 0
        """Everything below is committed, as far as we know. Never falls."""
        self.state: State = Unattached(0)
        self.former: Leader | None = None
        """The leader we were until this event; those who wait for it are still to be told."""
        self.download: Download | None = None
        """A snapshot of this epoch's leader that has come in part."""
        self.fetch_pace = Pace(config.fetch_bytes_max)
        self.snapshot_pace = Pace(config.snapshot_bytes_max)
        """How much to ask of the leader at a time: of its records, of a snapshot."""
        self._paced_leader_id: int | None = None
        self.is_stopping = False
        self.asked_last = 0
        """Whom we asked last for the leader, so that the next one is somebody else."""
        self.effects: list[Effect] = []
        self._persisted: tuple[int, int | None, ReplicaKey | None] = (0, None, None)
        self._told: tuple[int, int | None] = (-1, None)

    # -- questions --------------------------------------------------------------------------------------------

    @property
    def key(self) -> ReplicaKey:
        return self.config.key

    @property
    def voters(self) -> VoterSet:
        return self.history.voters

    @property
    def is_voter(self) -> bool:
        return self.config.can_vote and self.voters.has(self.key)

    @property
    def log_end(self) -> Position:
        return Position(self.log.last_epoch, self.log.end_offset)

    @property
    def kept_offset(self) -> int:
        """What we may tell others that we have."""
        return self.log.flushed_offset if self.config.can_vote else self.log.end_offset

    @property
    def myself(self) -> VoterNode:
        return VoterNode(self.key, self.config.endpoints, self.config.versions)

    def answer(self, error: ErrorCode) -> Answer:
        return Answer(error, self.epoch, self.leader_id, self.leader_endpoints)

    def peer(self, node_id: int, endpoints: Endpoints) -> Peer | None:
        address = VoterNode(ReplicaKey(node_id), endpoints).address(self.config.listener)
        return None if address is None else Peer(node_id, *address)

    # -- small changes ----------------------------------------------------------------------------------------

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def send(self, peer: Peer, request: Request, now_ms: int) -> None:
        self.emit(Send(peer, self.outbox.note_sent(peer.id, request, now_ms), request))

    def draw_election_ms(self) -> int:
        """Between one and two timeouts, so that the voters do not all stand at once."""
        return self.config.election_timeout_ms + self.draw_ms(self.config.election_timeout_ms)

    def draw_fetch_deadline_ms(self, now_ms: int) -> int:
        """When a leader that is heard now has been silent for too long. Followers are answered at the same moments,
        by every append: without a share of chance they would all stand at once."""
        timeout_ms = self.config.fetch_timeout_ms
        return now_ms + timeout_ms + self.draw_ms(max(1, timeout_ms // FETCH_JITTER))

    def advance_high_watermark(self, offset: int) -> bool:
        """Note that everything below is committed. Says whether that was news."""
        if offset <= self.high_watermark:
            return False
        self.high_watermark = offset
        self.emit(HighWatermarkMoved(offset))
        return True

    def note_appended(self, start_offset: int) -> None:
        """Records were appended from there on: some may say who votes."""
        for offset, record in self.log.voter_records(start_offset):
            self.history.note(offset, record)
        if isinstance(self.state, Leader):
            self._match_progress(self.state)

    def load_voters(self) -> None:
        """At start, and when a snapshot has replaced the log: read who votes."""
        self.history.forget_all()
        for offset, record in self.log.voter_records(0):
            self.history.note(offset, record)

    def truncate(self, offset: int) -> None:
        self.log.truncate_to(offset)
        self.history.forget_from(offset)

    # -- roles ------------------------------------------------------------------------------------------------

    def restore(self, epoch: int, leader_id: int | None, voted_for: ReplicaKey | None, now_ms: int) -> None:
        """Begin with what was persisted; the log may know a later epoch.

        Whoever led when it stopped does not lead that epoch any more: it cannot know whether the end of its log, which
        it may have lost, is somewhere else.
        """
        self.load_voters()
        snapshot = self.log.latest_snapshot()
        self.high_watermark = max(self.log.start_offset, 0 if snapshot is None else snapshot.end_offset)
        self._persisted = (epoch, leader_id, voted_for)
        self.epoch, self.voted_for = epoch, voted_for
        self.state = Unattached(now_ms + self.draw_election_ms())
        if self.log.last_epoch > epoch:
            self.become_unattached(self.log.last_epoch, now_ms)
            return
        if leader_id is not None and leader_id != self.key.id:
            self.follow_or_wait(epoch, leader_id, (), now_ms)

    def follow_or_wait(self, epoch: int, leader_id: int | None, endpoints: Endpoints, now_ms: int) -> None:
        """Someone may lead `epoch`: follow if we know where it is."""
        if leader_id is None or leader_id == self.key.id:
            self.become_unattached(epoch, now_ms)
            return
        endpoints = endpoints or self.voters.endpoints(leader_id)
        peer = self.peer(leader_id, endpoints)
        if peer is None:
            self.become_unattached(epoch, now_ms)
        else:
            self._become_follower(epoch, peer, endpoints, now_ms)

    def become_unattached(self, epoch: int, now_ms: int, *, voted_for: ReplicaKey | None = None) -> None:
        """A higher epoch, in which nobody leads yet; or this one, without a leader, or with a vote that we give."""
        assert epoch >= self.epoch, "epochs never fall"
        if voted_for is None and epoch == self.epoch:
            voted_for = self.voted_for
        deadline_ms = now_ms + self.draw_election_ms()
        if epoch > self.epoch and not isinstance(self.state, Leader):
            # A higher epoch alone is no reason to wait longer, or one that never wins could keep all others from it.
            deadline_ms = min(deadline_ms, self._patience_ends_at_ms(deadline_ms))
        self._enter(Unattached(deadline_ms), epoch, None, (), voted_for)

    def _patience_ends_at_ms(self, otherwise_ms: int) -> int:
        match self.state:
            case Unattached() | Prospective() | Candidate() | Resigned():
                return self.state.election_deadline_ms
            case Follower():
                return self.state.fetch_deadline_ms
            case Leader():
                return otherwise_ms

    def become_prospective(self, now_ms: int, retries: int = 0) -> None:
        assert self.is_voter, "observers do not stand"
        ballot = Ballot({self.key.id})
        state = Prospective(now_ms + self.draw_election_ms(), ballot, retries)
        self._enter(state, self.epoch, self.leader_id, self.leader_endpoints, self.voted_for)

    def become_candidate(self, now_ms: int, retries: int) -> None:
        assert self.is_voter, "observers do not stand"
        state = Candidate(now_ms + self.draw_election_ms(), Ballot({self.key.id}), retries)
        self._enter(state, self.epoch + 1, None, (), self.key)

    def become_leader(self, granted_by: set[int], now_ms: int) -> None:
        """The election is won. The first record is ours, and says so."""
        start_offset = self.log.end_offset
        state = Leader(
            start_offset=start_offset,
            check_quorum_deadline_ms=now_ms + self.check_quorum_ms,
            announce_at_ms=now_ms,
            voters={},
        )
        self._match_progress(state)
        self._enter(state, self.epoch, self.key.id, self.config.endpoints, self.voted_for)
        self.log.append_control(self.epoch, self._first_records(granted_by))
        self.note_appended(start_offset)

    @property
    def check_quorum_ms(self) -> int:
        """As long as followers wait for a leader, and half of that again for their answers to get through."""
        return self.config.fetch_timeout_ms * 3 // 2

    def _first_records(self, granted_by: set[int]) -> list[ControlRecord]:
        records: list[ControlRecord] = [
            LeaderChangeMessage(
                leader_id=self.key.id,
                voters=[VoterId(voter_id=voter_id) for voter_id in self.voters.ids],
                granting_voters=[VoterId(voter_id=voter_id) for voter_id in sorted(granted_by)],
            )
        ]
        if self.history.kraft_version >= 1:
            # The log itself has to say who votes: others get the log, not the snapshot this disk was formatted with.
            known = self.voters.get(self.key.id)
            if self.history.voters_offset == BOOTSTRAP_OFFSET or known != self.myself:
                updated = self.voters.with_update(self.myself)
                assert updated is not None, "who is elected votes"
                records += [KRaftVersionRecord(kraft_version=self.history.kraft_version), updated.to_record()]
        return records

    def _become_follower(self, epoch: int, leader: Peer, endpoints: Endpoints, now_ms: int) -> None:
        assert epoch >= self.epoch, "epochs never fall"
        voted_for = self.voted_for if epoch == self.epoch else None
        state = Follower(
            leader=leader,
            fetch_deadline_ms=self.draw_fetch_deadline_ms(now_ms),
            voter_check_at_ms=now_ms + self.config.fetch_timeout_ms,
        )
        self._enter(state, epoch, leader.id, endpoints, voted_for)
        if leader.id != self._paced_leader_id:
            self._paced_leader_id = leader.id
            self.fetch_pace = Pace(self.config.fetch_bytes_max)
            self.snapshot_pace = Pace(self.config.snapshot_bytes_max)
        # A moment ago it was a candidate that had nothing to give. Its first commit waits for our fetch.
        self.outbox.forgive(leader.id)

    def become_resigned(self, now_ms: int) -> None:
        """Stop leading this epoch. The vote in it stays given, to ourselves."""
        assert isinstance(self.state, Leader), "only a leader resigns"
        others = sorted(
            (progress for progress in self.state.voters.values() if progress.key.id != self.key.id),
            key=lambda progress: (-progress.end_offset, progress.key.id),
        )
        state = Resigned(
            election_deadline_ms=now_ms + self.draw_election_ms(),
            unacknowledged={progress.key.id for progress in others},
            candidates=tuple(progress.key for progress in others),
        )
        self._enter(state, self.epoch, None, (), self.voted_for)

    def _match_progress(self, leader: Leader) -> None:
        """The voters are others now: keep what is known about each replica, and forget nobody's place."""
        known = {progress.key.id: progress for progress in leader.voters.values()}
        leader.voters = {}
        for node in self.voters:
            progress = known.pop(node.key.id, None)
            if progress is None or not node.is_replica(progress.key):
                progress = leader.observers.pop(node.key, None) or Progress(node.key)
            leader.voters[node.key.id] = progress
        for progress in known.values():
            if progress.key != self.key and progress.key.directory_id != ZERO_UUID:
                leader.observers[progress.key] = progress
        leader.fetched.intersection_update(leader.voters)

    def _enter(
        self, state: State, epoch: int, leader_id: int | None, endpoints: Endpoints, voted_for: ReplicaKey | None
    ) -> None:
        if isinstance(self.state, Leader):
            self.former = self.state
        if epoch != self.epoch:
            self.download = None
        self.state, self.epoch, self.leader_id, self.leader_endpoints = state, epoch, leader_id, endpoints
        self.voted_for = voted_for
        self.outbox.forget_all()
        election = (epoch, leader_id, voted_for)
        if election != self._persisted:
            self._persisted = election
            if self.effects and isinstance(self.effects[-1], PersistElection):
                self.effects.pop()  # nothing was promised in between
            self.emit(PersistElection(*election))

    def tell_leader(self) -> None:
        """At the end of an event: whether it has changed who leads."""
        if (self.epoch, self.leader_id) != self._told:
            self._told = (self.epoch, self.leader_id)
            start_offset = self.state.start_offset if isinstance(self.state, Leader) else None
            self.emit(LeaderChanged(self.epoch, self.leader_id, start_offset))

    # -- snapshots --------------------------------------------------------------------------------------------

    def note_snapshot(self, snapshot_id: SnapshotId) -> None:
        """We wrote one ourselves: what stands before its end counts only as far as it still does there."""
        self.history.forget_before(snapshot_id.end_offset)
