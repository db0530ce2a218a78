"""Fetch: what is read, when it waits, and how sessions remember."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.node import Node
from streamlog.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from streamlog.wire.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.running import RawClient, client_of, make_topic, running_node

WAIT_MS = 20_000
"""Longer than any test takes: who waits for this long has not been woken."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as node:
        yield node


@pytest.fixture
async def client(node: Node) -> AsyncIterator[RawClient]:
    async with client_of(node) as client:
        await make_topic(client, "t", partitions=3)
        yield client


async def write(client: RawClient, *values: bytes, partition: int = 0, topic: str = "t") -> None:
    answer = await client.ask(produce_request(topic, new_batch(*values), partition=partition), 12, ProduceResponse)
    assert isinstance(answer, ProduceResponse)
    assert answer.responses[0].partition_responses[0].error_code == 0


def fetch_request(*offsets: tuple[int, int], max_bytes: int = 1 << 20, **fields: int) -> FetchRequest:
    """Reads (partition, offset)s of topic `t`."""
    asked = [
        FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=max_bytes) for index, offset in offsets
    ]
    request = FetchRequest(topics=[FetchTopic(topic="t", partitions=asked)] if asked else [])
    for name, value in fields.items():
        setattr(request, name, value)
    return request


async def fetch(client: RawClient, request: FetchRequest, version: int = 12) -> FetchResponse:
    async with asyncio.timeout(10):
        answer = await client.ask(request, version, FetchResponse)
    assert isinstance(answer, FetchResponse)
    return answer


def partitions_of(answer: FetchResponse) -> list[PartitionData]:
    return [partition for topic in answer.responses for partition in topic.partitions]


async def test_a_fetch_that_finds_nothing_answers_after_its_wait(client: RawClient) -> None:
    """max_wait_ms is kept."""
    answer = await fetch(client, fetch_request((0, 0), max_wait_ms=50, min_bytes=1))
    assert [(p.error_code, p.high_watermark, len(p.records or b"")) for p in partitions_of(answer)] == [(0, 0, 0)]


async def test_a_waiting_fetch_is_answered_by_the_append(node: Node, client: RawClient) -> None:
    """The long poll ends as soon as there is something."""
    async with client_of(node) as reader:
        reader.send(fetch_request((0, 0), (1, 0), max_wait_ms=WAIT_MS, min_bytes=1), 12)
        await write(client, b"a", partition=1)
        async with asyncio.timeout(10):
            answer = await reader.answer(12, FetchResponse)
        assert isinstance(answer, FetchResponse)
        assert [len(p.records or b"") > 0 for p in partitions_of(answer)] == [False, True]


async def test_a_waiting_fetch_waits_for_enough_bytes(node: Node, client: RawClient) -> None:
    """min_bytes counts over several appends and partitions."""
    size = len(new_batch(b"x" * 100))
    async with client_of(node) as reader:
        reader.send(fetch_request((0, 0), (1, 0), max_wait_ms=WAIT_MS, min_bytes=2 * size + 1), 12)
        await write(client, b"x" * 100)
        await write(client, b"x" * 100, partition=1)
        await write(client, b"x" * 100)
        async with asyncio.timeout(10):
            answer = await reader.answer(12, FetchResponse)
        assert isinstance(answer, FetchResponse)
        assert sum(len(p.records or b"") for p in partitions_of(answer)) == 3 * size


async def test_a_waiting_fetch_hears_that_its_topic_is_gone(node: Node, client: RawClient) -> None:
    """Deleting a topic wakes its readers."""
    async with client_of(node) as reader:
        reader.send(fetch_request((0, 0), max_wait_ms=WAIT_MS, min_bytes=1), 12)
        await client.ask(DeleteTopicsRequest(topic_names=["t"]), 5, DeleteTopicsResponse)
        async with asyncio.timeout(10):
            answer = await reader.answer(12, FetchResponse)
        assert isinstance(answer, FetchResponse)
        assert [p.error_code for p in partitions_of(answer)] == [3]


