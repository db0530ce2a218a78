"""One Apache Kafka for all of these tests. `make interop-kafka` fetches its jars."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka_node import KafkaNode
from tests.kafka_node import kafka_libs as find_libs


@pytest.fixture(scope="session")
def kafka_libs() -> Path:
    """The directory of Kafka's jars."""
    libs = find_libs()
    if libs is None or shutil.which("java") is None:
        pytest.skip("needs a JDK 17 and Apache Kafka's jars: make interop-kafka")
    return libs


@pytest.fixture(scope="session")
def kafka(kafka_libs: Path) -> Iterator[KafkaNode]:
    with KafkaNode(kafka_libs) as node:
        yield node
