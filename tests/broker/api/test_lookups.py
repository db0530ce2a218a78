"""ListOffsets, OffsetForLeaderEpoch, Metadata, DescribeTopicPartitions, DescribeCluster, DescribeConfigs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.node import Node
from streamlog.broker.topic_configs import ConfigSource, ConfigType
from streamlog.wire.messages.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
from streamlog.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from streamlog.wire.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    TopicRequest,
)
from streamlog.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from streamlog.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from streamlog.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.running import RawClient, client_of, make_topic, running_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as node:
        yield node


@pytest.fixture
async def client(node: Node) -> AsyncIterator[RawClient]:
    async with client_of(node) as client:
        await make_topic(client, "t", partitions=2)
        yield client


async def list_offset(
    client: RawClient, timestamp_ms: int, version: int = 11, topic: str = "t", epoch: int = -1
) -> tuple[int, int, int]:
    """(error, timestamp, offset)."""
    asked = ListOffsetsPartition(partition_index=0, timestamp=timestamp_ms, current_leader_epoch=epoch)
    request = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=topic, partitions=[asked])])
    answer = await client.ask(request, version, ListOffsetsResponse)
    assert isinstance(answer, ListOffsetsResponse)
    found = answer.topics[0].partitions[0]
    return found.error_code, found.timestamp, found.offset


async def write_at(client: RawClient, *timestamps_ms: int) -> None:
    for timestamp_ms in timestamps_ms:
        await client.ask(produce_request("t", new_batch(b"x", timestamp_ms=timestamp_ms)), 12, ProduceResponse)


async def test_offsets_are_found_by_time(client: RawClient) -> None:
    """The first record that is at least as new; both ends; the newest."""
    await write_at(client, 100, 300, 200)
    assert await list_offset(client, 100) == (0, 100, 0)
    assert await list_offset(client, 150) == (0, 300, 1)
    assert await list_offset(client, 301) == (0, -1, -1)
    assert await list_offset(client, -1) == (0, -1, 3)
    assert await list_offset(client, -2) == (0, -1, 0)
    assert await list_offset(client, -3) == (0, 300, 1)
    assert await list_offset(client, -4) == (0, -1, 0)
    assert await list_offset(client, -5) == (0, -1, -1)


@pytest.mark.parametrize(("timestamp", "version"), [(-3, 6), (-4, 7), (-5, 8), (-6, 10), (-7, 11)])
async def test_a_special_timestamp_is_not_known_before_its_version(
    client: RawClient, timestamp: int, version: int
) -> None:
    """UNSUPPORTED_VERSION for that partition."""
    assert (await list_offset(client, timestamp, version))[0] == 35


async def test_lookups_in_what_is_not_there_are_refused(client: RawClient) -> None:
    """Unknown topic; leader epochs that are not ours."""
    assert (await list_offset(client, -1, topic="absent"))[0] == 3
    assert (await list_offset(client, -1, epoch=5))[0] == 75


@pytest.mark.parametrize("level", [-1, 2])
async def test_a_lookup_of_an_isolation_level_that_does_not_exist_is_refused(client: RawClient, level: int) -> None:
    """It is not read as another one."""
    topics = [ListOffsetsTopic(name="t", partitions=[ListOffsetsPartition(partition_index=0, timestamp=-1)])]
    request = ListOffsetsRequest(replica_id=-1, isolation_level=level, topics=topics)
    answer = await client.ask(request, 7, ListOffsetsResponse)
    assert isinstance(answer, ListOffsetsResponse)
    assert [one.error_code for one in answer.topics[0].partitions] == [42]


async def test_an_epoch_ends_where_the_next_begins(tmp_path: Path) -> None:
    """KIP-320, over an unclean restart, which begins a new epoch."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "t")
        await write_at(client, 1, 2)
        (tmp_path / "saved").mkdir()
    (tmp_path / ".kafka_cleanshutdown").unlink()
    async with running_node(tmp_path) as node, client_of(node) as client:
        await write_at(client, 3)
        asked = [OffsetForLeaderPartition(partition=0, leader_epoch=epoch) for epoch in (0, 2, 3)]
        request = OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic="t", partitions=asked)])
        answer = await client.ask(request, 4, OffsetForLeaderEpochResponse)
        assert isinstance(answer, OffsetForLeaderEpochResponse)
        assert [(p.leader_epoch, p.end_offset) for p in answer.topics[0].partitions] == [(0, 2), (2, 3), (-1, -1)]