async def test_a_reader_that_leaves_leaves_nothing_behind(node: Node, client: RawClient) -> None:
    """A wait of weeks ends with its connection."""
    partition = node.broker.partitions.find("t", 0)
    assert partition is not None
    async with client_of(node) as reader:
        reader.send(fetch_request((0, 0), max_wait_ms=2**31 - 1, min_bytes=1), 12)
        await write(client, b"a", partition=1)
        assert len(partition.growth_waits) == 1
    async with asyncio.timeout(10):
        while partition.growth_waits:
            await asyncio.sleep(0.01)


async def test_the_first_batch_is_whole_however_small_max_bytes_is(client: RawClient) -> None:
    """KIP-74: a consumer always gets on."""
    await write(client, b"x" * 10_000)
    await write(client, b"y")
    answer = await fetch(client, fetch_request((0, 0), max_bytes=1))
    assert len(partitions_of(answer)[0].records or b"") == len(new_batch(b"x" * 10_000))


async def test_max_bytes_of_the_request_stops_at_whole_batches(client: RawClient) -> None:
    """Partitions behind the limit come back empty."""
    for partition in (0, 1):
        for _ in range(3):
            await write(client, b"x" * 1000, partition=partition)
    size = len(new_batch(b"x" * 1000))
    request = fetch_request((0, 0), (1, 0))
    request.max_bytes = size * 3 + 10
    answer = await fetch(client, request)
    assert [len(p.records or b"") // size for p in partitions_of(answer)] == [3, 0]


@pytest.mark.parametrize(("offset", "code"), [(-1, 1), (2, 1), (10**15, 1), (1, 0)])
async def test_an_offset_outside_the_log_is_out_of_range(client: RawClient, offset: int, code: int) -> None:
    """Row 30; the end itself is fine."""
    await write(client, b"a")
    answer = await fetch(client, fetch_request((0, offset)))
    assert [p.error_code for p in partitions_of(answer)] == [code]


@pytest.mark.parametrize(("epoch", "code"), [(0, 0), (1, 75), (-1, 0)])
async def test_a_leader_epoch_that_is_not_ours_is_refused(client: RawClient, epoch: int, code: int) -> None:
    """Row 30 (KIP-320)."""
    request = fetch_request((0, 0))
    request.topics[0].partitions[0].current_leader_epoch = epoch
    assert [p.error_code for p in partitions_of(await fetch(client, request))] == [code]


async def test_a_follower_nobody_knows_is_no_follower(client: RawClient) -> None:
    """Row 30: replica_id is no way to read beyond the high watermark."""
    answer = await fetch(client, fetch_request((0, 0), replica_id=2))
    assert [p.error_code for p in partitions_of(answer)] == [6]


@pytest.mark.parametrize("version", [4, 12])
@pytest.mark.parametrize("level", [-1, 2])
async def test_an_isolation_level_that_does_not_exist_is_refused(client: RawClient, level: int, version: int) -> None:
    """Whoever asks for it wants something; reading undecided transactions may not be it."""
    await write(client, b"a")
    answer = await fetch(client, fetch_request((0, 0), isolation_level=level), version)
    assert answer.error_code == (0 if version < 7 else 42)
    assert [(p.error_code, p.high_watermark, len(p.records or b"")) for p in partitions_of(answer)] == [(42, -1, 0)]


async def test_unknown_topics_are_unknown_by_name_and_by_id(client: RawClient) -> None:
    """Row 24."""
    asked = [FetchPartition(partition=0)]
    by_name = await fetch(client, FetchRequest(topics=[FetchTopic(topic="absent", partitions=asked)]))
    by_id = await fetch(client, FetchRequest(topics=[FetchTopic(topic_id=UUID(int=5), partitions=asked)]), 13)
    assert [p.error_code for p in partitions_of(by_name)] == [3]
    assert [p.error_code for p in partitions_of(by_id)] == [100]


async def test_deleted_records_cannot_be_read(client: RawClient) -> None:
    """DeleteRecords moves the log start (KIP-107)."""
    for value in (b"a", b"b", b"c"):
        await write(client, value)
    before = [DeleteRecordsPartition(partition_index=0, offset=2)]
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=before)])
    answer = await client.ask(request, 2, DeleteRecordsResponse)
    assert isinstance(answer, DeleteRecordsResponse)
    assert answer.topics[0].partitions[0].low_watermark == 2
    assert [p.error_code for p in partitions_of(await fetch(client, fetch_request((0, 1))))] == [1]
    found = partitions_of(await fetch(client, fetch_request((0, 2))))[0]
    assert (found.error_code, found.log_start_offset) == (0, 2)


