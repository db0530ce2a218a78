"""ListPartitionReassignments (API 46): which replicas are on the move."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.reassignment import list_partition_reassignments
from streamlog.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)


async def handle(
    home: ControllerHome, request: ListPartitionReassignmentsRequest, context: ControllerContext
) -> ListPartitionReassignmentsResponse:
    return list_partition_reassignments(home.controller.image, request)
