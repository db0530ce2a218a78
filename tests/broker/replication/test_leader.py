"""The leader's view: who holds the high watermark, who joins and who leaves, and what becomes of proposals."""

from __future__ import annotations

import pytest

from streamlog.broker.replication.leader import Follower, LeaderState, Verdict

LAG_MS = 1000


def leader(
    *isr: int, epoch_start: int = 0, eligible: frozenset[int] = frozenset({2, 3}), min_isr: int = 1
) -> LeaderState:
    """Broker 1 leads replicas 1, 2, 3 in epoch 5 since time 0."""
    state = LeaderState(1, 5, epoch_start, lambda broker, _: broker in eligible, lag_ms_max=LAG_MS, now_ms=0)
    state.min_insync_replicas = min_isr
    state.adopt((1, 2, 3), isr, 10)
    return state


def fetch(state: LeaderState, replica: int, offset: int, end: int, now_ms: int = 0, broker_epoch: int = 7) -> bool:
    return state.on_fetch(replica, offset, 0, broker_epoch, end, now_ms)


def test_the_high_watermark_waits_for_every_member() -> None:
    """And one that has not fetched yet is not known to have anything."""
    state = leader(1, 2, 3)
    assert state.replicated_offset(10, 10, 0) == -1
    fetch(state, 2, 8, 10)
    assert state.replicated_offset(10, 10, 0) == -1
    fetch(state, 3, 6, 10)
    assert state.replicated_offset(10, 10, 0) == 6
    fetch(state, 3, 10, 10)
    assert state.replicated_offset(10, 10, 0) == 8


def test_the_leader_counts_only_as_far_as_its_own_log_is_stored() -> None:
    """A topic that flushes before it acknowledges does so on the leader too."""
    state = leader(1, 2)
    fetch(state, 2, 10, 10)
    assert state.replicated_offset(4, 10, 0) == 4


def test_below_min_isr_nothing_is_committed() -> None:
    """KIP-966: a last replica cannot commit alone what min.insync.replicas were to have."""
    state = leader(1, 2, min_isr=3)
    fetch(state, 2, 10, 10)
    assert state.is_under_min_isr
    assert state.replicated_offset(10, 10, 0) == -1


def test_a_topic_cannot_ask_for_more_members_than_it_has_replicas() -> None:
    """Kafka's effective min ISR."""
    state = LeaderState(1, 5, 0, lambda *_: True, lag_ms_max=LAG_MS, now_ms=0)
    state.min_insync_replicas = 2
    state.adopt((1,), (1,), 1)
    assert not state.is_under_min_isr
    assert state.replicated_offset(3, 3, 0) == 3


@pytest.mark.parametrize(
    ("offset", "high_watermark", "epoch_start", "joins"),
    [(5, 5, 0, True), (4, 5, 0, False), (6, 5, 7, False), (7, 5, 7, True)],
)
def test_a_follower_joins_at_the_high_watermark_and_above_the_epochs_start(
    offset: int, high_watermark: int, epoch_start: int, joins: bool
) -> None:
    """KIP-101: below the start of our epoch its log may still be another."""
    state = leader(1, 2, epoch_start=epoch_start)
    fetch(state, 3, offset, 9)
    proposal = state.expand(3, high_watermark)
    assert (proposal is not None) is joins
    if proposal is not None:
        assert proposal.isr == ((1, -1), (2, -1), (3, 7))
        assert (proposal.leader_epoch, proposal.partition_epoch) == (5, 10)


def test_a_follower_with_deleted_records_does_not_join_before_it_has_let_them_go() -> None:
    """Elected, it would have them again; the answer to its fetch tells it where the leader's log begins."""
    state = leader(1, 2)
    fetch(state, 3, 9, 9)
    assert state.expand(3, 9, 4) is None
    assert state.on_fetch(3, 9, 4, 7, 9, 0)
    assert state.expand(3, 9, 4) is not None


