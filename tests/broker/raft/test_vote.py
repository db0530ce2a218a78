"""Elections: who stands when, who gets whose vote, and what is durable before it is said (KIP-595, KIP-996)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from streamlog.broker.raft.core import Election
from streamlog.broker.raft.effects import LeaderChanged, PersistElection, Reply, Send
from streamlog.broker.raft.messages import (
    Answer,
    BeginQuorumEpochRequest,
    EndQuorumEpochRequest,
    EndQuorumEpochResponse,
    FetchRequest,
    FetchResponse,
    Position,
    ReplicaKey,
    VoteRequest,
    VoteResponse,
)
from streamlog.broker.raft.states import Candidate, Follower, Leader, Prospective, Resigned, Unattached
from streamlog.wire.error_codes import ErrorCode
from tests.broker.raft.bench import Bench, fetch_request, key, vote_request
from tests.broker.raft.simulation import endpoints

EMPTY = Position(0, 0)


def at_most(drawn_ms: int) -> Callable[[int], int]:
    """Chance that always draws this, where it may."""
    return lambda stop: min(stop - 1, drawn_ms)


def test_a_voter_waits_before_it_stands() -> None:
    """It asks who leads meanwhile, and asks for pre-votes only after an election timeout."""
    bench = Bench()
    bench.state(Unattached)
    assert [request.offset for _, request in bench.sent(FetchRequest)] == [0]
    bench.wait(999)
    bench.state(Unattached)
    bench.wait(1)
    bench.state(Prospective)
    assert bench.sent(VoteRequest) == [
        (peer, VoteRequest(key(peer), 0, key(1), EMPTY, pre_vote=True)) for peer in (2, 3)
    ]


def test_asking_beforehand_changes_nothing_durable() -> None:
    """A pre-vote costs no epoch."""
    bench = Bench()
    bench.wait_for(Prospective)
    assert bench.core.epoch == 0
    assert not bench.of(PersistElection)


def test_a_majority_of_pre_votes_makes_a_candidate() -> None:
    """Its vote for itself is durable before it asks for others."""
    bench = Bench()
    bench.wait_for(Prospective)
    bench.respond(bench.last_send(3), bench.granted(0))
    bench.state(Candidate)
    assert bench.effects[0] == PersistElection(1, None, key(1))
    assert bench.sent(VoteRequest) == [
        (peer, VoteRequest(key(peer), 1, key(1), EMPTY, pre_vote=False)) for peer in (2, 3)
    ]


def test_a_majority_of_votes_makes_a_leader_that_writes_first() -> None:
    """A leader change, and, in a new log, who votes."""
    bench = Bench()
    assert bench.become_leader() == 1
    assert [(entry.epoch, entry.kind) for entry in bench.log.entries] == [(1, "leader"), (1, "version"), (1, "voters")]
    assert bench.core.leader_id == 1


def test_a_sole_voter_leads_at_once() -> None:
    """One write of the election state, one record, and no message to anybody."""
    bench = Bench(voters=(1,))
    bench.state(Leader)
    assert bench.of(PersistElection) == [PersistElection(1, 1, key(1))]
    assert bench.of(LeaderChanged) == [LeaderChanged(1, 1, 0)]
    assert not bench.of(Send)
    assert bench.core.high_watermark == 0
    bench.flush()
    assert bench.core.high_watermark == 3


def test_a_candidate_that_loses_waits_and_asks_again() -> None:
    """Both others refuse: after a pause it is prospective again, in its own epoch."""
    bench = Bench()
    bench.wait_for(Prospective)
    bench.respond(bench.last_send(2), bench.granted(0))
    sends = {peer: bench.last_send(peer) for peer in (2, 3)}
    for peer in (2, 3):
        bench.respond(sends[peer], bench.granted(1, granted=False))
    bench.wait_for(Prospective)
    assert bench.core.epoch == 1


def test_a_prospective_that_would_lose_goes_on_following() -> None:
    """The others hear the leader; nothing has happened."""
    bench = Bench()
    bench.follow(leader_id=2, epoch=3)
    bench.wait_for(Prospective)
    sends = {peer: bench.last_send(peer) for peer in (2, 3)}
    for peer in (2, 3):
        bench.respond(sends[peer], VoteResponse(Answer(ErrorCode.NONE, 3, 2, endpoints(2)), granted=False))
    bench.state(Follower)
    assert (bench.core.epoch, bench.core.leader_id) == (3, 2)


def test_who_would_not_vote_is_asked_again_soon() -> None:
    """The leader is frozen, and the other follower found out a moment later than we did."""
    bench = Bench()
    bench.respond(bench.follow(leader_id=2, epoch=3), bench.fetched())
    bench.wait_for(Prospective)
    bench.respond(bench.last_send(3), VoteResponse(Answer(ErrorCode.NONE, 3, 2, endpoints(2)), granted=False))
    bench.state(Prospective)
    bench.wait(50)
    bench.respond(bench.last_send(3), bench.granted(3))
    bench.state(Candidate)


def test_a_split_vote_is_not_waited_out() -> None:
    """One voter is dead and the other has a rival's vote: neither can win, and both try again at different times."""
    for drawn_ms in (0, 149):
        bench = Bench(draw_ms=at_most(drawn_ms))
        bench.wait_for(Prospective)
        bench.respond(bench.last_send(3), bench.granted(0))
        bench.respond(bench.last_send(3), bench.granted(1, granted=False))
        bench.wait(50 + drawn_ms - 1)
        bench.state(Candidate)
        bench.wait(1)
        bench.state(Prospective)


