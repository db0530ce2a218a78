"""Bodies of control records (KIP-98, KIP-595, KIP-630).

A control record's key is a version, always 0, and a type, two bytes each. Its value is a body below, in version 0;
only the end-of-transaction marker has its version in front. The bodies of the metadata log repeat their version as
their first field.
"""

from __future__ import annotations

import struct as fixed
from enum import IntEnum
from typing import Annotated
from uuid import UUID

from streamlog.errors import RemoteProtocolError
from streamlog.wire.compiler import Buffer
from streamlog.wire.message import Message
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Struct, since

_KEY = fixed.Struct(">hh")


class EndTxnMarker(Message):
    """Ends a transaction in a partition. Its key says whether by commit or abort."""

    coordinator_epoch: Int32 = 0


class Voter(Struct):
    voter_id: Int32 = 0
    voter_directory_id: Annotated[UUID, since(1)] = ZERO_UUID


class LeaderChangeMessage(Message):
    """The first record of a leader's epoch. Version 1 adds directories of voters; Kafka 4.3 writes version 0."""

    max_version = 1
    flexible_since = 0

    version: Int16 = 0
    leader_id: Int32 = 0
    voters: list[Voter] = []
    granting_voters: list[Voter] = []


class SnapshotHeaderRecord(Message):
    """The first record of a snapshot."""

    flexible_since = 0

    version: Int16 = 0
    last_contained_log_timestamp: Int64 = 0


class SnapshotFooterRecord(Message):
    """The last record of a snapshot: without it the file is not whole."""

    flexible_since = 0

    version: Int16 = 0


class ControlType(IntEnum):
    """What a control record's key says. Readers skip types that they do not know."""

    ABORT = 0
    COMMIT = 1
    LEADER_CHANGE = 2
    SNAPSHOT_HEADER = 3
    SNAPSHOT_FOOTER = 4
    KRAFT_VERSION = 5
    KRAFT_VOTERS = 6


def encode_control_key(control_type: ControlType) -> bytes:
    return _KEY.pack(0, control_type)


def decode_control_key(key: Buffer) -> ControlType | None:
    """The type of a control record, None when we do not know it. Keys of later versions may be longer.

    Raises: RemoteProtocolError.
    """
    if len(key) < _KEY.size:
        raise RemoteProtocolError(f"control record with a key of {len(key)} bytes")
    version, number = _KEY.unpack_from(key)
    if version < 0:
        raise RemoteProtocolError(f"control record with a key of version {version}")
    try:
        return ControlType(number)
    except ValueError:
        return None
