"""Fetch from both sides: what is committed when, where logs are cut, how snapshots travel (KIP-595, 630, 1166)."""

from __future__ import annotations

import msgspec
import pytest

from streamlog.broker.raft.effects import Alarm, HighWatermarkMoved, Reply, Send, SnapshotLoaded
from streamlog.broker.raft.messages import (
    Answer,
    FetchRequest,
    FetchResponse,
    FetchSnapshotRequest,
    FetchSnapshotResponse,
    Position,
    SnapshotId,
)
from streamlog.broker.raft.states import Follower, Leader, Prospective
from streamlog.wire.error_codes import ErrorCode
from tests.broker.raft.bench import Bench, fetch_request, has_flush, key, voter_set
from tests.broker.raft.memory_log import Entry, StoredSnapshot
from tests.broker.raft.simulation import endpoints


def test_nothing_is_committed_before_a_record_of_the_leaders_own_epoch_is() -> None:
    """Two replicas have a record of epoch 1: that counts for nothing until the leader's first record is there too."""
    bench = Bench(1, 1)
    epoch = bench.become_leader()
    start = bench.state(Leader).start_offset
    bench.ask(fetch_request(epoch, start, 1, wait_ms_max=0))
    assert bench.core.high_watermark == 0
    bench.ask(fetch_request(epoch, start + 1, epoch, wait_ms_max=0))
    assert bench.core.high_watermark == start + 1


def test_the_leaders_own_disk_counts_like_any_other() -> None:
    """A follower has it, the leader has not synced it: one of three."""
    bench = Bench()
    epoch = bench.become_leader()
    bench.log.append_data(epoch, b"x")
    assert has_flush(bench.core.on_appended(bench.now_ms))
    bench.ask(fetch_request(epoch, 4, epoch, wait_ms_max=0))
    assert bench.core.high_watermark == 3
    bench.flush()
    assert bench.core.high_watermark == 4


def test_observers_do_not_count() -> None:
    """However much they have."""
    bench = Bench()
    epoch = bench.become_leader()
    for replica in (7, 8):
        bench.ask(fetch_request(epoch, 3, epoch, replica=replica, wait_ms_max=0))
    assert bench.core.high_watermark == 0


def test_a_fetch_at_the_end_waits_for_the_next_record() -> None:
    """And then gets it at once."""
    bench = Bench()
    epoch = bench.become_leader()
    assert bench.ask(fetch_request(epoch, 3, epoch)) is None
    bench.log.append_data(epoch, b"x")
    bench.effects = bench.core.on_appended(bench.now_ms)
    response = bench.reply()
    assert isinstance(response, FetchResponse)
    assert len(response.records)


def test_a_fetch_that_waited_long_enough_is_answered_empty() -> None:
    """With nothing new in it."""
    bench = Bench()
    epoch = bench.become_leader()
    assert bench.ask(fetch_request(epoch, 3, epoch, wait_ms_max=500)) is None
    bench.wait(499)
    assert bench.reply() is None
    bench.wait(1)
    assert isinstance(bench.reply(), FetchResponse)


def test_who_does_not_know_the_high_watermark_is_not_kept_waiting() -> None:
    """A commit reaches the followers without waiting for the next record (KIP-1166)."""
    bench = Bench(voters=(1, 2, 3, 4, 5))
    epoch = bench.become_leader()
    assert bench.ask(fetch_request(epoch, 3, epoch, replica=3, high_watermark=0)) is None
    bench.effects = bench.core.on_request(5, fetch_request(epoch, 3, epoch, replica=2), bench.now_ms)
    replies = {effect.token: effect.response for effect in bench.of(Reply)}
    assert {token: reply.high_watermark for token, reply in replies.items() if isinstance(reply, FetchResponse)} == {
        77: 3
    }


