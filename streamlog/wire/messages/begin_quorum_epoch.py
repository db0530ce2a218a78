"""BeginQuorumEpoch (API 53): a new leader tells the voters (KIP-595).

Versions: 1 is flexible and carries the leader's endpoints (KIP-853).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request
from streamlog.wire.schema import ZERO_UUID, Int32, Struct, UInt16, since


class PartitionData(Struct):
    partition_index: Int32 = 0
    voter_directory_id: Annotated[UUID, since(1, ignorable=True)] = ZERO_UUID
    leader_id: Int32 = 0
    leader_epoch: Int32 = 0


class TopicData(Struct):
    topic_name: str = ""
    partitions: list[PartitionData] = []


class LeaderEndpoint(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0


class BeginQuorumEpochRequest(Request):
    """The leader and its epoch."""

    api_key = 53
    min_version = 0
    max_version = 1
    flexible_since = 1

    cluster_id: str | None = None
    voter_id: Annotated[Int32, since(1, ignorable=True)] = -1
    topics: list[TopicData] = []
    leader_endpoints: Annotated[list[LeaderEndpoint], since(1, ignorable=True)] = []
