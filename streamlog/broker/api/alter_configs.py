"""AlterConfigs (API 33), the older one. What is refused and why: metadata/configs.py."""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.configs import alter_configs
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)


async def handle(broker: Broker, context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse:
    """Cancelling (the client has left) does not stop the change."""
    try:
        return await broker.controller.write(lambda image: alter_configs(image, request))
    except KafkaError as error:
        return AlterConfigsResponse(
            responses=[
                AlterConfigsResourceResponse(
                    error_code=error.code,
                    error_message=error.message,
                    resource_type=resource.resource_type,
                    resource_name=resource.resource_name,
                )
                for resource in request.resources
            ]
        )
