"""Produce: what is stored, what is refused and with which code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.acknowledgement import Acknowledgement
from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from streamlog.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from streamlog.wire.records import Compression, decode_records, iter_batch_headers
from tests.broker.batches import (
    ATTRIBUTES,
    MAX_TIMESTAMP,
    SECTIONS,
    changed,
    new_batch,
    produce_request,
    with_section,
)
from tests.broker.running import RawClient, client_of, make_topic, running_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as node:
        yield node


@pytest.fixture
async def client(node: Node) -> AsyncIterator[RawClient]:
    async with client_of(node) as client:
        await make_topic(client, "t")
        yield client


async def produce(client: RawClient, request: ProduceRequest, version: int = 12) -> PartitionProduceResponse:
    answer = await client.ask(request, version, ProduceResponse)
    assert isinstance(answer, ProduceResponse)
    return answer.responses[0].partition_responses[0]


async def read_values(client: RawClient, topic: str) -> list[bytes | None]:
    asked = [FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)]
    answer = await client.ask(FetchRequest(topics=[FetchTopic(topic=topic, partitions=asked)]), 12, FetchResponse)
    assert isinstance(answer, FetchResponse)
    data = answer.responses[0].partitions[0].records or b""
    return [value for at, header in iter_batch_headers(data) for value in decode_records(data, at, header).values]


@pytest.mark.parametrize("acks", [-1, 1])
@pytest.mark.parametrize("compression", list(Compression))
async def test_a_batch_gets_the_next_offset_and_is_read_back(
    client: RawClient, acks: int, compression: Compression
) -> None:
    """The round trip, in every compression."""
    first = await produce(client, produce_request("t", new_batch(b"a", b"b", compression=compression), acks=acks))
    second = await produce(client, produce_request("t", new_batch(b"c", compression=compression), acks=acks))
    assert [(answer.error_code, answer.base_offset) for answer in (first, second)] == [(0, 0), (0, 2)]
    assert await read_values(client, "t") == [b"a", b"b", b"c"]


async def test_acks_0_is_not_answered(client: RawClient) -> None:
    """The next answer on the connection is the next request's."""
    client.send(produce_request("t", new_batch(b"a"), acks=0), 12)
    answer = await produce(client, produce_request("t", new_batch(b"b")))
    assert answer.base_offset == 1


async def test_acks_0_that_fails_closes_the_connection(client: RawClient) -> None:
    """Row 13: there is no other way to tell."""
    client.send(produce_request("absent", new_batch(b"a"), acks=0), 12)
    assert await client.is_closed()


@pytest.mark.parametrize("acks", [2, -2, 0x7FFF])
async def test_other_acks_are_refused(client: RawClient, acks: int) -> None:
    """Row 12."""
    answer = await produce(client, produce_request("t", new_batch(b"a"), acks=acks))
    assert answer.error_code == 21


def with_bad_crc(batch: bytes) -> bytes:
    return batch[:-1] + bytes([batch[-1] ^ 1])


