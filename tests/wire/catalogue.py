"""Every message that streamlog declares, and what Apache Kafka 4.3.1 says about them (`data/`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from streamlog.wire.apis import API_TABLE
from streamlog.wire.frames import RequestHeader, ResponseHeader
from streamlog.wire.internal.consumer_protocol import ConsumerProtocolAssignment, ConsumerProtocolSubscription
from streamlog.wire.internal.control import (
    EndTxnMarker,
    LeaderChangeMessage,
    SnapshotFooterRecord,
    SnapshotHeaderRecord,
)
from streamlog.wire.internal.group import GROUP_RECORDS
from streamlog.wire.internal.metadata import METADATA_RECORDS
from streamlog.wire.internal.quorum_state import QuorumState
from streamlog.wire.internal.transaction import TRANSACTION_RECORDS
from streamlog.wire.internal.voters import KRaftVersionRecord, VotersRecord
from streamlog.wire.message import Message
from streamlog.wire.schema import Array, Blob, Nested, Struct, WireType, describe

DATA = Path(__file__).parent / "data"

HEADERS: list[type[Message]] = [RequestHeader, ResponseHeader]
INTERNAL: list[type[Message]] = [
    *METADATA_RECORDS.values(),
    *(message for pair in GROUP_RECORDS.values() for message in pair),
    *(message for pair in TRANSACTION_RECORDS.values() for message in pair),
    ConsumerProtocolSubscription,
    ConsumerProtocolAssignment,
    EndTxnMarker,
    LeaderChangeMessage,
    SnapshotHeaderRecord,
    SnapshotFooterRecord,
    KRaftVersionRecord,
    VotersRecord,
    QuorumState,
]
API_MESSAGES: list[type[Message]] = [message for api in API_TABLE.values() for message in (api.request, api.response)]
MESSAGES: list[type[Message]] = [*HEADERS, *API_MESSAGES, *INTERNAL]


def versions(message: type[Message]) -> range:
    return range(message.min_version, message.max_version + 1)


def every_version() -> Iterator[tuple[type[Message], int]]:
    for message in MESSAGES:
        for version in versions(message):
            yield message, version


@cache
def kafka_schemas() -> dict[tuple[str, int], str]:
    """Fields by message and version, as Kafka's own schema objects print them."""
    schemas: dict[tuple[str, int], str] = {}
    name, last = "", ""
    for line in f"{(DATA / 'messages.txt').read_text()}\n{(DATA / 'records.txt').read_text()}".splitlines():
        if line.startswith("  v"):
            version, _, fields = line.strip().partition(" ")
            last = last if fields == "as before" else fields
            schemas[name, int(version[1:])] = last
        elif line and not line.startswith("#"):
            name = line.split()[0]
    return schemas


def rendered(message: type[Message], version: int) -> str:
    """A declaration in the notation of `kafka_schemas`."""
    return _struct(message, version, version >= message.flexible_since)


def _struct(struct: type[Struct], version: int, flexible: bool) -> str:
    fields = [field for field in describe(struct) if field.exists(version)]
    parts = [
        f"{field.name}: {_type(field.type, version, flexible, field.presence.compact, field.nullable(version))}"
        for field in fields
        if not field.tagged(version)
    ]
    if flexible:
        tagged = sorted((field for field in fields if field.tagged(version)), key=lambda field: field.presence.tag or 0)
        entries = [
            f"{field.presence.tag}: {field.name}: {_type(field.type, version, flexible, True, field.nullable(version))}"
            for field in tagged
        ]
        parts.append(f"tags({', '.join(entries)})" if entries else "tags")
    return "{" + ", ".join(parts) + "}"


def _type(type_: WireType, version: int, flexible: bool, compact: bool, nullable: bool) -> str:
    compact = compact and flexible
    match type_:
        case Array():
            element = _type(type_.element, version, flexible, compact, False)
            return f"{'carray' if compact else 'array'}{'?' if nullable else ''}<{element}>"
        case Nested():
            return _struct(type_.struct, version, flexible)
        case Blob():
            return f"{'compact_' if compact else ''}{'nullable_' if nullable else ''}{type_.name}"
        case _:
            return type_.name
