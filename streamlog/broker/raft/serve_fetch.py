"""The leader's half of replication: who fetches what, and what is therefore committed (KIP-595, KIP-630, KIP-1166).

A fetch says two things: what the replica has on disk, and that it is alive. The first moves the high watermark: the
newest offset that a majority of the voters has, once that majority has a record of this leader's own epoch. (An older
record that many have can still be replaced by a leader that never saw it; section 5.4.2 of the Raft paper.) The second
lets the leader know that it still leads: without a majority that fetches, it resigns.
"""

from __future__ import annotations

from typing import Final

from streamlog.broker.raft.effects import Reply
from streamlog.broker.raft.messages import (
    FetchRequest,
    FetchResponse,
    FetchSnapshotRequest,
    FetchSnapshotResponse,
    Position,
    ReplicaKey,
    SnapshotId,
)
from streamlog.broker.raft.peers import NEVER_MS
from streamlog.broker.raft.replica import Replica
from streamlog.broker.raft.states import Leader, ParkedFetch, Progress
from streamlog.wire.error_codes import ErrorCode

OBSERVERS_MAX: Final = 1000
"""Replicas without a vote that are remembered, by when they fetched last: more than any cluster has."""

OBSERVER_SESSION_MS: Final = 300_000
"""An observer that has not fetched for so long is not listed any more."""


def on_fetch(replica: Replica, token: int, request: FetchRequest, now_ms: int) -> FetchResponse | None:
    """The answer, or None when it has to wait for something to tell."""
    error = _check_fetch(request)
    if error is not ErrorCode.NONE:
        return FetchResponse(replica.answer(error))
    response = _try_fetch(replica, request, now_ms, is_fresh=True)
    state = replica.state
    if not isinstance(state, Leader) or request.wait_ms_max == 0 or _has_news(state, request, response):
        return response
    state.parked[token] = ParkedFetch(request, now_ms + request.wait_ms_max)
    return None


def _check_fetch(request: FetchRequest) -> ErrorCode:
    if min(request.wait_ms_max, request.offset, request.last_epoch) < 0 or request.last_epoch > request.epoch:
        return ErrorCode.INVALID_REQUEST
    return ErrorCode.NONE


def check_leads(replica: Replica, epoch: int) -> ErrorCode:
    """Whether we lead the epoch that the asker believes in."""
    if epoch < replica.epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    if epoch > replica.epoch:
        return ErrorCode.UNKNOWN_LEADER_EPOCH
    return ErrorCode.NONE if isinstance(replica.state, Leader) else ErrorCode.NOT_LEADER_OR_FOLLOWER


def _has_news(state: Leader, request: FetchRequest, response: FetchResponse) -> bool:
    return (
        response.answer.error is not ErrorCode.NONE
        or len(response.records) > 0
        or response.diverging is not None
        or response.snapshot_id is not None
        or (state.high_watermark is not None and request.high_watermark < state.high_watermark)
    )


def _try_fetch(replica: Replica, request: FetchRequest, now_ms: int, *, is_fresh: bool) -> FetchResponse:
    error = check_leads(replica, request.epoch)
    state = replica.state
    if error is not ErrorCode.NONE or not isinstance(state, Leader):
        return FetchResponse(replica.answer(error))
    log = replica.log
    answer = replica.answer(ErrorCode.NONE)
    high_watermark = -1 if state.high_watermark is None else state.high_watermark
    found = _compare(replica, request.offset, request.last_epoch)
    if isinstance(found, SnapshotId):
        return FetchResponse(answer, high_watermark, log.start_offset, snapshot_id=found)
    if isinstance(found, Position):
        return FetchResponse(answer, high_watermark, log.start_offset, diverging=found)
    if is_fresh:  # a fetch that was parked says nothing about now
        _note_fetch(replica, state, request.replica, request.offset, now_ms)
        update_high_watermark(replica, state)
    high_watermark = -1 if state.high_watermark is None else state.high_watermark
    bytes_max = min(request.bytes_max, replica.config.fetch_bytes_max)
    records = log.read(request.offset, bytes_max) if request.offset < log.end_offset else b""
    return FetchResponse(answer, high_watermark, log.start_offset, records)


