"""A leader begins, and a leader ends: BeginQuorumEpoch and EndQuorumEpoch (KIP-595).

Followers find their leader by themselves too, by fetching from anybody; these requests make it quicker, and tell
voters that wait for an election that it is over.
"""

from __future__ import annotations

from typing import Final

from streamlog.broker.raft.effects import Alarm
from streamlog.broker.raft.messages import (
    BeginQuorumEpochRequest,
    BeginQuorumEpochResponse,
    Endpoints,
    EndQuorumEpochRequest,
    EndQuorumEpochResponse,
    ReplicaKey,
)
from streamlog.broker.raft.replica import Replica
from streamlog.broker.raft.states import Follower, Leader, Resigned
from streamlog.broker.raft.vote import is_for
from streamlog.wire.error_codes import ErrorCode

SUSPECT_MS_MIN: Final = 50
"""How long a follower whose leader is gone waits at least before it stands: a leader that restarts within this is
not missed, and others notice the same thing at the same moment."""


def on_begin_quorum_epoch(replica: Replica, request: BeginQuorumEpochRequest, now_ms: int) -> BeginQuorumEpochResponse:
    error = _check(replica, request.epoch, request.leader_id)
    if error is ErrorCode.NONE:
        accept_leader(replica, request.epoch, request.leader_id, request.endpoints, now_ms)
        if request.voter is not None and not is_for(replica.key, request.voter):
            error = ErrorCode.INVALID_VOTER_KEY
    return BeginQuorumEpochResponse(replica.answer(error))


def on_end_quorum_epoch(replica: Replica, request: EndQuorumEpochRequest, now_ms: int) -> EndQuorumEpochResponse:
    error = _check(replica, request.epoch, request.leader_id)
    if error is ErrorCode.NONE:
        accept_leader(replica, request.epoch, request.leader_id, request.endpoints, now_ms)
        state = replica.state
        if isinstance(state, Follower) and state.leader.id == request.leader_id:
            state.is_leader_gone = True
            wait_ms = _successor_wait_ms(replica, request.candidates)
            state.fetch_deadline_ms = min(state.fetch_deadline_ms, now_ms + wait_ms)
    return EndQuorumEpochResponse(replica.answer(error))


def _check(replica: Replica, epoch: int, leader_id: int) -> ErrorCode:
    if epoch < replica.epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    if leader_id < 0 or leader_id == replica.key.id or epoch == 0:
        return ErrorCode.INVALID_REQUEST
    if epoch == replica.epoch and replica.leader_id not in (None, leader_id):
        replica.emit(Alarm(f"{leader_id} says it leads epoch {epoch}, which {replica.leader_id} leads"))
        return ErrorCode.INVALID_REQUEST
    return ErrorCode.NONE


def accept_leader(replica: Replica, epoch: int, leader_id: int, endpoints: Endpoints, now_ms: int) -> None:
    """Follow `leader_id`, unless we do already."""
    known = epoch == replica.epoch and replica.leader_id == leader_id
    if not known or (not isinstance(replica.state, Follower) and replica.peer(leader_id, endpoints) is not None):
        replica.follow_or_wait(epoch, leader_id, endpoints, now_ms)


def _successor_wait_ms(replica: Replica, candidates: tuple[ReplicaKey, ...]) -> int:
    """The first named stands at once, the others later and later, in case it does not."""
    longest_ms = replica.config.election_backoff_ms_max
    place = next((place for place, key in enumerate(candidates) if is_for(replica.key, key)), len(candidates))
    if place == 0:
        return 0
    if place >= len(candidates):
        return longest_ms
    return min(longest_ms, (longest_ms >> (len(candidates) - 1)) << (place - 1))


def suspect_leader(replica: Replica, state: Follower, now_ms: int) -> None:
    """The leader's connection broke, or it says that it leads no more: do not wait for the fetch timeout.

    Should it be alive after all, the others will not vote for us beforehand, and nothing has happened.
    """
    if not state.is_leader_gone:
        state.is_leader_gone = True
        wait_ms = SUSPECT_MS_MIN + replica.draw_ms(max(1, replica.config.election_timeout_ms // 4))
        state.fetch_deadline_ms = min(state.fetch_deadline_ms, now_ms + wait_ms)


def poll_announcements(replica: Replica, state: Leader, now_ms: int) -> int:
    """Tell the voters who leads, until they fetch. Returns when to look again."""
    if now_ms < state.announce_at_ms:
        return state.announce_at_ms
    period_ms = replica.config.fetch_timeout_ms // 2
    for node in replica.voters.others(replica.key):
        progress = state.voters[node.key.id]
        peer = replica.peer(node.key.id, node.endpoints)
        fetches = progress.fetched_at_ms >= 0 and progress.fetched_at_ms > now_ms - period_ms
        if peer is not None and not fetches and replica.outbox.wait_ms(peer.id, now_ms) == 0:
            request = BeginQuorumEpochRequest(node.key, replica.epoch, replica.key.id, replica.config.endpoints)
            replica.send(peer, request, now_ms)
    state.announce_at_ms = now_ms + period_ms
    return state.announce_at_ms


def poll_resigned(replica: Replica, state: Resigned, now_ms: int) -> int:
    if now_ms >= state.election_deadline_ms:
        # Nobody may lead the old epoch any more. An observer's epoch must not run ahead of the voters'.
        replica.become_unattached(replica.epoch + 1 if replica.is_voter else replica.epoch, now_ms)
        return now_ms
    again_at_ms = state.election_deadline_ms
    for voter_id in sorted(state.unacknowledged):
        peer = replica.peer(voter_id, replica.voters.endpoints(voter_id))
        if peer is None:
            continue
        wait_ms = replica.outbox.wait_ms(voter_id, now_ms)
        if wait_ms == 0:
            request = EndQuorumEpochRequest(replica.epoch, replica.key.id, state.candidates, replica.config.endpoints)
            replica.send(peer, request, now_ms)
            wait_ms = replica.config.request_timeout_ms
        again_at_ms = min(again_at_ms, now_ms + wait_ms)
    return again_at_ms
