"""Elections: asking for votes, and giving them (KIP-595, pre-vote from KIP-996).

A vote is given once in an epoch, to a candidate whose log holds at least what ours holds: so whoever wins has every
committed record. A pre-vote is given without promising anything, by whoever would not miss the present leader. It
keeps a replica that was cut off for a while from deposing a leader that everybody else hears well.
"""

from __future__ import annotations

from typing import Final

from streamlog.broker.raft.messages import ReplicaKey, VoteRequest, VoteResponse
from streamlog.broker.raft.peers import NEVER_MS
from streamlog.broker.raft.replica import Replica
from streamlog.broker.raft.states import Candidate, Follower, Leader, Prospective
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.schema import ZERO_UUID

RETRY_MS_MIN: Final = 50
"""A candidate that has not won gives a rival this long at least to win and to say so: two syncs and two exchanges."""

RETRY_SPREAD_MS: Final = 150
"""Two rivals that lost to each other draw from this, and from twice as much after each time: several times what an
election takes, so that one of them is there first."""

RETRY_DOUBLINGS_MAX: Final = 20

ASK_AGAIN_MS: Final = 50
"""Pause before a voter that would not vote for us is asked again. It promised nothing by that: it hears the leader, or
does not miss it yet. When the leader is silent for all of us, this is how much later we know."""


def on_vote(replica: Replica, request: VoteRequest, now_ms: int) -> VoteResponse:
    error = _check(replica, request)
    if error is not ErrorCode.NONE:
        return VoteResponse(replica.answer(error), granted=False)
    if request.epoch > replica.epoch:
        replica.become_unattached(request.epoch, now_ms)
    if request.voter is not None and not is_for(replica.key, request.voter):
        return VoteResponse(replica.answer(ErrorCode.INVALID_VOTER_KEY), granted=False)
    if request.pre_vote:
        granted = _would_vote(replica, request)
    else:
        granted = _may_vote(replica, request)
        if granted and replica.voted_for is None:
            replica.become_unattached(replica.epoch, now_ms, voted_for=request.candidate)
    return VoteResponse(replica.answer(ErrorCode.NONE), granted)


def is_for(key: ReplicaKey, addressed: ReplicaKey) -> bool:
    """Whether a request is meant for this replica, and not for one that had our number on another disk."""
    return addressed.id == key.id and addressed.directory_id in (ZERO_UUID, key.directory_id)


def _check(replica: Replica, request: VoteRequest) -> ErrorCode:
    last_epoch, end_offset = request.log_end
    highest = request.epoch if request.pre_vote else request.epoch - 1
    if request.candidate.id < 0 or end_offset < 0 or not 0 <= last_epoch <= highest:
        return ErrorCode.INVALID_REQUEST
    if request.epoch < replica.epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    return ErrorCode.NONE


def _may_vote(replica: Replica, request: VoteRequest) -> bool:
    if replica.leader_id is not None:
        return False
    voted_for = replica.voted_for
    if voted_for is not None:
        return is_for(request.candidate, voted_for)
    return request.log_end >= replica.log_end


def _would_vote(replica: Replica, request: VoteRequest) -> bool:
    match replica.state:
        case Leader():
            return False
        case Follower() as follower if follower.has_fetched and not follower.is_leader_gone:
            return False
        case _:
            return request.log_end >= replica.log_end


def on_vote_response(
    replica: Replica, request: VoteRequest, response: VoteResponse, voter_id: int, now_ms: int
) -> None:
    """An answer in our own epoch, from a voter that was asked."""
    state = replica.state
    match state:
        case Prospective() if request.pre_vote and response.answer.error is ErrorCode.UNSUPPORTED_VERSION:
            # It knows no pre-vote, so there is no asking beforehand.
            replica.become_candidate(now_ms, state.retries)
        case Prospective() if request.pre_vote:
            state.ballot.record(voter_id, response.granted)
            if not response.granted:
                state.again_at_ms = min(state.again_at_ms, now_ms + ASK_AGAIN_MS)
        case Candidate() if not request.pre_vote and request.epoch == replica.epoch:
            state.ballot.record(voter_id, response.granted)
        case _:
            pass


def poll_prospective(replica: Replica, state: Prospective, now_ms: int) -> int:
    """Do what is due. Returns when to look again."""
    if not replica.is_voter:
        replica.follow_or_wait(replica.epoch, replica.leader_id, replica.leader_endpoints, now_ms)
    elif state.ballot.is_won(replica.voters):
        replica.become_candidate(now_ms, state.retries)
    elif state.ballot.is_lost(replica.voters) or now_ms >= state.election_deadline_ms:
        replica.follow_or_wait(replica.epoch, replica.leader_id, replica.leader_endpoints, now_ms)
    else:
        if now_ms >= state.again_at_ms:
            state.ballot.rejected.clear()
            state.again_at_ms = NEVER_MS
        again_at_ms = _ask(replica, state.ballot.unasked(replica.voters), now_ms, True)
        return min(state.election_deadline_ms, state.again_at_ms, again_at_ms)
    return now_ms


def poll_candidate(replica: Replica, state: Candidate, now_ms: int) -> int:
    if state.ballot.is_won(replica.voters):
        replica.become_leader(state.ballot.granted, now_ms)
        return now_ms
    if state.retry_at_ms is None and state.ballot.rejected:
        # Not lost yet, perhaps. But who does not vote for us may have a rival, and others may be dead: then nobody
        # has a majority, and waiting for the whole timeout would cost just that.
        state.retry_at_ms = now_ms + _retry_ms(replica, state.retries)
    end_at_ms = min(state.election_deadline_ms, NEVER_MS if state.retry_at_ms is None else state.retry_at_ms)
    if now_ms >= end_at_ms:
        replica.become_prospective(now_ms, state.retries + 1)
        return now_ms
    return min(end_at_ms, _ask(replica, state.ballot.unasked(replica.voters), now_ms, False))


def _retry_ms(replica: Replica, retries: int) -> int:
    """Wait longer after each election that was not won, and never as long as somebody else."""
    spread_ms = min(RETRY_SPREAD_MS << min(RETRY_DOUBLINGS_MAX, retries), replica.config.election_backoff_ms_max)
    return RETRY_MS_MIN + replica.draw_ms(max(1, spread_ms))


def _ask(replica: Replica, voter_ids: list[int], now_ms: int, pre_vote: bool) -> int:
    """Ask these voters. Returns when one of them can be asked again."""
    again_at_ms = NEVER_MS
    for voter_id in voter_ids:
        node = replica.voters.get(voter_id)
        assert node is not None, "only voters are asked"
        peer = replica.peer(voter_id, node.endpoints)
        if peer is None:
            continue
        wait_ms = replica.outbox.wait_ms(voter_id, now_ms)
        if wait_ms == 0:
            request = VoteRequest(node.key, replica.epoch, replica.key, replica.log_end, pre_vote)
            replica.send(peer, request, now_ms)
            wait_ms = replica.config.request_timeout_ms
        again_at_ms = min(again_at_ms, now_ms + wait_ms)
    return again_at_ms