def _compare(replica: Replica, offset: int, last_epoch: int) -> SnapshotId | Position | None:
    """What a log that ends there needs: a snapshot, to be cut where it leaves ours, or (None) what follows."""
    log = replica.log
    snapshot_id = log.latest_snapshot()
    if offset == 0:
        return snapshot_id
    if offset < log.start_offset:
        return snapshot_id
    end = log.end_of_epoch(last_epoch)
    if end is None:
        return Position(last_epoch, log.start_offset) if snapshot_id is None else snapshot_id
    if end.epoch != last_epoch or end.end_offset < offset:
        return end
    return None


def _note_fetch(replica: Replica, state: Leader, key: ReplicaKey, offset: int, now_ms: int) -> None:
    """The replica has everything below `offset`, and is alive."""
    progress = _progress_of(state, key)
    if progress is None:
        if key.id < 0 or key.id == replica.key.id:
            return  # somebody without a number reads along
        _forget_silent_observers(state, now_ms)
        progress = state.observers.setdefault(key, Progress(key))
    progress.note_fetch(offset, replica.log.end_offset, now_ms)
    note_alive(replica, state, key, now_ms)


def _progress_of(state: Leader, key: ReplicaKey) -> Progress | None:
    progress = state.voters.get(key.id)
    if progress is not None and (progress.key == key or progress.key == ReplicaKey(key.id)):
        return progress
    return state.observers.get(key)


def _forget_silent_observers(state: Leader, now_ms: int) -> None:
    for key in [key for key, at in state.observers.items() if at.fetched_at_ms + OBSERVER_SESSION_MS < now_ms]:
        del state.observers[key]
    while len(state.observers) >= OBSERVERS_MAX:
        del state.observers[min(state.observers, key=lambda key: (state.observers[key].fetched_at_ms, key))]


def note_alive(replica: Replica, state: Leader, key: ReplicaKey, now_ms: int) -> None:
    """A voter has fetched: once a majority did, the leader may go on."""
    progress = state.voters.get(key.id)
    if key.id == replica.key.id or progress is None or progress.key not in (key, ReplicaKey(key.id)):
        return
    state.fetched.add(key.id)
    needed = replica.voters.majority - (1 if replica.is_voter else 0)
    if len(state.fetched) >= needed:
        state.fetched.clear()
        state.check_quorum_deadline_ms = now_ms + replica.check_quorum_ms


def update_high_watermark(replica: Replica, state: Leader) -> None:
    """See what is committed by now, and tell those who wait for it."""
    ends = sorted(
        (
            replica.kept_offset if node.is_replica(replica.key) else state.voters[node.key.id].end_offset
            for node in replica.voters
        ),
        reverse=True,
    )
    offset = ends[replica.voters.majority - 1]
    if offset > state.start_offset and offset > (state.high_watermark or 0):
        state.high_watermark = offset
        replica.advance_high_watermark(offset)


def answer_parked(replica: Replica, state: Leader, now_ms: int) -> int:
    """Answer fetches that have something to get now, or have waited long enough. Returns when the next one has."""
    next_at_ms = NEVER_MS
    for token, parked in list(state.parked.items()):
        request = parked.request
        is_behind = request.offset < replica.log.end_offset
        is_untold = state.high_watermark is not None and request.high_watermark < state.high_watermark
        if is_behind or is_untold or now_ms >= parked.expires_at_ms:
            del state.parked[token]
            replica.emit(Reply(token, _try_fetch(replica, request, now_ms, is_fresh=False)))
        else:
            next_at_ms = min(next_at_ms, parked.expires_at_ms)
    return next_at_ms


def on_fetch_snapshot(replica: Replica, request: FetchSnapshotRequest, now_ms: int) -> FetchSnapshotResponse:
    error = check_leads(replica, request.epoch)
    size_bytes = None
    if error is ErrorCode.NONE:
        size_bytes = replica.log.snapshot_size(request.snapshot_id)
        if size_bytes is None:
            error = ErrorCode.SNAPSHOT_NOT_FOUND
        elif not 0 <= request.position < size_bytes:
            error = ErrorCode.POSITION_OUT_OF_RANGE
    state = replica.state
    if error is not ErrorCode.NONE or size_bytes is None or not isinstance(state, Leader):
        return FetchSnapshotResponse(replica.answer(error), request.snapshot_id)
    note_alive(replica, state, request.replica, now_ms)
    bytes_max = max(1, min(request.bytes_max, replica.config.snapshot_bytes_max))
    data = replica.log.read_snapshot(request.snapshot_id, request.position, bytes_max)
    return FetchSnapshotResponse(
        replica.answer(ErrorCode.NONE), request.snapshot_id, size_bytes, request.position, data
    )
