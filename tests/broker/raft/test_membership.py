"""Voters that come and go: one at a time, on committed ground (KIP-853, KIP-1186)."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.broker.raft.effects import Send
from streamlog.broker.raft.messages import (
    AddVoterRequest,
    Endpoint,
    RemoveVoterRequest,
    ReplicaKey,
    Request,
    UpdateVoterRequest,
    VersionRange,
    VersionsRequest,
    VersionsResponse,
    VoterChangeResponse,
)
from streamlog.broker.raft.states import Leader, Resigned
from streamlog.broker.raft.voters import VoterHistory, VoterNode, VoterSet
from streamlog.wire.error_codes import ErrorCode
from tests.broker.raft.bench import Bench, fetch_request, key, voter_set
from tests.broker.raft.simulation import LISTENER, endpoints

KNOWS_IT = VersionsResponse(ErrorCode.NONE, VersionRange(0, 1))


def leader(*voters: int) -> Bench:
    """A leader whose first records are committed, and to whom node 7 has caught up."""
    bench = Bench(voters=voters or (1, 2, 3))
    epoch = bench.become_leader()
    for replica in (2, 3, 7):
        bench.ask(fetch_request(epoch, 3, epoch, replica=replica, wait_ms_max=0))
    return bench


def add(node_id: int = 7, *, ack_when_committed: bool = True) -> AddVoterRequest:
    return AddVoterRequest(key(node_id), endpoints(node_id), 5_000, ack_when_committed)


def result(bench: Bench) -> ErrorCode | None:
    reply = bench.reply()
    assert reply is None or isinstance(reply, VoterChangeResponse)
    return None if reply is None else reply.answer.error


def test_a_replica_becomes_a_voter() -> None:
    """It is asked what it knows, its record is appended, and counts at once; the answer waits for the commit."""
    bench = leader()
    assert bench.ask(add()) is None
    ((peer, _),) = bench.sent(VersionsRequest)
    assert peer == 7
    bench.respond(bench.last_send(7), KNOWS_IT)
    assert bench.core.voters == voter_set(1, 2, 3, 7)
    assert bench.reply() is None
    bench.flush()
    end, epoch = bench.log.end_offset, bench.core.epoch
    bench.core.on_request(5, fetch_request(epoch, end, epoch, replica=2, wait_ms_max=0), bench.now_ms)
    assert bench.core.high_watermark < end, "two of four are no majority"
    bench.effects = bench.core.on_request(6, fetch_request(epoch, end, epoch, replica=7, wait_ms_max=0), bench.now_ms)
    bench.effects = [effect for effect in bench.effects if getattr(effect, "token", None) == 77]
    assert result(bench) is ErrorCode.NONE


def test_who_joins_by_itself_is_answered_before_the_commit() -> None:
    """Its own fetches are what the commit may wait for (KIP-1186)."""
    bench = leader()
    bench.ask(add(ack_when_committed=False))
    bench.respond(bench.last_send(7), KNOWS_IT)
    assert result(bench) is ErrorCode.NONE


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (VersionsResponse(ErrorCode.NONE, None), ErrorCode.INVALID_REQUEST),
        (VersionsResponse(ErrorCode.NONE, VersionRange(0, 0)), ErrorCode.INVALID_REQUEST),
        (VersionsResponse(ErrorCode.UNSUPPORTED_VERSION, None), ErrorCode.REQUEST_TIMED_OUT),
    ],
)
def test_who_does_not_know_the_version_stays_outside(answer: VersionsResponse, error: ErrorCode) -> None:
    """Its log would hold what it cannot read."""
    bench = leader()
    bench.ask(add())
    bench.respond(bench.last_send(7), answer)
    assert result(bench) is error
    assert bench.core.voters == voter_set(1, 2, 3)


def test_who_does_not_answer_stays_outside() -> None:
    """And the next change may begin."""
    bench = leader()
    bench.ask(add())
    bench.fail(bench.last_send(7), is_gone=True)
    assert result(bench) is ErrorCode.REQUEST_TIMED_OUT
    assert bench.state(Leader).change is None


def test_who_has_not_caught_up_stays_outside() -> None:
    """Its empty disk would count in every majority."""
    bench = leader()
    bench.ask(add(8))
    bench.respond(bench.last_send(8), KNOWS_IT)
    assert result(bench) is ErrorCode.REQUEST_TIMED_OUT


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (add(2), ErrorCode.DUPLICATE_VOTER),
        (AddVoterRequest(key(7), (), 5_000), ErrorCode.INVALID_REQUEST),
        (AddVoterRequest(key(7), (Endpoint("OTHER", "n7", 1),), 5_000), ErrorCode.INVALID_REQUEST),
        (AddVoterRequest(ReplicaKey(7), endpoints(7), 5_000), ErrorCode.INVALID_REQUEST),
        (RemoveVoterRequest(key(7)), ErrorCode.VOTER_NOT_FOUND),
        (RemoveVoterRequest(ReplicaKey(2, UUID(int=1))), ErrorCode.VOTER_NOT_FOUND),
        (UpdateVoterRequest(1, key(7), endpoints(7), VersionRange(0, 1)), ErrorCode.VOTER_NOT_FOUND),
        (UpdateVoterRequest(1, key(2), endpoints(2), VersionRange(0, 0)), ErrorCode.INVALID_REQUEST),
        (UpdateVoterRequest(1, key(2), (), VersionRange(0, 1)), ErrorCode.INVALID_REQUEST),
        (UpdateVoterRequest(0, key(2), endpoints(2), VersionRange(0, 1)), ErrorCode.FENCED_LEADER_EPOCH),
        (UpdateVoterRequest(1, key(2), endpoints(2), VersionRange(0, 1)), ErrorCode.NONE),
    ],
)
def test_changes_that_change_nothing(request_: Request, error: ErrorCode) -> None:
    """Each with its reason, and nothing appended."""
    bench = leader()
    end = bench.log.end_offset
    bench.ask(request_)
    assert result(bench) is error
    assert bench.log.end_offset == end


def test_nothing_changes_before_the_leader_has_committed() -> None:
    """An older leader may have begun a change that is still to come (the known flaw of the single-server method)."""
    bench = Bench()
    bench.become_leader()
    bench.ask(RemoveVoterRequest(key(3)))
    assert result(bench) is ErrorCode.REQUEST_TIMED_OUT


def test_one_change_at_a_time() -> None:
    """The second has to wait for the first to be committed."""
    bench = leader()
    assert bench.ask(RemoveVoterRequest(key(3))) is None
    bench.effects = bench.core.on_request(8, add(), bench.now_ms)
    assert result(bench) is ErrorCode.REQUEST_TIMED_OUT


def test_a_change_that_takes_too_long_is_answered_and_still_in_the_way() -> None:
    """It may be committed later; until it is, there is no other."""
    bench = leader()
    bench.ask(RemoveVoterRequest(key(3)))
    bench.wait(2_000)
    assert result(bench) is ErrorCode.REQUEST_TIMED_OUT
    bench.ask(add())
    assert result(bench) is ErrorCode.REQUEST_TIMED_OUT


def test_a_leader_that_is_voted_out_goes_when_that_is_committed() -> None:
    """Until then it leads without counting itself."""
    bench = leader()
    bench.ask(RemoveVoterRequest(key(1)))
    bench.flush()
    end, epoch = bench.log.end_offset, bench.core.epoch
    bench.ask(fetch_request(epoch, end, epoch, replica=2, wait_ms_max=0))
    bench.state(Leader)
    bench.ask(fetch_request(epoch, end, epoch, replica=3, wait_ms_max=0))
    bench.state(Resigned)


def test_the_last_voter_stays() -> None:
    """Nobody could vote for anything any more."""
    bench = Bench(voters=(1,))
    bench.flush()
    bench.ask(RemoveVoterRequest(key(1)))
    assert result(bench) is ErrorCode.VOTER_NOT_FOUND


def test_a_sole_voter_becomes_two() -> None:
    """From the append on, both are needed."""
    bench = Bench(voters=(1,))
    bench.flush()
    bench.ask(fetch_request(1, 3, 1, replica=7, wait_ms_max=0))
    bench.ask(add())
    bench.respond(bench.last_send(7), KNOWS_IT)
    bench.flush()
    assert bench.core.high_watermark == 3
    bench.ask(fetch_request(1, 4, 1, replica=7, wait_ms_max=0))
    assert bench.core.high_watermark == 4


def test_followers_tell_when_they_have_moved() -> None:
    """The log has another address for them."""
    bench = Bench()
    moved = VoterSet([*voter_set(2, 3), VoterNode(key(1), (Endpoint(LISTENER, "elsewhere", 1),))])
    bench.core._replica.history.note(0, moved.to_record())
    _take_over(bench)
    ((_, request),) = bench.sent(UpdateVoterRequest)
    assert request == UpdateVoterRequest(3, key(1), endpoints(1), VersionRange(0, 1))


def _take_over(bench: Bench) -> None:
    """Follow for longer than the voters are left unchecked."""
    send = bench.follow(epoch=3)
    for _ in range(5):
        if send.request.__class__ in (UpdateVoterRequest, AddVoterRequest, RemoveVoterRequest):
            return
        bench.now_ms += 500
        bench.respond(send, bench.fetched())
        send = [effect for effect in bench.effects if isinstance(effect, Send)][-1]


@pytest.mark.parametrize("auto_join", [True, False])
def test_an_observer_joins_by_itself_where_it_is_told_to(auto_join: bool) -> None:
    """controller.quorum.auto.join.enable."""
    bench = Bench(voters=(2, 3), auto_join=auto_join)
    _take_over(bench)
    expected = [AddVoterRequest(key(1), endpoints(1), 2_000, ack_when_committed=False)] if auto_join else []
    assert [request for _, request in bench.sent(AddVoterRequest)] == expected


def test_a_node_with_a_new_disk_first_removes_what_it_was() -> None:
    """Its number votes once."""
    old = ReplicaKey(1, UUID(int=5))
    bench = Bench(voters=(2, 3), auto_join=True)
    voters = VoterSet([*voter_set(2, 3), VoterNode(old, endpoints(1))])
    bench.core._replica.history.note(0, voters.to_record())
    _take_over(bench)
    assert [request for _, request in bench.sent(RemoveVoterRequest)] == [RemoveVoterRequest(old)]


def test_a_voter_set_is_a_value() -> None:
    """Changes give new sets, or none."""
    voters = voter_set(1, 2)
    assert voters.with_voter(VoterNode(key(3))) is not None
    assert voters.with_voter(VoterNode(ReplicaKey(2, UUID(int=1)))) is None
    assert voters.without_voter(key(2)) == voter_set(1)
    assert voters.without_voter(ReplicaKey(2)) is None
    assert voter_set(1).without_voter(key(1)) is None
    assert VoterSet.from_record(voters.to_record()) == voters


def test_a_voter_without_a_directory_is_any_disk_of_its_node() -> None:
    """With kraft.version 0 that is all that is known."""
    voters = VoterSet([VoterNode(ReplicaKey(1))])
    assert voters.has(key(1))
    assert not voters.has(key(2))


def test_the_history_follows_the_log() -> None:
    """Newest first; a cut brings the older one back; a snapshot keeps what still counts."""
    history = VoterHistory(VoterSet())
    for offset, ids in ((0, (1,)), (5, (1, 2)), (9, (1, 2, 3))):
        history.note(offset, voter_set(*ids).to_record())
    assert history.voters == voter_set(1, 2, 3)
    assert history.voters_at(8) == voter_set(1, 2)
    history.forget_before(7)
    assert history.voters_at(6) == voter_set(1, 2)
    assert history.forget_from(9)
    assert (history.voters, history.voters_offset) == (voter_set(1, 2), 5)
