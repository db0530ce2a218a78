"""Other people's codecs read our bytes and write the same.

kio has every message as one class per version, kafka-python one class per message. kio 0.6.5 aborts the process on
hostile bytes, so it only ever sees what we encoded.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from kio.schema.index import schema_name_map
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from streamlog.wire.message import Message, Request
from tests.wire.catalogue import API_MESSAGES, versions
from tests.wire.strategies import messages_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python reads its schemas by a deprecated function
    KAFKA_PYTHON_PACKAGES = [
        importlib.import_module(f"kafka.protocol.{name}") for name in ("admin", "consumer", "metadata", "producer")
    ]

every_message = pytest.mark.parametrize("message", API_MESSAGES, ids=lambda message: message.__name__)
few = settings(
    max_examples=4,
    deadline=None,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
)


def kio_entity(message: type[Message], version: int) -> Any:
    api = re.sub(r"(?<!^)([A-Z])", r"_\1", re.sub(r"(Request|Response)$", "", message.__name__)).lower()
    classes: Mapping[Any, str] = schema_name_map[api][version]
    kind = EntityType.request if issubclass(message, Request) else EntityType.response
    module, _, name = classes[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def kio_echoes(message: type[Message], version: int) -> None:
    entity_type = kio_entity(message, version)
    read, write = entity_reader(entity_type), entity_writer(entity_type)

    @few
    @given(messages_of(message, version, tame=True))
    def check(value: Message) -> None:
        data = value.encode(version)
        entity, size = read(data, 0)
        assert size == len(data)
        out = io.BytesIO()
        write(out, entity)
        assert out.getvalue() == data

    check()


@every_message
def test_kio_reads_our_bytes_and_writes_them_again(message: type[Message]) -> None:
    """kio's class for each version takes all of our bytes, and its writer gives them back."""
    for version in versions(message):
        kio_echoes(message, version)


KAFKA_PYTHON = {
    name: found
    for package in KAFKA_PYTHON_PACKAGES
    for name, found in vars(package).items()
    if name != "ApiVersionsResponse"  # reads every error in version 0, as only a client should
}


def kafka_python_echoes(message: type[Message], version: int) -> None:
    theirs = KAFKA_PYTHON[message.__name__]

    @few
    @given(messages_of(message, version))
    def check(value: Message) -> None:
        data = value.encode(version)
        decoded = theirs.decode(data, version=version)
        decoded._header = None  # decoding without a header leaves out what encoding looks for
        assert bytes(decoded.encode(version=version)) == data

    check()


@pytest.mark.parametrize(
    "message",
    [message for message in API_MESSAGES if message.__name__ in KAFKA_PYTHON],
    ids=lambda message: message.__name__,
)
def test_kafka_python_reads_our_bytes_and_writes_them_again(message: type[Message]) -> None:
    """kafka-python's class takes our bytes in the versions that it knows, and gives them back."""
    for version in versions(message):
        if version <= KAFKA_PYTHON[message.__name__].max_version:
            kafka_python_echoes(message, version)