def test_followers_do_not_all_miss_their_leader_at_once() -> None:
    """They are answered at the same moments, so a share of their patience is drawn."""
    for drawn_ms in (0, 249):
        bench = Bench(draw_ms=at_most(drawn_ms))
        bench.respond(bench.follow(leader_id=2, epoch=3), bench.fetched())
        bench.wait(2_000 + drawn_ms - 1)
        bench.state(Follower)
        bench.wait(1)
        bench.state(Prospective)


def test_voters_that_know_no_pre_vote_are_asked_for_votes() -> None:
    """There is no asking beforehand with them."""
    bench = Bench()
    bench.wait_for(Prospective)
    bench.respond(bench.last_send(2), VoteResponse(Answer(ErrorCode.UNSUPPORTED_VERSION, -1, None, ()), granted=False))
    bench.state(Candidate)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (Position(2, 5), True),
        (Position(2, 6), True),
        (Position(3, 1), True),
        (Position(2, 4), False),
        (Position(1, 9), False),
    ],
)
@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_vote_goes_to_a_log_that_holds_no_less(asked: Position, granted: bool, pre_vote: bool) -> None:
    """First the epoch of the last record counts, then the length."""
    bench = Bench(1, 1, 2, 2, 2)
    response = bench.get(vote_request(4, asked, pre_vote=pre_vote), VoteResponse)
    assert response.granted is granted
    assert response.answer.error is ErrorCode.NONE


def test_a_vote_is_durable_before_it_is_given() -> None:
    """The reply comes behind the file."""
    bench = Bench()
    bench.ask(vote_request(4, EMPTY))
    kinds = [type(effect) for effect in bench.effects]
    assert kinds.index(PersistElection) < kinds.index(Reply)
    assert bench.persisted() == PersistElection(4, None, key(2))


def test_an_epoch_has_one_vote() -> None:
    """The same candidate may ask again, another may not, and a later epoch begins anew."""
    bench = Bench()
    assert bench.get(vote_request(4, EMPTY, candidate=2), VoteResponse).granted
    assert bench.get(vote_request(4, EMPTY, candidate=2), VoteResponse).granted
    assert not bench.get(vote_request(4, Position(3, 9), candidate=3), VoteResponse).granted
    assert bench.get(vote_request(5, EMPTY, candidate=3), VoteResponse).granted


def test_a_vote_outlives_a_restart() -> None:
    """What the file says is what was promised."""
    bench = Bench(election=Election(4, None, key(2)))
    assert not bench.get(vote_request(4, Position(3, 9), candidate=3), VoteResponse).granted
    assert bench.get(vote_request(4, EMPTY, candidate=2), VoteResponse).granted


def test_who_led_does_not_lead_after_a_restart() -> None:
    """Part of what it wrote in that epoch may be gone."""
    bench = Bench(1, election=Election(1, 1, key(1)))
    bench.state(Unattached)
    assert bench.core.leader_id is None
    assert not bench.get(vote_request(1, EMPTY, candidate=3), VoteResponse).granted


