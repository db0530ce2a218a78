"""AlterConfigs (API 33), the older one. What is refused and why: metadata/configs.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.configs import alter_configs, refuse_each
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)


async def handle(
    home: ControllerHome, request: AlterConfigsRequest, context: ControllerContext
) -> AlterConfigsResponse:
    """Cancelling (the client has left) does not stop the change."""
    return await home.controller.write(lambda image: alter_configs(image, home.settings, request))


def refuse(request: AlterConfigsRequest, error: KafkaError, version: int) -> AlterConfigsResponse:
    return AlterConfigsResponse(responses=refuse_each(AlterConfigsResourceResponse, request.resources, error))
