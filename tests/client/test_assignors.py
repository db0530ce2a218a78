"""The leader's strategies: balanced, sticky, and safe in two phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.client.assignors import Assignor, CooperativeStickyAssignor, RangeAssignor, RoundRobinAssignor
from streamlog.client.sticky import Claim, spread
from streamlog.client.subscription import Assignment, Member, Subscription
from streamlog.client.values import TopicPartition


class Sizes:
    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts

    def partition_count(self, topic: str) -> int:
        return self.counts.get(topic, 0)


def member(
    member_id: str,
    topics: Sequence[str],
    owned: Sequence[TopicPartition] = (),
    generation_id: int = -1,
    instance_id: str | None = None,
) -> Member:
    return Member(member_id, instance_id, Subscription(tuple(topics), None, tuple(owned), generation_id))


def numbers(assignment: Assignment, topic: str = "t") -> list[int]:
    return [one.partition for one in assignment.partitions if one.topic == topic]


def test_range_gives_contiguous_runs_and_the_first_members_one_more() -> None:
    """Seven partitions over three members are 3, 2 and 2 in a row, and equal topics are cut the same way."""
    members = [member(name, ["t", "u"]) for name in ("c", "a", "b")]
    assignments = RangeAssignor().assign(Sizes({"t": 7, "u": 7}), members)
    assert [numbers(assignments[name]) for name in "abc"] == [[0, 1, 2], [3, 4], [5, 6]]
    assert all(numbers(mine, "t") == numbers(mine, "u") for mine in assignments.values())


def test_range_orders_static_members_first_by_instance() -> None:
    """A restarted static member gets a new member id but the same range."""
    before = [member("m1", ["t"], instance_id="i1"), member("m2", ["t"], instance_id="i2"), member("a", ["t"])]
    after = [member("z1", ["t"], instance_id="i1"), member("m2", ["t"], instance_id="i2"), member("a", ["t"])]
    sizes = Sizes({"t": 6})
    assert RangeAssignor().assign(sizes, before)["m1"] == RangeAssignor().assign(sizes, after)["z1"]
    assert numbers(RangeAssignor().assign(sizes, before)["a"]) == [4, 5]


def test_round_robin_deals_partitions_in_turn_and_skips_who_does_not_want_them() -> None:
    """All partitions of all topics go round; a member without the topic is passed over."""
    members = [member("a", ["t"]), member("b", ["t", "u"])]
    assignments = RoundRobinAssignor().assign(Sizes({"t": 3, "u": 2}), members)
    assert [str(one) for one in assignments["a"].partitions] == ["t-0", "t-2"]
    assert [str(one) for one in assignments["b"].partitions] == ["t-1", "u-0", "u-1"]


@pytest.mark.parametrize("assignor", [RangeAssignor(), RoundRobinAssignor(), CooperativeStickyAssignor()])
def test_more_members_than_partitions_leaves_members_idle(assignor: Assignor) -> None:
    """An idle member is a normal member: it gets an empty assignment."""
    members = [member(f"m{index}", ["t"]) for index in range(5)]
    assignments = assignor.assign(Sizes({"t": 2}), members)
    assert sorted(len(mine.partitions) for mine in assignments.values()) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("assignor", [RangeAssignor(), RoundRobinAssignor(), CooperativeStickyAssignor()])
def test_a_topic_that_does_not_exist_yet_is_assigned_to_nobody(assignor: Assignor) -> None:
    """Members of a topic that is not there get nothing and no error."""
    assert assignor.assign(Sizes({}), [member("a", ["t"])])["a"] == Assignment(())


def test_cooperative_sticky_hands_over_in_two_rounds() -> None:
    """A new member first gets nothing that others still hold; the next round gives it what they gave up."""
    sizes = Sizes({"t": 4})
    everything = [TopicPartition("t", number) for number in range(4)]
    first = CooperativeStickyAssignor().assign(sizes, [member("a", ["t"], everything, 1), member("b", ["t"])])
    assert len(first["a"].partitions) == 2
    assert first["b"].partitions == ()
    kept = first["a"].partitions
    second = CooperativeStickyAssignor().assign(sizes, [member("a", ["t"], kept, 2), member("b", ["t"], (), 2)])
    assert second["a"].partitions == kept
    assert len(second["b"].partitions) == 2


def test_cooperative_sticky_reads_the_generation_of_an_old_member_from_its_userdata() -> None:
    """A member before subscription version 2 sends its generation in the userdata, as Java's does."""
    old = CooperativeStickyAssignor()
    old.on_assignment(Assignment(()), 7)
    stale = member("b", ["t"], [TopicPartition("t", 0)], 6)
    userdata = old.subscription_userdata(["t"])
    assert userdata == b"\x00\x00\x00\x07"
    fresh = Member("a", None, Subscription(("t",), userdata, (TopicPartition("t", 0),)))
    assignments = CooperativeStickyAssignor().assign(Sizes({"t": 1}), [fresh, stale])
    assert numbers(assignments["a"]) == [0]


