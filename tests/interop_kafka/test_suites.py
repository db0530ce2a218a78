"""Our client, our streams and the flights example on Apache Kafka, unchanged but for the address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kafka_node import REPOSITORY, KafkaNode

pytestmark = [pytest.mark.interop_kafka, pytest.mark.timeout(360)]

FLIGHTS = 20_000


def run(arguments: list[str], **environment: str) -> str:
    """A Python command in the repository; fails with the end of its output."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=340,
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout


def test_the_clients_tests_hold_on_apache_kafka(kafka_libs: Path) -> None:
    """They start and stop a node of their own."""
    run(
        ["pytest", "-q", "tests/client", "-p", "no:cacheprovider"],
        STREAMLOG_TEST_BROKER="kafka",
        STREAMLOG_KAFKA_LIBS=str(kafka_libs),
    )


def test_the_streams_tests_hold_on_apache_kafka(kafka: KafkaNode) -> None:
    """Word counts through restarts, kills and rebalances; asking, repartitioning, global tables."""
    live = ["tests/streams/test_live.py", "tests/streams/test_live_features.py"]
    run(["pytest", "-q", *live, "-p", "no:cacheprovider"], STREAMLOG_TEST_BOOTSTRAP=kafka.bootstrap)


def test_the_flights_example_equals_pandas_on_apache_kafka(kafka: KafkaNode, tmp_path: Path) -> None:
    """Two acts, a clean restart, a second worker: every table equals pandas."""
    data = ["--data-dir", str(tmp_path / "data"), "--flights", str(FLIGHTS)]
    said = run(["examples.flights_demo", "--broker", kafka.bootstrap, *data])
    assert "equal what pandas computes" in said
