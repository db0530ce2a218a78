"""Our bytes are Apache Kafka's bytes, for every message and version."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from streamlog.wire.message import Message
from tests.interop_java.conftest import KafkaCodec
from tests.wire.catalogue import MESSAGES, versions
from tests.wire.strategies import messages_of

pytestmark = pytest.mark.interop_java


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_defaults_are_kafkas(kafka_codec: KafkaCodec, message: type[Message]) -> None:
    """A message nobody has touched encodes to what Kafka's class encodes to."""
    for version in versions(message):
        assert message().encode(version) == kafka_codec.default(message.__name__, version), version


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_kafka_reads_our_bytes_and_writes_them_again(kafka_codec: KafkaCodec, message: type[Message]) -> None:
    """Kafka's class reads all of what we wrote, and writes the same."""
    for version in versions(message):
        check_echo(kafka_codec, message, version)


def check_echo(kafka_codec: KafkaCodec, message: type[Message], version: int) -> None:
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
    )
    @given(messages_of(message, version))
    def echo(value: Message) -> None:
        encoded = value.encode(version)
        assert kafka_codec.echo(message.__name__, version, encoded) == (encoded, 0)

    echo()