def test_who_is_not_eligible_does_not_join() -> None:
    """Fenced, shutting down, or another incarnation than the one that fetched."""
    state = leader(1, 2, eligible=frozenset({2}))
    fetch(state, 3, 9, 9)
    assert state.expand(3, 0) is None


def test_one_proposal_at_a_time() -> None:
    """The next one follows when the answer is there."""
    state = leader(1)
    fetch(state, 2, 9, 9)
    fetch(state, 3, 9, 9)
    assert state.expand(2, 0) is not None
    assert state.expand(3, 0) is None
    assert state.shrink(9, 10 * LAG_MS) is None


def test_a_proposed_member_holds_the_high_watermark_at_once() -> None:
    """The controller may have taken it in already."""
    state = leader(1)
    fetch(state, 2, 9, 9)
    proposal = state.expand(2, 0)
    assert proposal is not None
    assert state.replicated_offset(20, 20, 100 * LAG_MS) == 9


def test_a_member_that_is_to_leave_holds_the_high_watermark_until_the_metadata_says_so() -> None:
    """It may be elected meanwhile."""
    state = leader(1, 2, 3)
    fetch(state, 2, 5, 9)
    fetch(state, 3, 9, 9, 3 * LAG_MS)
    proposal = state.shrink(9, 3 * LAG_MS)
    assert proposal is not None
    assert proposal.members == (1, 3)
    assert state.replicated_offset(9, 9, 3 * LAG_MS) == 5
    assert state.on_accepted(proposal, 5, 11) is Verdict.AWAITED
    assert state.replicated_offset(9, 9, 3 * LAG_MS) == 5, "by which min.insync.replicas it was judged is not known"
    state.adopt((1, 2, 3), (1, 3), 11)
    assert state.replicated_offset(9, 9, 3 * LAG_MS) == 9


def test_a_follower_about_to_join_holds_the_high_watermark() -> None:
    """Otherwise it could never catch up with a busy leader."""
    state = leader(1)
    fetch(state, 2, 9, 9, 50)
    assert state.replicated_offset(12, 12, 60) == 9
    assert state.replicated_offset(12, 12, 50 + LAG_MS + 1) == 12


def test_who_is_at_the_end_never_lags() -> None:
    """However long ago it fetched: nothing was written since."""
    state = leader(1, 2, 3)
    fetch(state, 2, 9, 9)
    fetch(state, 3, 8, 9)
    proposal = state.shrink(9, 100 * LAG_MS)
    assert proposal is not None
    assert proposal.members == (1, 2)


def test_a_member_of_a_new_leader_has_the_whole_time_to_show_itself() -> None:
    """Its first fetch needs the metadata first."""
    state = leader(1, 2)
    assert state.shrink(9, LAG_MS) is None
    proposal = state.shrink(9, LAG_MS + 1)
    assert proposal is not None
    assert proposal.members == (1,)


def test_a_busy_follower_is_caught_up_when_it_reaches_the_end_of_the_fetch_before() -> None:
    """It need never be at the very end."""
    follower = Follower()
    follower.note_fetch(0, 0, 7, 10, now_ms=100)
    assert not follower.is_caught_up(10, 100, LAG_MS)
    follower.note_fetch(10, 0, 7, 20, now_ms=200)
    assert follower.caught_up_at_ms == 100
    follower.note_fetch(15, 0, 7, 30, now_ms=300)
    assert follower.caught_up_at_ms == 100


def test_strangers_and_replaced_incarnations_are_refused() -> None:
    """A delayed fetch of a dead process must not count for the one that lives."""
    state = leader(1, 2)
    assert not fetch(state, 4, 9, 9)
    assert fetch(state, 2, 9, 9, broker_epoch=8)
    assert not fetch(state, 2, 5, 9, broker_epoch=7)
    assert state.followers[2].log_end_offset == 9


def test_the_metadata_overtakes_a_proposal() -> None:
    """Its answer means nothing any more."""
    state = leader(1)
    fetch(state, 2, 9, 9)
    proposal = state.expand(2, 0)
    assert proposal is not None
    assert state.adopt((1, 2, 3), (1, 2), 11)
    assert state.proposed is None
    assert state.on_accepted(proposal, 5, 10) is Verdict.SETTLED
    assert state.on_unanswered(proposal) is Verdict.SETTLED
    assert state.isr == (1, 2)
    assert not state.adopt((1, 2, 3), (1,), 11)


