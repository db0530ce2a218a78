"""Placing tasks: balance, stickiness, warmth; and what members tell each other."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from streamlog.client.subscription import Member, Subscription
from streamlog.client.values import TopicPartition
from streamlog.streams.assignor import (
    Candidate,
    MemberData,
    TaskAssignor,
    decode_member_data,
    encode_member_data,
    place_tasks,
)


class Sizes:
    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts

    def partition_count(self, topic: str) -> int:
        return self.counts.get(topic, 0)


@st.composite
def groups(draw: st.DrawFn) -> tuple[int, list[Candidate]]:
    """A number of tasks, and members that own disjoint sets of them and have some others on disk."""
    tasks = draw(st.integers(0, 12))
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True))
    owner = draw(st.lists(st.sampled_from([*names, ""]), min_size=tasks, max_size=tasks))
    warm = {name: draw(st.frozensets(st.integers(0, 14))) for name in names}
    owned = {name: frozenset(task for task, one in enumerate(owner) if one == name) for name in names}
    return tasks, [Candidate(name, owned[name], warm[name]) for name in names]


@given(groups())
def test_every_task_has_one_owner_and_counts_differ_by_at_most_one(group: tuple[int, list[Candidate]]) -> None:
    """Whatever members own and have on disk."""
    tasks, candidates = group
    placed = place_tasks(tasks, candidates)
    assert sorted(task for mine in placed.values() for task in mine) == list(range(tasks))
    sizes = [len(mine) for mine in placed.values()]
    assert max(sizes) - min(sizes) <= 1


@given(groups())
def test_tasks_move_only_for_balance(group: tuple[int, list[Candidate]]) -> None:
    """Placing again from the result moves nothing, and an owner loses a task only if it had more than its share."""
    tasks, candidates = group
    placed = place_tasks(tasks, candidates)
    again = [Candidate(one.member_id, frozenset(placed[one.member_id]), one.warm) for one in candidates]
    assert place_tasks(tasks, again) == placed
    for one in candidates:
        lost = one.owned - set(placed[one.member_id])
        assert not lost or len(placed[one.member_id]) >= tasks // len(candidates)


def test_state_on_disk_decides_where_a_free_task_goes() -> None:
    """After a restart nobody owns anything; everybody gets back what is on its disk."""
    placed = place_tasks(
        4, [Candidate("a", frozenset(), frozenset({2, 3})), Candidate("b", frozenset(), frozenset({0, 1}))]
    )
    assert placed == {"a": [2, 3], "b": [0, 1]}


def test_a_late_member_gets_the_tasks_it_has_on_disk() -> None:
    """The first member took everything; it gives up what the second has the state of."""
    first = Candidate("a", frozenset({0, 1, 2, 3}), frozenset({0, 1, 2, 3}))
    placed = place_tasks(4, [first, Candidate("b", frozenset(), frozenset({0, 1}))])
    assert placed == {"a": [2, 3], "b": [0, 1]}


def test_a_task_is_partition_p_of_every_topic_that_has_one() -> None:
    """Topics of different sizes: the small one joins the tasks it has partitions for."""
    assignor = TaskAssignor(MemberData)
    members = [Member(name, None, Subscription(("large", "small"))) for name in ("a", "b")]
    assigned = assignor.assign(Sizes({"large": 3, "small": 1}), members)
    assert set(assigned["a"].partitions) | set(assigned["b"].partitions) == {
        TopicPartition("large", 0),
        TopicPartition("large", 1),
        TopicPartition("large", 2),
        TopicPartition("small", 0),
    }
    owner = next(name for name in "ab" if TopicPartition("small", 0) in assigned[name].partitions)
    assert TopicPartition("large", 0) in assigned[owner].partitions


def test_a_moving_task_is_given_up_before_it_is_given() -> None:
    """Cooperative: the new member gets nothing while the old one still owns it."""
    assignor = TaskAssignor(MemberData)
    owned = tuple(TopicPartition("t", number) for number in range(2))
    members = [
        Member("a", None, Subscription(("t",), owned=owned, generation_id=3)),
        Member("b", None, Subscription(("t",))),
    ]
    first = assignor.assign(Sizes({"t": 2}), members)
    assert len(first["a"].partitions) == 1
    assert first["b"].partitions == ()
    members[0] = Member("a", None, Subscription(("t",), owned=first["a"].partitions, generation_id=4))
    second = assignor.assign(Sizes({"t": 2}), members)
    assert len(second["b"].partitions) == 1


def test_of_two_owners_the_later_generation_is_right() -> None:
    """A member that missed a rebalance still claims what it had."""
    assignor = TaskAssignor(MemberData)
    mine = (TopicPartition("t", 0),)
    members = [
        Member("a", None, Subscription(("t",), owned=mine, generation_id=3)),
        Member("b", None, Subscription(("t",), owned=mine, generation_id=5)),
    ]
    assert assignor.assign(Sizes({"t": 1}), members)["a"].partitions == ()


def test_each_member_is_given_its_own_address_with_its_tasks() -> None:
    """A coordinator tells no subscriptions during a rebalance, but it tells assignments: readers look there."""
    assignor = TaskAssignor(MemberData)
    said = {name: MemberData(endpoint=f"{name}:6066", process_id=name, warm_tasks=(0, 1)) for name in ("a", "b")}
    members = [Member(name, None, Subscription(("t",), encode_member_data(data))) for name, data in said.items()]
    for name, mine in assignor.assign(Sizes({"t": 2}), members).items():
        assert decode_member_data(mine.userdata) == MemberData(endpoint=f"{name}:6066", process_id=name)


def test_member_data_round_trips_and_damage_says_nothing() -> None:
    """Bytes of a later version or of nobody are not allowed to stop a rebalance."""
    data = MemberData(endpoint="10.0.0.1:6066", process_id="x", slot=1, warm_tasks=(0, 3), app_id="flights")
    assert decode_member_data(encode_member_data(data)) == data
    assert decode_member_data(b"\xc1") == MemberData(version=0)
    assert decode_member_data(None) == MemberData(version=0)
