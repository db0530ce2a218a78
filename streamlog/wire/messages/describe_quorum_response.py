"""The response of DescribeQuorum (API 55); its structs have the request's names and other fields."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Struct, UInt16, since


class ReplicaState(Struct):
    replica_id: Int32 = 0
    replica_directory_id: Annotated[UUID, since(2)] = ZERO_UUID
    log_end_offset: Int64 = 0
    last_fetch_timestamp: Annotated[Int64, since(1, ignorable=True)] = -1
    last_caught_up_timestamp: Annotated[Int64, since(1, ignorable=True)] = -1


class PartitionData(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0
    error_message: Annotated[str | None, since(2, ignorable=True)] = ""
    leader_id: Int32 = 0
    leader_epoch: Int32 = 0
    high_watermark: Int64 = 0
    current_voters: list[ReplicaState] = []
    observers: list[ReplicaState] = []


class TopicData(Struct):
    topic_name: str = ""
    partitions: list[PartitionData] = []


class Listener(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0


class Node(Struct):
    node_id: Int32 = 0
    listeners: list[Listener] = []


class DescribeQuorumResponse(Response):
    """Leader, voters and observers, with the ends of their logs."""

    api_key = 55
    min_version = 0
    max_version = 2
    flexible_since = 0

    error_code: Int16 = 0
    error_message: Annotated[str | None, since(2, ignorable=True)] = ""
    topics: list[TopicData] = []
    nodes: Annotated[list[Node], since(2)] = []
