"""OffsetDelete (API 47): forget committed offsets of a group (KIP-496). Never became flexible."""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct


class OffsetDeleteRequestPartition(Struct):
    partition_index: Int32 = 0


class OffsetDeleteRequestTopic(Struct):
    name: str = ""
    partitions: list[OffsetDeleteRequestPartition] = []


class OffsetDeleteRequest(Request):
    """Partitions whose offsets go."""

    api_key = 47
    min_version = 0
    max_version = 0

    group_id: str = ""
    topics: list[OffsetDeleteRequestTopic] = []


class OffsetDeleteResponsePartition(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0


class OffsetDeleteResponseTopic(Struct):
    name: str = ""
    partitions: list[OffsetDeleteResponsePartition] = []


class OffsetDeleteResponse(Response):
    """One error code per partition, and one for the group."""

    api_key = 47
    min_version = 0
    max_version = 0

    error_code: Int16 = 0
    throttle_time_ms: Int32 = 0
    topics: list[OffsetDeleteResponseTopic] = []
