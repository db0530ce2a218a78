"""Every API that is advertised answers every version that is advertised, and nothing else is served."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.api.serve import SERVED
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.message import Request
from streamlog.wire.messages.alter_configs import AlterableConfig, AlterConfigsRequest, AlterConfigsResource
from streamlog.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from streamlog.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from streamlog.wire.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from streamlog.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from streamlog.wire.messages.describe_topic_partitions import DescribeTopicPartitionsRequest, TopicRequest
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest
from streamlog.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from streamlog.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from tests.broker.batches import new_batch
from tests.broker.running import client_of, make_topic, running_node

TOPIC = "t"


def request_for(key: ApiKey, version: int, topic_id: UUID) -> Request:
    """A request that touches topic `t` where the API has one to touch; others as they are by default."""
    match key:
        case ApiKey.PRODUCE:
            data = [PartitionProduceData(index=0, records=new_batch(b"v"))]
            topics = [TopicProduceData(name=TOPIC, topic_id=topic_id, partition_data=data)]
            return ProduceRequest(acks=-1, timeout_ms=1000, topic_data=topics)
        case ApiKey.FETCH:
            asked = [FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)]
            return FetchRequest(topics=[FetchTopic(topic=TOPIC, topic_id=topic_id, partitions=asked)])
        case ApiKey.LIST_OFFSETS:
            wanted = [ListOffsetsPartition(partition_index=0, timestamp=-1)]
            return ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=TOPIC, partitions=wanted)])
        case ApiKey.METADATA:
            return MetadataRequest(topics=[MetadataRequestTopic(name=TOPIC)])
        case ApiKey.API_VERSIONS:
            return ApiVersionsRequest(client_software_name="test", client_software_version="1.0")
        case ApiKey.CREATE_TOPICS:
            return CreateTopicsRequest(
                topics=[CreatableTopic(name=f"new-{version}", num_partitions=1, replication_factor=1)]
            )
        case ApiKey.DELETE_TOPICS:
            if version >= 6:
                return DeleteTopicsRequest(topics=[DeleteTopicState(name="absent")])
            return DeleteTopicsRequest(topic_names=["absent"])
        case ApiKey.DELETE_RECORDS:
            before = [DeleteRecordsPartition(partition_index=0, offset=0)]
            return DeleteRecordsRequest(topics=[DeleteRecordsTopic(name=TOPIC, partitions=before)])
        case ApiKey.INIT_PRODUCER_ID:
            return InitProducerIdRequest(transactional_id=None)
        case ApiKey.OFFSET_FOR_LEADER_EPOCH:
            epochs = [OffsetForLeaderPartition(partition=0, leader_epoch=0)]
            return OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic=TOPIC, partitions=epochs)])
        case ApiKey.DESCRIBE_CONFIGS:
            resource = DescribeConfigsResource(resource_type=2, resource_name=TOPIC, configuration_keys=None)
            return DescribeConfigsRequest(resources=[resource])
        case ApiKey.ALTER_CONFIGS:
            configs = [AlterableConfig(name="retention.ms", value="1")]
            return AlterConfigsRequest(
                resources=[AlterConfigsResource(resource_type=2, resource_name=TOPIC, configs=configs)]
            )
        case ApiKey.CREATE_PARTITIONS:
            return CreatePartitionsRequest(topics=[CreatePartitionsTopic(name=TOPIC, count=2, assignments=None)])
        case ApiKey.DESCRIBE_TOPIC_PARTITIONS:
            return DescribeTopicPartitionsRequest(topics=[TopicRequest(name=TOPIC)])
        case _:
            return API_TABLE[key].request()


@pytest.mark.parametrize("key", [ApiKey(key) for key in SERVED], ids=lambda key: key.name)
async def test_every_version_of_an_api_is_answered_in_that_version(tmp_path: Path, key: ApiKey) -> None:
    """The lowest, the highest and all between; the answer decodes to its last byte."""
    service = SERVED[key]
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, TOPIC)
        topic_id = node.broker.image.topics[TOPIC].id
        for version in range(service.min_version, service.max_version + 1):
            answer = await client.ask(request_for(key, version, topic_id), version, API_TABLE[key].response)
            assert isinstance(answer, API_TABLE[key].response)


@pytest.mark.parametrize("key", [ApiKey(key) for key in SERVED if key != ApiKey.API_VERSIONS], ids=lambda key: key.name)
async def test_a_version_outside_the_range_closes_the_connection(tmp_path: Path, key: ApiKey) -> None:
    """Row 3; Produce 0 to 2 too, although they are advertised (KAFKA-18659)."""
    service = SERVED[key]
    versions = [service.max_version + 1, 0x7FFF]
    if service.min_version > 0:
        versions.append(service.min_version - 1)
    async with running_node(tmp_path) as node:
        for version in versions:
            async with client_of(node) as client:
                header = key.to_bytes(2, "big") + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff\x00"
                client.send_frame(header + bytes(40))
                assert await client.is_closed()


@pytest.mark.parametrize("key", [-1, 4, 5, 6, 7, 999, 0x7FFF])
async def test_an_api_that_does_not_exist_closes_the_connection(tmp_path: Path, key: int) -> None:
    """Row 3: unknown and negative keys, and APIs between brokers that no client calls."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        client.send_frame(key.to_bytes(2, "big", signed=True) + bytes(30))
        assert await client.is_closed()


