"""Requests of very many elements: the same answers, and nobody else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.broker.api.large import SLICE_ELEMENTS, SLICINGS, cut, join
from streamlog.broker.node import Node
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.compression import compress
from streamlog.wire.crc import crc32c
from streamlog.wire.message import Request
from streamlog.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from streamlog.wire.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from streamlog.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from streamlog.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
    ListOffsetsTopicResponse,
)
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from streamlog.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from streamlog.wire.records import Compression, decode_records, encode_batch, iter_batch_headers
from tests.broker.batches import new_batch
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
        replica_id=-1,
        topics=[
            ListOffsetsTopic(
                name=name, partitions=[ListOffsetsPartition(partition_index=i, timestamp=-1) for i in range(count)]
            )
            for name, count in topics
        ],
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


class LoopWatch:
    """How many turns of the loop there were in a block."""

    async def __aenter__(self) -> Self:
        self.turns = 0
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0)
        self.turns = 0
        return self

    async def _beat(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()


def produce_many(count: int, acks: int, *, partitions: int = 3) -> ProduceRequest:
    """One record for each of `count` places, over the partitions of "t" and "u" in turn, and one that is not there."""
    data = [PartitionProduceData(index=n % partitions, records=bytes(new_batch(b"%d" % n))) for n in range(count)]
    half = count // 2
    unknown = TopicProduceData(name="nope", partition_data=[PartitionProduceData(index=0, records=data[0].records)])
    return ProduceRequest(
        acks=acks,
        timeout_ms=20_000,
        topic_data=[
            TopicProduceData(name="t", partition_data=data[:half]),
            *([unknown] if acks else []),
            TopicProduceData(name="u", partition_data=data[half:]),
        ],
    )


async def values_in(client: RawClient, topic: str, partition: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    while True:
        asked = [FetchPartition(partition=partition, fetch_offset=len(values), partition_max_bytes=1 << 24)]
        request = FetchRequest(topics=[FetchTopic(topic=topic, partitions=asked)], max_bytes=1 << 24)
        answer = await client.ask(request, 12, FetchResponse)
        assert isinstance(answer, FetchResponse)
        records = answer.responses[0].partitions[0].records
        if not records:
            return values
        for position, _ in iter_batch_headers(records):
            values += decode_records(records, position).values


@pytest.mark.parametrize("acks", [-1, 0])
async def test_a_produce_of_many_partitions_is_appended_in_turns_and_in_order(
    node: Node, client: RawClient, acks: int
) -> None:
    """With a Produce behind it on the same connection, whose records come after all of its own."""
    await make_topic(client, "u", partitions=3)
    count = 3_000
    async with LoopWatch() as watch:
        client.send(produce_many(count, acks), 9)
        client.send(produce_many(6, -1), 9)
        if acks:
            client.correlation_id -= 1
            answer = await client.answer(9, ProduceResponse)
            client.correlation_id += 1
            assert isinstance(answer, ProduceResponse)
            assert [topic.name for topic in answer.responses] == ["t", "nope", "u"]
            assert [len(topic.partition_responses) for topic in answer.responses] == [1500, 1, 1500]
            codes = [{one.error_code for one in topic.partition_responses} for topic in answer.responses]
            assert codes == [{0}, {3}, {0}]
            assert [one.base_offset for one in answer.responses[0].partition_responses] == [n // 3 for n in range(1500)]
        assert isinstance(await client.answer(9, ProduceResponse), ProduceResponse)
        assert watch.turns >= count // SLICE_ELEMENTS
    for topic, first in (("t", 0), ("u", count // 2)):
        for partition in range(3):
            mine = [b"%d" % n for n in range(first, first + count // 2) if n % 3 == partition]
            after = [b"%d" % n for n in ((0, 1, 2) if topic == "t" else (3, 4, 5)) if n % 3 == partition]
            assert await values_in(client, topic, partition) == mine + after


async def test_a_produce_without_acks_is_appended_to_its_end_though_its_client_leaves(node: Node) -> None:
    """It was received: that is all such a client ever knows."""
    async with client_of(node) as client:
        await make_topic(client, "t", partitions=3)
        await make_topic(client, "u", partitions=3)
        client.send(produce_many(3_000, 0), 9)
        await client.writer.drain()
    async with client_of(node) as other, asyncio.timeout(20):
        ends = [node.broker.partitions.lead(topic, index) for topic in "tu" for index in range(3)]
        while sum(partition.log.high_watermark for partition in ends) < 3_000:  # what consumers see comes after the end
            await asyncio.sleep(0.01)
        assert len(await values_in(other, "u", 2)) == 500


@pytest.mark.parametrize("compression", [c for c in Compression if c is not Compression.NONE], ids=lambda c: c.name)
async def test_a_batch_that_decompresses_to_much_is_judged_in_a_thread(
    node: Node, client: RawClient, compression: Compression
) -> None:
    """A bomb is refused and an honest batch stored, in the order they came, while others have their turns."""
    honest = encode_batch(
        keys=[None] * 4, values=[bytes(1 << 20)] * 4, timestamps_ms=[node.broker.env.clock.wall_ms()] * 4,
        compression=compression,
    )  # fmt: skip
    bomb = bytearray(honest)
    section = compress(bytes(65 << 20), compression)
    bomb[61:] = section
    bomb[8:12] = (len(bomb) - 12).to_bytes(4, "big")
    bomb[17:21] = crc32c(bomb[21:]).to_bytes(4, "big")
    batches = [bytes(new_batch(b"small")), bytes(bomb), bytes(honest), bytes(new_batch(b"last"))]
    data = [PartitionProduceData(index=0, records=records) for records in batches]
    request = ProduceRequest(acks=-1, timeout_ms=20_000, topic_data=[TopicProduceData(name="t", partition_data=data)])
    await make_topic(client, "z", max_message_bytes="8000000")
    request.topic_data[0].name = "z"
    answer = await client.ask(request, 9, ProduceResponse)
    assert isinstance(answer, ProduceResponse)
    found = [(one.error_code, one.base_offset) for one in answer.responses[0].partition_responses]
    assert found == [(0, 0), (87, -1), (0, 1), (0, 5)]
    assert [len(value or b"") for value in await values_in(client, "z", 0)] == [
        5,
        1 << 20,
        1 << 20,
        1 << 20,
        1 << 20,
        4,
    ]


async def test_all_topics_of_a_large_cluster_are_described_in_turns(client: RawClient) -> None:
    """The same answer as for one topic after the other."""
    for number in range(3):
        await make_topic(client, f"many-{number}", partitions=700)
    response = await client.ask(MetadataRequest(topics=None), 12, MetadataResponse)
    assert isinstance(response, MetadataResponse)
    assert {topic.name: len(topic.partitions) for topic in response.topics} == {
        "t": 3, "many-0": 700, "many-1": 700, "many-2": 700
    }  # fmt: skip
    topics = [MetadataRequestTopic(name=topic.name) for topic in response.topics]
    assert await client.ask(MetadataRequest(topics=topics), 12, MetadataResponse) == response


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
