"""Adding, removing and updating voters while the quorum works (KIP-853).

One change at a time, and only by a leader that has committed something in its epoch and everything about the change
before. Under these two rules any two sets that can count at the same time differ by one voter. The new set counts from
its append on; the request is answered when it is committed.
"""

from __future__ import annotations

from typing import Final

from streamlog.broker.raft.effects import Reply
from streamlog.broker.raft.messages import (
    AddVoterRequest,
    Answer,
    RemoveVoterRequest,
    ReplicaKey,
    UpdateVoterRequest,
    VersionsRequest,
    VersionsResponse,
    VoterChangeResponse,
)
from streamlog.broker.raft.peers import NEVER_MS
from streamlog.broker.raft.replica import Replica
from streamlog.broker.raft.serve_fetch import check_leads
from streamlog.broker.raft.states import Leader, VoterChange
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.schema import ZERO_UUID

CAUGHT_UP_MS: Final = 3_600_000
"""A replica may become a voter if it had everything at some time, and has fetched within the last hour (Kafka's)."""

CHANGE_MS_MAX: Final = 600_000
"""Longest that a change may hold up the next one, whatever its request says."""


def on_add_voter(replica: Replica, token: int, request: AddVoterRequest, now_ms: int) -> VoterChangeResponse | None:
    """The answer, or None while it is being worked on."""
    refusal = _refuse(replica, request.voter, now_ms)
    state = replica.state
    if refusal is not None or not isinstance(state, Leader):
        return refusal
    peer = replica.peer(request.voter.id, request.endpoints)
    if peer is None:
        return _say(
            replica, ErrorCode.INVALID_REQUEST, f"the voter has no endpoint for listener {replica.config.listener}"
        )
    if replica.voters.get(request.voter.id) is not None:
        return _say(replica, ErrorCode.DUPLICATE_VOTER, f"{request.voter.id} is a voter already")
    if replica.outbox.wait_ms(peer.id, now_ms) > 0:
        return _say(replica, ErrorCode.REQUEST_TIMED_OUT, f"{request.voter.id} does not answer")
    state.change = VoterChange(
        token=token,
        expires_at_ms=now_ms + max(1, min(request.timeout_ms, CHANGE_MS_MAX)),
        joining=request.voter,
        joining_endpoints=request.endpoints,
        ack_when_committed=request.ack_when_committed,
    )
    replica.send(peer, VersionsRequest(), now_ms)
    return None


def on_versions(replica: Replica, state: Leader, peer_id: int, response: VersionsResponse | None, now_ms: int) -> None:
    """The replica that is to vote says what it knows; None: it did not answer."""
    change = state.change
    if change is None or change.joining is None or change.joining.id != peer_id or change.offset is not None:
        return
    versions = None if response is None else response.versions
    if response is None or response.error is not ErrorCode.NONE:
        _finish(replica, state, ErrorCode.REQUEST_TIMED_OUT, f"{peer_id} does not answer")
    elif versions is None or not versions.low <= replica.history.kraft_version <= versions.high:
        _finish(
            replica,
            state,
            ErrorCode.INVALID_REQUEST,
            f"{peer_id} does not know kraft.version {replica.history.kraft_version}",
        )
    elif not _is_caught_up(state, change.joining, now_ms):
        _finish(replica, state, ErrorCode.REQUEST_TIMED_OUT, f"{change.joining} has not caught up with the log yet")
    else:
        node = VoterNode(change.joining, change.joining_endpoints, versions)
        voters = replica.voters.with_voter(node)
        assert voters is not None, "it was no voter when the change began, and no other change ran since"
        _append(replica, state, change, voters)


def _is_caught_up(state: Leader, key: ReplicaKey, now_ms: int) -> bool:
    progress = state.observers.get(key)
    return progress is not None and progress.caught_up_at_ms >= 0 and progress.fetched_at_ms > now_ms - CAUGHT_UP_MS


def on_remove_voter(
    replica: Replica, token: int, request: RemoveVoterRequest, now_ms: int
) -> VoterChangeResponse | None:
    refusal = _refuse(replica, request.voter, now_ms)
    state = replica.state
    if refusal is not None or not isinstance(state, Leader):
        return refusal
    voters = replica.voters.without_voter(request.voter)
    if voters is None:
        reason = "is the only voter" if replica.voters.is_only(request.voter) else "is not a voter"
        return _say(replica, ErrorCode.VOTER_NOT_FOUND, f"{request.voter} {reason}")
    state.change = VoterChange(token, now_ms + replica.config.request_timeout_ms)
    _append(replica, state, state.change, voters)
    return None