def test_a_follower_finds_its_leader_after_a_restart() -> None:
    """The file names it, and the voters say where it is."""
    bench = Bench(election=Election(4, 3, None))
    bench.state(Follower)
    assert [peer for peer, _ in bench.sent(FetchRequest)] == [3]


def test_a_lost_file_does_not_take_the_epoch_back() -> None:
    """The log knows one too."""
    bench = Bench(7)
    assert bench.core.epoch == 7


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (vote_request(4, Position(0, 0)), ErrorCode.FENCED_LEADER_EPOCH),
        (vote_request(5, Position(5, 1)), ErrorCode.INVALID_REQUEST),
        (vote_request(5, Position(6, 1), pre_vote=True), ErrorCode.INVALID_REQUEST),
        (vote_request(6, Position(-1, 0)), ErrorCode.INVALID_REQUEST),
        (vote_request(6, Position(0, -1)), ErrorCode.INVALID_REQUEST),
        (vote_request(6, Position(0, 0), candidate=-1), ErrorCode.INVALID_REQUEST),
        (vote_request(6, EMPTY, voter=ReplicaKey(1, UUID(int=5))), ErrorCode.INVALID_VOTER_KEY),
        (vote_request(6, EMPTY, voter=key(2)), ErrorCode.INVALID_VOTER_KEY),
    ],
)
def test_votes_that_cannot_be_given(request_: VoteRequest, error: ErrorCode) -> None:
    """Of old epochs, of impossible logs, and of disks that this node has no more."""
    bench = Bench(election=Election(5, None, None))
    response = bench.get(request_, VoteResponse)
    assert (response.answer.error, response.granted) == (error, False)


def test_a_follower_that_hears_its_leader_would_not_vote() -> None:
    """Nor would the leader; one that has not heard it yet would."""
    bench = Bench()
    send = bench.follow(epoch=3)
    ask = vote_request(3, EMPTY, candidate=3, pre_vote=True)
    assert bench.get(ask, VoteResponse).granted
    bench.respond(send, bench.fetched())
    assert not bench.get(ask, VoteResponse).granted
    leader = Bench()
    epoch = leader.become_leader()
    assert not leader.get(vote_request(epoch, Position(epoch, 99), pre_vote=True), VoteResponse).granted


def test_a_broken_connection_to_the_leader_shortens_the_wait() -> None:
    """And others may count on our pre-vote."""
    bench = Bench()
    send = bench.follow(epoch=3)
    bench.respond(send, bench.fetched())
    bench.fail(bench.last_send(2), is_gone=True)
    assert bench.get(vote_request(3, EMPTY, candidate=3, pre_vote=True), VoteResponse).granted
    bench.wait(60)
    bench.state(Prospective)


def test_a_silent_leader_is_waited_for() -> None:
    """A request that timed out says less than a connection that broke."""
    bench = Bench()
    send = bench.follow(epoch=3)
    bench.respond(send, bench.fetched())
    bench.fail(bench.last_send(2), is_gone=False)
    bench.wait(1_900)
    bench.state(Follower)
    bench.wait(200)
    bench.state(Prospective)


def test_a_leader_without_a_majority_resigns() -> None:
    """It says so to everybody, and whoever waits for it is told."""
    bench = Bench()
    epoch = bench.become_leader()
    assert bench.ask(fetch_request(epoch, 3, epoch, wait_ms_max=100_000)) is None
    bench.wait_for(Resigned)
    assert bench.now_ms - 10_000 >= 3_000
    replies = [effect.response.answer.error for effect in bench.of(Reply)]  # type: ignore[union-attr]
    assert replies == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert {peer for peer, _ in bench.sent(EndQuorumEpochRequest)} == {2, 3}
    assert bench.core.leader_id is None


def test_a_leader_that_is_asked_for_records_goes_on() -> None:
    """One of the two others is a majority with it."""
    bench = Bench()
    epoch = bench.become_leader()
    for _ in range(10):
        bench.ask(fetch_request(epoch, 3, epoch, wait_ms_max=0))
        bench.wait(1_000)
    bench.state(Leader)


