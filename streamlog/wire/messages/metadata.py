"""Metadata (API 3): brokers, topics, partitions and their leaders.

Versions: 1 tells "all topics" (null) from "none" (empty), and names rack and controller; 2 the cluster id; 4 lets the
client forbid creation; 5 offline replicas; 7 leader epochs (KIP-320); 8 authorized operations (KIP-430); 9 is
flexible; 10 topic ids; 11 moves the cluster's authorized operations to DescribeCluster (KIP-700); 12 asks by id
(KIP-516); 13 answers an error of the whole request, REBOOTSTRAP_REQUIRED (KIP-1102).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct, between, since


class MetadataRequestTopic(Struct):
    topic_id: Annotated[UUID, since(10, ignorable=True)] = ZERO_UUID
    name: Annotated[str | None, since(0, nullable=10)] = ""


class MetadataRequest(Request):
    """Asks about topics by name or id.

    `topics` None means all; in version 0, where null cannot be said, an empty list does.
    """

    api_key = 3
    min_version = 0
    max_version = 13
    flexible_since = 9

    topics: Annotated[list[MetadataRequestTopic] | None, since(0, nullable=1)] = []
    allow_auto_topic_creation: Annotated[bool, since(4)] = True
    include_cluster_authorized_operations: Annotated[bool, between(8, 10)] = False
    include_topic_authorized_operations: Annotated[bool, since(8)] = False


class MetadataResponseBroker(Struct):
    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: Annotated[str | None, since(1, ignorable=True)] = None


class MetadataResponsePartition(Struct):
    error_code: Int16 = 0
    partition_index: Int32 = 0
    leader_id: Int32 = 0
    leader_epoch: Annotated[Int32, since(7, ignorable=True)] = -1
    replica_nodes: list[Int32] = []
    isr_nodes: list[Int32] = []
    offline_replicas: Annotated[list[Int32], since(5, ignorable=True)] = []


class MetadataResponseTopic(Struct):
    error_code: Int16 = 0
    name: Annotated[str | None, since(0, nullable=12)] = ""
    topic_id: Annotated[UUID, since(10, ignorable=True)] = ZERO_UUID
    is_internal: Annotated[bool, since(1, ignorable=True)] = False
    partitions: list[MetadataResponsePartition] = []
    topic_authorized_operations: Annotated[Int32, since(8)] = -0x8000_0000


class MetadataResponse(Response):
    """The cluster as this broker sees it. `leader_id` -1: no leader now; `controller_id` -1: unknown.

    Authorized operations are bit fields; the smallest 32-bit integer means that they were not asked for.
    """

    api_key = 3
    min_version = 0
    max_version = 13
    flexible_since = 9

    throttle_time_ms: Annotated[Int32, since(3, ignorable=True)] = 0
    brokers: list[MetadataResponseBroker] = []
    cluster_id: Annotated[str | None, since(2, ignorable=True)] = None
    controller_id: Annotated[Int32, since(1, ignorable=True)] = -1
    topics: list[MetadataResponseTopic] = []
    cluster_authorized_operations: Annotated[Int32, between(8, 10)] = -0x8000_0000
    error_code: Annotated[Int16, since(13, ignorable=True)] = 0
