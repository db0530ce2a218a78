"""Partitions that nobody writes to: their replicas are in sync like any other's."""

from __future__ import annotations

from pathlib import Path

from tests.broker.replication.test_cluster import replicated


async def test_a_follower_of_empty_partitions_is_in_sync_again_after_its_death(tmp_path: Path) -> None:
    """It has nothing to fetch and no epoch to name, and its first fetch comes before the leaders know it is alive."""
    async with replicated(tmp_path) as cluster:
        await cluster.create(partitions=6)
        for index in range(6):
            await cluster.in_sync(1, 2, 3, index=index)
        await cluster.nodes.stop(3, clean=False)
        for index in range(6):
            await cluster.in_sync(1, 2, index=index)
        await cluster.nodes.start(3)
        for index in range(6):
            await cluster.in_sync(1, 2, 3, index=index)
