"""Admin against a real broker: what is asked for happens, and what is refused is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamlog.client.admin import Admin, ConfigEntry, NewTopic, SomeFailed
from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.failures import BrokerUnreachable
from streamlog.client.producer import Producer
from streamlog.client.values import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from streamlog.env import Env
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.kafka_node import free_port


async def test_topics_are_created_described_grown_and_deleted(admin: Admin, name: Callable[[str], str]) -> None:
    """The whole life of a topic."""
    one, two = name("one"), name("two")
    configs = {"retention.ms": "3600000"}
    await admin.create_topics([NewTopic(one, partitions=2, replication_factor=1, configs=configs), NewTopic(two)])
    described = await admin.describe_topics([one, two])
    assert [len(described[each].partitions) for each in (one, two)] == [2, 1]
    assert described[one].topic_id != described[two].topic_id
    assert described[one].partitions[0].leader in described[one].partitions[0].replicas
    assert {one, two} <= set(await admin.list_topics())
    await admin.create_partitions({one: 4})
    async with asyncio.timeout(20):
        while len((await admin.describe_topics([one]))[one].partitions) != 4:
            await asyncio.sleep(0.05)
    await admin.delete_topics([one, two])
    async with asyncio.timeout(20):
        while {one, two} & set(await admin.list_topics()):
            await asyncio.sleep(0.05)


async def test_replicas_can_be_placed_by_hand(admin: Admin, name: Callable[[str], str]) -> None:
    """Assignments name the brokers of each partition."""
    topic = name("placed")
    broker_id = (await admin.describe_cluster()).brokers[0].node_id
    await admin.create_topics([NewTopic(topic, replicas={0: [broker_id], 1: [broker_id]})])
    described = (await admin.describe_topics([topic]))[topic]
    assert [one.replicas for one in described.partitions] == [(broker_id,), (broker_id,)]


async def test_what_is_refused_is_named_and_the_rest_is_done(
    admin: Admin, topic: str, name: Callable[[str], str]
) -> None:
    """Creating a topic that exists and one that does not: the second is there afterwards."""
    fresh = name("fresh")
    with pytest.raises(SomeFailed, match=f"{topic}: TOPIC_ALREADY_EXISTS") as refused:
        await admin.create_topics([NewTopic(topic), NewTopic(fresh)])
    assert refused.value.code is ErrorCode.TOPIC_ALREADY_EXISTS
    assert list(refused.value.errors) == [topic]
    async with asyncio.timeout(10):
        while fresh not in await admin.list_topics():  # Apache Kafka answers before its brokers have heard of it
            await asyncio.sleep(0.02)
    with pytest.raises(SomeFailed) as refused:
        await admin.delete_topics([name("missing")])
    assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    with pytest.raises(SomeFailed, match="does not exist"):
        await admin.describe_topics([name("missing")])
    with pytest.raises(SomeFailed) as refused:
        await admin.create_topics([NewTopic("bad/name")])
    assert refused.value.code is ErrorCode.INVALID_TOPIC_EXCEPTION
    with pytest.raises(SomeFailed) as refused:
        await admin.create_partitions({topic: 1})
    assert refused.value.code is ErrorCode.INVALID_PARTITIONS


async def test_validating_creates_nothing(admin: Admin, name: Callable[[str], str]) -> None:
    """validate_only says whether it would work."""
    topic = name("imagined")
    await admin.create_topics([NewTopic(topic, partitions=1, replication_factor=1)], validate_only=True)
    assert topic not in await admin.list_topics()


async def test_configs_are_described_and_altered(admin: Admin, topic: str) -> None:
    """Set one, add to a list, go back to the default; what is refused says why."""
    await admin.incremental_alter_configs(topic, set={"retention.ms": "1000", "cleanup.policy": "delete"})
    entries = await described(admin, topic, "retention.ms", "1000")
    assert (entries["retention.ms"].value, entries["retention.ms"].is_default) == ("1000", False)
    assert entries["segment.bytes"].is_default
    await admin.incremental_alter_configs(topic, append={"cleanup.policy": "compact"}, delete=["retention.ms"])
    entries = await described(admin, topic, "cleanup.policy", "delete,compact")
    assert entries["cleanup.policy"].value == "delete,compact"
    assert entries["retention.ms"].is_default
    with pytest.raises(KafkaError) as refused:
        await admin.incremental_alter_configs(topic, set={"retention.ms": "soon"})
    assert refused.value.code is ErrorCode.INVALID_CONFIG


async def described(admin: Admin, topic: str, name: str, value: str) -> dict[str, ConfigEntry]:
    """The topic's settings, once the broker asked has heard of the change."""
    async with asyncio.timeout(20):
        while True:
            entries = await admin.describe_configs(topic)
            if entries[name].value == value:
                return entries
            await asyncio.sleep(0.02)


