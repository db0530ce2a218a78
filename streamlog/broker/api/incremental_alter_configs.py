"""IncrementalAlterConfigs (API 44). What is refused and why: metadata/configs.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.configs import incremental_alter_configs, refuse_each
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.incremental_alter_configs import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)


async def handle(
    home: ControllerHome, request: IncrementalAlterConfigsRequest, context: ControllerContext
) -> IncrementalAlterConfigsResponse:
    """Cancelling (the client has left) does not stop the change."""
    return await home.controller.write(lambda image: incremental_alter_configs(image, home.settings, request))


def refuse(request: IncrementalAlterConfigsRequest, error: KafkaError, version: int) -> IncrementalAlterConfigsResponse:
    return IncrementalAlterConfigsResponse(
        responses=refuse_each(AlterConfigsResourceResponse, request.resources, error)
    )
