"""ReadShareGroupState (API 84): a leader reads a share-partition's state (KIP-932)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32, Int64, Struct


class PartitionData(Struct):
    partition: Int32 = 0
    leader_epoch: Int32 = 0


class ReadStateData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class ReadShareGroupStateRequest(Request):
    """Partitions with leader epochs, which fence."""

    api_key = 84
    min_version = 0
    max_version = 0
    flexible_since = 0

    group_id: str = ""
    topics: list[ReadStateData] = []


class StateBatch(Struct):
    first_offset: Int64 = 0
    last_offset: Int64 = 0
    delivery_state: Int8 = 0
    delivery_count: Int16 = 0


class PartitionResult(Struct):
    partition: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    state_epoch: Int32 = 0
    start_offset: Int64 = 0
    state_batches: list[StateBatch] = []


class ReadStateResult(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionResult] = []


class ReadShareGroupStateResponse(Response):
    """`delivery_state`: 0 available, 2 acknowledged, 4 archived."""

    api_key = 84
    min_version = 0
    max_version = 0
    flexible_since = 0

    results: list[ReadStateResult] = []
