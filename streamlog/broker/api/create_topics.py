"""CreateTopics (API 19). What is refused and why: metadata/topics.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.topics import create_topics
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.create_topics import CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse


async def handle(
    home: ControllerHome, request: CreateTopicsRequest, context: ControllerContext
) -> CreateTopicsResponse:
    """Cancelling (the client has left) does not stop the creation."""
    new_uuid = home.env.entropy.uuid4
    return await home.controller.write(lambda image: create_topics(image, home.settings, request, new_uuid))


def refuse(request: CreateTopicsRequest, error: KafkaError, version: int) -> CreateTopicsResponse:
    return CreateTopicsResponse(
        topics=[
            CreatableTopicResult(name=name, error_code=error.code, error_message=error.message)
            for name in dict.fromkeys(topic.name for topic in request.topics)
        ]
    )
