"""DescribeQuorum (API 55): state of the metadata quorum (KIP-595).

Versions: 1 answers when replicas fetched last (KIP-836); 2 directories and endpoints of voters (KIP-853).
"""

from __future__ import annotations

from streamlog.wire.message import Request
from streamlog.wire.schema import Int32, Struct


class PartitionData(Struct):
    partition_index: Int32 = 0


class TopicData(Struct):
    topic_name: str = ""
    partitions: list[PartitionData] = []


class DescribeQuorumRequest(Request):
    """The metadata partition."""

    api_key = 55
    min_version = 0
    max_version = 2
    flexible_since = 0

    topics: list[TopicData] = []
