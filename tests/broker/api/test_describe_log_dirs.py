"""DescribeLogDirs: the one data directory, and what is in it."""

from __future__ import annotations

from pathlib import Path

from streamlog.wire.messages.describe_log_dirs import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
)
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.running import RawClient, client_of, make_topic, running_node


async def describe(client: RawClient, topics: list[DescribableLogDirTopic] | None) -> DescribeLogDirsResult:
    answer = await client.ask(DescribeLogDirsRequest(topics=topics), 4, DescribeLogDirsResponse)
    assert isinstance(answer, DescribeLogDirsResponse)
    (directory,) = answer.results
    return directory


async def test_replicas_are_described_with_their_sizes(tmp_path: Path) -> None:
    """All of them, or those that are asked for; what is not here is not mentioned."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, "empty", 1)
        await make_topic(client, "written", 2)
        batch = new_batch(b"x" * 1000)
        await client.ask(produce_request("written", batch, partition=1), 9, ProduceResponse)
        found = await describe(client, None)
        assert found.log_dir == str(tmp_path)
        assert found.usable_bytes > 0
        sizes = {(t.name, p.partition_index): p.partition_size for t in found.topics for p in t.partitions}
        assert sizes == {("empty", 0): 0, ("written", 0): 0, ("written", 1): len(batch)}
        asked = [
            DescribableLogDirTopic(topic="written", partitions=[1, 1, 7]),
            DescribableLogDirTopic(topic="nowhere", partitions=[0]),
        ]
        found = await describe(client, asked)
        assert [(t.name, [p.partition_index for p in t.partitions]) for t in found.topics] == [("written", [1])]
