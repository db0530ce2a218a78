"""AssignReplicasToDirs (API 73): a broker tells the controller in which directory replicas are (KIP-858)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request
from streamlog.wire.schema import ZERO_UUID, Int32, Int64, Struct


class PartitionData(Struct):
    partition_index: Int32 = 0


class TopicData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class DirectoryData(Struct):
    id: UUID = ZERO_UUID
    topics: list[TopicData] = []


class AssignReplicasToDirsRequest(Request):
    """Partitions by directory."""

    api_key = 73
    min_version = 0
    max_version = 0
    flexible_since = 0

    broker_id: Int32 = 0
    broker_epoch: Int64 = -1
    directories: list[DirectoryData] = []