REFUSED = {
    "no records": (None, 12, 87),
    "an empty batch": (b"", 12, 87),
    "less than a header": (bytes(60), 12, 87),
    "two batches": (new_batch(b"a") + new_batch(b"b"), 12, 87),
    "magic 1": (new_batch(b"a")[:16] + b"\x01" + new_batch(b"a")[17:], 12, 87),
    "a wrong checksum": (with_bad_crc(new_batch(b"a")), 12, 2),
    "zstd in an old version": (new_batch(b"a", compression=Compression.ZSTD), 6, 76),
    "a batch that is too large": (new_batch(bytes(1_100_000)), 12, 10),
    "a timestamp far ahead": (new_batch(b"a", timestamp_ms=2**42), 12, 32),
    "a transaction": (new_batch(b"a", producer_id=1, producer_epoch=0, base_sequence=0, is_transactional=True), 12, 53),
    "half a batch": (new_batch(b"a" * 100)[:-10], 12, 87),
    "a record past the end": (changed(new_batch(b"abcdef"), 61, b"\x7e"), 12, 87),
    "a record of less than nothing": (changed(new_batch(b"abcdef"), 61, b"\x01"), 12, 87),
    "records that are not consecutive": (changed(new_batch(b"a", b"b"), 64, b"\x02"), 12, 87),
    "what is not gzip": (changed(new_batch(b"abcdef"), 21, b"\x00\x01"), 12, 87),
    "what is not snappy": (changed(new_batch(b"abcdef"), 21, b"\x00\x02"), 12, 87),
    "what is not lz4": (changed(new_batch(b"abcdef"), 21, b"\x00\x03"), 12, 87),
    "what is not zstd": (changed(new_batch(b"abcdef"), 21, b"\x00\x04"), 12, 87),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_batch_is_refused_and_changes_nothing(client: RawClient, case: str) -> None:
    """Rows 14 to 18."""
    records, version, code = REFUSED[case]
    answer = await produce(client, produce_request("t", records), version)
    assert (answer.error_code, answer.base_offset) == (code, -1)
    assert (await produce(client, produce_request("t", new_batch(b"next")))).base_offset == 0


async def test_a_batch_that_decompresses_without_bounds_is_refused(client: RawClient) -> None:
    """Row 21: 80 KB that would become 80 MB."""
    bomb = new_batch(bytes(80 * 1024 * 1024), compression=Compression.GZIP)
    answer = await produce(client, produce_request("t", bomb))
    assert answer.error_code == 87


async def test_a_transactional_batch_with_its_id_finds_no_transaction(client: RawClient) -> None:
    """As in Kafka where none was begun; without the id nobody may write one at all."""
    batch = new_batch(b"a", producer_id=1, producer_epoch=0, base_sequence=0, is_transactional=True)
    request = produce_request("t", batch)
    request.transactional_id = "x"
    assert (await produce(client, request)).error_code == 48


READABLE = {"good", "attributes_unknown", "value_null", "header_key_not_utf8"}
"""Of SECTIONS, those that consumers can read."""


@pytest.mark.parametrize("compression", list(Compression))
async def test_records_that_no_consumer_could_read_are_refused(client: RawClient, compression: Compression) -> None:
    """Row 18: the checksum is right, so only a look at the records tells; stored, they would stop every consumer."""
    seen: dict[str, int] = {}
    for name, (section, count) in SECTIONS.items():
        if section or compression is Compression.NONE:
            batch = with_section(section, count, compression)
            seen[name] = (await produce(client, produce_request("t", batch))).error_code
    assert {name for name, code in seen.items() if code == 0} == READABLE
    assert {code for name, code in seen.items() if name not in READABLE} == {87}
    assert len(await read_values(client, "t")) == len(READABLE)


@pytest.mark.parametrize("compression", [c for c in Compression if c is not Compression.NONE])
async def test_a_payload_that_is_not_what_its_compression_says_is_refused(
    client: RawClient, compression: Compression
) -> None:
    """Row 16: garbage, and a payload that is cut."""
    garbage = changed(new_batch(b"abcdef"), ATTRIBUTES, compression.to_bytes(2, "big"))
    assert (await produce(client, produce_request("t", garbage))).error_code == 87
    whole = new_batch(b"abcdef" * 50, compression=compression)
    cut = changed(whole[:-3], 8, (len(whole) - 15).to_bytes(4, "big"))
    assert (await produce(client, produce_request("t", cut))).error_code == 87
    assert (await produce(client, produce_request("t", whole))).base_offset == 0


async def test_a_largest_timestamp_that_is_not_true_is_corrected(client: RawClient, node: Node) -> None:
    """Time lookups and retention go by the header."""
    now_ms = node.broker.env.clock.wall_ms()
    lying = changed(new_batch(b"a", timestamp_ms=now_ms), MAX_TIMESTAMP, (now_ms - 10**9).to_bytes(8, "big"))
    assert (await produce(client, produce_request("t", lying))).error_code == 0
    partition = node.broker.partitions.find("t", 0)
    assert partition is not None
    newest = partition.log.max_timestamp()
    assert newest is not None
    assert newest.timestamp_ms == now_ms
    assert await read_values(client, "t") == [b"a"]


async def test_a_compacted_topic_needs_keys(client: RawClient) -> None:
    """Row 19: and says which record lacks one (KIP-467)."""
    await make_topic(client, "compacted", cleanup_policy="compact")
    answer = await produce(client, produce_request("compacted", new_batch(b"a")))
    assert answer.error_code == 87
    assert [error.batch_index for error in answer.record_errors] == [0]
    assert (await produce(client, produce_request("compacted", new_batch(b"a", key=b"k")))).error_code == 0


@pytest.mark.parametrize(("topic", "partition", "code"), [("absent", 0, 3), ("t", 1, 3), ("t", -1, 3), ("", 0, 3)])
async def test_a_partition_that_does_not_exist_is_unknown(
    client: RawClient, topic: str, partition: int, code: int
) -> None:
    """Row 24."""
    answer = await produce(client, produce_request(topic, new_batch(b"a"), partition=partition))
    assert answer.error_code == code


async def test_an_unknown_topic_id_is_told_apart(client: RawClient, node: Node) -> None:
    """Row 24, from version 13 on."""
    data = [PartitionProduceData(index=0, records=new_batch(b"a"))]
    wrong = ProduceRequest(acks=1, topic_data=[TopicProduceData(topic_id=UUID(int=9), partition_data=data)])
    assert (await produce(client, wrong, 13)).error_code == 100
    data = [PartitionProduceData(index=0, records=new_batch(b"a"))]
    known = node.broker.image.topics["t"].id
    right = ProduceRequest(acks=1, topic_data=[TopicProduceData(topic_id=known, partition_data=data)])
    assert (await produce(client, right, 13)).error_code == 0


async def test_a_retry_gets_the_first_answer_again(client: RawClient) -> None:
    """Row 27: the last five batches of an idempotent producer are known."""
    batches = [new_batch(b"v", producer_id=7, producer_epoch=0, base_sequence=number) for number in range(5)]
    for batch in batches:
        await produce(client, produce_request("t", batch))
    again = [await produce(client, produce_request("t", batch)) for batch in batches]
    assert [(answer.error_code, answer.base_offset) for answer in again] == [(0, number) for number in range(5)]
    assert len(await read_values(client, "t")) == 5


async def test_a_gap_in_the_sequence_is_refused(client: RawClient) -> None:
    """Row 26."""
    await produce(client, produce_request("t", new_batch(b"a", producer_id=7, producer_epoch=0, base_sequence=0)))
    answer = await produce(
        client, produce_request("t", new_batch(b"c", producer_id=7, producer_epoch=0, base_sequence=2))
    )
    assert answer.error_code == 45


async def test_an_old_epoch_is_fenced(client: RawClient) -> None:
    """Row 28."""
    await produce(client, produce_request("t", new_batch(b"a", producer_id=7, producer_epoch=1, base_sequence=0)))
    answer = await produce(
        client, produce_request("t", new_batch(b"b", producer_id=7, producer_epoch=0, base_sequence=1))
    )
    assert answer.error_code == 47


async def test_clients_cannot_write_to_internal_topics(node: Node, client: RawClient) -> None:
    """Row 22."""
    await make_topic(client, "__consumer_offsets", cleanup_policy="compact")
    answer = await produce(client, produce_request("__consumer_offsets", new_batch(b"a", key=b"k")))
    assert answer.error_code == 17


async def test_pipelined_requests_are_appended_in_order_and_share_a_sync(client: RawClient, node: Node) -> None:
    """Flush before ack costs a pipeline one sync, not one for each request."""
    for number in range(100):
        client.send(produce_request("t", new_batch(b"%d" % number)), 12)
    offsets = []
    for _ in range(100):
        answer = ProduceResponse.decode(await client.frame(), 12, 5)
        offsets.append(answer.responses[0].partition_responses[0].base_offset)
    assert offsets == list(range(100))


async def test_a_topic_that_stamps_records_answers_its_time(client: RawClient) -> None:
    """LogAppendTime."""
    await make_topic(client, "stamped", message_timestamp_type="LogAppendTime")
    answer = await produce(client, produce_request("stamped", new_batch(b"a", timestamp_ms=5)))
    assert answer.log_append_time_ms > 1_600_000_000_000


async def test_one_bad_partition_does_not_stop_the_others(client: RawClient) -> None:
    """Each partition of a request has its own answer."""
    data = [
        PartitionProduceData(index=0, records=new_batch(b"a")),
        PartitionProduceData(index=5, records=new_batch(b"b")),
    ]
    request = ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)])
    answer = await client.ask(request, 12, ProduceResponse)
    assert isinstance(answer, ProduceResponse)
    assert [p.error_code for p in answer.responses[0].partition_responses] == [0, 3]


