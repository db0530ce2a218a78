"""Operating a cluster of several brokers: our admin client on three nodes of Apache Kafka."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from streamlog.client.admin import (
    Admin,
    ControllerEndpoint,
    Election,
    FeatureChange,
    NewTopic,
    Reassignment,
    SomeFailed,
)
from streamlog.client.failures import BrokerUnreachable
from streamlog.client.metadata import PartitionInfo
from streamlog.client.values import TopicPartition
from streamlog.env import real_env
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.interop_kafka, pytest.mark.timeout(180)]

NODES = (1, 2, 3)
PATIENCE_S = 40.0
_NUMBERS = count(1)


@pytest.fixture(scope="module")
def cluster(kafka_libs: Path) -> Iterator[KafkaCluster]:
    # Sessions end soon, so that a test which stops a node does not wait for nine seconds.
    settings = {"broker.session.timeout.ms": "3000", "max.request.partition.size.limit": "50"}
    with KafkaCluster(kafka_libs, properties=settings) as three:
        yield three


@pytest.fixture
async def admin(cluster: KafkaCluster) -> AsyncIterator[Admin]:
    env = real_env()
    async with Admin(cluster.bootstrap, env=env, timeout_ms=20_000) as client:
        yield client
    env.offload.close()


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await check():
            await asyncio.sleep(0.1)


async def make_topic(admin: Admin, replicas: dict[int, tuple[int, ...]]) -> str:
    name = f"topic-{next(_NUMBERS)}"
    await admin.create_topics([NewTopic(name, replicas=replicas)])
    return name


async def partition(admin: Admin, topic: str, number: int = 0) -> PartitionInfo:
    return (await admin.describe_topics([topic]))[topic].partitions[number]


async def test_replicas_leaders_and_who_is_in_sync_are_described(admin: Admin) -> None:
    """Also of more partitions than fit into one page of an answer."""
    topic = await make_topic(admin, {0: (3, 1), 1: (1, 2)})
    first, second = (await admin.describe_topics([topic]))[topic].partitions
    assert (first.leader, first.replicas, set(first.isr)) == (3, (3, 1), {3, 1})
    assert (second.leader, second.replicas, set(second.isr)) == (1, (1, 2), {1, 2})
    assert (first.eligible_leader_replicas, first.offline_replicas) == ((), ())
    many = f"topic-{next(_NUMBERS)}"
    await admin.create_topics([NewTopic(many, partitions=120, replication_factor=1)])
    described = (await admin.describe_topics([topic, many]))[many].partitions
    assert [one.partition for one in described] == list(range(120))
    await admin.delete_topics([many])


async def test_the_quorum_is_described_and_a_controller_gets_a_vote_and_loses_it(
    admin: Admin, cluster: KafkaCluster
) -> None:
    """Voters, observers, how far each is, where they listen (KIP-853)."""
    quorum = await admin.describe_quorum()
    assert {one.node_id for one in quorum.voters} == set(NODES)
    assert quorum.leader_id in NODES
    assert 0 < quorum.high_watermark <= quorum.leader_end_offset
    assert {one.port for each in quorum.endpoints.values() for one in each} == {
        cluster.nodes[number].controller_port for number in NODES
    }
    fourth = cluster.add_controller(4)

    async def follows() -> bool:
        quorum = await admin.describe_quorum()
        return any(one.node_id == 4 and one.log_end_offset >= quorum.high_watermark for one in quorum.observers)

    await until(follows)
    directory_id = next(one.directory_id for one in (await admin.describe_quorum()).observers if one.node_id == 4)
    endpoints = [ControllerEndpoint("CONTROLLER", "127.0.0.1", fourth.controller_port)]
    with pytest.raises(KafkaError) as refused:
        await admin.add_raft_voter(4, directory_id, endpoints, cluster_id="another")
    assert refused.value.code is ErrorCode.INCONSISTENT_CLUSTER_ID
    await admin.add_raft_voter(4, directory_id, endpoints)
    assert {one.node_id for one in (await admin.describe_quorum()).voters} == {1, 2, 3, 4}
    with pytest.raises(KafkaError) as refused:
        await admin.add_raft_voter(4, directory_id, endpoints)
    assert refused.value.code is ErrorCode.DUPLICATE_VOTER
    await admin.remove_raft_voter(4, directory_id)
    assert {one.node_id for one in (await admin.describe_quorum()).voters} == set(NODES)
    with pytest.raises(KafkaError) as refused:
        await admin.remove_raft_voter(4, directory_id)
    assert refused.value.code is ErrorCode.VOTER_NOT_FOUND
    fourth.stop()


async def test_partitions_move_to_other_brokers_and_a_move_can_be_cancelled(admin: Admin) -> None:
    """Replicas are where they were asked to be, and what cannot be done is named by partition."""
    topic = await make_topic(admin, {0: (1, 2), 1: (2, 1)})
    await admin.alter_partition_reassignments({TopicPartition(topic, 0): (3, 1)})

    async def has_moved() -> bool:
        moved = await partition(admin, topic)
        return (moved.replicas, set(moved.isr)) == ((3, 1), {3, 1})

    await until(has_moved)
    assert await admin.list_partition_reassignments([TopicPartition(topic, 0)]) == {}
    with pytest.raises(SomeFailed) as refused:
        await admin.alter_partition_reassignments(
            {TopicPartition(topic, 0): None, TopicPartition(topic, 1): (1, 9), TopicPartition(topic, 2): (1,)}
        )
    assert {name: one.code for name, one in refused.value.errors.items()} == {
        f"{topic}-0": ErrorCode.NO_REASSIGNMENT_IN_PROGRESS,
        f"{topic}-1": ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        f"{topic}-2": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }


async def test_a_move_to_a_broker_that_is_down_goes_on_until_it_is_cancelled(
    admin: Admin, cluster: KafkaCluster
) -> None:
    """And while that broker is down, others lead what it led; the preferred leader is elected when it is back."""
    # Whoever is frozen is not the controller: its replacement is another test, and takes a busy machine long.
    controller = (await admin.describe_quorum()).leader_id
    first, second, frozen = sorted(NODES, key=lambda number: number != controller)
    topic = await make_topic(admin, {0: (first, second), 1: (frozen, second)})
    cluster.nodes[frozen].signal(signal.SIGSTOP)

    async def is_led_by_another() -> bool:
        return (await partition(admin, topic, 1)).leader == second

    async def is_asked_to_move() -> bool:
        try:  # who is asked may be the frozen one, until the others say that another is the controller
            await admin.alter_partition_reassignments({TopicPartition(topic, 0): (frozen, second)})
        except BrokerUnreachable:
            return False
        return True

    try:
        await until(is_led_by_another)
        assert (await partition(admin, topic, 1)).isr == (second,)
        await until(is_asked_to_move)
        assert await admin.list_partition_reassignments() == {
            TopicPartition(topic, 0): Reassignment((frozen, second, first), adding=(frozen,), removing=(first,))
        }
        assert (await admin.list_partition_reassignments())[TopicPartition(topic, 0)].target == (frozen, second)
        await admin.alter_partition_reassignments({TopicPartition(topic, 0): None})
        assert await admin.list_partition_reassignments() == {}
        await admin.elect_leaders(Election.PREFERRED, [TopicPartition(topic, 0)])  # Kafka moved it for the time being
        answers = await admin.elect_leaders(Election.PREFERRED, [TopicPartition(topic, 0), TopicPartition(topic, 1)])
        codes = {one: error.code if error is not None else None for one, error in answers.items()}
        assert codes == {
            TopicPartition(topic, 0): ErrorCode.ELECTION_NOT_NEEDED,
            TopicPartition(topic, 1): ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
        }
    finally:
        cluster.nodes[frozen].signal(signal.SIGCONT)

    async def is_in_sync_again() -> bool:
        return set((await partition(admin, topic, 1)).isr) == {second, frozen}

    await until(is_in_sync_again)
    answers = await admin.elect_leaders(Election.PREFERRED)
    assert answers[TopicPartition(topic, 1)] is None

    async def is_led_by_the_preferred() -> bool:
        return (await partition(admin, topic, 1)).leader == frozen

    await until(is_led_by_the_preferred)
    answers = await admin.elect_leaders(Election.UNCLEAN, [TopicPartition(topic, 1), TopicPartition(topic, 7)])
    assert [error and error.code for error in answers.values()] == [
        ErrorCode.ELECTION_NOT_NEEDED,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]


async def test_data_directories_and_features_are_described_and_changed(admin: Admin) -> None:
    """Sizes by replica; levels within what brokers can do."""
    topic = await make_topic(admin, {0: (1, 2)})

    async def are_made() -> bool:
        return len(await admin.describe_log_dirs(NODES, [topic])) == 2

    await until(are_made)
    logs = await admin.describe_log_dirs(NODES, [topic])
    assert [(one.broker_id, str(one.partition), one.offset_lag) for one in logs] == [
        (1, f"{topic}-0", 0),
        (2, f"{topic}-0", 0),
    ]
    with pytest.raises(KafkaError, match="no broker 9"):
        await admin.describe_log_dirs([9])
    features = await admin.describe_features()
    version = features["metadata.version"]
    assert version.supported_low < version.level == version.supported_high
    await admin.update_features({"group.version": (0, FeatureChange.SAFE_DOWNGRADE)}, validate_only=True)
    assert (await admin.describe_features())["group.version"].level == 1
    with pytest.raises(KafkaError) as refused:
        await admin.update_features({"metadata.version": (99, FeatureChange.UPGRADE)})
    assert refused.value.code is ErrorCode.INVALID_UPDATE_VERSION


async def test_a_broker_that_is_gone_is_forgotten(admin: Admin, cluster: KafkaCluster) -> None:
    """Once; it is no harm to one that comes back."""
    cluster.nodes[3].stop()
    await admin.unregister_broker(3)
    with pytest.raises(KafkaError) as refused:
        await admin.unregister_broker(3)
    assert refused.value.code is ErrorCode.BROKER_ID_NOT_REGISTERED
    cluster.nodes[3].start()

    async def is_back() -> bool:
        return {one.node_id for one in (await admin.describe_cluster()).brokers} == set(NODES)

    await until(is_back)