def test_a_resigned_leader_names_the_best_successors_first() -> None:
    """Who has more of the log is asked to stand first."""
    bench = Bench()
    epoch = bench.become_leader()
    bench.ask(fetch_request(epoch, 3, epoch, replica=3, wait_ms_max=0))
    bench.effects = bench.core.on_resign(epoch, bench.now_ms)
    (_, first), _ = bench.sent(EndQuorumEpochRequest)
    assert first.candidates == (key(3), key(2))


def test_a_resigned_leader_waits_and_then_begins_anew() -> None:
    """Nobody stood: the next epoch, as everybody else."""
    bench = Bench()
    epoch = bench.become_leader()
    bench.core.on_resign(epoch, bench.now_ms)
    bench.wait_for(Unattached)
    assert bench.core.epoch == epoch + 1


def test_the_first_successor_stands_at_once() -> None:
    """The others give it a moment."""
    first, second = Bench(), Bench()
    for bench, candidates in ((first, (key(1), key(3))), (second, (key(3), key(1)))):
        bench.follow(epoch=3)
        response = bench.get(EndQuorumEpochRequest(3, 2, candidates, ()), EndQuorumEpochResponse)
        assert response.answer.error is ErrorCode.NONE
    first.state(Prospective)
    second.state(Follower)
    second.wait(600)
    second.state(Prospective)


@pytest.mark.parametrize("state", ["leader", "candidate", "prospective", "follower"])
def test_a_leader_of_a_higher_epoch_is_followed_from_everywhere(state: str) -> None:
    """Whatever one was."""
    bench = Bench()
    match state:
        case "leader":
            bench.become_leader()
        case "candidate":
            bench.wait_for(Prospective)
            bench.respond(bench.last_send(2), bench.granted(0))
        case "prospective":
            bench.wait_for(Prospective)
        case _:
            bench.follow(leader_id=3, epoch=2)
    bench.ask(BeginQuorumEpochRequest(key(1), 9, 2, endpoints(2)))
    bench.state(Follower)
    assert bench.persisted() == PersistElection(9, 2, None)


def test_a_new_leader_is_asked_at_once_whatever_it_said_before() -> None:
    """Its commits wait for the first fetch. Before it led, it answered for a while that nobody does."""
    bench = Bench()
    nobody = FetchResponse(Answer(ErrorCode.NOT_LEADER_OR_FOLLOWER, 0, None, ()))
    sends = bench.of(Send)
    while bench.now_ms < 10_900:
        for send in sends:
            bench.respond(send, nobody)
        sends = bench.of(Send) or [effect for effect in bench.wait(20) if isinstance(effect, Send)]
    bench.follow(leader_id=2, epoch=3)
    assert [peer for peer, _ in bench.sent(FetchRequest)] == [2]


def test_a_second_leader_of_one_epoch_is_not_believed() -> None:
    """That cannot be; nobody changes sides for it."""
    bench = Bench()
    bench.follow(leader_id=2, epoch=3)
    bench.ask(BeginQuorumEpochRequest(key(1), 3, 3, endpoints(3)))
    assert bench.core.leader_id == 2
    assert "epoch 3" in str(bench.effects)


def test_observers_do_not_stand() -> None:
    """However long they hear of nobody; they ask around."""
    bench = Bench(voters=(2, 3))
    bench.wait(60_000)
    bench.state(Unattached)
    assert {peer for peer, _ in bench.sent(FetchRequest)} == {2, 3}
    assert not bench.sent(VoteRequest)


def test_whoever_knows_a_leader_tells() -> None:
    """An answer of somebody who follows sends the asker to the leader."""
    bench = Bench()
    bench.follow(epoch=3)
    response = bench.get(vote_request(2, EMPTY, candidate=3), VoteResponse)
    assert response.answer == Answer(ErrorCode.FENCED_LEADER_EPOCH, 3, 2, endpoints(2))


def test_an_answer_can_make_a_follower() -> None:
    """Asked who leads, a peer has named somebody else."""
    bench = Bench()
    send = bench.of(Send)[0]
    bench.respond(send, FetchResponse(Answer(ErrorCode.FENCED_LEADER_EPOCH, 8, 3, endpoints(3))))
    bench.state(Follower)
    assert (bench.core.epoch, bench.core.leader_id) == (8, 3)