@pytest.mark.parametrize(
    ("offset", "last_epoch", "diverging"),
    [
        (2, 1, None),
        (4, 2, None),
        (4, 1, Position(1, 2)),
        (5, 2, Position(2, 4)),
        (3, 3, Position(2, 4)),
        (2, 0, Position(0, 0)),
    ],
)
def test_a_diverging_log_is_told_where_it_leaves_the_leaders(
    offset: int, last_epoch: int, diverging: Position | None
) -> None:
    """The leader has epochs 1, 1, 2, 2 and its own, 5: the newest epoch not above the asked one, and its end."""
    bench = Bench(1, 1, 2, 2)
    bench.follow(epoch=4)
    epoch = bench.become_leader()
    assert epoch == 5
    response = bench.get(fetch_request(epoch, offset, last_epoch, wait_ms_max=0), FetchResponse)
    assert response.diverging == diverging


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (fetch_request(0, 0, 0), ErrorCode.FENCED_LEADER_EPOCH),
        (fetch_request(9, 0, 0), ErrorCode.UNKNOWN_LEADER_EPOCH),
        (fetch_request(1, -1, 0), ErrorCode.INVALID_REQUEST),
        (fetch_request(1, 0, -1), ErrorCode.INVALID_REQUEST),
        (fetch_request(1, 0, 2), ErrorCode.INVALID_REQUEST),
        (fetch_request(1, 0, 0, wait_ms_max=-1), ErrorCode.INVALID_REQUEST),
    ],
)
def test_fetches_that_cannot_be_served(request_: FetchRequest, error: ErrorCode) -> None:
    """Of other epochs, and of logs that cannot be."""
    bench = Bench()
    bench.become_leader()
    assert bench.get(request_, FetchResponse).answer.error is error


def test_a_follower_does_not_serve() -> None:
    """It says who does."""
    bench = Bench()
    bench.follow(epoch=3)
    response = bench.get(fetch_request(3, 0, 0, replica=3), FetchResponse)
    assert response.answer == Answer(ErrorCode.NOT_LEADER_OR_FOLLOWER, 3, 2, endpoints(2))


def test_a_follower_fetches_again_only_from_its_disk() -> None:
    """The offset of a fetch is a promise."""
    bench = Bench()
    send = bench.follow(epoch=3)
    bench.respond(send, bench.fetched(Entry(3, "data", b"x")))
    assert has_flush(bench.effects)
    assert not bench.sent(FetchRequest)
    bench.flush()
    assert [(request.offset, request.last_epoch) for _, request in bench.sent(FetchRequest)] == [(1, 3)]


def test_a_followers_high_watermark_follows_its_disk() -> None:
    """The leader's may be ahead."""
    bench = Bench()
    send = bench.follow(epoch=3)
    bench.respond(send, bench.fetched(Entry(3, "data", b"x"), high_watermark=8))
    assert bench.core.high_watermark == 0
    bench.flush()
    assert bench.of(HighWatermarkMoved) == [HighWatermarkMoved(1)]


def test_a_follower_cuts_what_its_leader_does_not_have() -> None:
    """To the smaller end of the epoch that both know."""
    bench = Bench(1, 1, 2, 2)
    send = bench.follow(epoch=5)
    bench.respond(send, bench.fetched(diverging=Position(1, 3)))
    assert bench.log.cuts == [2]
    assert [(request.offset, request.last_epoch) for _, request in bench.sent(FetchRequest)] == [(2, 1)]


def test_a_follower_never_cuts_what_is_committed() -> None:
    """Somebody has lost what he promised to keep: that is for people."""
    bench = Bench(1, 1)
    send = bench.follow(epoch=5)
    bench.respond(send, bench.fetched(high_watermark=2))
    bench.respond(bench.last_send(2), bench.fetched(diverging=Position(1, 1)))
    assert bench.log.cuts == []
    assert bench.of(Alarm)


def test_refused_batches_are_asked_for_again_a_little_later() -> None:
    """Records of an epoch that the leader cannot know."""
    bench = Bench()
    send = bench.follow(epoch=3)
    bench.respond(send, bench.fetched(Entry(4, "data", b"x")))
    assert bench.of(Alarm)
    assert bench.log.end_offset == 0
    bench.wait(20)
    assert bench.sent(FetchRequest)


def test_late_answers_are_dropped() -> None:
    """Asked in one epoch, answered in the next."""
    bench = Bench()
    send = bench.follow(epoch=3)
    bench.follow(leader_id=3, epoch=4)
    bench.respond(send, bench.fetched(Entry(3, "data", b"x")))
    assert bench.log.end_offset == 0


def test_a_leader_that_resigned_is_not_waited_for() -> None:
    """It answers that it leads no more: stand soon."""
    bench = Bench()
    send = bench.follow(epoch=3)
    bench.respond(send, FetchResponse(Answer(ErrorCode.NOT_LEADER_OR_FOLLOWER, 3, None, ())))
    assert bench.state(Follower).is_leader_gone


# -- snapshots ------------------------------------------------------------------------------------------------


def leader_with_snapshot() -> tuple[Bench, int, SnapshotId]:
    bench = Bench()
    epoch = bench.become_leader()
    bench.log.append_data(epoch, b"a", b"b")
    bench.core.on_appended(bench.now_ms)
    bench.flush()
    bench.ask(fetch_request(epoch, 5, epoch, wait_ms_max=0))
    snapshot_id = bench.log.store_snapshot(4, StoredSnapshot(b"fold", 1, voter_set(1, 2, 3).to_record().encode(0)))
    bench.core.on_snapshot(snapshot_id, bench.now_ms)
    return bench, epoch, snapshot_id