def on_update_voter(
    replica: Replica, token: int, request: UpdateVoterRequest, now_ms: int
) -> VoterChangeResponse | None:
    error = check_leads(replica, request.epoch)
    if error is not ErrorCode.NONE:
        return _say(replica, error, "")
    refusal = _refuse(replica, request.voter, now_ms)
    state = replica.state
    if refusal is not None or not isinstance(state, Leader):
        return refusal
    low, high = request.versions
    version = replica.history.kraft_version
    if replica.peer(request.voter.id, request.endpoints) is None or not low <= version <= high:
        return _say(replica, ErrorCode.INVALID_REQUEST, "the voter needs an endpoint, and the present kraft.version")
    node = VoterNode(request.voter, request.endpoints, request.versions)
    voters = replica.voters.with_update(node)
    if voters is None:
        return _say(replica, ErrorCode.VOTER_NOT_FOUND, f"{request.voter} is not a voter")
    if voters == replica.voters:
        return _say(replica, ErrorCode.NONE, "")
    state.change = VoterChange(token, now_ms + replica.config.request_timeout_ms)
    _append(replica, state, state.change, voters)
    return None


def _refuse(replica: Replica, key: ReplicaKey, now_ms: int) -> VoterChangeResponse | None:
    """Why nothing can be changed now."""
    state = replica.state
    if not isinstance(state, Leader):
        return _say(replica, ErrorCode.NOT_LEADER_OR_FOLLOWER, "")
    if key.id < 0 or key.directory_id == ZERO_UUID:
        return _say(replica, ErrorCode.INVALID_REQUEST, "the request names no voter")
    if replica.history.kraft_version < 1:
        return _say(replica, ErrorCode.UNSUPPORTED_VERSION, "with kraft.version 0 voters do not change")
    if state.change is not None:
        return _say(replica, ErrorCode.REQUEST_TIMED_OUT, "another change of the voters is under way")
    voters_offset = replica.history.voters_offset
    if state.high_watermark is None or voters_offset is None or voters_offset >= state.high_watermark:
        return _say(replica, ErrorCode.REQUEST_TIMED_OUT, "the last change of the voters is not committed yet")
    return None


def _append(replica: Replica, state: Leader, change: VoterChange, voters: VoterSet) -> None:
    change.offset = replica.log.end_offset
    replica.log.append_control(replica.epoch, [voters.to_record()])
    replica.note_appended(change.offset)
    if not change.ack_when_committed:
        _finish(replica, state, ErrorCode.NONE, "")


def poll_change(replica: Replica, state: Leader, now_ms: int) -> int:
    """Answer a change that is committed or has taken too long. Returns when to look again."""
    change = state.change
    if change is None:
        return NEVER_MS
    if change.offset is not None and state.high_watermark is not None and change.offset < state.high_watermark:
        _finish(replica, state, ErrorCode.NONE, "")
    elif now_ms >= change.expires_at_ms:
        _finish(replica, state, ErrorCode.REQUEST_TIMED_OUT, "the change was not committed in time")
    else:
        return change.expires_at_ms
    return NEVER_MS


def is_removed(replica: Replica, state: Leader) -> bool:
    """Whether the leader itself was taken out of the voters, and that is committed."""
    offset = replica.history.voters_offset
    return (
        not replica.is_voter
        and state.high_watermark is not None
        and offset is not None
        and offset < state.high_watermark
    )


def _finish(replica: Replica, state: Leader, error: ErrorCode, message: str) -> None:
    change, state.change = state.change, None
    assert change is not None, "only a change under way is finished"
    replica.emit(Reply(change.token, _say(replica, error, message)))


def _say(replica: Replica, error: ErrorCode, message: str) -> VoterChangeResponse:
    return VoterChangeResponse(replica.answer(error), message)


def say_deposed(answer: Answer) -> VoterChangeResponse:
    """To whoever waits for a change when the leader leads no more: it may be committed by the next one, or not."""
    return VoterChangeResponse(answer, "the leader has changed; look whether the voters have")
