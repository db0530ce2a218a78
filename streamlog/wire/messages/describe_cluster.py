"""DescribeCluster (API 60): the nodes of the cluster (KIP-700).

Versions: 1 can ask controllers about controllers (KIP-919); 2 includes fenced brokers (KIP-1073).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct, since


class DescribeClusterRequest(Request):
    """`endpoint_type`: 1 brokers, 2 controllers."""

    api_key = 60
    min_version = 0
    max_version = 2
    flexible_since = 0

    include_cluster_authorized_operations: bool = False
    endpoint_type: Annotated[Int8, since(1)] = 1
    include_fenced_brokers: Annotated[bool, since(2)] = False


class DescribeClusterBroker(Struct):
    broker_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None
    is_fenced: Annotated[bool, since(2)] = False


class DescribeClusterResponse(Response):
    """Nodes and the controller's id."""

    api_key = 60
    min_version = 0
    max_version = 2
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    endpoint_type: Annotated[Int8, since(1)] = 1
    cluster_id: str = ""
    controller_id: Int32 = -1
    brokers: list[DescribeClusterBroker] = []
    cluster_authorized_operations: Int32 = -0x8000_0000
