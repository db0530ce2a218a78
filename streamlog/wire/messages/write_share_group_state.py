"""WriteShareGroupState (API 85): a leader stores a share-partition's state (KIP-932).

Versions: 1 counts completed deliveries (KIP-1226).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32, Int64, Struct, since


class StateBatch(Struct):
    first_offset: Int64 = 0
    last_offset: Int64 = 0
    delivery_state: Int8 = 0
    delivery_count: Int16 = 0


class PartitionData(Struct):
    partition: Int32 = 0
    state_epoch: Int32 = 0
    leader_epoch: Int32 = 0
    start_offset: Int64 = 0
    delivery_complete_count: Annotated[Int32, since(1, ignorable=True)] = -1
    state_batches: list[StateBatch] = []


class WriteStateData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class WriteShareGroupStateRequest(Request):
    """Only what has changed."""

    api_key = 85
    min_version = 0
    max_version = 1
    flexible_since = 0

    group_id: str = ""
    topics: list[WriteStateData] = []


class PartitionResult(Struct):
    partition: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None


class WriteStateResult(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionResult] = []


class WriteShareGroupStateResponse(Response):
    """One code per partition."""

    api_key = 85
    min_version = 0
    max_version = 1
    flexible_since = 0

    results: list[WriteStateResult] = []
