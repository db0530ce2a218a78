"""The metadata quorum, as far as it decides: Raft driven by Fetch (KIP-595, 630, 853, 996, 1166, 1186).

A few replicas, the voters, keep one log. One of them leads an epoch: it alone appends. The others fetch, and
with the offset of a fetch they say how far their disks have come; what a majority has is committed, and stays in
every later leader's log for ever. Anybody else may fetch too, and is an observer. `states.py` has the roles and what
leads from one to the other; the families of messages are in `vote`, `announce`, `serve_fetch`, `follow` and
`membership`.

What Fetch changes about the Raft of the paper: followers ask. So a follower finds out by itself where its log leaves
the leader's (the answer names the end of the epoch), a leader knows that it still leads by being asked (it resigns when
a majority is silent), and a follower that hears nothing from its leader asks the others whether it would be elected
before it disturbs anybody.

`RaftCore` is told what happened, and when: a request, an answer, a failure, a deadline, a finished sync. It returns
effects, to be performed in their order; `next_deadline_ms` says when it wants to be woken. It reads and writes its log
directly, and relies on it no further than `flushed_offset`. What must hold, whatever the network and the clocks do:

    one leader for each epoch; one vote for each epoch, also across a crash; epochs never fall
    two logs that agree about an epoch at an offset agree about everything below
    what is committed is in the log of every later leader, and is never cut, by anybody
    two voter sets that count at the same time have no disjoint majorities

Clocks decide only when somebody stands for election. Left out: kraft.version going from 0 to 1 while the quorum runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from streamlog.broker.raft.announce import (
    accept_leader,
    on_begin_quorum_epoch,
    on_end_quorum_epoch,
    poll_announcements,
    poll_resigned,
    suspect_leader,
)
from streamlog.broker.raft.effects import Alarm, Effect, Flush, Reply
from streamlog.broker.raft.follow import (
    follow_high_watermark,
    on_fetch_response,
    on_fetch_snapshot_response,
    poll_follower,
    poll_unattached,
)
from streamlog.broker.raft.membership import (
    is_removed,
    on_add_voter,
    on_remove_voter,
    on_update_voter,
    on_versions,
    poll_change,
    say_deposed,
)
from streamlog.broker.raft.messages import (
    AddVoterRequest,
    Answer,
    BeginQuorumEpochRequest,
    EndQuorumEpochRequest,
    EndQuorumEpochResponse,
    FetchRequest,
    FetchResponse,
    FetchSnapshotRequest,
    FetchSnapshotResponse,
    RemoveVoterRequest,
    ReplicaKey,
    Request,
    Response,
    SnapshotId,
    UpdateVoterRequest,
    VersionsRequest,
    VersionsResponse,
    VoteRequest,
    VoteResponse,
)
from streamlog.broker.raft.peers import NEVER_MS
from streamlog.broker.raft.replica import RaftConfig, Replica
from streamlog.broker.raft.replicated_log import ReplicatedLog
from streamlog.broker.raft.serve_fetch import answer_parked, on_fetch, on_fetch_snapshot, update_high_watermark
from streamlog.broker.raft.states import (
    Candidate,
    Follower,
    Leader,
    Progress,
    Prospective,
    Resigned,
    State,
    Unattached,
)
from streamlog.broker.raft.vote import on_vote, on_vote_response, poll_candidate, poll_prospective
from streamlog.broker.raft.voters import VoterSet
from streamlog.wire.error_codes import ErrorCode

ROLE_CHANGES_MAX = 10
"""A sole voter that starts goes through four roles in one event; more than these is a loop."""


class Election(NamedTuple):
    """What the file quorum-state holds."""

    epoch: int
    leader_id: int | None
    voted_for: ReplicaKey | None


class QuorumDescription(NamedTuple):
    """The leader's view of everybody; times are on its monotonic clock, -1 where there is none."""

    leader_id: int
    epoch: int
    high_watermark: int
    voters: list[Progress]
    observers: list[Progress]
    voter_set: VoterSet


