"""AlterPartition (API 56): a leader asks for another ISR. What it may be: metadata/alter_partition.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.alter_partition import alter_partition
from streamlog.wire.messages.alter_partition import AlterPartitionRequest
from streamlog.wire.messages.alter_partition_response import AlterPartitionResponse


async def handle(
    home: ControllerHome, request: AlterPartitionRequest, context: ControllerContext
) -> AlterPartitionResponse:
    return await home.controller.write(lambda image: alter_partition(image, home.settings, request))
