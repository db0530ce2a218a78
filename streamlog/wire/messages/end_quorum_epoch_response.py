"""The response of EndQuorumEpoch (API 54); its structs have the request's names and other fields."""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Response
from streamlog.wire.schema import Int16, Int32, Struct, UInt16, since


class PartitionData(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0
    leader_id: Int32 = 0
    leader_epoch: Int32 = 0


class TopicData(Struct):
    topic_name: str = ""
    partitions: list[PartitionData] = []


class NodeEndpoint(Struct):
    node_id: Int32 = 0
    host: str = ""
    port: UInt16 = 0


class EndQuorumEpochResponse(Response):
    """Who leads, as the voter sees it."""

    api_key = 54
    min_version = 0
    max_version = 1
    flexible_since = 1

    error_code: Int16 = 0
    topics: list[TopicData] = []
    node_endpoints: Annotated[list[NodeEndpoint], since(1, tag=0)] = []
