"""The flights example on three nodes of Apache Kafka that are killed one after another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.flights_under_kills import play
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.interop_kafka, pytest.mark.timeout(600)]

SETTINGS = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "num.partitions": "4",
    "broker.session.timeout.ms": "3000",
}


async def test_tables_equal_pandas_though_nodes_are_killed(kafka_libs: Path, tmp_path: Path) -> None:
    """One worker from beginning to end: it lives through every change of leaders and coordinators."""
    with KafkaCluster(kafka_libs, properties=SETTINGS) as cluster:
        outcome = await play(cluster.bootstrap, cluster.nodes, tmp_path, flights_max=40_000, seconds=60.0, every_s=10.0)
    print(outcome.kills, "kills in", round(outcome.seconds), "s")
    assert outcome.kills >= 5
    assert outcome.wrong == []