# -- sessions (KIP-227) -----------------------------------------------------------------------------------------


async def test_a_session_answers_only_what_changed(client: RawClient) -> None:
    """Three partitions are asked once; later responses name the one with news."""
    first = await fetch(client, fetch_request((0, 0), (1, 0), (2, 0), session_epoch=0))
    assert first.session_id > 0
    assert len(partitions_of(first)) == 3
    await write(client, b"a", partition=1)
    news = await fetch(client, fetch_request(session_id=first.session_id, session_epoch=1))
    assert [p.partition_index for p in partitions_of(news)] == [1]
    idle = await fetch(client, fetch_request((1, 1), session_id=first.session_id, session_epoch=2))
    assert partitions_of(idle) == []


async def test_a_session_forgets_and_learns_partitions(client: RawClient) -> None:
    """Changes travel, the rest stays."""
    first = await fetch(client, fetch_request((0, 0), session_epoch=0))
    request = fetch_request((2, 0), session_id=first.session_id, session_epoch=1)
    request.forgotten_topics_data = [ForgottenTopic(topic="t", partitions=[0])]
    await write(client, b"a", partition=0)
    await write(client, b"a", partition=2)
    answer = await fetch(client, request)
    assert [p.partition_index for p in partitions_of(answer)] == [2]


@pytest.mark.parametrize(("id_step", "epoch", "code"), [(1, 1, 70), (0, 2, 71), (0, 5, 71)])
async def test_a_session_request_out_of_turn_is_refused(client: RawClient, id_step: int, epoch: int, code: int) -> None:
    """Row 30: unknown session, wrong epoch."""
    first = await fetch(client, fetch_request((0, 0), session_epoch=0))
    answer = await fetch(client, fetch_request(session_id=first.session_id + id_step, session_epoch=epoch))
    assert answer.error_code == code


async def test_a_session_by_name_does_not_take_ids(client: RawClient) -> None:
    """Row 30: 106."""
    first = await fetch(client, fetch_request((0, 0), session_epoch=0))
    answer = await fetch(client, fetch_request(session_id=first.session_id, session_epoch=1), 13)
    assert answer.error_code == 106


async def test_the_last_request_closes_a_session(client: RawClient, node: Node) -> None:
    """Epoch -1."""
    first = await fetch(client, fetch_request((0, 0), session_epoch=0))
    await fetch(client, fetch_request((0, 0), session_id=first.session_id, session_epoch=-1))
    assert len(node.broker.fetch_sessions) == 0


async def test_partitions_with_data_go_to_the_end_of_the_session(client: RawClient) -> None:
    """Busy partitions do not starve the others behind max_bytes."""
    for partition in (0, 1):
        for _ in range(2):
            await write(client, b"x" * 1000, partition=partition)
    first = await fetch(client, fetch_request((0, 4), (1, 4), session_epoch=0))
    served: list[int] = []
    for epoch in (1, 2):
        request = fetch_request((0, 0), (1, 0), session_id=first.session_id, session_epoch=epoch)
        request.max_bytes = 10
        answer = await fetch(client, request)
        served += [p.partition_index for p in partitions_of(answer) if p.records]
    assert sorted(served) == [0, 1]
