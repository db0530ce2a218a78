"""How messages are wrapped where they are records of a log, and not requests or responses.

- Coordinators' topics: the key is a type, two bytes, and a body; the value is a version, two bytes, and a body.
- Metadata topic: no keys; the value is three unsigned varints (frame version 1, type, version) and a body.
- Consumer protocol and end-of-transaction markers: a version, two bytes, and a body.
"""

from __future__ import annotations

import struct as fixed
from collections.abc import Mapping
from typing import ClassVar, TypeAlias, TypeVar

from streamlog.errors import RemoteProtocolError
from streamlog.wire.compiler import Buffer, Malformed, read_uvarint, uvarint
from streamlog.wire.message import Message

M = TypeVar("M", bound=Message)

METADATA_FRAME_VERSION = 1
"""0 was a preview in Kafka 2.8, and nothing else has been needed since."""

_INT16 = fixed.Struct(">h")


class CoordinatorKey(Message):
    """The key of a record in a coordinator's topic. Its type is its version in older words; the body is always v0."""

    record_type: ClassVar[int]


class CoordinatorValue(Message):
    """The value that goes with the key of the same type."""

    record_type: ClassVar[int]


class MetadataRecord(Message):
    """A record of the metadata topic."""

    record_type: ClassVar[int]


CoordinatorRecords: TypeAlias = dict[int, tuple[type[CoordinatorKey], type[CoordinatorValue]]]


def encode_versioned(message: Message, version: int) -> bytes:
    """A version, two bytes, and the body in that version."""
    return bytes(message.encoders[version](message, bytearray(_INT16.pack(version)), None))


def decode_versioned(message: type[M], data: Buffer) -> M:
    """Read a version and a body. Raises: RemoteProtocolError.

    A message that is not `exact` promises that later versions only add at the end, so its newest known version reads
    them.
    """
    version = _int16(data, message.__name__)
    if version > message.max_version and not message.exact:
        version = message.max_version
    if not message.min_version <= version <= message.max_version:
        raise RemoteProtocolError(f"{message.__name__} has no version {version}")
    return message.decode(data, version, _INT16.size)


def encode_coordinator_key(key: CoordinatorKey) -> bytes:
    return bytes(key.encoders[0](key, bytearray(_INT16.pack(key.record_type)), None))


def decode_coordinator_key(
    records: Mapping[int, tuple[type[CoordinatorKey], object]], key: Buffer
) -> CoordinatorKey | None:
    """The key of a record, None when its type is unknown: newer brokers may have written it, so readers skip it.

    Raises: RemoteProtocolError.
    """
    known = records.get(_int16(key, "record key"))
    return None if known is None else known[0].decode(key, 0, _INT16.size)


def decode_coordinator_value(records: CoordinatorRecords, key: CoordinatorKey, value: Buffer) -> CoordinatorValue:
    """The value that belongs to `key`. A tombstone has none and does not come here. Raises: RemoteProtocolError."""
    return decode_versioned(records[key.record_type][1], value)


def encode_metadata_record(record: MetadataRecord, version: int) -> bytes:
    start = uvarint(METADATA_FRAME_VERSION) + uvarint(record.record_type) + uvarint(version)
    return bytes(record.encoders[version](record, bytearray(start), None))


def decode_metadata_record(records: Mapping[int, type[MetadataRecord]], value: Buffer) -> tuple[MetadataRecord, int]:
    """Read a record of the metadata topic. Returns it and its version. Raises: RemoteProtocolError.

    Nothing is skipped here: a node that does not understand a metadata record does not know the cluster's state.
    """
    position = 0
    start: list[int] = []
    try:
        for _ in range(3):
            number = value[position]
            position += 1
            if number > 0x7F:
                number, position = read_uvarint(value, position, number)
            start.append(number)
    except (IndexError, Malformed) as error:
        raise RemoteProtocolError(f"metadata record of {len(value)} bytes has no frame") from error
    frame_version, record_type, version = start
    if frame_version != METADATA_FRAME_VERSION:
        raise RemoteProtocolError(f"metadata record with frame version {frame_version}")
    record = records.get(record_type)
    if record is None or not record.min_version <= version <= record.max_version:
        raise RemoteProtocolError(f"metadata record of type {record_type}, version {version} is unknown")
    return record.decode(value, version, position), version


def _int16(data: Buffer, what: str) -> int:
    if len(data) < _INT16.size:
        raise RemoteProtocolError(f"{what} of {len(data)} bytes has no version")
    number: int = _INT16.unpack_from(data)[0]
    return number
