"""Elections that are asked for, and those the controller holds by itself."""

from __future__ import annotations

import pytest

from streamlog.broker.metadata.decision import Decision
from streamlog.broker.metadata.elections import (
    ELECTIONS_AT_ONCE,
    ElectionType,
    balance_leaders,
    elect_leaders,
)
from streamlog.broker.metadata.image import NO_LEADER
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.metadata import PartitionChangeRecord
from streamlog.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from tests.broker.metadata.cluster import Cluster, topic

E = ErrorCode
PREFERRED, UNCLEAN = ElectionType.PREFERRED, ElectionType.UNCLEAN


def elect(cluster: Cluster, kind: ElectionType, *partitions: int, name: str = "t") -> list[ErrorCode]:
    asked = [TopicPartitions(topic=name, partitions=list(partitions or (0,)))]
    request = ElectLeadersRequest(election_type=kind, topic_partitions=asked)
    response = cluster.take(lambda image: elect_leaders(image, cluster.settings, request))
    return [E.of(result.error_code) for result in response.replica_election_results[0].partition_result]


def moved() -> Cluster:
    """The preferred leader 1 was away and is in sync again; 2 leads."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3)
    cluster.fence(1)
    cluster.beat(1)
    assert cluster.set_isr("t", 1, 2, 3) is E.NONE
    assert cluster.partition().leader == 2
    return cluster


def test_a_preferred_election_gives_the_leadership_back() -> None:
    """By a new leader epoch; a second one is not needed."""
    cluster = moved()
    epoch = cluster.partition().leader_epoch
    assert elect(cluster, PREFERRED) == [E.NONE]
    assert (cluster.partition().leader, cluster.partition().leader_epoch) == (1, epoch + 1)
    assert elect(cluster, PREFERRED) == [E.ELECTION_NOT_NEEDED]


def test_a_preferred_replica_that_is_not_in_sync_is_not_elected() -> None:
    """PREFERRED_LEADER_NOT_AVAILABLE, and everything stays."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3)
    cluster.fence(1)
    assert elect(cluster, PREFERRED) == [E.PREFERRED_LEADER_NOT_AVAILABLE]
    assert cluster.last == ()


def test_an_unclean_election_is_for_partitions_without_a_leader() -> None:
    """Whoever asks accepts the loss, whatever the topic says."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3)
    assert elect(cluster, UNCLEAN) == [E.ELECTION_NOT_NEEDED]
    cluster.set_isr("t", 1)
    cluster.fence(1)
    assert cluster.partition().leader == NO_LEADER
    assert elect(cluster, UNCLEAN) == [E.NONE]
    assert (cluster.partition().leader, cluster.partition().leader_recovery_state) == (2, 1)


def test_an_unclean_election_without_anybody_alive_finds_nobody() -> None:
    """ELIGIBLE_LEADERS_NOT_AVAILABLE."""
    cluster = Cluster(brokers=2)
    cluster.place("t", 1)
    cluster.fence(1)
    assert elect(cluster, UNCLEAN) == [E.ELIGIBLE_LEADERS_NOT_AVAILABLE]


def test_what_does_not_exist_is_told_partition_by_partition() -> None:
    """Others of the request are elected all the same."""
    cluster = moved()
    assert elect(cluster, PREFERRED, 0, 7) == [E.NONE, E.UNKNOWN_TOPIC_OR_PARTITION]
    assert elect(cluster, PREFERRED, 0, name="absent") == [E.UNKNOWN_TOPIC_OR_PARTITION]
    with pytest.raises(KafkaError) as caught:
        elect_leaders(cluster.image, cluster.settings, ElectLeadersRequest(election_type=2))
    assert caught.value.code is E.INVALID_REQUEST


def test_asked_for_all_only_those_that_needed_it_are_named() -> None:
    """As kafka-leader-election --all-topic-partitions reads it."""
    cluster = moved()
    cluster.place("u", 2, 3)
    request = ElectLeadersRequest(election_type=0, topic_partitions=None)
    response = cluster.take(lambda image: elect_leaders(image, cluster.settings, request))
    assert [(r.topic, len(r.partition_result)) for r in response.replica_election_results] == [("t", 1)]


def test_balancing_gives_back_what_preferred_replicas_can_take() -> None:
    """And leaves alone who is out of sync."""
    cluster = moved()
    cluster.place("u", 3, 1)
    cluster.set_isr("u", 3)
    cluster.fence(3)
    assert cluster.take(lambda image: balance_leaders(image, cluster.settings)) is False
    assert cluster.partition("t").leader == 1
    assert cluster.take(lambda image: balance_leaders(image, cluster.settings)) is False
    assert cluster.last == ()


def test_balancing_goes_by_batches() -> None:
    """So many at a time; it says when there is more."""
    cluster = Cluster(brokers=2)
    cluster.create(topic("t", 2 * ELECTIONS_AT_ONCE + 2, 2))
    found = cluster.image.topics["t"]
    records = [
        PartitionChangeRecord(partition_id=index, topic_id=found.id, leader=partition.replicas[1])
        for index, partition in found.partitions.items()
    ]
    cluster.take(lambda image: Decision(tuple(records), None))
    answers = [cluster.take(lambda image: balance_leaders(image, cluster.settings)) for _ in range(3)]
    assert answers == [True, True, False]
    assert all(partition.leader == partition.replicas[0] for partition in found.partitions.values())
