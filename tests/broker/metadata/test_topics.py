"""Which topics the controller makes, grows and deletes, and which error wins where several apply."""

from __future__ import annotations

import pytest

from streamlog.broker.metadata.decision import PARTITIONS_PER_REQUEST_MAX, ControllerSettings
from streamlog.broker.metadata.topics import create_partitions, delete_topics
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from streamlog.wire.messages.create_topics import CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from tests.broker.metadata.cluster import CLUSTER_ID, Cluster, topic

E = ErrorCode


def test_a_new_topic_has_its_partitions_spread_over_the_brokers() -> None:
    """Leaders and replicas go round."""
    cluster = Cluster(brokers=3)
    assert cluster.create_codes(topic("t", 4, 2)) == [E.NONE]
    partitions = cluster.image.topics["t"].partitions
    assert [partitions[index].replicas for index in range(4)] == [(2, 3), (3, 1), (1, 3), (2, 1)]
    assert all(p.leader == p.replicas[0] and p.isr == p.replicas and p.leader_epoch == 0 for p in partitions.values())


def test_defaults_come_from_the_settings() -> None:
    """-1 for both counts (KIP-464)."""
    cluster = Cluster(
        brokers=2, settings=ControllerSettings(cluster_id=CLUSTER_ID, num_partitions=3, default_replication_factor=2)
    )
    result = cluster.create(topic("t", -1, -1)).topics[0]
    assert (result.num_partitions, result.replication_factor) == (3, 2)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a" * 250, "a/b", "../../etc/passwd", "a b", "tab\t", "nul\0", "ünïcode", "a\n", "a:b"]
)
def test_a_name_that_is_no_directory_name_is_refused(name: str) -> None:
    """Row 23: length, characters, path traversal."""
    assert Cluster().create_codes(topic(name)) == [E.INVALID_TOPIC_EXCEPTION]


def test_the_longest_name_is_fine() -> None:
    """249 characters."""
    assert Cluster().create_codes(topic("a" * 249)) == [E.NONE]


def test_names_that_metrics_cannot_tell_apart_collide() -> None:
    """Row 23: `a.b` and `a_b`, across requests and within one."""
    cluster = Cluster()
    assert cluster.create_codes(topic("a.b"), topic("a_b"), topic("ab")) == [E.NONE, E.INVALID_TOPIC_EXCEPTION, E.NONE]
    assert cluster.create_codes(topic("a_b")) == [E.INVALID_TOPIC_EXCEPTION]


def test_a_deleted_topic_leaves_its_name_and_its_collisions() -> None:
    """Nothing of it stays."""
    cluster = Cluster()
    cluster.create(topic("a.b"))
    request = DeleteTopicsRequest(topic_names=["a.b"])
    cluster.take(lambda image: delete_topics(image, cluster.settings, request))
    assert cluster.create_codes(topic("a_b")) == [E.NONE]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (topic("t", 0, 1), E.INVALID_PARTITIONS),
        (topic("t", -2, 1), E.INVALID_PARTITIONS),
        (topic("t", 1, 0), E.INVALID_REPLICATION_FACTOR),
        (topic("t", 1, 2), E.INVALID_REPLICATION_FACTOR),
        (topic("t", 0, 0), E.INVALID_REPLICATION_FACTOR),
        (topic("t", PARTITIONS_PER_REQUEST_MAX + 1, 1), E.POLICY_VIOLATION),
        (topic("t", 2**31 - 1, 1), E.POLICY_VIOLATION),
        (topic("__cluster_metadata"), E.INVALID_REQUEST),
    ],
)
def test_impossible_counts_are_refused(asked: CreatableTopic, code: ErrorCode) -> None:
    """Row 32."""
    assert Cluster().create_codes(asked) == [code]


def with_configs(**configs: str | None) -> CreatableTopic:
    rows = [CreatableTopicConfig(name=name.replace("_", "."), value=value) for name, value in configs.items()]
    return CreatableTopic(name="t", num_partitions=1, replication_factor=1, configs=rows)


