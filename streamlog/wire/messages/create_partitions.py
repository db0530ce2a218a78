"""CreatePartitions (API 37): give topics more partitions (KIP-195).

Versions: 2 is flexible; 3 may be throttled (KIP-599).
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct


class CreatePartitionsAssignment(Struct):
    broker_ids: list[Int32] = []


class CreatePartitionsTopic(Struct):
    name: str = ""
    count: Int32 = 0
    assignments: list[CreatePartitionsAssignment] | None = []


class CreatePartitionsRequest(Request):
    """New totals, with replicas for the new partitions or `assignments` None to let the controller choose."""

    api_key = 37
    min_version = 0
    max_version = 3
    flexible_since = 2

    topics: list[CreatePartitionsTopic] = []
    timeout_ms: Int32 = 0
    validate_only: bool = False


class CreatePartitionsTopicResult(Struct):
    name: str = ""
    error_code: Int16 = 0
    error_message: str | None = None


class CreatePartitionsResponse(Response):
    """One result per topic."""

    api_key = 37
    min_version = 0
    max_version = 3
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    results: list[CreatePartitionsTopicResult] = []