async def test_records_are_deleted_up_to_an_offset(bootstrap: str, env: Env, admin: Admin, topic: str) -> None:
    """delete_records moves the first offset; -1 moves it to the end."""
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with Producer(bootstrap, env=env) as producer:
        for number in range(20):
            producer.append(topic, number % 2, None, b"v", env.clock.wall_ms())
    assert await admin.delete_records({zero: 4, one: -1}) == {zero: 4, one: 10}
    with pytest.raises(SomeFailed) as refused:
        await admin.delete_records({zero: 100})
    assert refused.value.code is ErrorCode.OFFSET_OUT_OF_RANGE
    with pytest.raises(KafkaError, match="there is no partition 9"):
        await admin.delete_records({TopicPartition(topic, 9): 1})


async def test_offsets_are_listed(bootstrap: str, env: Env, admin: Admin, topic: str) -> None:
    """Earliest, latest, by time, and of the largest timestamp."""
    zero = TopicPartition(topic, 0)
    now_ms = env.clock.wall_ms()
    async with Producer(bootstrap, env=env) as producer:
        for delta in (0, 20, 10):
            await producer.send(topic, b"v", partition=0, timestamp_ms=now_ms + delta)
    assert (await admin.list_offsets({zero: -2}))[zero].offset == 0
    assert (await admin.list_offsets({zero: -1}))[zero].offset == 3
    assert (await admin.list_offsets({zero: now_ms + 5}))[zero].offset == 1
    assert (await admin.list_offsets({zero: -3}))[zero] == OffsetAndTimestamp(1, now_ms + 20, 0)


async def test_groups_are_listed_described_and_deleted(
    bootstrap: str, env: Env, admin: Admin, topic: str, name: Callable[[str], str]
) -> None:
    """A group with a member, then without, then gone."""
    group = name("group")
    async with Consumer(bootstrap, env=env, client_id="me", group_id=group) as consumer:
        consumer.subscribe([topic])
        async with asyncio.timeout(20):
            while len(consumer.assignment()) != 3:
                await consumer.fetch(timeout_ms=50)
        await consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(0)})
        described = (await admin.describe_groups([group]))[group]
        assert (described.state, described.assignor) == ("Stable", "cooperative-sticky")
        (member,) = described.members
        assert (member.member_id, member.client_id, member.topics) == (consumer.member_id, "me", (topic,))
        assert list(member.partitions) == consumer.assignment()
        with pytest.raises(SomeFailed) as refused:
            await admin.delete_groups([group])
        assert refused.value.code is ErrorCode.NON_EMPTY_GROUP
    listed = {one.group_id: one for one in await admin.list_groups()}
    assert (listed[group].state, listed[group].type.lower()) == ("Empty", "classic")
    assert group in {one.group_id for one in await admin.list_groups(states=["Empty"])}
    assert group not in {one.group_id for one in await admin.list_groups(states=["Stable"])}
    await admin.delete_groups([group])
    assert group not in {one.group_id for one in await admin.list_groups()}
    assert (await admin.describe_groups([group]))[group].state == "Dead"


async def test_offsets_of_groups_are_listed_altered_and_deleted(
    admin: Admin, topic: str, name: Callable[[str], str]
) -> None:
    """An operator moves a group that has no members."""
    group = name("group")
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    assert await admin.list_group_offsets(group) == {}
    wanted = {zero: OffsetAndMetadata(5, metadata="by hand"), one: OffsetAndMetadata(7)}
    await admin.alter_group_offsets(group, wanted)
    assert await admin.list_group_offsets(group) == wanted
    await admin.delete_group_offsets(group, [zero])
    assert await admin.list_group_offsets(group) == {one: OffsetAndMetadata(7)}


async def test_the_cluster_describes_itself(bootstrap: str, admin: Admin) -> None:
    """Id, controller and brokers with their addresses."""
    described = await admin.describe_cluster()
    assert described.cluster_id
    assert bootstrap in [str(one.address) for one in described.brokers]
    assert described.controller_id in [one.node_id for one in described.brokers]


async def test_nobody_at_the_address_is_said_in_one_sentence(env: Env) -> None:
    """open names the address and says what to check."""
    port = free_port()
    admin = Admin(f"127.0.0.1:{port}", env=env, timeout_ms=300, connection=ConnectionSettings())
    with pytest.raises(BrokerUnreachable, match=rf"no broker answered at 127.0.0.1:{port} within 0.3 s.*check that"):
        await admin.open()
