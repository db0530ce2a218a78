"""Java reads what other clients wrote, and they read what Java wrote, compressed in any way."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.broker.running import BrokerProcess
from tests.interop_clients.clients import (
    COMPRESSIONS,
    COUNT,
    PATIENCE_S,
    READERS,
    WRITERS,
    Row,
    check_rows,
    stored_with,
    value_of,
)
from tests.interop_java.conftest import KafkaTools
from tests.kafka_node import run_java

pytestmark = [pytest.mark.interop_java, pytest.mark.timeout(180)]

LINE = re.compile(r"CreateTime:(\d+)\tOffset:(\d+)\tfrom:(\w+)\t(\w+)\t(.*)")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("broker")) as running:
        yield running


def create(broker: BrokerProcess, topic: str) -> None:
    new = NewTopic(topic, 1, 1, config={"retention.ms": "-1"})
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([new])[topic].result(PATIENCE_S)


def read_with_java(tools: KafkaTools, broker: BrokerProcess, topic: str) -> list[Row]:
    """The console consumer, with everything it can print of a record."""
    shown = ("print.key=true", "print.headers=true", "print.timestamp=true", "print.offset=true")
    said = tools.run(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", broker.address, "--topic", topic, "--partition", "0", "--offset", "earliest"),
        *("--max-messages", str(COUNT), "--timeout-ms", str(int(PATIENCE_S * 1000))),
        *(word for one in shown for word in ("--formatter-property", one)),
    )
    assert said.code == 0, said.err
    rows: list[Row] = []
    for line in said.out.splitlines():
        found = LINE.fullmatch(line)
        assert found is not None, line
        at, offset, header, key, value = found.groups()
        rows.append(Row(int(offset), key, value, (("from", header),), int(at)))
    return rows


@pytest.mark.parametrize("codec", COMPRESSIONS)
@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_java_reads_what_any_client_wrote(
    kafka_tools: KafkaTools, broker: BrokerProcess, writer: str, codec: str
) -> None:
    """Keys, values, headers, times and offsets."""
    topic = f"{writer}-{codec}"
    create(broker, topic)
    since_ms = int(time.time() * 1000) - 1
    WRITERS[writer](broker.address, topic, codec)
    until_ms = int(time.time() * 1000) + 1
    rows = read_with_java(kafka_tools, broker, topic)
    check_rows(rows, writer, since_ms=since_ms, until_ms=until_ms)


@pytest.mark.parametrize("codec", COMPRESSIONS)
def test_every_client_reads_what_java_wrote(
    kafka_libs: Path, kafka_tools: KafkaTools, broker: BrokerProcess, codec: str
) -> None:
    """The console producer, compressed in every way; Java itself reads it too."""
    topic = f"java-{codec}"
    create(broker, topic)
    since_ms = int(time.time() * 1000) - 1
    parsed = ("parse.key=true", "key.separator=|", "parse.headers=true")
    run_java(
        kafka_libs,
        "org.apache.kafka.tools.ConsoleProducer",
        [
            *("--bootstrap-server", broker.address, "--topic", topic, "--compression-codec", codec),
            *(word for one in parsed for word in ("--reader-property", one)),
        ],
        stdin="".join(f"from:writer\tk{number}|{value_of(number)}\n" for number in range(COUNT)),
    )
    until_ms = int(time.time() * 1000) + 1
    assert stored_with(broker.data_dir, topic) == {codec}
    check_rows(read_with_java(kafka_tools, broker, topic), "java", since_ms=since_ms, until_ms=until_ms)
    for reader, read in READERS.items():
        rows = read(broker.address, topic)
        assert rows, reader
        check_rows(rows, "java", since_ms=since_ms, until_ms=until_ms)
