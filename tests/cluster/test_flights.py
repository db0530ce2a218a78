"""The flights example on three of our nodes that are killed one after another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.flights_under_kills import play
from tests.streamlog_cluster import StreamlogCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


async def test_tables_equal_pandas_though_nodes_are_killed(tmp_path: Path) -> None:
    """One worker from beginning to end: it lives through every change of leaders and coordinators."""
    app = tmp_path / "app"
    app.mkdir()
    with StreamlogCluster(directory=tmp_path / "cluster") as cluster:
        outcome = await play(cluster.bootstrap, cluster.nodes, app, flights_max=40_000, seconds=60.0, every_s=10.0)
    print(outcome.kills, "kills in", round(outcome.seconds), "s")
    assert outcome.kills >= 6
    assert outcome.wrong == []
