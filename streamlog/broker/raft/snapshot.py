"""Snapshots of the metadata log: `{end offset}-{epoch}.checkpoint`, in Kafka's format (KIP-630).

The file is a run of record batches: a control batch with the header (and the voters, KIP-853), batches of
records, a control batch with the footer. Without the footer the file is not whole and does not count. Offsets in
it count from 0 and mean nothing; the name says which log offset the snapshot replaces everything below of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from streamlog.broker.raft.messages import SnapshotId
from streamlog.env import Buffer
from streamlog.errors import RemoteProtocolError
from streamlog.wire.internal.control import (
    ControlType,
    SnapshotFooterRecord,
    SnapshotHeaderRecord,
    decode_control_key,
    encode_control_key,
)
from streamlog.wire.internal.voters import KRaftVersionRecord, VotersRecord
from streamlog.wire.message import Message
from streamlog.wire.records import CorruptBatch, NeedMoreData, decode_records, encode_batch, iter_batch_headers

BATCH_BYTES: Final = 1024 * 1024
"""Records of a snapshot are cut into batches of about this size, so that reading one needs little memory."""

_NAME: Final = re.compile(r"(\d{20})-(\d{10})\.checkpoint")


class DamagedSnapshot(RemoteProtocolError):
    """A snapshot file that is not whole. An older one, or the log, has to do."""


class Snapshot(NamedTuple):
    values: list[bytes]
    """Values of the records, in order."""
    voters: VotersRecord | None
    last_timestamp_ms: int
    kraft_version: int = 0


def parse_name(name: str) -> SnapshotId | None:
    match = _NAME.fullmatch(name)
    return None if match is None else SnapshotId(int(match[1]), int(match[2]))


def encode_snapshot(
    values: Iterable[bytes], *, epoch: int, voters: VotersRecord | None, last_timestamp_ms: int, now_ms: int
) -> bytes:
    """The bytes of a snapshot file."""
    head: list[tuple[ControlType, Message]] = [
        (ControlType.SNAPSHOT_HEADER, SnapshotHeaderRecord(last_contained_log_timestamp=last_timestamp_ms))
    ]
    if voters is not None:
        head.append((ControlType.KRAFT_VERSION, KRaftVersionRecord(kraft_version=1)))
        head.append((ControlType.KRAFT_VOTERS, voters))
    out = bytearray(encode_control_records(head, base_offset=0, epoch=epoch, now_ms=now_ms))
    offset = len(head)
    pending: list[bytes] = []
    pending_bytes = 0
    for value in values:
        pending.append(value)
        pending_bytes += len(value)
        if pending_bytes >= BATCH_BYTES:
            out += encode_values(pending, base_offset=offset, epoch=epoch, now_ms=now_ms)
            offset += len(pending)
            pending, pending_bytes = [], 0
    if pending:
        out += encode_values(pending, base_offset=offset, epoch=epoch, now_ms=now_ms)
        offset += len(pending)
    footer: list[tuple[ControlType, Message]] = [(ControlType.SNAPSHOT_FOOTER, SnapshotFooterRecord())]
    out += encode_control_records(footer, base_offset=offset, epoch=epoch, now_ms=now_ms)
    return bytes(out)


def decode_snapshot(data: Buffer) -> Snapshot:
    """Read a snapshot file. Raises DamagedSnapshot unless it is whole to the last byte."""
    values: list[bytes] = []
    voters: VotersRecord | None = None
    last_timestamp_ms = -1
    kraft_version = 0
    finished = False
    headers = iter_batch_headers(data)
    try:
        for position, header in headers:
            columns = decode_records(data, position, header)
            if not header.is_control:
                values += [value for value in columns.values if value is not None]
                continue
            for key, value in zip(columns.keys, columns.values, strict=True):
                match decode_control_key(key or b""):
                    case ControlType.SNAPSHOT_HEADER:
                        snapshot_header = SnapshotHeaderRecord.decode(value or b"", 0)
                        last_timestamp_ms = snapshot_header.last_contained_log_timestamp
                    case ControlType.KRAFT_VERSION:
                        kraft_version = KRaftVersionRecord.decode(value or b"", 0).kraft_version
                    case ControlType.KRAFT_VOTERS:
                        voters = VotersRecord.decode(value or b"", 0)
                    case ControlType.SNAPSHOT_FOOTER:
                        finished = True
                    case _:
                        pass
    except (CorruptBatch, NeedMoreData, RemoteProtocolError) as error:
        raise DamagedSnapshot(f"a snapshot cannot be read: {error}") from error
    if not finished or headers.valid_bytes != len(data):
        raise DamagedSnapshot("a snapshot ends before its footer")
    return Snapshot(values, voters, last_timestamp_ms, kraft_version)


def encode_values(values: list[bytes], *, base_offset: int, epoch: int, now_ms: int) -> bytearray:
    """One batch of records without keys: how the metadata log and its snapshots hold everything."""
    return encode_batch(
        keys=[None] * len(values),
        values=values,
        timestamps_ms=[now_ms] * len(values),
        base_offset=base_offset,
        leader_epoch=epoch,
    )


def encode_control_records(
    records: list[tuple[ControlType, Message]], *, base_offset: int, epoch: int, now_ms: int
) -> bytearray:
    """One control batch; unlike a partition's, a quorum's may hold several records."""
    return encode_batch(
        keys=[encode_control_key(control_type) for control_type, _ in records],
        values=[record.encode(0) for _, record in records],
        timestamps_ms=[now_ms] * len(records),
        base_offset=base_offset,
        leader_epoch=epoch,
        is_control=True,
    )
