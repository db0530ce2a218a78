"""FetchSnapshot (API 59): read a snapshot of the metadata log in pieces (KIP-630).

Versions: 1 carries the replica's directory and the leader's endpoints (KIP-853).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from streamlog.wire.message import Request
from streamlog.wire.schema import ZERO_UUID, Int32, Int64, Struct, since


class SnapshotId(Struct):
    end_offset: Int64 = 0
    epoch: Int32 = 0


class PartitionSnapshot(Struct):
    partition: Int32 = 0
    current_leader_epoch: Int32 = 0
    snapshot_id: SnapshotId = msgspec.field(default_factory=SnapshotId)
    position: Int64 = 0
    replica_directory_id: Annotated[UUID, since(1, tag=0, ignorable=True)] = ZERO_UUID


class TopicSnapshot(Struct):
    name: str = ""
    partitions: list[PartitionSnapshot] = []


class FetchSnapshotRequest(Request):
    """Snapshot and position."""

    api_key = 59
    min_version = 0
    max_version = 1
    flexible_since = 0

    cluster_id: Annotated[str | None, since(0, tag=0)] = None
    replica_id: Int32 = -1
    max_bytes: Int32 = 0x7FFF_FFFF
    topics: list[TopicSnapshot] = []
