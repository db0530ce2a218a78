"""EndQuorumEpoch (API 54): a leader steps down (KIP-595).

Versions: 1 is flexible and names candidates by directory (KIP-853).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request
from streamlog.wire.schema import ZERO_UUID, Int32, Struct, UInt16, since, until


class ReplicaInfo(Struct):
    candidate_id: Int32 = 0
    candidate_directory_id: UUID = ZERO_UUID


class PartitionData(Struct):
    partition_index: Int32 = 0
    leader_id: Int32 = 0
    leader_epoch: Int32 = 0
    preferred_successors: Annotated[list[Int32], until(0, ignorable=True)] = []
    preferred_candidates: Annotated[list[ReplicaInfo], since(1, ignorable=True)] = []


class TopicData(Struct):
    topic_name: str = ""
    partitions: list[PartitionData] = []


class LeaderEndpoint(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0


class EndQuorumEpochRequest(Request):
    """Who should stand next, in order."""

    api_key = 54
    min_version = 0
    max_version = 1
    flexible_since = 1

    cluster_id: str | None = None
    topics: list[TopicData] = []
    leader_endpoints: Annotated[list[LeaderEndpoint], since(1, ignorable=True)] = []
