"""Vote (API 52): a candidate of the metadata quorum asks for a vote (KIP-595).

Versions: 1 addresses voters by directory (KIP-853); 2 can ask beforehand (pre-vote, KIP-996).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request
from streamlog.wire.schema import ZERO_UUID, Int32, Int64, Struct, since


class PartitionData(Struct):
    partition_index: Int32 = 0
    replica_epoch: Int32 = 0
    replica_id: Int32 = 0
    replica_directory_id: Annotated[UUID, since(1, ignorable=True)] = ZERO_UUID
    voter_directory_id: Annotated[UUID, since(1, ignorable=True)] = ZERO_UUID
    last_offset_epoch: Int32 = 0
    last_offset: Int64 = 0
    pre_vote: Annotated[bool, since(2)] = False


class TopicData(Struct):
    topic_name: str = ""
    partitions: list[PartitionData] = []


class VoteRequest(Request):
    """The candidate and the end of its log."""

    api_key = 52
    min_version = 0
    max_version = 2
    flexible_since = 0

    cluster_id: str | None = None
    voter_id: Annotated[Int32, since(1, ignorable=True)] = -1
    topics: list[TopicData] = []
