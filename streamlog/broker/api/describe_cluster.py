"""DescribeCluster (API 60): the brokers, the controller, the cluster's id (KIP-700)."""

from __future__ import annotations

from typing import Final

from streamlog.broker.authorized_operations import CLUSTER_OPERATIONS, NOT_ASKED
from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

BROKERS: Final = 1
CONTROLLERS: Final = 2


def handle(broker: Broker, context: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse:
    if request.endpoint_type != BROKERS:
        known = request.endpoint_type == CONTROLLERS
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE if known else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message="this listener is a broker's: it describes brokers",
        )
    asked = request.include_cluster_authorized_operations
    found = (
        (node, node.endpoint(context.listener))
        for node in broker.image.brokers.values()
        if not node.fenced or request.include_fenced_brokers
    )
    return DescribeClusterResponse(
        error_message=None,
        cluster_id=broker.cluster_id,
        controller_id=broker.controller_id,
        brokers=[
            DescribeClusterBroker(
                broker_id=node.id, host=endpoint.host, port=endpoint.port, rack=node.rack, is_fenced=node.fenced
            )
            for node, endpoint in found
            if endpoint is not None
        ],
        cluster_authorized_operations=CLUSTER_OPERATIONS if asked else NOT_ASKED,
    )