@pytest.mark.parametrize(
    "asked", [with_configs(no_such="1"), with_configs(retention_ms="x"), with_configs(retention_ms=None)]
)
def test_a_bad_config_refuses_the_topic(asked: CreatableTopic) -> None:
    """Row 32: INVALID_CONFIG."""
    cluster = Cluster()
    assert cluster.create_codes(asked) == [E.INVALID_CONFIG]
    assert cluster.image.topics == {}


def test_the_answer_tells_the_configs() -> None:
    """KIP-525."""
    result = Cluster().create(with_configs(retention_ms="5")).topics[0]
    found = {config.name: (config.value, config.config_source) for config in result.configs or ()}
    assert found["retention.ms"] == ("5", 1)
    assert found["segment.bytes"] == ("1073741824", 5)


def test_a_topic_that_exists_or_is_named_twice_is_refused() -> None:
    """Row 32: 36 and 42; the others of the request are made."""
    cluster = Cluster()
    cluster.create(topic("old"))
    response = cluster.create(topic("old"), topic("twice"), topic("twice"), topic("new"))
    assert {result.name: result.error_code for result in response.topics} == {
        "old": E.TOPIC_ALREADY_EXISTS,
        "twice": E.INVALID_REQUEST,
        "new": E.NONE,
    }


def test_validate_only_changes_nothing() -> None:
    """The answer is the same."""
    cluster = Cluster()
    assert cluster.create(topic("t"), validate_only=True).topics[0].error_code == E.NONE
    assert cluster.image.topics == {}


def assigned(*replicas: list[int], first: int = 0, partitions: int = -1, factor: int = -1) -> CreatableTopic:
    rows = [CreatableReplicaAssignment(partition_index=first + n, broker_ids=ids) for n, ids in enumerate(replicas)]
    return CreatableTopic(name="t", num_partitions=partitions, replication_factor=factor, assignments=rows)


