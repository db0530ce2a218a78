"""ListOffsets (API 2): offsets by timestamp.

A timestamp of -1 asks for the end (the last stable offset when read-committed), -2 for the log start, -3 for the
record with the largest timestamp (KIP-734), -4 for the earliest offset on local disk (KIP-405), -5 for the end of
what is tiered (KIP-1005), -6 for the earliest offset that waits for upload (KIP-1023).

Versions: 2 adds the isolation level (KIP-98); 4 leader epochs (KIP-320); 6 is flexible; 7 to 9 and 11 allow the
timestamps above; 10 adds a timeout (KIP-1075).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Int64, Struct, since


class ListOffsetsPartition(Struct):
    partition_index: Int32 = 0
    current_leader_epoch: Annotated[Int32, since(4, ignorable=True)] = -1
    timestamp: Int64 = 0


class ListOffsetsTopic(Struct):
    name: str = ""
    partitions: list[ListOffsetsPartition] = []


class ListOffsetsRequest(Request):
    """Asks for the first offset whose timestamp is at least the given one, per partition.

    `replica_id` -1 is a consumer.
    """

    api_key = 2
    min_version = 1
    max_version = 11
    flexible_since = 6

    replica_id: Int32 = 0
    isolation_level: Annotated[Int8, since(2)] = 0
    topics: list[ListOffsetsTopic] = []
    timeout_ms: Annotated[Int32, since(10, ignorable=True)] = 0


class ListOffsetsPartitionResponse(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0
    timestamp: Int64 = -1
    offset: Int64 = -1
    leader_epoch: Annotated[Int32, since(4)] = -1


class ListOffsetsTopicResponse(Struct):
    name: str = ""
    partitions: list[ListOffsetsPartitionResponse] = []


class ListOffsetsResponse(Response):
    """Offset and timestamp per partition, -1 when there is none."""

    api_key = 2
    min_version = 1
    max_version = 11
    flexible_since = 6

    throttle_time_ms: Annotated[Int32, since(2, ignorable=True)] = 0
    topics: list[ListOffsetsTopicResponse] = []
