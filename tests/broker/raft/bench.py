"""One replica on the bench: events in, effects out, a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from streamlog.broker.raft.core import Election, RaftCore
from streamlog.broker.raft.effects import Effect, Flush, PersistElection, Reply, Send
from streamlog.broker.raft.messages import (
    Answer,
    BeginQuorumEpochRequest,
    FetchRequest,
    FetchResponse,
    Position,
    ReplicaKey,
    Request,
    Response,
    SnapshotId,
    VoteRequest,
    VoteResponse,
)
from streamlog.broker.raft.replica import RaftConfig
from streamlog.broker.raft.states import Candidate, Prospective, State
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.wire.error_codes import ErrorCode
from tests.broker.raft.memory_log import Entry, MemoryLog, StoredSnapshot
from tests.broker.raft.simulation import LISTENER, endpoints

R = TypeVar("R", bound=Request)
A = TypeVar("A", bound=Response)
E = TypeVar("E", bound=Effect)
S = TypeVar("S", bound=State)

TOKEN = 77


def key(node_id: int) -> ReplicaKey:
    return ReplicaKey(node_id, UUID(int=1000 + node_id))


def voter_set(*ids: int) -> VoterSet:
    return VoterSet(VoterNode(key(number), endpoints(number)) for number in ids)


class Bench:
    """Node 1, of `voters`, with a log that has one record of each of `epochs`; everything in it is synced.

    Unless `draw_ms` says otherwise an election timeout is one second, a fetch timeout two.
    """

    def __init__(
        self,
        *epochs: int,
        voters: tuple[int, ...] = (1, 2, 3),
        election: Election | None = None,
        auto_join: bool = False,
        node_id: int = 1,
        draw_ms: Callable[[int], int] = lambda stop: 0,
    ) -> None:
        self.log = MemoryLog(StoredSnapshot(b"", 1, voter_set(*voters).to_record().encode(0)))
        self.log.entries = [Entry(epoch, "data", b"%d" % epoch) for epoch in epochs]
        self.log.flushed_offset = self.log.end_offset
        self.now_ms = 10_000
        config = RaftConfig(key=key(node_id), listener=LISTENER, endpoints=endpoints(node_id), auto_join=auto_join)
        self.core = RaftCore(config, self.log, election, draw_ms)
        self.effects = self.core.on_start(self.now_ms)

    # -- events -----------------------------------------------------------------------------------------------

    def wait(self, duration_ms: int) -> list[Effect]:
        """Let the time pass, deadline after deadline."""
        self.effects = []
        end_ms = self.now_ms + duration_ms
        while self.core.next_deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, self.core.next_deadline_ms)
            self.effects += self.core.on_deadline(self.now_ms)
        self.now_ms = end_ms
        return self.effects

    def wait_for(self, state: type[S], duration_ms: int = 5_000) -> S:
        """Let the time pass until the replica is in this state."""
        self.effects = []
        end_ms = self.now_ms + duration_ms
        while not isinstance(self.core.state, state) and self.core.next_deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, self.core.next_deadline_ms)
            self.effects += self.core.on_deadline(self.now_ms)
        return self.state(state)

    def ask(self, request: Request) -> Response | None:
        """The reply, if there is one at once."""
        self.effects = self.core.on_request(TOKEN, request, self.now_ms)
        return self.reply()

    def get(self, request: Request, kind: type[A]) -> A:
        response = self.ask(request)
        assert isinstance(response, kind), f"{response} is no {kind.__name__}"
        return response

    def respond(self, send: Send, response: Response) -> list[Effect]:
        self.effects = self.core.on_response(send.peer.id, send.number, response, self.now_ms)
        return self.effects

    def fail(self, send: Send, *, is_gone: bool) -> list[Effect]:
        self.effects = self.core.on_failure(send.peer.id, send.number, self.now_ms, is_gone=is_gone)
        return self.effects

    def flush(self) -> list[Effect]:
        self.log.flushed_offset = self.log.end_offset
        self.effects = self.core.on_flushed(self.now_ms)
        return self.effects

    # -- what came of it --------------------------------------------------------------------------------------

    def state(self, kind: type[S]) -> S:
        assert isinstance(self.core.state, kind), f"{self.core.state} is no {kind.__name__}"
        return self.core.state

    def reply(self) -> Response | None:
        found = [effect.response for effect in self.effects if isinstance(effect, Reply)]
        return found[0] if found else None

    def sent(self, kind: type[R]) -> list[tuple[int, R]]:
        """(to whom, what), of the last event."""
        return [
            (effect.peer.id, effect.request)
            for effect in self.effects
            if isinstance(effect, Send) and isinstance(effect.request, kind)
        ]

    def last_send(self, peer_id: int) -> Send:
        return [effect for effect in self.effects if isinstance(effect, Send) and effect.peer.id == peer_id][-1]

    def of(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def persisted(self) -> PersistElection:
        return self.of(PersistElection)[-1]

    # -- shortcuts --------------------------------------------------------------------------------------------

    def become_leader(self) -> int:
        """Win an election against nobody's resistance; the first record is synced. Returns the epoch."""
        self.wait_for(Prospective)
        for role in (Prospective, Candidate):  # asked beforehand, then in earnest
            votes = [send for send in self.of(Send) if isinstance(send.request, VoteRequest)]
            epoch = self.core.epoch
            for send in votes:
                if isinstance(self.core.state, role):
                    self.respond(send, self.granted(epoch))
        self.flush()
        return self.core.epoch

    def follow(self, leader_id: int = 2, epoch: int = 1) -> Send:
        """Hear of a leader. Returns the fetch that follows."""
        self.ask(BeginQuorumEpochRequest(key(1), epoch, leader_id, endpoints(leader_id)))
        return self.last_send(leader_id)

    def fetched(
        self,
        *entries: Entry,
        high_watermark: int = -1,
        diverging: Position | None = None,
        snapshot_id: SnapshotId | None = None,
        leader_id: int = 2,
    ) -> FetchResponse:
        """The leader's answer to a fetch."""
        answer = Answer(ErrorCode.NONE, self.core.epoch, leader_id, endpoints(leader_id))
        records = self.batch(*entries) if entries else b""
        return FetchResponse(answer, high_watermark, 0, records, diverging, snapshot_id)

    def granted(self, epoch: int, *, granted: bool = True) -> VoteResponse:
        return VoteResponse(Answer(ErrorCode.NONE, epoch, None, ()), granted)

    def batch(self, *entries: Entry) -> bytes:
        """What a leader sends for our log's end."""
        other = MemoryLog()
        other.start_offset = self.log.end_offset
        other.entries = list(entries)
        return bytes(other.read(other.start_offset, 10**6))


def vote_request(
    epoch: int, log_end: Position, *, candidate: int = 2, voter: ReplicaKey | None = None, pre_vote: bool = False
) -> VoteRequest:
    return VoteRequest(voter or key(1), epoch, key(candidate), log_end, pre_vote)


def fetch_request(
    epoch: int, offset: int, last_epoch: int, *, replica: int = 2, wait_ms_max: int = 500, high_watermark: int = 10**9
) -> FetchRequest:
    return FetchRequest(key(replica), epoch, offset, last_epoch, wait_ms_max, 10**6, high_watermark)


def has_flush(effects: list[Effect]) -> bool:
    return any(isinstance(effect, Flush) for effect in effects)
