"""Where a broker's replicas are, by what it tells."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.broker.metadata.directories import assign_replicas_to_dirs
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.assign_replicas_to_dirs import (
    AssignReplicasToDirsRequest,
    DirectoryData,
    PartitionData,
    TopicData,
)
from tests.broker.metadata.cluster import Cluster

E = ErrorCode


def assign(
    cluster: Cluster, broker: int, directory: UUID, topic_id: UUID, index: int = 0, epoch: int | None = None
) -> ErrorCode:
    row = TopicData(topic_id=topic_id, partitions=[PartitionData(partition_index=index)])
    request = AssignReplicasToDirsRequest(
        broker_id=broker,
        broker_epoch=cluster.image.brokers[broker].epoch if epoch is None else epoch,
        directories=[DirectoryData(id=directory, topics=[row])],
    )
    response = cluster.take(lambda image: assign_replicas_to_dirs(image, cluster.settings, request))
    return E.of(response.directories[0].topics[0].partitions[0].error_code)


def test_a_replica_moves_to_another_directory() -> None:
    """Nothing else about the partition changes."""
    cluster = Cluster(brokers=2)
    request = cluster.registration(3)
    request.log_dirs.append(UUID(int=77))
    cluster.register(request)
    cluster.beat(3)
    cluster.place("t", 3, 1)
    before = cluster.partition()
    assert assign(cluster, 3, UUID(int=77), cluster.image.topics["t"].id) is E.NONE
    found = cluster.partition()
    assert (found.directory(3), found.directory(1)) == (UUID(int=77), before.directory(1))
    assert (found.leader, found.isr, found.leader_epoch) == (3, (3, 1), before.leader_epoch)


def test_a_replica_in_a_directory_that_is_not_there_leaves_the_isr() -> None:
    """It has failed, and the broker says so by its name."""
    cluster = Cluster(brokers=2)
    cluster.place("t", 1, 2)
    assert assign(cluster, 1, UUID(int=77), cluster.image.topics["t"].id) is E.NONE
    assert (cluster.partition().leader, cluster.partition().isr) == (2, (2,))


def test_what_is_not_there_or_not_its_own_is_refused() -> None:
    """Topic, partition, replica, incarnation."""
    cluster = Cluster(brokers=2)
    cluster.place("t", 1)
    topic_id, directory = cluster.image.topics["t"].id, UUID(int=1001)
    assert assign(cluster, 1, directory, UUID(int=5)) is E.UNKNOWN_TOPIC_ID
    assert assign(cluster, 1, directory, topic_id, 7) is E.UNKNOWN_TOPIC_OR_PARTITION
    assert assign(cluster, 2, UUID(int=1002), topic_id) is E.NOT_LEADER_OR_FOLLOWER
    with pytest.raises(KafkaError) as caught:
        assign(cluster, 1, directory, topic_id, epoch=-1)
    assert caught.value.code is E.STALE_BROKER_EPOCH