async def test_a_producer_whose_time_is_up_is_told_so(client: RawClient, node: Node) -> None:
    """REQUEST_TIMED_OUT when the disk takes longer than the request allows."""
    partition = node.broker.partitions.find("t", 0)
    assert partition is not None
    acknowledgement: Acknowledgement[Partition] = Acknowledgement(deadline_ms=100)
    partition.acknowledge_when_stored(10**6, acknowledgement)
    partition.expire(99)
    assert acknowledgement.missing == 1
    partition.expire(100)
    assert dict(acknowledgement.failures) == {partition: ErrorCode.REQUEST_TIMED_OUT}


async def test_a_waiting_fetch_sees_what_a_producer_without_acks_sent(node: Node, client: RawClient) -> None:
    """The high watermark moves although nobody waits for the disk."""
    async with client_of(node) as reader:
        asked = [FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)]
        reader.send(FetchRequest(max_wait_ms=20_000, min_bytes=1, topics=[FetchTopic(topic="t", partitions=asked)]), 12)
        client.send(produce_request("t", new_batch(b"a"), acks=0), 12)
        async with asyncio.timeout(10):
            answer = await reader.answer(12, FetchResponse)
        assert isinstance(answer, FetchResponse)
        assert answer.responses[0].partitions[0].high_watermark == 1


