"""How replicas move: what begins, what completes it, what cancelling leaves."""

from __future__ import annotations

import pytest

from streamlog.broker.metadata.reassignment import alter_partition_reassignments, list_partition_reassignments
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from streamlog.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from tests.broker.metadata.cluster import Cluster

E = ErrorCode


def cluster_of(*replicas: int) -> Cluster:
    cluster = Cluster(brokers=6)
    cluster.place("t", *replicas, min_insync_replicas="2")
    return cluster


def move(cluster: Cluster, *replicas: int, index: int = 0, name: str = "t", same_factor: bool = False) -> ErrorCode:
    return alter(cluster, list(replicas), index, name, same_factor=same_factor)


def cancel(cluster: Cluster) -> ErrorCode:
    return alter(cluster, None, 0, "t", same_factor=False)


def alter(cluster: Cluster, replicas: list[int] | None, index: int, name: str, *, same_factor: bool) -> ErrorCode:
    asked = ReassignableTopic(name=name, partitions=[ReassignablePartition(partition_index=index, replicas=replicas)])
    request = AlterPartitionReassignmentsRequest(topics=[asked], allow_replication_factor_change=not same_factor)
    response = cluster.take(lambda image: alter_partition_reassignments(image, cluster.settings, request))
    return E.of(response.responses[0].partitions[0].error_code)


def test_new_replicas_stand_in_front_and_old_ones_leave_when_the_new_are_in_sync() -> None:
    """The two steps of KIP-455; the leader moves with the second."""
    cluster = cluster_of(1, 2, 3)
    assert move(cluster, 4, 5, 6) is E.NONE
    begun = cluster.partition()
    assert (begun.replicas, begun.adding_replicas, begun.removing_replicas) == (
        (4, 5, 6, 1, 2, 3),
        (4, 5, 6),
        (1, 2, 3),
    )
    assert (begun.isr, begun.leader, begun.leader_epoch) == ((1, 2, 3), 1, 0)
    assert begun.directories == tuple(cluster.image.brokers[r].directories[0] for r in begun.replicas)
    assert cluster.set_isr("t", 1, 2, 3, 4, 5) is E.NONE
    assert cluster.set_isr("t", 1, 2, 3, 4, 5, 6) is E.NEW_LEADER_ELECTED
    done = cluster.partition()
    assert (done.replicas, done.adding_replicas, done.removing_replicas) == ((4, 5, 6), (), ())
    assert (done.isr, done.leader) == ((4, 5, 6), 4)


def test_another_order_is_done_at_once() -> None:
    """Nobody has to catch up; the leader stays until somebody elects the preferred one."""
    cluster = cluster_of(1, 2, 3)
    assert move(cluster, 3, 2, 1) is E.NONE
    assert (cluster.partition().replicas, cluster.partition().leader) == ((3, 2, 1), 1)
    assert cluster.partition().adding_replicas == cluster.partition().removing_replicas == ()


def test_a_replica_can_be_taken_away_at_once() -> None:
    """If those that stay are in sync; it hears of it by a new leader epoch."""
    cluster = cluster_of(1, 2, 3)
    assert move(cluster, 1, 2) is E.NONE
    found = cluster.partition()
    assert (found.replicas, found.isr, found.leader, found.leader_epoch) == ((1, 2), (1, 2), 1, 1)


def test_moving_to_where_it_is_changes_nothing() -> None:
    """No record."""
    cluster = cluster_of(1, 2)
    assert move(cluster, 1, 2) is E.NONE
    assert cluster.last == ()


def test_a_reassignment_can_be_replaced() -> None:
    """Who is wanted still goes on; who nobody relies on yet is dropped; who is in sync leaves with the others."""
    cluster = cluster_of(1, 2)
    move(cluster, 3, 4)
    cluster.set_isr("t", 1, 2, 3)
    assert move(cluster, 5, 2) is E.NONE
    found = cluster.partition()
    assert (found.replicas, found.adding_replicas, found.removing_replicas) == ((5, 2, 1, 3), (5,), (1, 3))
    assert cluster.set_isr("t", 1, 2, 3, 5) is E.NEW_LEADER_ELECTED
    assert (cluster.partition().replicas, cluster.partition().leader) == ((5, 2), 5)


def test_a_cancelled_reassignment_leaves_the_old_replicas() -> None:
    """In their old order, with those of them that are in sync."""
    cluster = cluster_of(1, 2)
    move(cluster, 3, 4)
    cluster.set_isr("t", 1, 2, 3)
    assert cancel(cluster) is E.NONE
    found = cluster.partition()
    assert (found.replicas, found.isr, found.leader) == ((1, 2), (1, 2), 1)
    assert found.adding_replicas == found.removing_replicas == ()
    assert cancel(cluster) is E.NO_REASSIGNMENT_IN_PROGRESS


def test_what_only_new_replicas_have_is_not_thrown_away() -> None:
    """Cancelling would need an unclean election; with one allowed it happens."""
    cluster = cluster_of(1, 2)
    cluster.configure("t", "min.insync.replicas", "1")
    move(cluster, 3, 4)
    cluster.set_isr("t", 1, 3)
    cluster.fence(1)
    assert (cluster.partition().leader, cluster.partition().isr) == (3, (3,))
    assert cancel(cluster) is E.INVALID_REPLICA_ASSIGNMENT
    cluster.configure("t", "unclean.leader.election.enable", "true")
    assert cancel(cluster) is E.NONE
    assert (cluster.partition().leader, cluster.partition().leader_recovery_state) == (2, 1)


@pytest.mark.parametrize("replicas", [[], [1, 1], [1, 9]], ids=["none", "twice", "unknown"])
def test_impossible_assignments_are_refused(replicas: list[int]) -> None:
    """INVALID_REPLICA_ASSIGNMENT."""
    cluster = cluster_of(1, 2)
    assert alter(cluster, replicas, 0, "t", same_factor=False) is E.INVALID_REPLICA_ASSIGNMENT


def test_what_is_not_there_cannot_move() -> None:
    """Topic and partition."""
    cluster = cluster_of(1, 2)
    assert move(cluster, 1, name="absent") is E.UNKNOWN_TOPIC_OR_PARTITION
    assert move(cluster, 1, index=7) is E.UNKNOWN_TOPIC_OR_PARTITION


def test_the_replication_factor_can_be_protected() -> None:
    """KIP-860: measured by the replicas before the move under way."""
    cluster = cluster_of(1, 2)
    assert move(cluster, 3, same_factor=True) is E.INVALID_REPLICATION_FACTOR
    assert move(cluster, 3, 4, same_factor=True) is E.NONE
    assert move(cluster, 5, 6, same_factor=True) is E.NONE


def test_only_what_moves_is_listed() -> None:
    """Of all topics, or of those named; what is not there is left out."""
    cluster = cluster_of(1, 2)
    cluster.place("u", 1, 2)
    move(cluster, 3, 2)
    listed = list_partition_reassignments(cluster.image, ListPartitionReassignmentsRequest(topics=None))
    assert [topic.name for topic in listed.topics] == ["t"]
    row = listed.topics[0].partitions[0]
    assert (row.replicas, row.adding_replicas, row.removing_replicas) == ([3, 2, 1], [3], [1])
    asked = [ListPartitionReassignmentsTopics(name=name, partition_indexes=[0, 5]) for name in ("t", "u", "absent")]
    named = list_partition_reassignments(cluster.image, ListPartitionReassignmentsRequest(topics=asked))
    assert named == listed