class RaftCore:
    """One replica. Events come one after the other; each returns what it asks to be done."""

    def __init__(
        self, config: RaftConfig, log: ReplicatedLog, election: Election | None, draw_ms: Callable[[int], int]
    ) -> None:
        """`election`: what was persisted, None on a new disk. `draw_ms(n)`: a random number in [0, n)."""
        self._replica = Replica(config, log, draw_ms)
        self._election = election or Election(0, None, None)
        self._flush_asked = -1  # log end for which a flush is under way
        self._has_started = False
        self.next_deadline_ms = NEVER_MS

    # -- what it knows ----------------------------------------------------------------------------------------

    @property
    def key(self) -> ReplicaKey:
        return self._replica.key

    @property
    def epoch(self) -> int:
        return self._replica.epoch

    @property
    def leader_id(self) -> int | None:
        """None while nobody is known to lead the epoch."""
        return self._replica.leader_id

    @property
    def leader_address(self) -> tuple[str, int] | None:
        replica = self._replica
        if replica.leader_id is None:
            return None
        peer = replica.peer(replica.leader_id, replica.leader_endpoints)
        return None if peer is None else (peer.host, peer.port)

    @property
    def is_leader(self) -> bool:
        return isinstance(self._replica.state, Leader)

    @property
    def state(self) -> State:
        """To be looked at only."""
        return self._replica.state

    @property
    def voted_for(self) -> ReplicaKey | None:
        return self._replica.voted_for

    @property
    def high_watermark(self) -> int:
        """Everything below is committed."""
        return self._replica.high_watermark

    @property
    def voters(self) -> VoterSet:
        return self._replica.voters

    @property
    def kraft_version(self) -> int:
        return self._replica.history.kraft_version

    @property
    def is_voter(self) -> bool:
        return self._replica.is_voter

    def voters_at(self, offset: int) -> tuple[VoterSet | None, int]:
        """Voter set and kraft.version as of the record at `offset`, for a snapshot that ends behind it.

        No set: the settings name the voters, and no snapshot does.
        """
        history = self._replica.history
        return history.voters_at(offset), history.kraft_version_at(offset)

    def majority_heard_ms(self, now_ms: int) -> int:
        """While this replica leads: when a majority last fetched, so that it certainly led. Else, and alone, now."""
        state = self._replica.state
        if not isinstance(state, Leader) or self._replica.voters.is_only(self._replica.key):
            return now_ms
        return state.check_quorum_deadline_ms - self._replica.check_quorum_ms

    def answer(self, error: ErrorCode) -> Answer:
        """An answer that only says who leads."""
        return self._replica.answer(error)

    def describe(self) -> QuorumDescription | None:
        """None unless this replica leads."""
        replica = self._replica
        state = replica.state
        if not isinstance(state, Leader):
            return None
        myself = Progress(replica.key, replica.log.end_offset)
        return QuorumDescription(
            leader_id=replica.key.id,
            epoch=replica.epoch,
            high_watermark=-1 if state.high_watermark is None else state.high_watermark,
            voters=[myself if node.is_replica(replica.key) else state.voters[node.key.id] for node in replica.voters],
            observers=[state.observers[key] for key in sorted(state.observers)],
            voter_set=replica.voters,
        )

    # -- events -----------------------------------------------------------------------------------------------

    def on_start(self, now_ms: int) -> list[Effect]:
        """Once, before everything else."""
        assert not self._has_started, "a replica starts once"
        self._has_started = True
        self._replica.restore(*self._election, now_ms)
        if self._replica.is_voter and self._replica.voters.is_only(self._replica.key):
            self._replica.become_prospective(now_ms)  # there is nobody to wait for
        return self._finish(now_ms)

    def on_deadline(self, now_ms: int) -> list[Effect]:
        """`next_deadline_ms` has come; harmless when it has not."""
        return self._finish(now_ms)

    def on_flushed(self, now_ms: int) -> list[Effect]:
        """The sync that `Flush` asked for is done."""
        self._flush_asked = -1
        state = self._replica.state
        if isinstance(state, Follower):
            follow_high_watermark(self._replica, state)
        return self._finish(now_ms)

    def on_appended(self, now_ms: int) -> list[Effect]:
        """The leader's state machine has appended to the log, in this epoch."""
        assert self.is_leader, "only the leader appends"
        return self._finish(now_ms)

    def on_snapshot(self, snapshot_id: SnapshotId, now_ms: int) -> list[Effect]:
        """This replica has written a snapshot of what is committed."""
        self._replica.note_snapshot(snapshot_id)
        return self._finish(now_ms)

    def on_stop(self, now_ms: int) -> list[Effect]:
        """Stop leading, and stand for election no more. The node may end once it likes; others need not be told."""
        self._replica.is_stopping = True
        return self.on_resign(self.epoch, now_ms)

    def on_resign(self, epoch: int, now_ms: int) -> list[Effect]:
        """The state machine cannot lead `epoch` any longer. Nothing happens if another has begun."""
        if self.is_leader and epoch == self.epoch and not self._replica.voters.is_only(self._replica.key):
            self._replica.become_resigned(now_ms)
        return self._finish(now_ms)

    def on_request(self, token: int, request: Request, now_ms: int) -> list[Effect]:
        """Somebody asks; `Reply` with this token answers, now or later."""
        response = self._answer(token, request, now_ms)
        if response is not None:
            self._replica.emit(Reply(token, response))
        return self._finish(now_ms)

    def on_response(self, peer_id: int, number: int, response: Response, now_ms: int) -> list[Effect]:
        """The answer to `Send` number `number`."""
        replica = self._replica
        request = replica.outbox.take(peer_id, number)
        if request is not None:
            self._take_answer(peer_id, request, response, now_ms)
        return self._finish(now_ms)

    def on_failure(self, peer_id: int, number: int, now_ms: int, *, is_gone: bool) -> list[Effect]:
        """`Send` number `number` came to nothing. `is_gone`: nobody listens there, or the connection broke."""
        replica = self._replica
        request = replica.outbox.fail(peer_id, number, now_ms)
        state = replica.state
        if isinstance(request, VersionsRequest) and isinstance(state, Leader):
            on_versions(replica, state, peer_id, None, now_ms)
        if request is not None and is_gone and isinstance(state, Follower) and peer_id == state.leader.id:
            state.asked_at_ms = None  # not late: it would not have come
            suspect_leader(replica, state, now_ms)
        return self._finish(now_ms)

    def _answer(self, token: int, request: Request, now_ms: int) -> Response | None:
        replica = self._replica
        match request:
            case VoteRequest():
                return on_vote(replica, request, now_ms)
            case BeginQuorumEpochRequest():
                return on_begin_quorum_epoch(replica, request, now_ms)
            case EndQuorumEpochRequest():
                return on_end_quorum_epoch(replica, request, now_ms)
            case FetchRequest():
                return on_fetch(replica, token, request, now_ms)
            case FetchSnapshotRequest():
                return on_fetch_snapshot(replica, request, now_ms)
            case AddVoterRequest():
                return on_add_voter(replica, token, request, now_ms)
            case RemoveVoterRequest():
                return on_remove_voter(replica, token, request, now_ms)
            case UpdateVoterRequest():
                return on_update_voter(replica, token, request, now_ms)
            case VersionsRequest():
                return VersionsResponse(ErrorCode.NONE, replica.config.versions)

    def _take_answer(self, peer_id: int, request: Request, response: Response, now_ms: int) -> None:
        replica = self._replica
        error = response.error if isinstance(response, VersionsResponse) else response.answer.error
        if error is ErrorCode.NONE:
            replica.outbox.note_success(peer_id)
        if isinstance(response, VersionsResponse):
            if isinstance(replica.state, Leader):
                on_versions(replica, replica.state, peer_id, response, now_ms)
            return
        is_settled = self._adopt(response.answer, now_ms)
        state = replica.state
        if is_settled:
            if isinstance(state, Unattached) or response.answer.epoch < replica.epoch:
                replica.outbox.pause_a_little(peer_id, now_ms)
            return
        match response:
            case VoteResponse() if isinstance(request, VoteRequest):
                on_vote_response(replica, request, response, peer_id, now_ms)
            case FetchResponse() if isinstance(request, FetchRequest) and isinstance(state, Follower):
                on_fetch_response(replica, state, request, response, now_ms)
            case FetchSnapshotResponse() if isinstance(request, FetchSnapshotRequest) and isinstance(state, Follower):
                on_fetch_snapshot_response(replica, state, request, response, now_ms)
            case EndQuorumEpochResponse() if isinstance(state, Resigned):
                state.unacknowledged.discard(peer_id)
            case _:
                if error is not ErrorCode.NONE:
                    replica.outbox.pause_a_little(peer_id, now_ms)

    def _adopt(self, answer: Answer, now_ms: int) -> bool:
        """Follow what an answer says about epoch and leader. True: that is all that it is good for."""
        replica = self._replica
        error, epoch, leader_id, endpoints = answer.error, answer.epoch, answer.leader_id, answer.leader_endpoints
        if error is ErrorCode.UNSUPPORTED_VERSION:
            return False  # of somebody who did not even read the request
        if epoch < replica.epoch or error is ErrorCode.UNKNOWN_LEADER_EPOCH:
            return True
        if epoch > replica.epoch:
            replica.follow_or_wait(epoch, leader_id, endpoints, now_ms)
            return True
        if leader_id is not None and leader_id != replica.key.id:
            if replica.leader_id not in (None, leader_id):
                replica.emit(Alarm(f"epoch {epoch} is said to be led by {leader_id}, and {replica.leader_id} leads it"))
                return True
            if replica.leader_id is None or isinstance(replica.state, Unattached):
                accept_leader(replica, epoch, leader_id, endpoints, now_ms)
                return error is not ErrorCode.NONE
        return error is ErrorCode.FENCED_LEADER_EPOCH

    # -- after each event -------------------------------------------------------------------------------------

    def _finish(self, now_ms: int) -> list[Effect]:
        """Do what is due in the present role, until nothing changes any more."""
        replica = self._replica
        for _ in range(ROLE_CHANGES_MAX):
            state = replica.state
            self.next_deadline_ms = self._poll(state, now_ms)
            if replica.state is state:
                break
        else:
            raise AssertionError("a replica settles in some role")
        self._dismiss_former(now_ms)
        replica.tell_leader()
        log = replica.log
        if replica.config.can_vote and log.flushed_offset < log.end_offset and self._flush_asked != log.end_offset:
            self._flush_asked = log.end_offset
            replica.emit(Flush())
        effects, replica.effects = replica.effects, []
        return effects

    def _poll(self, state: State, now_ms: int) -> int:
        replica = self._replica
        match state:
            case Unattached():
                return poll_unattached(replica, state, now_ms)
            case Prospective():
                return poll_prospective(replica, state, now_ms)
            case Candidate():
                return poll_candidate(replica, state, now_ms)
            case Leader():
                return self._poll_leader(state, now_ms)
            case Follower():
                return poll_follower(replica, state, now_ms)
            case Resigned():
                return poll_resigned(replica, state, now_ms)

    def _poll_leader(self, state: Leader, now_ms: int) -> int:
        replica = self._replica
        update_high_watermark(replica, state)
        change_at_ms = poll_change(replica, state, now_ms)
        is_alone = replica.voters.is_only(replica.key)
        if is_removed(replica, state) or (not is_alone and now_ms >= state.check_quorum_deadline_ms):
            replica.become_resigned(now_ms)
            return now_ms
        check_at_ms = NEVER_MS if is_alone else state.check_quorum_deadline_ms
        if is_alone:
            state.check_quorum_deadline_ms = now_ms + replica.check_quorum_ms  # it counts from the second voter on
        announce_at_ms = NEVER_MS if is_alone else poll_announcements(replica, state, now_ms)
        return min(change_at_ms, check_at_ms, announce_at_ms, answer_parked(replica, state, now_ms))

    def _dismiss_former(self, now_ms: int) -> None:
        """Who waited for the leader that we were is told that we are no more."""
        replica = self._replica
        former, replica.former = replica.former, None
        if former is None or replica.state is former:
            return
        answer = replica.answer(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        for token in former.parked:
            replica.emit(Reply(token, FetchResponse(answer)))
        if former.change is not None:
            replica.emit(Reply(former.change.token, say_deposed(answer)))
