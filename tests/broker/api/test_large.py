"""Requests of very many elements: the same answers, and nobody else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.broker.api.large import SLICINGS, cut, join
from streamlog.broker.node import Node
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.message import Request
from streamlog.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from streamlog.wire.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from streamlog.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from streamlog.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
    ListOffsetsTopicResponse,
)
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from tests.broker.running import RawClient, client_of, make_topic, running_node

MANY = 30_000


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path, auto_create_topics_enable="false") as node:
        yield node


@pytest.fixture
async def client(node: Node) -> AsyncIterator[RawClient]:
    async with client_of(node) as client:
        await make_topic(client, "t", partitions=3)
        yield client


def list_offsets(*topics: tuple[str, int]) -> ListOffsetsRequest:
    return ListOffsetsRequest(
        topics=[
            ListOffsetsTopic(
                name=name, partitions=[ListOffsetsPartition(partition_index=i, timestamp=-1) for i in range(count)]
            )
            for name, count in topics
        ]
    )


def answer(request: ListOffsetsRequest) -> ListOffsetsResponse:
    """What a handler would say, without a broker."""
    return ListOffsetsResponse(
        topics=[
            ListOffsetsTopicResponse(
                name=topic.name,
                partitions=[ListOffsetsPartitionResponse(partition_index=p.partition_index) for p in topic.partitions],
            )
            for topic in request.topics
        ]
    )


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=6), st.integers(1, 7))
def test_the_answers_of_the_pieces_are_the_answer_of_the_whole(topics: list[tuple[str, int]], size: int) -> None:
    """However topics and their partitions fall into pieces, also where a name stands twice."""
    request = list_offsets(*topics)
    before = request.encode(7)
    whole: ListOffsetsResponse | None = None
    for piece, continues in cut(request, SLICINGS[ApiKey.LIST_OFFSETS], size):
        assert isinstance(piece, ListOffsetsRequest)
        assert sum(len(topic.partitions) for topic in piece.topics) <= size
        if whole is None:
            whole = answer(piece)
        else:
            join(whole, answer(piece), SLICINGS[ApiKey.LIST_OFFSETS], continues)
    assert whole == answer(request)
    assert request.encode(7) == before


@pytest.mark.parametrize("key", [ApiKey(key) for key in SLICINGS], ids=lambda key: key.name)
def test_every_slicing_names_lists_that_are_there(key: ApiKey) -> None:
    """Of the request and of its response."""
    api, slicing = API_TABLE[key], SLICINGS[key]
    assert all(isinstance(getattr(api.request(), name), list) or name == "topics" for name in slicing.elements)
    assert isinstance(getattr(api.response(), slicing.answers), list)


async def test_a_large_request_is_answered_like_a_small_one(client: RawClient) -> None:
    """Known partitions and unknown ones, in the order of the request."""
    response = await client.ask(list_offsets(("t", MANY), ("u", 2)), 7, ListOffsetsResponse)
    assert isinstance(response, ListOffsetsResponse)
    assert [topic.name for topic in response.topics] == ["t", "u"]
    partitions = response.topics[0].partitions
    assert [one.partition_index for one in partitions] == list(range(MANY))
    assert [one.error_code for one in partitions[:5]] == [0, 0, 0, 3, 3]


async def test_others_are_served_while_a_large_request_is(node: Node, client: RawClient) -> None:
    """Their requests come in later and are answered sooner."""
    partitions = [DeleteRecordsPartition(partition_index=i, offset=0) for i in range(MANY)]
    client.send(DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=partitions)]), 2)
    large = asyncio.create_task(client.frame())
    async with client_of(node) as other:
        for _ in range(10):
            request = ApiVersionsRequest(client_software_name="a", client_software_version="1")
            await other.ask(request, 3, ApiVersionsResponse)
        assert not large.done()
    await large


async def test_what_is_asked_for_twice_is_answered_once(client: RawClient) -> None:
    """A hundred thousand times the same topic would make a response of gigabytes."""
    topics = [MetadataRequestTopic(name="t"), MetadataRequestTopic(name="u"), MetadataRequestTopic(name="t")]
    response = await client.ask(MetadataRequest(topics=topics), 9, MetadataResponse)
    assert isinstance(response, MetadataResponse)
    assert [topic.name for topic in response.topics] == ["t", "u"]
    resources = [DescribeConfigsResource(resource_type=2, resource_name="t", configuration_keys=["cleanup.policy"])] * 2
    described = await client.ask(DescribeConfigsRequest(resources=resources), 4, DescribeConfigsResponse)
    assert isinstance(described, DescribeConfigsResponse)
    assert len(described.results) == 1


UNCUT: dict[str, tuple[Request, int]] = {
    "produce": (
        ProduceRequest(
            acks=1,
            topic_data=[
                TopicProduceData(
                    name="t", partition_data=[PartitionProduceData(index=0, records=b"") for _ in range(MANY)]
                )
            ],
        ),
        9,
    ),
    "fetch": (FetchRequest(topics=[FetchTopic(topic="t", partitions=[FetchPartition() for _ in range(MANY)])]), 12),
    "create": (CreateTopicsRequest(topics=[CreatableTopic(name=f"t{i}") for i in range(MANY)]), 7),
}


@pytest.mark.parametrize("kind", UNCUT)
async def test_requests_that_cannot_be_cut_have_a_limit(node: Node, client: RawClient, kind: str) -> None:
    """Past it the connection is closed, and the others go on."""
    request, version = UNCUT[kind]
    client.send(request, version)
    async with asyncio.timeout(20):
        assert await client.is_closed()
    async with client_of(node) as other:
        await make_topic(other, "still-here")
