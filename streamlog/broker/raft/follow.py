"""The follower's half of replication: fetch, append, be cut where the leader's log is another (KIP-595, KIP-630).

A voter fetches only from where its disk has come to: the leader takes the offset as a promise. What it appends waits
for a sync, and the next fetch for that.

How much it asks for follows what comes in time (`broker/pace.py`), and a snapshot goes on where it was, so that a slow
link makes a follower late and not lost.
"""

from __future__ import annotations

from streamlog.broker.pace import ASKED_BYTES_MIN
from streamlog.broker.raft.announce import suspect_leader
from streamlog.broker.raft.effects import Alarm, SnapshotLoaded
from streamlog.broker.raft.messages import (
    AddVoterRequest,
    FetchRequest,
    FetchResponse,
    FetchSnapshotRequest,
    FetchSnapshotResponse,
    Position,
    RemoveVoterRequest,
    Request,
    SnapshotId,
    UpdateVoterRequest,
)
from streamlog.broker.raft.peers import NEVER_MS, Peer
from streamlog.broker.raft.replica import FIRST_BOOTSTRAP_ID, Replica
from streamlog.broker.raft.replicated_log import RefusedBatches
from streamlog.broker.raft.states import Download, Follower, Unattached
from streamlog.wire.error_codes import ErrorCode


def on_fetch_response(
    replica: Replica, state: Follower, request: FetchRequest, response: FetchResponse, now_ms: int
) -> None:
    """The leader's answer, in our epoch."""
    took_ms = _note_taken(state, now_ms)
    if response.answer.error is not ErrorCode.NONE:
        if response.answer.error is ErrorCode.NOT_LEADER_OR_FOLLOWER:
            suspect_leader(replica, state, now_ms)
        replica.outbox.pause(state.leader.id, now_ms)
        return
    replica.fetch_pace.on_answer(len(response.records), took_ms, replica.config.patience_ms)
    if request.offset != replica.log.end_offset or replica.download is not None:
        return
    note_answered(replica, state, now_ms)
    if response.diverging is not None:
        _cut(replica, state, response.diverging, now_ms)
    elif response.snapshot_id is not None:
        _begin_download(replica, state, response.snapshot_id, now_ms)
    else:
        _append(replica, state, response, now_ms)


def note_answered(replica: Replica, state: Follower, now_ms: int) -> None:
    """The leader is alive."""
    state.has_fetched = True
    state.is_leader_gone = False
    state.fetch_deadline_ms = replica.draw_fetch_deadline_ms(now_ms)


def _note_taken(state: Follower, now_ms: int) -> int:
    """The leader has answered. Returns how long that took."""
    asked_at_ms, state.asked_at_ms = state.asked_at_ms, None
    return 0 if asked_at_ms is None else now_ms - asked_at_ms


def _note_late(replica: Replica, state: Follower) -> None:
    """What was asked last is given up, if it is not answered: the next time it is less."""
    if state.asked_at_ms is not None:
        state.asked_at_ms = None
        replica.fetch_pace.on_late()
        replica.snapshot_pace.on_late()


def _append(replica: Replica, state: Follower, response: FetchResponse, now_ms: int) -> None:
    if len(response.records):
        start_offset = replica.log.end_offset
        try:
            replica.log.append_batches(response.records, replica.epoch)
        except RefusedBatches as error:
            replica.emit(Alarm(f"what leader {state.leader.id} sent from offset {start_offset} on is refused: {error}"))
            replica.outbox.pause(state.leader.id, now_ms)
            return
        replica.note_appended(start_offset)
    state.leader_high_watermark = max(state.leader_high_watermark, response.high_watermark)
    follow_high_watermark(replica, state)


def follow_high_watermark(replica: Replica, state: Follower) -> None:
    replica.advance_high_watermark(min(state.leader_high_watermark, replica.kept_offset))


def _cut(replica: Replica, state: Follower, diverging: Position, now_ms: int) -> None:
    """The leader's log leaves ours at or before the end of that epoch."""
    log = replica.log
    ours = log.end_of_epoch(diverging.epoch)
    offset = log.start_offset if ours is None else min(ours.end_offset, diverging.end_offset)
    if offset < replica.high_watermark or offset >= log.end_offset:
        replica.emit(
            Alarm(
                f"leader {state.leader.id} has another log from offset {offset} on, and ours is committed up to "
                f"{replica.high_watermark} and ends at {log.end_offset}"
            )
        )
        replica.outbox.pause(state.leader.id, now_ms)
        return
    replica.truncate(offset)


# -- snapshots ------------------------------------------------------------------------------------------------


def _begin_download(replica: Replica, state: Follower, snapshot_id: SnapshotId, now_ms: int) -> None:
    if snapshot_id.end_offset < replica.high_watermark or snapshot_id.epoch < 0:
        replica.emit(
            Alarm(
                f"leader {state.leader.id} sends us back to snapshot {snapshot_id.file_name}, and ours is committed up "
                f"to {replica.high_watermark}"
            )
        )
        replica.outbox.pause(state.leader.id, now_ms)
        return
    replica.log.begin_snapshot(snapshot_id)
    replica.download = Download(snapshot_id)


def on_fetch_snapshot_response(
    replica: Replica,
    state: Follower,
    request: FetchSnapshotRequest,
    response: FetchSnapshotResponse,
    now_ms: int,
) -> None:
    took_ms = _note_taken(state, now_ms)
    download = replica.download
    if download is None or (request.snapshot_id, request.position) != (download.snapshot_id, download.position):
        return
    is_usable = (
        response.answer.error is ErrorCode.NONE
        and (response.snapshot_id, response.position) == (download.snapshot_id, download.position)
        and 0 < len(response.data) <= response.size_bytes - response.position
    )
    if not is_usable:
        # The leader has a newer one by now, most likely: fetching says which.
        replica.download = None
        replica.outbox.pause(state.leader.id, now_ms)
        return
    note_answered(replica, state, now_ms)
    replica.snapshot_pace.on_answer(len(response.data), took_ms, replica.config.patience_ms)
    replica.log.write_snapshot_part(response.data)
    download.position += len(response.data)
    if download.position == response.size_bytes:
        _finish_download(replica, state, download.snapshot_id, now_ms)


