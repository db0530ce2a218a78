"""CreatePartitions (API 37). What is refused and why: metadata/topics.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.topics import create_partitions
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopicResult,
)


async def handle(
    home: ControllerHome, request: CreatePartitionsRequest, context: ControllerContext
) -> CreatePartitionsResponse:
    """Cancelling (the client has left) does not stop the creation."""
    return await home.controller.write(lambda image: create_partitions(image, request))


def refuse(request: CreatePartitionsRequest, error: KafkaError, version: int) -> CreatePartitionsResponse:
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsTopicResult(name=name, error_code=error.code, error_message=error.message)
            for name in dict.fromkeys(topic.name for topic in request.topics)
        ]
    )
