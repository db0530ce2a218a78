"""DeleteShareGroupState (API 86): a share-partition's state is not needed any more (KIP-932)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct


class PartitionData(Struct):
    partition: Int32 = 0


class DeleteStateData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class DeleteShareGroupStateRequest(Request):
    """Partitions."""

    api_key = 86
    min_version = 0
    max_version = 0
    flexible_since = 0

    group_id: str = ""
    topics: list[DeleteStateData] = []


class PartitionResult(Struct):
    partition: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None


class DeleteStateResult(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionResult] = []


class DeleteShareGroupStateResponse(Response):
    """One code per partition."""

    api_key = 86
    min_version = 0
    max_version = 0
    flexible_since = 0

    results: list[DeleteStateResult] = []
