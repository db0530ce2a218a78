"""DeleteRecords (API 21): raise the log start offset (KIP-107).

Versions: 2 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, Struct


class DeleteRecordsPartition(Struct):
    partition_index: Int32 = 0
    offset: Int64 = 0


class DeleteRecordsTopic(Struct):
    name: str = ""
    partitions: list[DeleteRecordsPartition] = []


class DeleteRecordsRequest(Request):
    """New log start offsets; -1 means the high watermark."""

    api_key = 21
    min_version = 0
    max_version = 2
    flexible_since = 2

    topics: list[DeleteRecordsTopic] = []
    timeout_ms: Int32 = 0


class DeleteRecordsPartitionResult(Struct):
    partition_index: Int32 = 0
    low_watermark: Int64 = 0
    error_code: Int16 = 0


class DeleteRecordsTopicResult(Struct):
    name: str = ""
    partitions: list[DeleteRecordsPartitionResult] = []


class DeleteRecordsResponse(Response):
    """The log start offset of each partition afterwards."""

    api_key = 21
    min_version = 0
    max_version = 2
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    topics: list[DeleteRecordsTopicResult] = []