async def metadata(
    client: RawClient, *topics: MetadataRequestTopic, version: int = 13, create: bool = False
) -> MetadataResponse:
    request = MetadataRequest(topics=list(topics), allow_auto_topic_creation=create)
    answer = await client.ask(request, version, MetadataResponse)
    assert isinstance(answer, MetadataResponse)
    return answer


async def test_metadata_names_leaders_and_where_they_are(node: Node, client: RawClient) -> None:
    """The address is the listener's; leader epochs and ids are told."""
    answer = await metadata(client, MetadataRequestTopic(name="t"))
    assert [(b.node_id, b.host, b.port) for b in answer.brokers] == [(1, "127.0.0.1", node.listening[0].port)]
    assert (answer.cluster_id, answer.controller_id) == (node.broker.cluster_id, 1)
    topic = answer.topics[0]
    assert topic.topic_id == node.broker.image.topics["t"].id
    assert [(p.partition_index, p.leader_id, p.leader_epoch, p.isr_nodes) for p in topic.partitions] == [
        (0, 1, 0, [1]),
        (1, 1, 0, [1]),
    ]


async def test_metadata_by_id_and_of_what_is_not_there(client: RawClient, node: Node) -> None:
    """Unknown by name, by id, and names that cannot be."""
    known = node.broker.image.topics["t"].id
    answer = await metadata(
        client,
        MetadataRequestTopic(topic_id=known, name=None),
        MetadataRequestTopic(topic_id=UUID(int=3), name=None),
        MetadataRequestTopic(name="absent"),
        MetadataRequestTopic(name="a/b"),
    )
    assert [topic.error_code for topic in answer.topics] == [0, 100, 3, 17]
    assert answer.topics[0].name == "t"


async def test_all_topics_is_null_and_in_version_0_empty(client: RawClient) -> None:
    """The oldest version cannot say null."""
    for version, topics in ((13, None), (1, None), (0, [])):
        answer = await client.ask(MetadataRequest(topics=topics), version, MetadataResponse)
        assert isinstance(answer, MetadataResponse)
        assert [topic.name for topic in answer.topics] == ["t"]
    assert (await metadata(client, version=13)).topics == []


async def test_asking_makes_the_topic_and_the_answer_names_its_leader(client: RawClient) -> None:
    """auto.create.topics.enable: no second request needed."""
    answer = await metadata(client, MetadataRequestTopic(name="made"), create=True)
    assert [(topic.name, len(topic.partitions)) for topic in answer.topics] == [("made", 1)]
    refused = await metadata(client, MetadataRequestTopic(name="not made"), create=True)
    assert refused.topics[0].error_code == 17


async def test_a_topic_is_made_although_the_client_that_asked_has_left(node: Node, client: RawClient) -> None:
    """librdkafka asks on a connection it drops at once; the commit needs nobody to wait for it."""
    async with client_of(node) as leaving:
        leaving.send(MetadataRequest(topics=[MetadataRequestTopic(name="orphan")]), 13)
        await leaving.writer.drain()
        while "orphan" not in node.broker.controller.state.topics:
            await asyncio.sleep(0)
    answer = await metadata(client, MetadataRequestTopic(name="orphan"), create=True)
    assert [(topic.error_code, len(topic.partitions)) for topic in answer.topics] == [(0, 1)]


async def test_auto_creation_can_be_disabled(tmp_path: Path) -> None:
    """Then a topic that does not exist is unknown."""
    async with running_node(tmp_path, auto_create_topics_enable="false") as node, client_of(node) as client:
        answer = await metadata(client, MetadataRequestTopic(name="absent"), create=True)
        assert answer.topics[0].error_code == 3


async def test_topics_are_described_page_by_page(client: RawClient) -> None:
    """KIP-966: the cursor goes on where the page ended."""
    await make_topic(client, "a", partitions=3)
    found: list[tuple[str | None, int]] = []
    cursor: Cursor | None = None
    pages = 0
    while True:
        request = DescribeTopicPartitionsRequest(
            topics=[TopicRequest(name="t"), TopicRequest(name="a"), TopicRequest(name="absent")],
            response_partition_limit=2,
            cursor=cursor,
        )
        answer = await client.ask(request, 0, DescribeTopicPartitionsResponse)
        assert isinstance(answer, DescribeTopicPartitionsResponse)
        pages += 1
        found += [(topic.name, p.partition_index) for topic in answer.topics for p in topic.partitions]
        cursor = answer.next_cursor
        if cursor is None:
            break
    assert found == [("a", 0), ("a", 1), ("a", 2), ("t", 0), ("t", 1)]
    assert pages == 3