TOPICS = ["t0", "t1", "t2", "t3"]


@st.composite
def groups(draw: st.DrawFn) -> tuple[dict[str, int], list[Claim]]:
    counts = {topic: draw(st.integers(0, 6)) for topic in TOPICS}
    every = [TopicPartition(topic, number) for topic in TOPICS for number in range(counts[topic] + 1)]
    claims = []
    for index in range(draw(st.integers(1, 6))):
        topics = draw(st.frozensets(st.sampled_from(TOPICS), min_size=1))
        owned = draw(st.lists(st.sampled_from(every), unique=True, max_size=8))
        claims.append(Claim(f"m{index}", topics, tuple(sorted(owned)), draw(st.integers(-1, 2))))
    return {topic: count for topic, count in counts.items() if any(topic in c.topics for c in claims)}, claims


@given(groups())
def test_every_partition_goes_to_exactly_one_member_that_wants_it(group: tuple[dict[str, int], list[Claim]]) -> None:
    """Nothing is assigned twice, nothing is left over, nobody gets what they did not ask for."""
    counts, claims = group
    target = spread(counts, claims)
    given_out = sorted(one for mine in target.values() for one in mine)
    assert given_out == [TopicPartition(topic, n) for topic in sorted(counts) for n in range(counts[topic])]
    topics = {claim.member_id: claim.topics for claim in claims}
    assert all(one.topic in topics[member_id] for member_id, mine in target.items() for one in mine)


@given(groups())
def test_no_hand_over_could_make_it_more_balanced(group: tuple[dict[str, int], list[Claim]]) -> None:
    """No member can pass a partition to one that has two fewer, directly or through others."""
    counts, claims = group
    target = spread(counts, claims)
    topics = {claim.member_id: claim.topics for claim in claims}
    reach = {
        giver: {taker for taker in target if any(one.topic in topics[taker] for one in target[giver])} | {giver}
        for giver in target
    }
    for _ in target:
        reach = {giver: {far for near in reach[giver] for far in reach[near]} for giver in reach}
    for giver, takers in reach.items():
        assert all(len(target[taker]) >= len(target[giver]) - 1 for taker in takers)


@given(groups())
def test_a_balanced_assignment_stays_as_it_is(group: tuple[dict[str, int], list[Claim]]) -> None:
    """Assigning again with the result as what everybody owns moves nothing."""
    counts, claims = group
    target = spread(counts, claims)
    again = [Claim(claim.member_id, claim.topics, tuple(target[claim.member_id]), 5) for claim in claims]
    assert spread(counts, again) == target


@given(st.integers(1, 40), st.integers(2, 8))
def test_a_leaving_member_moves_only_its_own_partitions(count: int, member_count: int) -> None:
    """With equal subscriptions, who stays keeps everything when somebody leaves."""
    names = [f"m{index}" for index in range(member_count)]
    wants = frozenset({"t"})
    before = spread({"t": count}, [Claim(name, wants, (), -1) for name in names])
    after = spread({"t": count}, [Claim(name, wants, tuple(before[name]), 1) for name in names[1:]])
    assert all(set(before[name]) <= set(after[name]) for name in names[1:])


@given(groups())
def test_cooperative_rounds_end_and_never_share_a_partition(group: tuple[dict[str, int], list[Claim]]) -> None:
    """In no round do two members hold the same partition, and soon everything is given out and stays."""
    counts, claims = group
    seen: set[TopicPartition] = set()
    start = []
    for claim in claims:  # owners are distinct in a healthy group
        owned = [one for one in claim.owned if one not in seen]
        seen.update(owned)
        start.append(member(claim.member_id, sorted(claim.topics), owned, 1))
    members = start
    for generation_id in range(2, 9):
        assigned = CooperativeStickyAssignor().assign(Sizes(counts), members)
        # Until everybody has heard of the round, old owners still hold what they had.
        holding = [
            partition for one in members for partition in {*one.subscription.owned, *assigned[one.member_id].partitions}
        ]
        assert len(holding) == len(set(holding))
        before = members
        members = [
            member(one.member_id, one.subscription.topics, assigned[one.member_id].partitions, generation_id)
            for one in start
        ]
        if all(old.subscription.owned == new.subscription.owned for old, new in zip(before, members, strict=True)):
            break
    else:
        raise AssertionError("the group still moves partitions after seven rounds")
    assert sum(len(one.subscription.owned) for one in members) == sum(counts.values())
