"""Who may join the cluster under which number, and what a stop without warning costs."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.broker.metadata.image import NO_LEADER
from streamlog.broker.metadata.registration import allocate_producer_ids, unregister_broker
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.metadata import PartitionChangeRecord, RegisterBrokerRecord, UnregisterBrokerRecord
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, Feature
from tests.broker.metadata.cluster import SESSION_MS, Cluster


def code_of(cluster: Cluster, request: BrokerRegistrationRequest) -> ErrorCode:
    try:
        cluster.register(request)
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE


def test_a_brokers_epoch_is_where_its_registration_stands() -> None:
    """And it begins fenced."""
    cluster = Cluster()
    offset = cluster.next_offset
    assert cluster.register(cluster.registration(2)).epoch == offset
    record = cluster.last[0]
    assert isinstance(record, RegisterBrokerRecord)
    assert record.broker_epoch == offset
    assert record.fenced


def test_a_number_is_taken_while_its_broker_lives() -> None:
    """DUPLICATE_BROKER_REGISTRATION until the session has run out."""
    cluster = Cluster()
    assert code_of(cluster, cluster.registration(1)) is ErrorCode.DUPLICATE_BROKER_REGISTRATION
    cluster.now_ms += SESSION_MS + 1
    assert code_of(cluster, cluster.registration(1)) is ErrorCode.NONE


def test_a_fenced_brokers_number_is_free() -> None:
    """It was given up for dead."""
    cluster = Cluster()
    cluster.fence(1)
    assert code_of(cluster, cluster.registration(1)) is ErrorCode.NONE


def test_a_process_that_has_the_directories_of_one_whose_connection_ended_need_not_wait() -> None:
    """It could not have locked them while the older one lived; with other directories it could be anybody."""
    cluster = Cluster()
    cluster.liveness.on_connection_lost(1, cluster.image.brokers[1].epoch)
    other = cluster.registration(1)
    other.log_dirs = [UUID(int=5)]
    assert code_of(cluster, other) is ErrorCode.DUPLICATE_BROKER_REGISTRATION
    assert code_of(cluster, cluster.registration(1)) is ErrorCode.NONE


def test_a_heartbeat_after_the_connection_ended_proves_life() -> None:
    """It has come by another one."""
    cluster = Cluster()
    cluster.liveness.on_connection_lost(1, cluster.image.brokers[1].epoch)
    cluster.beat(1)
    assert code_of(cluster, cluster.registration(1)) is ErrorCode.DUPLICATE_BROKER_REGISTRATION


def test_an_amended_registration_keeps_the_epoch() -> None:
    """The same incarnation asks again: its answer was lost, or its listeners changed."""
    cluster = Cluster()
    request = cluster.registration(1)
    request.incarnation_id = cluster.image.brokers[1].incarnation_id
    request.rack = "a"
    before = cluster.image.brokers[1]
    registered = cluster.register(request)
    assert (registered.epoch, registered.is_new) == (before.epoch, False)
    assert (cluster.image.brokers[1].rack, cluster.image.brokers[1].fenced) == ("a", False)


def test_a_broker_of_another_cluster_is_refused() -> None:
    """A wrong address in a properties file."""
    cluster = Cluster()
    request = cluster.registration(2)
    request.cluster_id = "other"
    assert code_of(cluster, request) is ErrorCode.INCONSISTENT_CLUSTER_ID


@pytest.mark.parametrize(
    "directories",
    [[], [UUID(int=0)], [UUID(int=2)], [UUID(int=9), UUID(int=9)], [UUID(int=1001)]],
    ids=["none", "migrating", "lost", "twice", "another broker's"],
)
def test_impossible_directories_are_refused(directories: list[UUID]) -> None:
    """KIP-858: a directory belongs to one broker."""
    cluster = Cluster()
    request = cluster.registration(2)
    request.log_dirs = directories
    assert code_of(cluster, request) is ErrorCode.INVALID_REGISTRATION


@pytest.mark.parametrize(
    ("features", "code"),
    [
        ([], ErrorCode.INVALID_REGISTRATION),
        ([("metadata.version", 1, 29)], ErrorCode.UNSUPPORTED_VERSION),
        ([("metadata.version", 1, 30)], ErrorCode.UNSUPPORTED_VERSION),
        ([("metadata.version", 7, 31), ("eligible.leader.replicas.version", 0, 1)], ErrorCode.NONE),
        (
            [("metadata.version", 7, 31), ("eligible.leader.replicas.version", 0, 1), ("share.version", 0, 2)],
            ErrorCode.NONE,
        ),
        (
            [("metadata.version", 7, 31), ("eligible.leader.replicas.version", 0, 1), ("share.version", 1, 2)],
            ErrorCode.UNSUPPORTED_VERSION,
        ),
    ],
)
def test_a_broker_must_support_what_is_finalized(features: list[tuple[str, int, int]], code: ErrorCode) -> None:
    """A feature it does not name is one it has at level 0 only."""
    cluster = Cluster()
    request = cluster.registration(2)
    request.features = [
        Feature(name=n, min_supported_version=low, max_supported_version=high) for n, low, high in features
    ]
    assert code_of(cluster, request) is code


def test_a_clean_restart_of_the_only_replica_writes_nothing_about_its_partitions() -> None:
    """A single node starts as fast as it can."""
    cluster = Cluster()
    cluster.place("t", 1)
    cluster.liveness.on_gone(1)
    cluster.register(cluster.registration(1))
    assert [type(record) for record in cluster.last] == [RegisterBrokerRecord]
    cluster.beat(1)
    assert (cluster.partition().leader, cluster.partition().leader_epoch) == (1, 0)


def test_a_clean_restart_leaves_what_others_can_lead() -> None:
    """It was not there, so it is in no ISR."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3)
    cluster.liveness.on_gone(1)
    cluster.register(cluster.registration(1))
    assert (cluster.partition().leader, cluster.partition().isr) == (2, (2, 3))