def test_answers_decide_what_is_in_force() -> None:
    """Rejected: as before. Outdated: the union until the metadata says more. Unanswered: ask again."""
    state = leader(1)
    fetch(state, 2, 9, 9)
    proposal = state.expand(2, 0)
    assert proposal is not None
    assert state.on_unanswered(proposal) is Verdict.RETRIED
    assert state.on_outdated(proposal) is Verdict.AWAITED
    assert state.maximal_isr == {1, 2}
    assert state.expand(3, 0) is None
    assert state.on_accepted(proposal, 6, 11) is Verdict.AWAITED
    assert state.on_rejected(proposal) is Verdict.SETTLED
    assert state.maximal_isr == {1}


def test_a_smaller_set_counts_when_the_metadata_says_so() -> None:
    """min.insync.replicas was raised just before, so who left is eligible, and may lead without what it has not got.
    The answer is faster than the metadata, which has the config first."""
    state = leader(1, 2)
    state.min_insync_replicas = 1
    fetch(state, 2, 9, 20)
    proposal = state.shrink(20, 100_000)
    assert proposal is not None
    assert state.on_accepted(proposal, 5, 11) is Verdict.AWAITED
    assert state.isr == (1, 2)
    assert state.maximal_isr == {1, 2}
    assert state.replicated_offset(20, 20, 100_000) == 9
    state.min_insync_replicas = 2
    assert state.adopt((1, 2, 3), (1,), 11)
    assert state.replicated_offset(20, 20, 100_000) == -1


def test_an_answer_that_changed_nothing_settles_the_proposal() -> None:
    """The controller keeps the partition epoch then."""
    state = leader(1)
    fetch(state, 2, 9, 9)
    proposal = state.expand(2, 0)
    assert proposal is not None
    assert state.on_accepted(proposal, 5, 10) is Verdict.SETTLED
    assert state.maximal_isr == {1}


def test_replicas_that_are_added_and_removed_come_and_go() -> None:
    """Those that stay keep what is known of them."""
    state = leader(1, 2)
    fetch(state, 2, 4, 9)
    state.adopt((1, 2, 4), (1, 2), 11)
    assert list(state.followers) == [2, 4]
    assert state.followers[2].log_end_offset == 4
    assert not fetch(state, 3, 9, 9)


def test_a_leader_that_hears_neither_the_controller_nor_a_member_is_cut_off() -> None:
    """With the controller, or with all members, it can still commit: then it goes on."""
    heard_ms = 0
    state = LeaderState(
        1,
        5,
        0,
        lambda *_: True,
        lag_ms_max=LAG_MS,
        now_ms=0,
        silence_ms_max=3_000,
        controller_heard_ms=lambda: heard_ms,
    )
    state.adopt((1, 2, 3), (1, 2), 10)
    assert not state.is_cut_off(3_000)
    assert state.is_cut_off(3_001)
    heard_ms = 3_000
    assert not state.is_cut_off(6_000)
    fetch(state, 3, 10, 10, 6_000)
    assert state.is_cut_off(6_001), "3 is no member"
    fetch(state, 2, 10, 10, 6_000)
    assert not state.is_cut_off(9_000), "all members are here"
    assert state.is_cut_off(9_001)
    state.adopt((1, 2, 3), (1,), 11)
    assert not state.is_cut_off(9_001), "it needs nobody"


def test_the_low_watermark_is_of_the_living() -> None:
    """DeleteRecords does not wait for a dead replica."""
    for alive, lowest in ((frozenset({2}), 3), (frozenset({2, 3}), -1), (frozenset[int](), 5)):
        state = leader(1, 2, eligible=alive)
        state.on_fetch(2, 9, 3, 7, 9, 0)
        assert state.low_watermark(5) == lowest
