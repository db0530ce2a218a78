"""The response of FetchSnapshot (API 59); its structs have the request's names and other fields."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamlog.wire.message import Response
from streamlog.wire.schema import Int16, Int32, Int64, Records, Struct, UInt16, since


class SnapshotId(Struct):
    end_offset: Int64 = 0
    epoch: Int32 = 0


class LeaderIdAndEpoch(Struct):
    leader_id: Int32 = 0
    leader_epoch: Int32 = 0


class PartitionSnapshot(Struct):
    index: Int32 = 0
    error_code: Int16 = 0
    snapshot_id: SnapshotId = msgspec.field(default_factory=SnapshotId)
    current_leader: Annotated[LeaderIdAndEpoch | None, since(0, tag=0)] = None
    size: Int64 = 0
    position: Int64 = 0
    unaligned_records: Records = b""


class TopicSnapshot(Struct):
    name: str = ""
    partitions: list[PartitionSnapshot] = []


class NodeEndpoint(Struct):
    node_id: Int32 = 0
    host: str = ""
    port: UInt16 = 0


class FetchSnapshotResponse(Response):
    """A piece of the file; batches may be cut."""

    api_key = 59
    min_version = 0
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    topics: list[TopicSnapshot] = []
    node_endpoints: Annotated[list[NodeEndpoint], since(1, tag=0)] = []
