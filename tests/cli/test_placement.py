"""Where replicas should be: what every plan has to keep, whatever it begins with."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streamlog.cli.placement import plan
from streamlog.client.values import TopicPartition


@st.composite
def situations(
    draw: st.DrawFn,
) -> tuple[dict[TopicPartition, tuple[int, ...]], dict[int, str | None], int | None]:
    """Partitions somewhere on brokers 1 to 8, brokers that may have them, and a wanted number of replicas."""
    brokers = draw(st.lists(st.integers(1, 8), min_size=1, max_size=6, unique=True))
    racks = {one: draw(st.sampled_from([None, "a", "b", "c"])) for one in brokers}
    most = len(brokers)
    wanted = draw(st.one_of(st.none(), st.integers(1, most)))
    replicas = st.lists(st.integers(1, 8), min_size=1, max_size=8 if wanted else most, unique=True)
    current = {TopicPartition("t", number): tuple(draw(replicas)) for number in range(draw(st.integers(1, 12)))}
    return current, racks, wanted


@given(situations())
def test_a_plan_has_the_wanted_replicas_on_allowed_brokers(
    situation: tuple[dict[TopicPartition, tuple[int, ...]], dict[int, str | None], int | None],
) -> None:
    """As many as asked for, all different; no rack twice while another is empty; leaders evenly where that can be."""
    current, racks, wanted = situation
    planned = plan(current, racks, wanted)
    assert planned.keys() == current.keys()
    for one, replicas in planned.items():
        assert len(replicas) == (wanted or len(current[one]))
        assert len(set(replicas)) == len(replicas)
        assert set(replicas) <= set(racks)
        used = Counter(racks[broker] or str(broker) for broker in replicas)
        every = {rack or str(broker) for broker, rack in racks.items()}
        assert len(used) == min(len(every), len(replicas))
    assert plan(planned, racks, wanted) == planned, "a second plan has nothing to do"


@given(st.integers(1, 6), st.integers(1, 30), st.data())
def test_without_racks_replicas_and_leaders_are_even(brokers: int, partitions: int, data: st.DataObject) -> None:
    """Brokers differ by one replica and one leader at most."""
    count = data.draw(st.integers(1, brokers))
    start = data.draw(st.integers(1, 8))
    current = {TopicPartition("t", number): (start,) for number in range(partitions)}
    planned = plan(current, dict.fromkeys(range(1, brokers + 1)), count)
    for load in (
        Counter(broker for replicas in planned.values() for broker in replicas),
        Counter(replicas[0] for replicas in planned.values()),
    ):
        loads = [load[broker] for broker in range(1, brokers + 1)]
        assert max(loads) - min(loads) <= 1


def test_a_new_broker_gets_its_share_and_nothing_else_moves() -> None:
    """Six partitions on two brokers, and a third that is empty: four replicas move, the fewest that make it even."""
    current = {TopicPartition("t", number): (1, 2) if number % 2 else (2, 1) for number in range(6)}
    planned = plan(current, dict.fromkeys((1, 2, 3)))
    moved = [set(planned[one]) - set(current[one]) for one in current]
    assert Counter(broker for one in moved for broker in one) == {3: 4}
    assert Counter(replicas[0] for replicas in planned.values()) == {1: 2, 2: 2, 3: 2}


def test_a_broker_that_may_not_have_any_loses_its_replicas_only() -> None:
    """The others stay where they are."""
    current = {TopicPartition("t", 0): (1, 2, 3), TopicPartition("t", 1): (2, 3, 4)}
    planned = plan(current, dict.fromkeys((1, 2, 4)))
    assert set(planned[TopicPartition("t", 0)]) == {1, 2, 4}
    assert set(planned[TopicPartition("t", 1)]) == {2, 4, 1}