def test_an_unclean_restart_costs_the_place_in_isr_and_elr() -> None:
    """KIP-966: it may lack what it had acknowledged."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3, min_insync_replicas="3")
    cluster.place("u", 3, 1, 2, min_insync_replicas="3")
    cluster.fence(1)
    assert cluster.partition("t").eligible_leader_replicas == (1,)
    cluster.register(cluster.registration(1, clean=False))
    assert cluster.partition("t").eligible_leader_replicas == ()
    cluster.fence(2)
    cluster.start(2)
    assert cluster.partition("u").eligible_leader_replicas == (2,)


def test_an_unclean_restart_of_the_only_replica_marks_what_it_leads() -> None:
    """New leader epochs, and a recovery state that says that records may be lost."""
    cluster = Cluster()
    cluster.place("t", 1)
    cluster.start(1, clean=False)
    found = cluster.partition()
    assert (found.leader, found.isr, found.leader_epoch, found.leader_recovery_state) == (1, (1,), 2, 1)


def test_an_unclean_restart_without_elr_leads_again_by_a_new_epoch() -> None:
    """A reader that compares epochs (KIP-320) can tell."""
    cluster = Cluster(elr=False)
    cluster.place("t", 1)
    cluster.start(1, clean=False)
    found = cluster.partition()
    assert (found.leader, found.isr, found.leader_epoch, found.leader_recovery_state) == (1, (1,), 2, 0)


def test_an_unregistered_broker_is_forgotten() -> None:
    """Out of every ISR and ELR; its partitions keep it as a replica until they are reassigned."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3)
    epoch = cluster.image.brokers[1].epoch
    cluster.take(lambda image: unregister_broker(image, cluster.settings, 1))
    assert [type(record) for record in cluster.last] == [PartitionChangeRecord, UnregisterBrokerRecord]
    assert 1 not in cluster.image.brokers
    assert (cluster.partition().leader, cluster.partition().replicas) == (2, (1, 2, 3))
    with pytest.raises(KafkaError) as caught:
        unregister_broker(cluster.image, cluster.settings, 1)
    assert caught.value.code is ErrorCode.BROKER_ID_NOT_REGISTERED
    cluster.register(cluster.registration(1))
    assert cluster.image.brokers[1].epoch > epoch


def test_a_partition_of_an_unregistered_broker_alone_waits_for_it() -> None:
    """Nobody else has its records."""
    cluster = Cluster(brokers=2)
    cluster.place("t", 1)
    cluster.take(lambda image: unregister_broker(image, cluster.settings, 1))
    assert cluster.partition().leader == NO_LEADER
    cluster.start(1)
    assert cluster.partition().leader == 1


def test_producer_ids_go_to_the_registered_incarnation_only() -> None:
    """A fenced process must not hand out ids that its successor gets too."""
    cluster = Cluster()
    with pytest.raises(KafkaError) as caught:
        allocate_producer_ids(cluster.image, 1, cluster.image.brokers[1].epoch - 1)
    assert caught.value.code is ErrorCode.STALE_BROKER_EPOCH
