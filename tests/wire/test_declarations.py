"""Declarations are Apache Kafka 4.3.1's, field by field."""

from __future__ import annotations

import pytest

from streamlog.wire.apis import API_TABLE
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.framing import CoordinatorKey, CoordinatorValue, MetadataRecord
from streamlog.wire.message import Message
from tests.wire.catalogue import API_MESSAGES, DATA, INTERNAL, MESSAGES, kafka_schemas, rendered, versions


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_fields_of_every_version_are_kafkas(message: type[Message]) -> None:
    """Names, types, order, nullability and tags agree with the schema objects in Kafka's jars."""
    ours = {version: rendered(message, version) for version in versions(message)}
    theirs = {version: fields for (name, version), fields in kafka_schemas().items() if name == message.__name__}
    assert ours == theirs


def test_api_table_has_kafkas_numbers_and_versions() -> None:
    """Keys, version ranges, stable ends and first flexible versions agree with Kafka's."""
    theirs = {}
    for line in (DATA / "apis.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        key, name, lowest_highest, *facts = line.split("[")[0].split()
        lowest, highest = map(int, lowest_highest.split("-"))
        words = dict(fact.replace(">=", "=").replace("<=", "=").split("=") for fact in facts)
        flexible = int(words["flexible"])
        theirs[int(key)] = (
            name,
            lowest,
            highest,
            int(words.get("stable", highest)),
            0x7FFF if flexible < 0 else flexible,
        )
    ours = {
        key: (
            api.name,
            api.min_version,
            api.max_version,
            api.stable_max_version,
            max(api.flexible_since, api.min_version),
        )
        for key, api in API_TABLE.items()
    }
    assert ours == theirs


def test_api_table_agrees_with_the_messages() -> None:
    """The table stands for messages that are not imported yet: it says of them what they say of themselves."""
    for key, api in API_TABLE.items():
        for message in (api.request, api.response):
            assert (message.api_key, message.min_version, message.max_version, message.flexible_since) == (
                key,
                api.min_version,
                api.max_version,
                api.flexible_since,
            )


def test_error_codes_are_kafkas() -> None:
    """Every code has Kafka's number and retriability."""
    lines = [line.split() for line in (DATA / "errors.txt").read_text().splitlines()]
    theirs = {int(code): (name, bool(retriable)) for code, name, *retriable in lines}
    assert {int(code): (code.name, code.retriable) for code in ErrorCode} == theirs


def test_stale_metadata_codes_are_retriable() -> None:
    """Whoever refreshes metadata tries again afterwards."""
    assert all(code.retriable for code in ErrorCode if code.refresh_metadata)


def test_codes_outside_the_list_read_as_unknown_server_error() -> None:
    """A broker from the future must not break the client."""
    assert ErrorCode.of(29_999) is ErrorCode.UNKNOWN_SERVER_ERROR


def test_messages_have_different_classes() -> None:
    """Nothing is declared twice."""
    assert len(set(API_MESSAGES)) == 2 * len(API_TABLE)


def test_internal_records_have_kafkas_type_numbers() -> None:
    """The number in a key or frame is what tells one record from another."""
    theirs = {}
    for line in (DATA / "records.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name, _, _, number = line.split()
            theirs[name] = int(number)
    kinds = (MetadataRecord, CoordinatorKey, CoordinatorValue)
    ours = {message.__name__: message.record_type for message in INTERNAL if issubclass(message, kinds)}
    assert ours == {name: theirs[name] for name in ours}
