"""Control records: what the cluster itself writes between the users' records.

A control batch holds one control record (a quorum's snapshot ends may hold more). Its key names the type, its value
is a small message of that type. Consumers step over them; partitions, coordinators and Raft read them.
Sources: KIP-98 (ABORT, COMMIT), KIP-595 (LEADER_CHANGE), KIP-630 (snapshots), KIP-853 (KRAFT_VERSION, KRAFT_VOTERS).
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from streamlog.wire.records_header import CorruptBatch

_KEY = Struct(">hh")
_END_TRANSACTION = Struct(">hi")


class ControlType(IntEnum):
    ABORT = 0
    COMMIT = 1
    LEADER_CHANGE = 2
    SNAPSHOT_HEADER = 3
    SNAPSHOT_FOOTER = 4
    KRAFT_VERSION = 5
    KRAFT_VOTERS = 6
    UNKNOWN = -1  # a type of a later release: skipped, never an error


class ControlKey(NamedTuple):
    version: int
    type: ControlType


class EndTransactionMarker(NamedTuple):
    """The value of an ABORT or COMMIT record."""

    version: int
    coordinator_epoch: int


def encode_control_key(control_type: ControlType, version: int = 0) -> bytes:
    return _KEY.pack(version, control_type)


def decode_control_key(key: bytes | None) -> ControlKey:
    """Read a control record's key; longer keys of later versions are read by their first four bytes."""
    if key is None or len(key) < _KEY.size:
        raise CorruptBatch("a control record without a type")
    version, number = _KEY.unpack_from(key)
    if version < 0:
        raise CorruptBatch(f"a control record of version {version}")
    known = 0 <= number <= ControlType.KRAFT_VOTERS
    return ControlKey(version, ControlType(number) if known else ControlType.UNKNOWN)


def encode_end_transaction_marker(coordinator_epoch: int, version: int = 0) -> bytes:
    return _END_TRANSACTION.pack(version, coordinator_epoch)


def decode_end_transaction_marker(value: bytes | None) -> EndTransactionMarker:
    if value is None or len(value) < _END_TRANSACTION.size:
        raise CorruptBatch("a transaction marker without its coordinator's epoch")
    marker = EndTransactionMarker(*_END_TRANSACTION.unpack_from(value))
    if marker.version < 0:
        raise CorruptBatch(f"a transaction marker of version {marker.version}")
    return marker