@pytest.mark.parametrize(("offset", "last_epoch"), [(0, 0), (3, 1), (4, 0)])
def test_who_is_behind_the_log_is_sent_to_the_snapshot(offset: int, last_epoch: int) -> None:
    """Also who begins, and who ends in an epoch that the log knows no more."""
    bench, epoch, snapshot_id = leader_with_snapshot()
    response = bench.get(fetch_request(epoch, offset, last_epoch, replica=3), FetchResponse)
    assert response.snapshot_id == snapshot_id


def test_who_ends_with_the_snapshot_goes_on_behind_it() -> None:
    """Offset and epoch are the snapshot's."""
    bench, epoch, snapshot_id = leader_with_snapshot()
    response = bench.get(fetch_request(epoch, 4, snapshot_id.epoch, replica=3), FetchResponse)
    assert len(response.records)


@pytest.mark.parametrize(
    ("snapshot_id", "position", "error"),
    [
        (SnapshotId(4, 1), 0, ErrorCode.NONE),
        (SnapshotId(9, 1), 0, ErrorCode.SNAPSHOT_NOT_FOUND),
        (SnapshotId(4, 1), -1, ErrorCode.POSITION_OUT_OF_RANGE),
        (SnapshotId(4, 1), 10**6, ErrorCode.POSITION_OUT_OF_RANGE),
    ],
)
def test_pieces_of_snapshots(snapshot_id: SnapshotId, position: int, error: ErrorCode) -> None:
    """Those that are here, from positions that are in them."""
    bench, epoch, _ = leader_with_snapshot()
    request = FetchSnapshotRequest(key(3), epoch, snapshot_id, position, 10)
    response = bench.get(request, FetchSnapshotResponse)
    assert response.answer.error is error
    assert len(response.data) == (10 if error is ErrorCode.NONE else 0)


def test_fetching_a_snapshot_keeps_the_leader_going() -> None:
    """A large one takes longer than the check of the quorum."""
    bench, epoch, snapshot_id = leader_with_snapshot()
    for _ in range(10):
        bench.ask(FetchSnapshotRequest(key(3), epoch, snapshot_id, 0, 1))
        bench.wait(1_000)
    bench.state(Leader)


def snapshot_answer(bench: Bench, snapshot_id: SnapshotId, data: bytes, at: int, size: int) -> FetchSnapshotResponse:
    answer = Answer(ErrorCode.NONE, bench.core.epoch, 2, endpoints(2))
    return FetchSnapshotResponse(answer, snapshot_id, size, at, data)


def test_a_snapshot_arrives_in_pieces_and_replaces_the_log() -> None:
    """It says who votes, and everything in it is committed."""
    bench = Bench(1, 1)
    data = msgspec.msgpack.encode(StoredSnapshot(b"fold", 1, voter_set(1, 2).to_record().encode(0)))
    snapshot_id = SnapshotId(9, 3)
    send = bench.follow(epoch=5)
    bench.respond(send, bench.fetched(snapshot_id=snapshot_id))
    for at in range(0, len(data), 40):
        ((_, request),) = bench.sent(FetchSnapshotRequest)
        assert (request.snapshot_id, request.position) == (snapshot_id, at)
        bench.respond(bench.last_send(2), snapshot_answer(bench, snapshot_id, data[at : at + 40], at, len(data)))
    assert bench.of(SnapshotLoaded) == [SnapshotLoaded(snapshot_id)]
    assert bench.of(HighWatermarkMoved) == [HighWatermarkMoved(9)]
    assert bench.core.voters == voter_set(1, 2)
    assert [(request.offset, request.last_epoch) for _, request in bench.sent(FetchRequest)] == [(9, 3)]


def test_a_snapshot_that_is_gone_is_asked_for_no_more() -> None:
    """The leader has a newer one; fetching says which."""
    bench = Bench()
    send = bench.follow(epoch=5)
    bench.respond(send, bench.fetched(snapshot_id=SnapshotId(9, 3)))
    answer = Answer(ErrorCode.SNAPSHOT_NOT_FOUND, 5, 2, endpoints(2))
    bench.respond(bench.last_send(2), FetchSnapshotResponse(answer, SnapshotId(9, 3)))
    bench.wait(20)
    assert bench.sent(FetchRequest)


