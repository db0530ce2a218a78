"""Replicas are spread: over brokers, over racks, and away from who is fenced."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.broker.metadata.image import BrokerRegistration
from streamlog.broker.metadata.placement import place_replicas
from streamlog.wire.error_codes import ErrorCode, KafkaError


def broker(number: int, rack: str | None = None, *, fenced: bool = False, leaves: bool = False) -> BrokerRegistration:
    return BrokerRegistration(number, number, UUID(int=number), (), (), rack, fenced, leaves, (UUID(int=number),))


CLUSTERS = st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.booleans()), min_size=1, max_size=9).map(
    lambda rows: [broker(number, rack, fenced=fenced) for number, (rack, fenced) in enumerate(rows)]
)


@given(CLUSTERS, st.integers(0, 100), st.integers(1, 40), st.data())
def test_every_assignment_is_one_that_can_work(
    cluster: list[BrokerRegistration], start: int, partitions: int, data: st.DataObject
) -> None:
    """Different brokers, a leader that is alive, leaders in turn, and no rack twice while another has none."""
    alive = [b.id for b in cluster if not b.fenced]
    factor = data.draw(st.integers(1, len(cluster)))
    if not alive:
        with pytest.raises(KafkaError):
            place_replicas(cluster, start, partitions, factor)
        return
    placed = place_replicas(cluster, start, partitions, factor)
    racks = {b.id: b.rack for b in cluster}
    assert len(placed) == partitions
    for replicas in placed:
        assert len(set(replicas)) == factor
        assert replicas[0] in alive
        assert len({racks[r] for r in replicas}) == min(factor, len(set(racks.values())))
    leaders = Counter(replicas[0] for replicas in placed)
    assert max(leaders.values()) - min(leaders[b] for b in alive) <= 1


def test_a_broker_that_fails_leaves_its_work_to_all_others() -> None:
    """Its followers differ from partition to partition."""
    placed = place_replicas([broker(number) for number in range(5)], 0, 100, 2)
    followers = Counter(second for first, second in placed if first == 0)
    assert set(followers) == {1, 2, 3, 4}
    assert max(followers.values()) - min(followers.values()) <= 1


def test_fenced_brokers_get_replicas_only_when_others_do_not_suffice() -> None:
    """A topic can be made while one of three nodes is down; its replica there catches up later."""
    cluster = [broker(1), broker(2, fenced=True), broker(3)]
    assert all(2 not in replicas for replicas in place_replicas(cluster, 0, 10, 2))
    assert all(replicas[2] == 2 for replicas in place_replicas(cluster, 0, 10, 3))


def test_a_broker_that_shuts_down_gets_nothing() -> None:
    """It would be out of the ISR before it was in."""
    with pytest.raises(KafkaError) as caught:
        place_replicas([broker(1), broker(2, leaves=True)], 0, 1, 2)
    assert caught.value.code is ErrorCode.INVALID_REPLICATION_FACTOR
