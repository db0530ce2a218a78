"""Committed offsets by the topics' ids, where they are known, and by their names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.cluster import Cluster
from streamlog.client.consumer import Consumer
from streamlog.client.group_offsets import commit_offsets, fetch_offsets
from streamlog.client.producer import Producer
from streamlog.client.values import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlog.env import Env
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError


@pytest.fixture
async def cluster(bootstrap: str, env: Env) -> AsyncIterator[Cluster]:
    """An open one, against a broker that takes topic ids."""
    made = Cluster(bootstrap, env)
    try:
        await made.open()
        (node_id, *_) = made.metadata.brokers
        if not (await made.connection(node_id)).supports(ApiKey.OFFSET_COMMIT, 10):
            pytest.skip("this broker does not know OffsetCommit by topic ids")
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("with_ids", [True, False])
async def test_what_is_committed_is_found_again(
    cluster: Cluster, topic: str, name: Callable[[str], str], with_ids: bool
) -> None:
    """Offset, leader epoch and metadata of each partition; partitions without any are left out."""
    await cluster.partition_count(topic)
    ids = {topic: cluster.metadata.topic_id(topic)} if with_ids else {}
    nobody = GroupMetadata(name("group"), -1, "", None)
    offsets = {
        TopicPartition(topic, 0): OffsetAndMetadata(5, 0, "five"),
        TopicPartition(topic, 2): OffsetAndMetadata(7),
    }

    async def attempt() -> None:
        for partition, code in (await commit_offsets(cluster, nobody, offsets, ids)).items():
            if code:
                raise KafkaError(code, f"{partition}")  # the coordinator is not there yet

    await cluster.retrying("commit", attempt)
    asked = [TopicPartition(topic, number) for number in range(3)]
    for found_ids in (ids, {topic: cluster.metadata.topic_id(topic)}, {}):
        assert await fetch_offsets(cluster, nobody.group_id, asked, found_ids) == offsets
    assert await fetch_offsets(cluster, nobody.group_id, None, {}) == offsets


async def test_another_topics_id_is_not_the_topic(cluster: Cluster, topic: str, name: Callable[[str], str]) -> None:
    """The id decides, whatever topic has the name now: nothing is stored, and asking says so too."""
    await cluster.partition_count(topic)
    gone = {topic: UUID(int=77)}
    nobody = GroupMetadata(name("group"), -1, "", None)
    zero = TopicPartition(topic, 0)
    await cluster.retrying("asking", lambda: fetch_offsets(cluster, nobody.group_id, None, {}))  # it is there
    codes = await commit_offsets(cluster, nobody, {zero: OffsetAndMetadata(5)}, gone)
    assert codes == {zero: ErrorCode.UNKNOWN_TOPIC_ID}
    with pytest.raises(KafkaError) as refused:
        await fetch_offsets(cluster, nobody.group_id, [zero], gone)
    assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_ID
    assert await fetch_offsets(cluster, nobody.group_id, None, {}) == {}


async def test_offsets_of_a_topic_that_was_made_again_are_not_committed(
    cluster: Cluster, bootstrap: str, env: Env, admin: Admin, name: Callable[[str], str]
) -> None:
    """A consumer that read the old topic commits nothing of it to the new one, and reads that from its beginning."""
    made, group = name("made"), name("group")
    zero = TopicPartition(made, 0)
    await admin.create_topics([NewTopic(made, partitions=1, replication_factor=1)])
    async with Producer(bootstrap, env=env) as producer:
        for number in range(3):
            await producer.send(made, b"old %d" % number, partition=0)
    async with Consumer(bootstrap, env=env, group_id=group, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        read = await consumer.fetch(timeout_ms=20_000)
        assert read[0].next_offset == 3
        await admin.delete_topics([made])
        await admin.create_topics([NewTopic(made, partitions=1, replication_factor=1)])
        async with asyncio.timeout(30):
            await consumer.commit()  # whether or not the consumer has noticed
            found = (await consumer.committed([zero]))[zero]
            assert found is None or found.offset == 0
            async with Producer(bootstrap, env=env) as producer:
                await producer.send(made, b"new", partition=0)
            values: list[bytes | None] = []
            while not values:
                for batch in await consumer.fetch(timeout_ms=1_000):
                    values += batch.columns.values
            assert values == [b"new"]
            await consumer.commit()
            found = (await consumer.committed([zero]))[zero]
            assert found is not None
            assert found.offset == 1


async def test_who_has_subscribed_and_is_no_member_commits_nothing(
    bootstrap: str, env: Env, admin: Admin, topic: str, name: Callable[[str], str]
) -> None:
    """A group without members takes offsets from anybody; from one that was a member they would be old ones."""
    group = name("group")
    async with asyncio.timeout(30), Consumer(bootstrap, env=env, group_id=group) as consumer:
        consumer.subscribe([topic])
        with pytest.raises(KafkaError, match=r"no member of the group .* any more, or not yet") as refused:
            await consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(1)})
        assert refused.value.code is ErrorCode.UNKNOWN_MEMBER_ID
        assert await admin.list_group_offsets(group) == {}
    async with asyncio.timeout(30), Consumer(bootstrap, env=env, group_id=group) as alone:
        alone.assign([TopicPartition(topic, 0)])
        await alone.commit({TopicPartition(topic, 0): OffsetAndMetadata(1)})
