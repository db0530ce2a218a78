"""The response of AlterPartition (API 56); its structs have the request's names and other fields."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32, Struct


class PartitionData(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0
    leader_id: Int32 = 0
    leader_epoch: Int32 = 0
    isr: list[Int32] = []
    leader_recovery_state: Int8 = 0
    partition_epoch: Int32 = 0


class TopicData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class AlterPartitionResponse(Response):
    """ISRs as they are now."""

    api_key = 56
    min_version = 2
    max_version = 3
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    topics: list[TopicData] = []
