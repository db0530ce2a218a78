"""What a leader may make of its ISR, and which error wins where several apply."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from streamlog.broker.metadata.alter_partition import alter_partition
from streamlog.broker.metadata.decision import Decision
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.metadata import PartitionChangeRecord
from streamlog.wire.messages.alter_partition import AlterPartitionRequest, BrokerState, PartitionData
from tests.broker.metadata.cluster import Cluster

E = ErrorCode


def cluster_of(*replicas: int) -> Cluster:
    cluster = Cluster(brokers=4)
    cluster.place("t", *(replicas or (1, 2, 3)), min_insync_replicas="2")
    return cluster


def asked_of(request: AlterPartitionRequest) -> PartitionData:
    return request.topics[0].partitions[0]


def test_a_leader_shrinks_and_expands_its_isr() -> None:
    """It is told the ISR and the partition epoch as they are then; the leader epoch stays."""
    cluster = cluster_of()
    shrunk = cluster.alter(cluster.isr_request("t", (1, 2)))
    assert (shrunk.error_code, shrunk.isr, shrunk.partition_epoch, shrunk.leader_epoch) == (0, [1, 2], 2 - 1, 0)
    grown = cluster.alter(cluster.isr_request("t", (1, 2, 3)))
    assert (grown.error_code, grown.isr, grown.partition_epoch, grown.leader_id) == (0, [1, 2, 3], 2, 1)


def test_asking_for_what_is_so_already_changes_nothing() -> None:
    """No record, no epoch."""
    cluster = cluster_of()
    result = cluster.alter(cluster.isr_request("t", (1, 2, 3)))
    assert (result.error_code, result.partition_epoch, cluster.last) == (0, 0, ())


def test_a_leader_of_another_incarnation_is_refused_as_a_whole() -> None:
    """STALE_BROKER_EPOCH."""
    cluster = cluster_of()
    request = cluster.isr_request("t", (1, 2))
    request.broker_epoch -= 1
    with pytest.raises(KafkaError) as caught:
        alter_partition(cluster.image, cluster.settings, request)
    assert caught.value.code is E.STALE_BROKER_EPOCH


def set_leader_epoch(step: int) -> Callable[[AlterPartitionRequest], None]:
    def change(request: AlterPartitionRequest) -> None:
        asked_of(request).leader_epoch += step

    return change


def set_partition_epoch(step: int) -> Callable[[AlterPartitionRequest], None]:
    def change(request: AlterPartitionRequest) -> None:
        asked_of(request).partition_epoch += step

    return change


def set_isr(*members: int) -> Callable[[AlterPartitionRequest], None]:
    def change(request: AlterPartitionRequest) -> None:
        asked_of(request).new_isr_with_epochs = [BrokerState(broker_id=member) for member in members]

    return change


def set_index(index: int) -> Callable[[AlterPartitionRequest], None]:
    def change(request: AlterPartitionRequest) -> None:
        asked_of(request).partition_index = index

    return change


def set_recovering(request: AlterPartitionRequest) -> None:
    asked_of(request).leader_recovery_state = 1


def set_unknown_recovery(request: AlterPartitionRequest) -> None:
    asked_of(request).leader_recovery_state = 7


def set_unknown_topic(request: AlterPartitionRequest) -> None:
    request.topics[0].topic_id = UUID(int=1)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (set_unknown_topic, E.UNKNOWN_TOPIC_ID),
        (set_index(1), E.UNKNOWN_TOPIC_OR_PARTITION),
        (set_index(-1), E.UNKNOWN_TOPIC_OR_PARTITION),
        (set_leader_epoch(1), E.NOT_CONTROLLER),
        (set_partition_epoch(1), E.NOT_CONTROLLER),
        (set_leader_epoch(-1), E.FENCED_LEADER_EPOCH),
        (set_partition_epoch(-1), E.INVALID_UPDATE_VERSION),
        (set_isr(), E.INVALID_REQUEST),
        (set_isr(2, 3), E.INVALID_REQUEST),
        (set_isr(1, 1), E.INVALID_REQUEST),
        (set_isr(1, 4), E.INVALID_REQUEST),
        (set_recovering, E.INVALID_REQUEST),
        (set_unknown_recovery, E.INVALID_REQUEST),
    ],
)
def test_what_cannot_be_is_refused(spoil: Callable[[AlterPartitionRequest], None], code: ErrorCode) -> None:
    """One error per rule; nothing is written."""
    cluster = cluster_of()
    request = cluster.isr_request("t", (1, 2))
    spoil(request)
    assert E.of(cluster.alter(request).error_code) is code
    assert cluster.last == ()


def test_somebody_who_does_not_lead_is_refused() -> None:
    """Although its epochs are right."""
    cluster = cluster_of()
    request = cluster.isr_request("t", (1, 2))
    request.broker_id, request.broker_epoch = 2, cluster.image.brokers[2].epoch
    assert E.of(cluster.alter(request).error_code) is E.INVALID_REQUEST


def test_a_fenced_broker_does_not_come_into_the_isr() -> None:
    """INELIGIBLE_REPLICA: it would be a leader nobody can reach."""
    cluster = cluster_of()
    cluster.fence(3)
    assert cluster.set_isr("t", 1, 2, 3) is E.INELIGIBLE_REPLICA
    cluster.beat(3)
    assert cluster.set_isr("t", 1, 2, 3) is E.NONE


def test_a_broker_that_shuts_down_does_not_come_into_the_isr() -> None:
    """KIP-841."""
    cluster = cluster_of()
    cluster.place("u", 3)
    cluster.beat(3, stop=True)
    assert cluster.partition("t").isr == (1, 2)
    assert cluster.set_isr("t", 1, 2, 3) is E.INELIGIBLE_REPLICA


def test_a_follower_that_has_restarted_since_it_was_in_sync_is_ineligible() -> None:
    """KIP-903: what the leader saw of it was another incarnation."""
    cluster = cluster_of()
    old_epoch = cluster.image.brokers[3].epoch
    cluster.start(3)
    request = cluster.isr_request("t", (1, 2, 3))
    asked_of(request).new_isr_with_epochs[2].broker_epoch = old_epoch
    assert E.of(cluster.alter(request).error_code) is E.INELIGIBLE_REPLICA
    asked_of(request).new_isr_with_epochs[2].broker_epoch = -1
    assert E.of(cluster.alter(request).error_code) is E.NONE


def test_the_older_version_names_members_without_epochs() -> None:
    """Version 2."""
    cluster = cluster_of()
    request = cluster.isr_request("t", (1,))
    asked_of(request).new_isr_with_epochs, asked_of(request).new_isr = [], [1, 3]
    assert cluster.alter(request).isr == [1, 3]


def test_a_leader_that_recovers_is_alone_until_it_says_that_it_is_through() -> None:
    """KIP-704."""
    cluster = cluster_of()
    cluster.configure("t", "unclean.leader.election.enable", "true")
    cluster.configure("t", "min.insync.replicas", "1")
    cluster.fence(1)
    cluster.set_isr("t", 2)
    cluster.fence(2)
    assert (cluster.partition().leader, cluster.partition().leader_recovery_state) == (3, 1)
    cluster.beat(2)
    assert E.of(cluster.alter(cluster.isr_request("t", (3, 2), recovery_state=1)).error_code) is E.INVALID_REQUEST
    result = cluster.alter(cluster.isr_request("t", (3, 2)))
    assert (result.error_code, result.leader_recovery_state, result.isr) == (0, 0, [3, 2])


def test_an_isr_that_completes_a_reassignment_away_from_the_leader_is_an_error_that_counts() -> None:
    """NEW_LEADER_ELECTED: the change is written, and the old leader has to look at the metadata."""
    cluster = cluster_of(1, 2)
    topic = cluster.image.topics["t"]
    move = PartitionChangeRecord(
        partition_id=0,
        topic_id=topic.id,
        replicas=[3, 2, 1],
        adding_replicas=[3],
        removing_replicas=[1],
        directories=[cluster.image.brokers[number].directories[0] for number in (3, 2, 1)],
    )
    cluster.take(lambda image: Decision((move,), None))
    result = cluster.alter(cluster.isr_request("t", (1, 2, 3)))
    assert E.of(result.error_code) is E.NEW_LEADER_ELECTED
    found = cluster.partition()
    assert (found.leader, found.replicas, found.isr, found.adding_replicas) == (3, (3, 2), (2, 3), ())
