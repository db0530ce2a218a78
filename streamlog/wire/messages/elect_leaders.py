"""ElectLeaders (API 43): elect leaders now (KIP-183).

Versions: 1 can elect uncleanly (KIP-460); 2 is flexible.
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct, since


class TopicPartitions(Struct):
    topic: str = ""
    partitions: list[Int32] = []


class ElectLeadersRequest(Request):
    """`election_type`: 0 preferred, 1 unclean. `topic_partitions` None: all."""

    api_key = 43
    min_version = 0
    max_version = 2
    flexible_since = 2

    election_type: Annotated[Int8, since(1)] = 0
    topic_partitions: list[TopicPartitions] | None = []
    timeout_ms: Int32 = 60000


class PartitionResult(Struct):
    partition_id: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""


class ReplicaElectionResult(Struct):
    topic: str = ""
    partition_result: list[PartitionResult] = []


class ElectLeadersResponse(Response):
    """One result per partition."""

    api_key = 43
    min_version = 0
    max_version = 2
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    error_code: Annotated[Int16, since(1)] = 0
    replica_election_results: list[ReplicaElectionResult] = []
