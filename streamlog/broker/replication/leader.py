"""What the leader of a partition knows about its followers, and what follows from it. Decides; performs nothing.

A leader counts a record as committed when every replica that counts has it. Which ones count is the in-sync set
(ISR), and only the controller changes that: the leader proposes, with the partition epoch it knows, and the controller
compares and sets. Until the metadata say what became of the proposal the leader does not know which set is in force, so
the high watermark waits for the union of both: a follower that may be in the set must not miss a record that was
acknowledged, and one that may still be in it could be elected.

The controller's answer is no substitute for the metadata, although it has the new set and comes a little sooner. The
set means something only together with the min.insync.replicas by which the controller judged it, and that one may have
been raised just before: whoever is outside of a set below it is still eligible, and is elected as if it had everything.
That goes for a larger set as for a smaller one.

    a fetch tells where a follower's log ends
      -> the high watermark is the smallest end in the union, the leader's own included
      -> a follower outside that has reached the high watermark and the start of this leader's epoch may join
    a follower that has not been at the end for replica.lag.time.max.ms is to leave

A follower joins only above the start of the leader's epoch (KIP-101): below it, its log may still differ from ours. A
follower that is about to join already holds the high watermark back, or it could never catch up with a busy leader.
With fewer members than min.insync.replicas nothing is committed at all (KIP-966): then a set that shrinks to its last
member cannot acknowledge what only that one has.

Only the controller can take a silent member out of the set. So a leader that hears neither the controller nor some
member commits nothing any more, and has most likely been replaced (`is_cut_off`): whoever wants to write is sent to
look for another. While all members fetch it goes on, controller or not.

Nobody's fetch is believed across incarnations: the broker epoch of the fetch goes with the proposal, and the
controller refuses members that have restarted since (KIP-903).

Sources: KIP-101, KIP-279, KIP-497 (AlterPartition), KIP-841, KIP-903, KIP-966.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

UNKNOWN_OFFSET: Final = -1
UNKNOWN_EPOCH: Final = -1
NEVER: Final = -(2**62)
FOREVER_MS: Final = 2**61


class Verdict(Enum):
    """What came of a proposal."""

    SETTLED = "settled"
    """The set in force is known again: ours, the one before, or what somebody else made of it."""
    AWAITED = "awaited"
    """The controller knows more than we do. The metadata will say; until then the union stays."""
    RETRIED = "retried"
    """Nobody knows. The same has to be asked again."""


@dataclass(frozen=True, slots=True)
class IsrProposal:
    """Ask the controller for this in-sync set, if the partition is still as it was."""

    leader_epoch: int
    partition_epoch: int
    """What the controller compares with."""
    isr: tuple[tuple[int, int], ...]
    """(broker id, broker epoch of its fetches; -1 when it has not fetched from this leader)."""

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(member for member, _ in self.isr)


class Follower:
    """One follower as its fetches show it."""

    __slots__ = (
        "broker_epoch",
        "caught_up_at_ms",
        "fetched_at_ms",
        "leader_end_offset",
        "log_end_offset",
        "log_start_offset",
    )

    def __init__(self) -> None:
        self.log_end_offset = UNKNOWN_OFFSET  # where its last fetch began: it has everything below
        self.log_start_offset = UNKNOWN_OFFSET
        self.broker_epoch = UNKNOWN_EPOCH  # of the incarnation that fetched last
        self.caught_up_at_ms = NEVER  # latest time at which it is known to have had all there was
        self.fetched_at_ms = NEVER
        self.leader_end_offset = UNKNOWN_OFFSET  # the leader's log end at `fetched_at_ms`

    def note_fetch(
        self, offset: int, log_start_offset: int, broker_epoch: int, leader_end_offset: int, now_ms: int
    ) -> None:
        """A fetch from `offset` means everything below is there. One that begins where the log ended at the time of
        the fetch before was caught up at that time."""
        if offset >= leader_end_offset:
            self.caught_up_at_ms = max(self.caught_up_at_ms, now_ms)
        elif self.leader_end_offset >= 0 and offset >= self.leader_end_offset:
            self.caught_up_at_ms = max(self.caught_up_at_ms, self.fetched_at_ms)
        self.log_end_offset = offset
        self.log_start_offset = log_start_offset
        self.broker_epoch = broker_epoch
        self.leader_end_offset = max(self.leader_end_offset, leader_end_offset)
        self.fetched_at_ms = now_ms

    def is_caught_up(self, leader_end_offset: int, now_ms: int, lag_ms_max: int) -> bool:
        return self.log_end_offset == leader_end_offset or now_ms - self.caught_up_at_ms <= lag_ms_max


class LeaderState:
    """One partition's leader in one leader epoch. A new epoch gets a new one."""

    def __init__(
        self,
        node_id: int,
        leader_epoch: int,
        epoch_start_offset: int,
        is_eligible: Callable[[int, int], bool],
        *,
        lag_ms_max: int,
        now_ms: int,
        silence_ms_max: int = FOREVER_MS,
        controller_heard_ms: Callable[[], int] = lambda: NEVER,
    ) -> None:
        """`is_eligible(broker, broker epoch)`: by the metadata it is alive, and of that incarnation (-1: of any).
        `silence_ms_max`: a session. `controller_heard_ms()`: when the controller last answered us.
        """
        self.node_id = node_id
        self.leader_epoch = leader_epoch
        self.epoch_start_offset = epoch_start_offset
        """Our log end when we became leader. Until the high watermark is there, its place is not known."""
        self.partition_epoch = -1
        self.replicas: tuple[int, ...] = ()
        self.isr: tuple[int, ...] = ()
        """As the controller has last told."""
        self.proposed: IsrProposal | None = None
        """Asked for, and not answered yet."""
        self.maximal_isr: frozenset[int] = frozenset()
        """Everybody who may be in force: `isr` and the proposed members."""
        self.followers: dict[int, Follower] = {}
        """Every replica but us, in order of their ids."""
        self.min_insync_replicas = 1
        self._is_eligible = is_eligible
        self._lag_ms_max = lag_ms_max
        self._silence_ms_max = silence_ms_max
        self._controller_heard_ms = controller_heard_ms
        self._began_at_ms = now_ms

    # -- what the controller says -----------------------------------------------------------------------------

    def adopt(self, replicas: Iterable[int], isr: Iterable[int], partition_epoch: int) -> bool:
        """The partition as the metadata has it, in our leader epoch. Says whether that was news."""
        if partition_epoch <= self.partition_epoch:
            return False
        self.partition_epoch = partition_epoch
        self.replicas, self.isr = tuple(replicas), tuple(isr)
        others = sorted(set(self.replicas) - {self.node_id})
        known = self.followers
        self.followers = {other: known.get(other) or Follower() for other in others}
        for member in self.isr:
            follower = self.followers.get(member)
            if follower is not None and follower.caught_up_at_ms == NEVER:
                # It was in sync when we began: it has as long as any other to show itself.
                follower.caught_up_at_ms = self._began_at_ms
        self._settle()
        return True

    def _settle(self) -> None:
        self.proposed = None
        self.maximal_isr = frozenset(self.isr)

    # -- what followers say -----------------------------------------------------------------------------------

    def on_fetch(
        self,
        replica_id: int,
        offset: int,
        log_start_offset: int,
        broker_epoch: int,
        leader_end_offset: int,
        now_ms: int,
    ) -> bool:
        """A follower fetches from `offset`, which is in our log and not diverged. Says whether it may.

        False: it is no replica, or an incarnation that has been replaced.
        """
        follower = self.followers.get(replica_id)
        if follower is None or broker_epoch < follower.broker_epoch:
            return False
        follower.note_fetch(offset, log_start_offset, broker_epoch, leader_end_offset, now_ms)
        return True

    # -- what follows -----------------------------------------------------------------------------------------

    @property
    def is_under_min_isr(self) -> bool:
        """Too few members to acknowledge anything; a topic cannot ask for more than it has replicas."""
        return len(self.isr) < min(self.min_insync_replicas, len(self.replicas))

    def is_cut_off(self, now_ms: int) -> bool:
        """Neither the controller nor some member of the in-sync set has been heard for a session."""
        since_ms = now_ms - self._silence_ms_max
        if self._controller_heard_ms() >= since_ms or self._began_at_ms >= since_ms:
            return False
        return any(
            follower.fetched_at_ms < since_ms
            for broker_id, follower in self.followers.items()
            if broker_id in self.maximal_isr
        )

    def replicated_offset(self, own_offset: int, leader_end_offset: int, now_ms: int) -> int:
        """Everything below is on all replicas that count; -1: nothing can be committed now.

        `own_offset`: how far our own log is stored as the topic promises.
        """
        if self.is_under_min_isr:
            return UNKNOWN_OFFSET
        lowest = own_offset
        for broker_id, follower in self.followers.items():
            if follower.log_end_offset < lowest and (
                broker_id in self.maximal_isr or self._is_about_to_join(broker_id, follower, leader_end_offset, now_ms)
            ):
                lowest = follower.log_end_offset
        return lowest

    def _is_about_to_join(self, broker_id: int, follower: Follower, leader_end_offset: int, now_ms: int) -> bool:
        caught_up = follower.is_caught_up(leader_end_offset, now_ms, self._lag_ms_max)
        return caught_up and self._is_eligible(broker_id, follower.broker_epoch)

    def expand(self, replica_id: int, high_watermark: int, log_start_offset: int = 0) -> IsrProposal | None:
        """The proposal to take this follower in, if it may join and nothing else is being asked.

        One that still begins below our `log_start_offset` does not join: elected, it would have records again that
        were deleted. It learns our log start by the answer to the fetch that is looked at here, and comes again.
        """
        if self.proposed is not None or replica_id in self.maximal_isr:
            return None
        follower = self.followers.get(replica_id)
        if follower is None or follower.log_end_offset < max(high_watermark, self.epoch_start_offset):
            return None
        if follower.log_start_offset < log_start_offset:
            return None
        if not self._is_eligible(replica_id, follower.broker_epoch):
            return None
        return self._propose((*self.isr, replica_id))

    def shrink(self, leader_end_offset: int, now_ms: int) -> IsrProposal | None:
        """The proposal to drop members that have not been at our log's end for too long."""
        if self.proposed is not None:
            return None
        kept = tuple(m for m in self.isr if m == self.node_id or not self._lags(m, leader_end_offset, now_ms))
        return None if kept == self.isr else self._propose(kept)

    def _lags(self, member: int, leader_end_offset: int, now_ms: int) -> bool:
        follower = self.followers.get(member)
        return follower is not None and not follower.is_caught_up(leader_end_offset, now_ms, self._lag_ms_max)

    def _propose(self, isr: tuple[int, ...]) -> IsrProposal:
        epochs = tuple((m, self.followers[m].broker_epoch if m in self.followers else UNKNOWN_EPOCH) for m in isr)
        self.proposed = IsrProposal(self.leader_epoch, self.partition_epoch, epochs)
        self.maximal_isr = frozenset((*self.isr, *isr))
        return self.proposed

    # -- answers to proposals ---------------------------------------------------------------------------------

    def on_accepted(self, proposal: IsrProposal, leader_epoch: int, partition_epoch: int) -> Verdict:
        """The controller has done it, and the partition has these epochs now."""
        if proposal is not self.proposed:
            return Verdict.SETTLED  # the metadata was faster
        if leader_epoch != self.leader_epoch or partition_epoch != self.partition_epoch:
            return Verdict.AWAITED
        self._settle()  # nothing has changed: the set was that one already
        return Verdict.SETTLED

    def on_rejected(self, proposal: IsrProposal) -> Verdict:
        """The controller will never do it: a member is not eligible. What was in force stays."""
        if proposal is self.proposed:
            self._settle()
        return Verdict.SETTLED

    def on_outdated(self, proposal: IsrProposal) -> Verdict:
        """The controller knows another partition epoch or leader epoch, or no such partition."""
        return Verdict.AWAITED if proposal is self.proposed else Verdict.SETTLED

    def on_unanswered(self, proposal: IsrProposal) -> Verdict:
        """Nothing came back, or nothing final. It may have been done."""
        return Verdict.RETRIED if proposal is self.proposed else Verdict.SETTLED

    def low_watermark(self, own_log_start_offset: int) -> int:
        """Smallest log start of all replicas whose broker is alive: what DeleteRecords answers (KIP-107)."""
        followers = self.followers.items()
        starts = [f.log_start_offset for broker_id, f in followers if self._is_eligible(broker_id, UNKNOWN_EPOCH)]
        return min(own_log_start_offset, *starts) if starts else own_log_start_offset
