"""Three replicas of one partition with the real cores, a controller of a page, and all that can go wrong between them.

Logs are lists, fetches are calls, the controller's answers wait until somebody delivers or loses them, and every node
learns of the metadata when it is told. `check` looks at what must hold after each step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from streamlog.broker.log.epochs import EpochCache
from streamlog.broker.replication.follower import FollowerState, StepKind
from streamlog.broker.replication.leader import IsrProposal, LeaderState, Verdict
from streamlog.wire.error_codes import ErrorCode

BROKERS: Final = (1, 2, 3)
LAG_MS: Final = 100
NO_LEADER: Final = -1


@dataclass(frozen=True)
class Registration:
    leader: int = 1
    leader_epoch: int = 1
    partition_epoch: int = 1
    isr: tuple[int, ...] = BROKERS


@dataclass
class Replica:
    id: int
    log: list[tuple[int, str]] = field(default_factory=list)
    """(leader epoch, value); the index is the offset."""
    flushed: int = 0
    high_watermark: int = 0
    epochs: EpochCache = field(default_factory=EpochCache)
    seen: Registration = Registration(NO_LEADER, 0, 0, ())
    is_alive: bool = True
    lost_tail: bool = False
    broker_epoch: int = 1
    leader: LeaderState | None = None
    follower: FollowerState | None = None
    waiting: list[tuple[int, str]] = field(default_factory=list)
    """(offset, value) of producers that wait for acks=all."""
    watermarks: dict[int, int] = field(default_factory=dict)
    """Highest high watermark by leader epoch, in this incarnation."""

    @property
    def end(self) -> int:
        return len(self.log)

    def cut(self, offset: int) -> None:
        del self.log[offset:]
        self.epochs.truncate_from_end(offset)
        self.flushed = min(self.flushed, offset)
        self.high_watermark = min(self.high_watermark, offset)


class Cluster:
    def __init__(self, *, flush_before_ack: bool, min_isr: int) -> None:
        self.flush_before_ack = flush_before_ack
        self.min_isr = min_isr
        self.now_ms = 0
        self.registration = Registration()
        self.fenced: set[int] = set()
        self.replicas = {number: Replica(number) for number in BROKERS}
        self.acknowledged: dict[int, str] = {}
        self.answers: list[tuple[int, int, IsrProposal, Registration | ErrorCode]] = []
        """(replica, its incarnation, proposal, what the controller said) under way."""
        self.proposals: list[tuple[int, int, IsrProposal]] = []
        self.produced = 0
        for number in BROKERS:
            self.publish(number)

    # -- the controller ---------------------------------------------------------------------------------------

    def _change(self, isr: tuple[int, ...], leader: int) -> None:
        now = self.registration
        epoch = now.leader_epoch + (leader != now.leader)
        self.registration = Registration(leader, epoch, now.partition_epoch + 1, isr)

    def _elect(self, isr: tuple[int, ...]) -> None:
        """Leader from the set; the last member stays in it however dead it is."""
        now = self.registration
        alive = [member for member in isr if member not in self.fenced]
        leader = now.leader if now.leader in alive else (alive[0] if alive else NO_LEADER)
        if (isr, leader) != (now.isr, now.leader):
            self._change(isr, leader)

    def fence(self, number: int) -> None:
        """The controller notices that a broker is gone.

        First of all those that have lost power with unflushed records: two members that go at the same time, one of
        them that way, are more than a set that does not flush promises to survive (KIP-966 narrows that down).
        """
        for gone in [m for m in self.registration.isr if self.replicas[m].lost_tail] + [number]:
            self.fenced.add(gone)
            isr = tuple(m for m in self.registration.isr if m != gone) or self.registration.isr
            self._elect(isr)

    def unfence(self, number: int) -> None:
        self.fenced.discard(number)
        self._elect(self.registration.isr)

    def prefer(self, number: int) -> None:
        """Somebody asks for another leader."""
        if number in self.registration.isr and number not in self.fenced and number != self.registration.leader:
            self._change(self.registration.isr, number)

    def controller_handles(self) -> None:
        """The oldest proposal arrives."""
        number, incarnation, proposal = self.proposals.pop(0)
        now = self.registration
        answer: Registration | ErrorCode
        if proposal.leader_epoch != now.leader_epoch or number != now.leader or incarnation != self._epoch(number):
            answer = ErrorCode.FENCED_LEADER_EPOCH
        elif proposal.partition_epoch != now.partition_epoch:
            answer = ErrorCode.INVALID_UPDATE_VERSION
        elif any(m in self.fenced or epoch not in (-1, self._epoch(m)) for m, epoch in proposal.isr):
            answer = ErrorCode.INELIGIBLE_REPLICA
        else:
            self.registration = replace(now, isr=proposal.members, partition_epoch=now.partition_epoch + 1)
            answer = self.registration
        self.answers.append((number, incarnation, proposal, answer))

    def _epoch(self, number: int) -> int:
        return self.replicas[number].broker_epoch

    def _is_eligible(self, number: int, broker_epoch: int) -> bool:
        return number not in self.fenced and broker_epoch == self._epoch(number)

    # -- replicas ---------------------------------------------------------------------------------------------

    def publish(self, number: int) -> None:
        """A replica learns the metadata as they are."""
        replica, now = self.replicas[number], self.registration
        was, replica.seen = replica.seen, now
        if now.leader == number:
            if replica.leader is None or now.leader_epoch != was.leader_epoch:
                replica.follower = None
                replica.waiting = []
                replica.epochs.assign(now.leader_epoch, replica.end)
                replica.leader = LeaderState(
                    number, now.leader_epoch, replica.end, self._is_eligible, lag_ms_max=LAG_MS, now_ms=self.now_ms
                )
                replica.leader.min_insync_replicas = self.min_isr
            replica.leader.adopt(BROKERS, now.isr, now.partition_epoch)
            self.advance(replica)
        elif replica.follower is None or now.leader_epoch != was.leader_epoch or now.leader != was.leader:
            if replica.leader is not None:
                replica.epochs.truncate_from_end(replica.end)
            replica.leader, replica.waiting = None, []
            replica.follower = FollowerState(now.leader, now.leader_epoch, 1000)

    def produce(self, number: int) -> None:
        replica = self.replicas[number]
        if replica.leader is None or replica.leader.is_under_min_isr:
            return
        self.produced += 1
        value = f"v{self.produced}"
        replica.waiting.append((replica.end, value))
        replica.log.append((replica.leader.leader_epoch, value))
        self.advance(replica)

    def flush(self, number: int) -> None:
        replica = self.replicas[number]
        replica.flushed = replica.end
        self.advance(replica)

    def _own_offset(self, replica: Replica) -> int:
        return replica.flushed if self.flush_before_ack else replica.end

    def advance(self, replica: Replica) -> None:
        if replica.leader is None:
            return
        offset = replica.leader.replicated_offset(self._own_offset(replica), replica.end, self.now_ms)
        if offset > replica.high_watermark:
            replica.high_watermark = offset
        if len(replica.leader.isr) >= self.min_isr:
            for at, value in replica.waiting:
                if at < replica.high_watermark:
                    self.acknowledged[at] = value
            replica.waiting = [one for one in replica.waiting if one[0] >= replica.high_watermark]

    def fetch(self, number: int, *, answer_lost: bool, count: int) -> None:
        """A follower asks whom it takes for the leader, and does what the answer says."""
        follower = self.replicas[number]
        if follower.follower is None or follower.follower.leader_id == NO_LEADER:
            return
        leader = self.replicas[follower.follower.leader_id]
        state = leader.leader
        if not leader.is_alive or state is None or state.leader_epoch != follower.follower.leader_epoch:
            return
        if self.flush_before_ack:
            follower.flushed = follower.end
        offset, epoch = follower.end, follower.epochs.latest
        diverging: tuple[int, int] | None = None
        if epoch >= 0:
            found, end = leader.epochs.end_offset_for(epoch, leader.end)
            assert found >= 0, "a follower is never ahead of its leader's epoch"
            if found != epoch or end < offset:
                diverging = (found, end)
        if diverging is None and offset <= leader.end:
            if not state.on_fetch(number, offset, 0, follower.broker_epoch, leader.end, self.now_ms):
                return
            self._propose(leader, state.expand(number, leader.high_watermark))
            self.advance(leader)
        if answer_lost:
            return
        if diverging is not None:
            step = follower.follower.on_diverging(follower.epochs, follower.end, *diverging)
            assert step.kind is StepKind.TRUNCATE
            assert step.offset < follower.end, "every round cuts something"
            follower.cut(step.offset)
            return
        if offset > leader.end:
            follower.cut(follower.follower.on_range(follower.end, 0, leader.end).offset)
            return
        for epoch, value in leader.log[offset : offset + count]:
            follower.epochs.assign(epoch, follower.end)
            follower.log.append((epoch, value))
        follower.high_watermark = max(follower.high_watermark, min(leader.high_watermark, self._own_offset(follower)))

    def _propose(self, leader: Replica, proposal: IsrProposal | None) -> None:
        if proposal is not None:
            self.proposals.append((leader.id, leader.broker_epoch, proposal))

    def tick(self, ms: int) -> None:
        self.now_ms += ms
        for replica in self.replicas.values():
            if replica.is_alive and replica.leader is not None:
                self._propose(replica, replica.leader.shrink(replica.end, self.now_ms))
                self.advance(replica)

    def answer(self, *, lost: bool) -> None:
        """An answer of the controller arrives, or never does: then the leader asks again."""
        number, incarnation, proposal, said = self.answers.pop(0)
        replica = self.replicas[number]
        state = replica.leader
        if not replica.is_alive or incarnation != replica.broker_epoch or state is None:
            return
        if lost:
            if state.on_unanswered(proposal) is Verdict.RETRIED:
                self.proposals.append((number, incarnation, proposal))
        elif isinstance(said, Registration):
            state.on_accepted(proposal, said.leader_epoch, said.partition_epoch)
        elif said is ErrorCode.INELIGIBLE_REPLICA:
            state.on_rejected(proposal)
        else:
            state.on_outdated(proposal)
        self.advance(replica)

    # -- deaths -----------------------------------------------------------------------------------------------

    def may_lose_power(self, number: int) -> bool:
        """Whether what is promised covers it: with nothing flushed, another member of the set has to live."""
        others = [m for m in self.registration.isr if m != number and not self.replicas[m].lost_tail]
        return self.flush_before_ack or number not in self.registration.isr or bool(others)

    def kill(self, number: int, *, loses_power: bool) -> None:
        replica = self.replicas[number]
        replica.is_alive = False
        replica.leader = replica.follower = None
        replica.waiting, replica.watermarks = [], {}
        if loses_power:
            replica.lost_tail = not self.flush_before_ack
            replica.cut(replica.flushed)

    def restart(self, number: int) -> None:
        """A new incarnation registers. Until then it was in the set; after an unclean stop it is not (KIP-966)."""
        replica = self.replicas[number]
        self.fence(number)
        replica.is_alive = True
        replica.lost_tail = False
        replica.broker_epoch += 1
        replica.epochs.truncate_from_end(replica.end)  # an epoch without records is not remembered
        self.unfence(number)
        replica.seen = Registration(NO_LEADER, 0, 0, ())
        self.publish(number)

    # -- what must hold ---------------------------------------------------------------------------------------

    def check(self) -> None:
        replicas = list(self.replicas.values())
        for member in self.registration.isr:
            if self.replicas[member].lost_tail:
                continue  # it will not be elected: it leaves the set when it comes back
            log = self.replicas[member].log
            for offset, value in self.acknowledged.items():
                assert offset < len(log), f"{member} is in sync and lacks {value}@{offset}"
                assert log[offset][1] == value, f"{member} has {log[offset]} where {value}@{offset} was acknowledged"
        for one in replicas:
            for other in replicas[one.id :]:
                common = min(one.high_watermark, other.high_watermark)
                assert one.log[:common] == other.log[:common], f"{one.id} and {other.id} differ below {common}"
        for replica in replicas:
            assert replica.high_watermark <= replica.end
            if replica.is_alive:
                epoch = replica.seen.leader_epoch
                assert replica.high_watermark >= replica.watermarks.get(epoch, 0), f"{replica.id} went back"
                replica.watermarks[epoch] = replica.high_watermark

    def settle(self) -> None:
        """Everything works again: all live, hear of everything, and catch up."""
        for replica in self.replicas.values():
            if not replica.is_alive:
                self.restart(replica.id)
            self.unfence(replica.id)
        for _ in range(60):
            self.tick(1)
            while self.proposals:
                self.controller_handles()
            while self.answers:
                self.answer(lost=False)
            for number in BROKERS:
                self.publish(number)
                self.flush(number)
                self.fetch(number, answer_lost=False, count=1000)
            self.check()