@pytest.mark.parametrize("version", [-1, 5, 100, 0x7FFF])
async def test_an_unknown_version_of_api_versions_is_answered_in_version_0(tmp_path: Path, version: int) -> None:
    """Row 4: clients step down by this (KIP-511)."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        header = b"\x00\x12" + version.to_bytes(2, "big", signed=True) + (7).to_bytes(4, "big")
        client.send_frame(header + b"\x00\x01x\x00" + b"\x02a\x02b\x00")
        answer = await client.frame()
        response = ApiVersionsResponse.decode(answer, 0, 4)
        assert answer[:4] == (7).to_bytes(4, "big")
        assert response.error_code == 35
        assert [(api.api_key, api.min_version, api.max_version) for api in response.api_keys] == [(18, 0, 4)]


@pytest.mark.parametrize(
    ("name", "version"),
    [("", "1.0"), ("bad name", "1.0"), ("-a", "1.0"), ("a", ""), ("a", "1.0\n"), ("a.", "1"), ("é", "1")],
)
async def test_a_client_that_names_its_software_badly_is_told_so(tmp_path: Path, name: str, version: str) -> None:
    """Row 5: the names end up in logs."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        request = ApiVersionsRequest(client_software_name=name, client_software_version=version)
        answer = await client.ask(request, 3, ApiVersionsResponse)
        assert isinstance(answer, ApiVersionsResponse)
        assert answer.error_code == 42


async def test_api_versions_advertises_what_is_served(tmp_path: Path) -> None:
    """No more and no less; Produce from 0 for old librdkafka."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        request = ApiVersionsRequest(client_software_name="test", client_software_version="1.0")
        answer = await client.ask(request, 4, ApiVersionsResponse)
        assert isinstance(answer, ApiVersionsResponse)
        advertised = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
        expected = {key: (service.min_version, service.max_version) for key, service in SERVED.items()}
        expected[ApiKey.PRODUCE] = (0, 13)
        assert advertised == expected
        assert advertised[ApiKey.INIT_PRODUCER_ID] == (0, 5)
        levels = {feature.name: feature.max_version_level for feature in answer.finalized_features}
        assert levels == {"metadata.version": 30, "eligible.leader.replicas.version": 1}


async def test_bodies_cut_anywhere_close_the_connection(tmp_path: Path) -> None:
    """Row 6: a truncated request is no request; the broker lives on."""
    async with running_node(tmp_path) as node:
        for key in (ApiKey.METADATA, ApiKey.FETCH, ApiKey.PRODUCE, ApiKey.CREATE_TOPICS):
            service = SERVED[key]
            version = service.max_version
            header = key.to_bytes(2, "big") + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff\x00"
            body = request_for(key, version, UUID(int=1)).encode(version)
            for cut in range(0, len(body) - 1, 7):
                async with client_of(node) as client:
                    client.send_frame(header + body[:cut])
                    assert await client.is_closed()
        async with client_of(node) as client:
            await make_topic(client, "still-works")