async def test_a_broker_does_not_describe_controllers(client: RawClient) -> None:
    """KIP-919."""
    for kind, code in ((1, 0), (2, 114), (9, 115)):
        answer = await client.ask(DescribeClusterRequest(endpoint_type=kind), 2, DescribeClusterResponse)
        assert isinstance(answer, DescribeClusterResponse)
        assert answer.error_code == code


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [(2, "t", 0), (2, "absent", 3), (2, "a/b", 17), (4, "1", 0), (4, "", 0), (4, "2", 42), (8, "1", 42)],
)
async def test_configs_of_what_exists_are_described(client: RawClient, kind: int, name: str, code: int) -> None:
    """And the rest is refused resource by resource."""
    resource = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=None)
    request = DescribeConfigsRequest(resources=[resource], include_synonyms=True, include_documentation=True)
    answer = await client.ask(request, 4, DescribeConfigsResponse)
    assert isinstance(answer, DescribeConfigsResponse)
    assert answer.results[0].error_code == code


async def test_rates_of_moving_replicas_are_described_where_they_are_set(client: RawClient) -> None:
    """They are dynamic configs only, of one broker or of all; where none is set there is no row, as in Kafka."""

    async def rates(name: str) -> dict[str, tuple[str | None, int, int]]:
        resource = DescribeConfigsResource(resource_type=4, resource_name=name, configuration_keys=None)
        answer = await client.ask(DescribeConfigsRequest(resources=[resource]), 4, DescribeConfigsResponse)
        assert isinstance(answer, DescribeConfigsResponse)
        rows = (row for row in answer.results[0].configs if "throttled.rate" in row.name)
        return {row.name: (row.value, row.config_source, row.config_type) for row in rows}

    async def set_rate(name: str, rate: str, value: str) -> None:
        config = AlterableConfig(name=rate, config_operation=0, value=value)
        request = IncrementalAlterConfigsRequest(
            resources=[AlterConfigsResource(resource_type=4, resource_name=name, configs=[config])]
        )
        answer = await client.ask(request, 1, IncrementalAlterConfigsResponse)
        assert isinstance(answer, IncrementalAlterConfigsResponse)
        assert answer.responses[0].error_code == 0

    leader, follower = "leader.replication.throttled.rate", "follower.replication.throttled.rate"
    assert (await rates("1"), await rates("")) == ({}, {})
    await set_rate("", leader, "5")
    await set_rate("", follower, "6")
    await set_rate("1", leader, "900000")
    of_all, of_one, long = ConfigSource.DYNAMIC_DEFAULT_BROKER, ConfigSource.DYNAMIC_BROKER, ConfigType.LONG
    assert await rates("1") == {leader: ("900000", of_one, long), follower: ("6", of_all, long)}
    assert await rates("") == {leader: ("5", of_all, long), follower: ("6", of_all, long)}


async def test_a_transactional_id_is_refused_for_good(client: RawClient) -> None:
    """There is no transaction coordinator: not a code that clients retry."""
    for name, code in ((None, 0), ("mine", 53), ("", 42)):
        answer = await client.ask(InitProducerIdRequest(transactional_id=name), 5, InitProducerIdResponse)
        assert isinstance(answer, InitProducerIdResponse)
        assert answer.error_code == code


async def test_a_transactional_client_is_named_in_the_log_once(
    client: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The code that clients take as final does not say what is the matter; and a client that insists fills no log."""
    for name in ("mine", "other"):
        client.send(InitProducerIdRequest(transactional_id=name), 5, client_id="app")
        await client.answer(5, InitProducerIdResponse)
    lines = [line for line in caplog.messages if "transaction" in line]
    assert len(lines) == 1
    assert "'mine' of client 'app'" in lines[0]
    assert "not supported yet" in lines[0]


async def test_producer_ids_are_never_given_twice(tmp_path: Path) -> None:
    """Not over restarts either, clean or not."""
    given: list[int] = []
    for _ in range(3):
        async with running_node(tmp_path) as node, client_of(node) as client:
            for _ in range(1100):
                client.send(InitProducerIdRequest(transactional_id=None), 5)
            for _ in range(1100):
                given.append(InitProducerIdResponse.decode(await client.frame(), 5, 5).producer_id)
        (tmp_path / ".kafka_cleanshutdown").unlink(missing_ok=True)
    assert len(set(given)) == len(given) == 3300
