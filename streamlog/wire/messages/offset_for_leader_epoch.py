"""OffsetForLeaderEpoch (API 23): where a leader epoch ends (KIP-101, KIP-279).

Versions: 2 carries the asker's own leader epoch (KIP-320); 3 tells consumers from followers by replica_id -2 and
others; 4 is flexible.
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, Struct, since


class OffsetForLeaderPartition(Struct):
    partition: Int32 = 0
    current_leader_epoch: Int32 = -1
    leader_epoch: Int32 = 0


class OffsetForLeaderTopic(Struct):
    topic: str = ""
    partitions: list[OffsetForLeaderPartition] = []


class OffsetForLeaderEpochRequest(Request):
    """Asks for the end of epochs. `replica_id` -1 is a consumer, -2 a debugger."""

    api_key = 23
    min_version = 2
    max_version = 4
    flexible_since = 4

    replica_id: Annotated[Int32, since(3, ignorable=True)] = -2
    topics: list[OffsetForLeaderTopic] = []


class EpochEndOffset(Struct):
    error_code: Int16 = 0
    partition: Int32 = 0
    leader_epoch: Int32 = -1
    end_offset: Int64 = -1


class OffsetForLeaderTopicResult(Struct):
    topic: str = ""
    partitions: list[EpochEndOffset] = []


class OffsetForLeaderEpochResponse(Response):
    """The end offset (exclusive) of the largest epoch that is not above the one asked for; -1 when there is none."""

    api_key = 23
    min_version = 2
    max_version = 4
    flexible_since = 4

    throttle_time_ms: Int32 = 0
    topics: list[OffsetForLeaderTopicResult] = []
