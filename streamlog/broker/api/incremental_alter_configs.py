"""IncrementalAlterConfigs (API 44). What is refused and why: metadata/configs.py."""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.configs import incremental_alter_configs
from streamlog.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)


async def handle(
    broker: Broker, context: RequestContext, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    """Cancelling (the client has left) does not stop the change."""
    return await broker.controller.write(lambda image: incremental_alter_configs(image, request))