def _finish_download(replica: Replica, state: Follower, snapshot_id: SnapshotId, now_ms: int) -> None:
    replica.download = None
    if not replica.log.finish_snapshot():
        replica.emit(Alarm(f"snapshot {snapshot_id.file_name} of leader {state.leader.id} is damaged"))
        replica.outbox.pause(state.leader.id, now_ms)
        return
    replica.load_voters()
    replica.emit(SnapshotLoaded(snapshot_id))
    replica.advance_high_watermark(snapshot_id.end_offset)


# -- asking ---------------------------------------------------------------------------------------------------


def poll_follower(replica: Replica, state: Follower, now_ms: int) -> int:
    """Do what is due. Returns when to look again."""
    if now_ms >= state.fetch_deadline_ms and not replica.is_stopping:
        _note_late(replica, state)
        if replica.is_voter:
            replica.become_prospective(now_ms)
        else:
            # Ask everybody who leads: an observer is nobody's to be told.
            replica.become_unattached(replica.epoch, now_ms)
        return now_ms
    again_at_ms = state.fetch_deadline_ms
    if replica.kept_offset < replica.log.end_offset:
        return again_at_ms  # on_flushed looks again
    wait_ms = replica.outbox.wait_ms(state.leader.id, now_ms)
    if wait_ms == 0:
        _note_late(replica, state)
        request = _next_request(replica, state, now_ms)
        if isinstance(request, FetchRequest | FetchSnapshotRequest):
            state.asked_at_ms = now_ms
        replica.send(state.leader, request, now_ms)
        wait_ms = replica.config.request_timeout_ms
    return min(again_at_ms, now_ms + wait_ms)


def _next_request(replica: Replica, state: Follower, now_ms: int) -> Request:
    if now_ms >= state.voter_check_at_ms:
        state.voter_check_at_ms = now_ms + replica.config.fetch_timeout_ms
        change = _wanted_change(replica)
        if change is not None:
            return change
    download = replica.download
    if download is not None:
        bytes_max = replica.snapshot_pace.bytes_max
        return FetchSnapshotRequest(replica.key, replica.epoch, download.snapshot_id, download.position, bytes_max)
    return _fetch_request(replica, replica.fetch_pace.bytes_max)


def _fetch_request(replica: Replica, bytes_max: int) -> FetchRequest:
    config = replica.config
    return FetchRequest(
        replica=config.key,
        epoch=replica.epoch,
        offset=replica.log.end_offset,
        last_epoch=replica.log.last_epoch,
        wait_ms_max=config.fetch_wait_ms_max,
        bytes_max=bytes_max,
        high_watermark=replica.high_watermark,
    )


def _wanted_change(replica: Replica) -> Request | None:
    """What the voters have to learn about us (KIP-853); that we want to be one of them (KIP-1186)."""
    config = replica.config
    if replica.history.kraft_version < 1 or not config.can_vote or replica.is_stopping:
        return None
    known = replica.voters.get(config.key.id)
    if replica.is_voter:
        if known == replica.myself:
            return None
        return UpdateVoterRequest(replica.epoch, config.key, config.endpoints, config.versions)
    if not config.auto_join:
        return None
    if known is not None:
        return RemoveVoterRequest(known.key)  # we were that, on a disk that we have no more
    return AddVoterRequest(config.key, config.endpoints, config.request_timeout_ms, ack_when_committed=False)


def poll_unattached(replica: Replica, state: Unattached, now_ms: int) -> int:
    """Wait for an election, and ask everybody in turn who leads. Returns when to look again."""
    again_at_ms = NEVER_MS
    if replica.is_voter and not replica.is_stopping:
        if now_ms >= state.election_deadline_ms:
            replica.become_prospective(now_ms)
            return now_ms
        again_at_ms = state.election_deadline_ms
    peers = _everybody(replica)
    if not peers or replica.kept_offset < replica.log.end_offset or replica.is_stopping:
        return again_at_ms
    busy_until_ms = replica.outbox.busy_until_ms(now_ms)
    if busy_until_ms > now_ms:
        return min(again_at_ms, busy_until_ms)
    replica.asked_last = (replica.asked_last + 1) % len(peers)
    peer, wait_ms = replica.outbox.pick(peers, replica.asked_last, now_ms)
    if peer is not None:
        # To learn who leads: should it be this one, its answer has to come whatever the link is like.
        bytes_max = min(ASKED_BYTES_MIN, replica.config.fetch_bytes_max)
        replica.send(peer, _fetch_request(replica, bytes_max), now_ms)
        wait_ms = replica.config.request_timeout_ms
    return min(again_at_ms, now_ms + wait_ms)


def _everybody(replica: Replica) -> list[Peer]:
    """The other voters that can be reached, and the bootstrap servers."""
    config = replica.config
    found = [replica.peer(node.key.id, node.endpoints) for node in replica.voters if node.key.id != config.key.id]
    peers = [peer for peer in found if peer is not None]
    known = {(peer.host, peer.port) for peer in peers} | {(host, port) for _, host, port in config.endpoints}
    for number, (host, port) in enumerate(config.bootstrap):
        if (host, port) not in known:
            peers.append(Peer(FIRST_BOOTSTRAP_ID - number, host, port))
    return peers
