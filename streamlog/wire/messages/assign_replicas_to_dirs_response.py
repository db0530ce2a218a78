"""The response of AssignReplicasToDirs (API 73); its structs have the request's names and other fields."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct


class PartitionData(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0


class TopicData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class DirectoryData(Struct):
    id: UUID = ZERO_UUID
    topics: list[TopicData] = []


class AssignReplicasToDirsResponse(Response):
    """One code per partition."""

    api_key = 73
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    directories: list[DirectoryData] = []