async def flushed_to(node: Node, topic: str, offset: int) -> None:
    """Return when the log up to `offset` is synced."""
    partition = node.broker.partitions.find(topic, 0)
    assert partition is not None
    async with asyncio.timeout(10):
        while partition.log.flushed_offset < offset:
            await asyncio.sleep(0.005)


async def test_every_so_many_records_are_flushed_where_acknowledgements_do_not_wait(
    node: Node, client: RawClient
) -> None:
    """flush.messages: nothing is synced below the number, everything once it is reached, and readers never wait."""
    await make_topic(client, "counted", 1, **{"streamlog.flush": "os", "flush.messages": "3"})
    partition = node.broker.partitions.find("counted", 0)
    assert partition is not None
    for number in range(1, 4):
        assert partition.log.flushed_offset == 0
        await produce(client, produce_request("counted", new_batch(b"x")))
        assert partition.log.high_watermark == number
    await flushed_to(node, "counted", 3)
    assert partition.log.high_watermark == 3


async def test_what_was_appended_is_flushed_after_a_while_where_acknowledgements_do_not_wait(
    node: Node, client: RawClient
) -> None:
    """flush.ms counts from the first look that found something unflushed."""
    await make_topic(client, "timed", 1, **{"streamlog.flush": "os", "flush.ms": "5000"})
    partition = node.broker.partitions.find("timed", 0)
    assert partition is not None
    await produce(client, produce_request("timed", new_batch(b"x")))
    now_ms = node.env.clock.mono_ms()
    partition.flush_overdue(now_ms)
    partition.flush_overdue(now_ms + 3000)
    await asyncio.sleep(0)
    assert partition.log.flushed_offset == 0
    partition.flush_overdue(now_ms + 5000)
    await flushed_to(node, "timed", 1)
