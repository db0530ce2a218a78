"""IncrementalAlterConfigs (API 44). What is refused and why: metadata/configs.py."""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.configs import incremental_alter_configs
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.incremental_alter_configs import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)


async def handle(
    broker: Broker, context: RequestContext, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    """Cancelling (the client has left) does not stop the change."""
    try:
        return await broker.controller.write(lambda image: incremental_alter_configs(image, request))
    except KafkaError as error:
        return IncrementalAlterConfigsResponse(
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