def test_a_manual_assignment_is_taken_as_it_is() -> None:
    """The first replica leads."""
    cluster = Cluster(brokers=3)
    assert cluster.create_codes(assigned([3, 1], [2, 3])) == [E.NONE]
    assert [p.leader for p in cluster.image.topics["t"].partitions.values()] == [3, 2]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (assigned([1], partitions=1), E.INVALID_REQUEST),
        (assigned([1], factor=1), E.INVALID_REQUEST),
        (assigned([]), E.INVALID_REPLICA_ASSIGNMENT),
        (assigned([9]), E.INVALID_REPLICA_ASSIGNMENT),
        (assigned([1, 1]), E.INVALID_REPLICA_ASSIGNMENT),
        (assigned([1], [1, 2]), E.INVALID_REPLICA_ASSIGNMENT),
        (assigned([1], first=1), E.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_a_contradictory_assignment_is_refused(asked: CreatableTopic, code: ErrorCode) -> None:
    """Row 32: 39 and 42."""
    assert Cluster(brokers=2).create_codes(asked) == [code]


def test_a_fenced_broker_gets_replicas_and_is_not_in_sync() -> None:
    """It catches up when it is back; an assignment to fenced brokers alone is refused."""
    cluster = Cluster(brokers=1)
    cluster.register(cluster.registration(2))
    assert cluster.create_codes(topic("s", 1, 2)) == [E.NONE]
    assert (cluster.partition("s").replicas, cluster.partition("s").isr) == ((1, 2), (1,))
    assert cluster.create_codes(topic("u", 1, 3)) == [E.INVALID_REPLICATION_FACTOR]
    assert cluster.create_codes(assigned([2])) == [E.INVALID_REPLICA_ASSIGNMENT]


def grow(cluster: Cluster, *topics: CreatePartitionsTopic, validate_only: bool = False) -> list[ErrorCode]:
    request = CreatePartitionsRequest(topics=list(topics), validate_only=validate_only)
    response = cluster.take(lambda image: create_partitions(image, request))
    return [ErrorCode.of(result.error_code) for result in response.results]


def larger(name: str, count: int, assignments: list[list[int]] | None = None) -> CreatePartitionsTopic:
    rows = None if assignments is None else [CreatePartitionsAssignment(broker_ids=ids) for ids in assignments]
    return CreatePartitionsTopic(name=name, count=count, assignments=rows)


def test_a_topic_grows_and_never_shrinks() -> None:
    """KIP-195."""
    cluster = Cluster(brokers=2)
    cluster.create(topic("t", 2, 1))
    assert grow(cluster, larger("t", 4)) == [E.NONE]
    assert len(cluster.image.topics["t"].partitions) == 4
    assert grow(cluster, larger("t", 4)) == [E.INVALID_PARTITIONS]
    assert grow(cluster, larger("t", 1)) == [E.INVALID_PARTITIONS]
    assert grow(cluster, larger("absent", 4)) == [E.UNKNOWN_TOPIC_OR_PARTITION]
    assert grow(cluster, larger("t", 2**31 - 1)) == [E.POLICY_VIOLATION]
    assert grow(cluster, larger("t", 6, [[1]])) == [E.INVALID_REPLICA_ASSIGNMENT]
    assert grow(cluster, larger("t", 5, [[1, 2]])) == [E.INVALID_REPLICA_ASSIGNMENT]
    assert grow(cluster, larger("t", 5), larger("t", 6)) == [E.INVALID_REQUEST]
    assert grow(cluster, larger("t", 5, [[2]])) == [E.NONE]
    assert cluster.image.topics["t"].partitions[4].replicas == (2,)


def delete(cluster: Cluster, request: DeleteTopicsRequest) -> list[ErrorCode]:
    response = cluster.take(lambda image: delete_topics(image, cluster.settings, request))
    return [ErrorCode.of(result.error_code) for result in response.responses]


def test_topics_are_deleted_by_name_or_by_id() -> None:
    """KIP-516: and a name that comes back has a new id."""
    cluster = Cluster()
    cluster.create(topic("a"), topic("b"), topic("c"))
    ids = {name: found.id for name, found in cluster.image.topics.items()}
    by_id = DeleteTopicsRequest(topics=[DeleteTopicState(topic_id=ids["a"]), DeleteTopicState(name="b")])
    assert delete(cluster, by_id) == [E.NONE, E.NONE]
    assert delete(cluster, DeleteTopicsRequest(topics=[DeleteTopicState(topic_id=ids["a"])])) == [E.UNKNOWN_TOPIC_ID]
    assert delete(cluster, DeleteTopicsRequest(topic_names=["b"])) == [E.UNKNOWN_TOPIC_OR_PARTITION]
    cluster.create(topic("a"))
    assert cluster.image.topics["a"].id != ids["a"]


def test_a_topic_named_twice_is_not_deleted() -> None:
    """By name twice, by name and id, by neither, by both in one row."""
    cluster = Cluster()
    cluster.create(topic("a"))
    known = cluster.image.topics["a"].id
    for request in (
        DeleteTopicsRequest(topic_names=["a", "a"]),
        DeleteTopicsRequest(topics=[DeleteTopicState(name="a"), DeleteTopicState(topic_id=known)]),
        DeleteTopicsRequest(topics=[DeleteTopicState()]),
        DeleteTopicsRequest(topics=[DeleteTopicState(name="a", topic_id=known)]),
    ):
        assert set(delete(cluster, request)) == {E.INVALID_REQUEST}
    assert "a" in cluster.image.topics


def test_internal_topics_are_not_deleted() -> None:
    """Row 22."""
    cluster = Cluster()
    cluster.create(topic("__consumer_offsets"))
    assert delete(cluster, DeleteTopicsRequest(topic_names=["__consumer_offsets"])) == [E.INVALID_TOPIC_EXCEPTION]


def test_deletion_can_be_disabled() -> None:
    """delete.topic.enable."""
    cluster = Cluster(settings=ControllerSettings(cluster_id=CLUSTER_ID, delete_topic_enable=False))
    cluster.create(topic("a"))
    with pytest.raises(KafkaError) as refused:
        delete(cluster, DeleteTopicsRequest(topic_names=["a"]))
    assert refused.value.code == E.TOPIC_DELETION_DISABLED