def slow_download(size: int) -> tuple[Bench, Send]:
    """Node 1 after the first answer for a snapshot of which it gets `size` bytes; and what it asks next."""
    bench = Bench(1, 1)
    bench.respond(bench.follow(epoch=5), bench.fetched(snapshot_id=SnapshotId(9, 3)))
    bench.respond(bench.last_send(2), snapshot_answer(bench, SnapshotId(9, 3), b"x" * size, 0, 10**7))
    return bench, bench.last_send(2)


def test_a_part_of_a_snapshot_that_is_late_is_asked_for_smaller() -> None:
    """On a slow link the same again would be late again; what has come already is kept."""
    bench, send = slow_download(1000)
    asked = []
    for _ in range(6):
        bench.now_ms += 1_000  # and the fetch timeout has not passed
        bench.fail(send, is_gone=False)
        bench.wait(20)
        send = bench.last_send(2)
        assert isinstance(send.request, FetchSnapshotRequest)
        asked.append((send.request.position, send.request.bytes_max))
        bench.respond(send, snapshot_answer(bench, SnapshotId(9, 3), b"x", send.request.position, 10**7))
        send = bench.last_send(2)
    assert asked == [(1000 + n, max(4096, 2**20 // 4 ** (n + 1))) for n in range(6)]


def test_parts_of_a_snapshot_that_come_easily_are_asked_for_larger() -> None:
    """A link that was slow for a while is not slow for ever."""
    bench, send = slow_download(1000)
    bench.fail(send, is_gone=False)
    bench.wait(20)
    sizes = []
    for took_ms in (100, 501, 500, 0):
        send = bench.last_send(2)
        assert isinstance(send.request, FetchSnapshotRequest)
        sizes.append(send.request.bytes_max)
        bench.now_ms += took_ms
        data = b"x" * send.request.bytes_max
        bench.respond(send, snapshot_answer(bench, SnapshotId(9, 3), data, send.request.position, 10**7))
    assert sizes == [2**18, 2**19, 2**19, 2**20]


def test_a_snapshot_goes_on_where_it_was_after_a_doubt_about_the_leader() -> None:
    """Its part came later than the fetch timeout; the others say that it leads."""
    bench, _ = slow_download(1000)
    bench.wait_for(Prospective)
    bench.follow(epoch=5)
    ((_, request),) = bench.sent(FetchSnapshotRequest)
    assert (request.snapshot_id, request.position, request.bytes_max) == (SnapshotId(9, 3), 1000, 2**18)


def test_another_leader_sends_its_snapshot_from_the_beginning() -> None:
    """Snapshots of one name hold the same, in other bytes."""
    bench, _ = slow_download(1000)
    bench.respond(bench.follow(3, epoch=6), bench.fetched(snapshot_id=SnapshotId(9, 3), leader_id=3))
    ((_, request),) = bench.sent(FetchSnapshotRequest)
    assert (request.snapshot_id, request.position, request.bytes_max) == (SnapshotId(9, 3), 0, 2**20)


def test_records_that_are_late_are_asked_for_in_smaller_parts() -> None:
    """As snapshots are."""
    bench = Bench(1)
    send = bench.follow(epoch=5)
    bench.wait(2_000)
    bench.follow(epoch=5)
    request = bench.last_send(2).request
    assert isinstance(request, FetchRequest)
    assert isinstance(send.request, FetchRequest)
    assert (send.request.bytes_max, request.bytes_max) == (2**20, 2**18)


def test_whoever_looks_for_the_leader_asks_for_little() -> None:
    """The answer may be the leader's, on a slow link."""
    bench = Bench(1, node_id=9)
    assert bench.sent(FetchRequest)
    assert {request.bytes_max for _, request in bench.sent(FetchRequest)} == {4096}


def test_a_damaged_snapshot_is_dropped() -> None:
    """And the log stays as it is."""
    bench = Bench(1, 1)
    send = bench.follow(epoch=5)
    bench.respond(send, bench.fetched(snapshot_id=SnapshotId(9, 3)))
    bench.respond(bench.last_send(2), snapshot_answer(bench, SnapshotId(9, 3), b"\xc1", 0, 1))
    assert bench.of(Alarm)
    assert bench.log.end_offset == 2


def test_nobody_is_sent_back_behind_what_is_committed() -> None:
    """A snapshot below the high watermark would undo it."""
    bench = Bench(1, 1)
    send = bench.follow(epoch=5)
    bench.respond(send, bench.fetched(high_watermark=2))
    bench.respond(bench.last_send(2), bench.fetched(snapshot_id=SnapshotId(1, 1)))
    assert bench.of(Alarm)
    assert bench.log.end_offset == 2
