"""ReadShareGroupStateSummary (API 87): where a share-partition's state begins (KIP-932).

Versions: 1 counts completed deliveries (KIP-1226).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Struct, since


class PartitionData(Struct):
    partition: Int32 = 0
    leader_epoch: Int32 = 0


class ReadStateSummaryData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class ReadShareGroupStateSummaryRequest(Request):
    """Partitions."""

    api_key = 87
    min_version = 0
    max_version = 1
    flexible_since = 0

    group_id: str = ""
    topics: list[ReadStateSummaryData] = []


class PartitionResult(Struct):
    partition: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    state_epoch: Int32 = 0
    leader_epoch: Int32 = 0
    start_offset: Int64 = 0
    delivery_complete_count: Annotated[Int32, since(1, ignorable=True)] = -1


class ReadStateSummaryResult(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionResult] = []


class ReadShareGroupStateSummaryResponse(Response):
    """Start offsets."""

    api_key = 87
    min_version = 0
    max_version = 1
    flexible_since = 0

    results: list[ReadStateSummaryResult] = []
