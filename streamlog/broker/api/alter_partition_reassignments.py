"""AlterPartitionReassignments (API 45): replicas move to other brokers, or stay. How: metadata/reassignment.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.reassignment import alter_partition_reassignments
from streamlog.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
)


async def handle(
    home: ControllerHome, request: AlterPartitionReassignmentsRequest, context: ControllerContext
) -> AlterPartitionReassignmentsResponse:
    """Cancelling (the client has left) does not stop what has begun."""
    return await home.controller.write(lambda image: alter_partition_reassignments(image, home.settings, request))
