"""What a broker does by the clock, seen from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamlog.broker.node import Node
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from streamlog.wire.messages.produce import ProduceResponse
from streamlog.wire.records import decode_records, iter_batch_headers
from tests.broker.batches import new_batch, produce_request
from tests.broker.running import RawClient, client_of, make_topic, running_node

DAY_MS = 86_400_000


async def read_values(client: RawClient, topic: str) -> list[bytes | None]:
    """From the start to the high watermark; one fetch ends with its segment."""
    values: list[bytes | None] = []
    offset = 0
    while True:
        asked = [FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)]
        answer = await client.ask(FetchRequest(topics=[FetchTopic(topic=topic, partitions=asked)]), 12, FetchResponse)
        assert isinstance(answer, FetchResponse)
        records = answer.responses[0].partitions[0].records
        if not records:
            return values
        for position, header in iter_batch_headers(records):
            values += decode_records(records, position).values
            offset = header.next_offset


async def write(node: Node, client: RawClient, topic: str, values: list[bytes]) -> None:
    """Under one key, each in a segment of its own."""
    first_ms = node.broker.env.clock.wall_ms() - len(values) * DAY_MS
    for number, value in enumerate(values):
        batch = new_batch(value, key=b"k", timestamp_ms=first_ms + number * DAY_MS)
        answer = await client.ask(produce_request(topic, batch), 12, ProduceResponse)
        assert isinstance(answer, ProduceResponse)
        assert answer.responses[0].partition_responses[0].error_code == 0


async def test_closed_segments_are_compacted_without_waiting_for_a_checkpoint(tmp_path: Path) -> None:
    """The cleaner makes its own: the next would come in a minute."""
    async with running_node(tmp_path, log_cleaner_backoff_ms="20") as node, client_of(node) as client:
        await make_topic(client, "t", cleanup_policy="compact", segment_ms="1000", min_cleanable_dirty_ratio="0.01")
        await write(node, client, "t", [b"1", b"2", b"3", b"4"])
        async with asyncio.timeout(10):
            while await read_values(client, "t") != [b"3", b"4"]:
                await asyncio.sleep(0.02)
        partition = node.broker.partitions.find("t", 0)
        assert partition is not None
        assert partition.log.recovery_point >= 3
    async with running_node(tmp_path) as node, client_of(node) as client:
        assert await read_values(client, "t") == [b"3", b"4"]
