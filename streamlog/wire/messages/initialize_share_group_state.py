"""InitializeShareGroupState (API 83): a group coordinator begins a share-partition's state (KIP-932)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Struct


class PartitionData(Struct):
    partition: Int32 = 0
    state_epoch: Int32 = 0
    start_offset: Int64 = 0


class InitializeStateData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class InitializeShareGroupStateRequest(Request):
    """`start_offset` -1: not known yet."""

    api_key = 83
    min_version = 0
    max_version = 0
    flexible_since = 0

    group_id: str = ""
    topics: list[InitializeStateData] = []


class PartitionResult(Struct):
    partition: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None


class InitializeStateResult(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionResult] = []


class InitializeShareGroupStateResponse(Response):
    """One code per partition."""

    api_key = 83
    min_version = 0
    max_version = 0
    flexible_since = 0

    results: list[InitializeStateResult] = []
