"""AlterPartitionReassignments (API 45): move replicas between brokers (KIP-455).

Versions: 1 can forbid a change of the replication factor (KIP-860).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct, since


class ReassignablePartition(Struct):
    partition_index: Int32 = 0
    replicas: list[Int32] | None = None


class ReassignableTopic(Struct):
    name: str = ""
    partitions: list[ReassignablePartition] = []


class AlterPartitionReassignmentsRequest(Request):
    """`replicas` None cancels."""

    api_key = 45
    min_version = 0
    max_version = 1
    flexible_since = 0

    timeout_ms: Int32 = 60000
    allow_replication_factor_change: Annotated[bool, since(1)] = True
    topics: list[ReassignableTopic] = []


class ReassignablePartitionResponse(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""


class ReassignableTopicResponse(Struct):
    name: str = ""
    partitions: list[ReassignablePartitionResponse] = []


class AlterPartitionReassignmentsResponse(Response):
    """One result per partition."""

    api_key = 45
    min_version = 0
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    allow_replication_factor_change: Annotated[bool, since(1, ignorable=True)] = True
    error_code: Int16 = 0
    error_message: str | None = ""
    responses: list[ReassignableTopicResponse] = []
