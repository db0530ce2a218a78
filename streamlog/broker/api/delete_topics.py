"""DeleteTopics (API 20). What is refused and why: metadata/topics.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.topics import delete_topics
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.delete_topics import DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse

DELETION_DISABLED_SINCE = 3
"""Older versions do not know TOPIC_DELETION_DISABLED."""


async def handle(
    home: ControllerHome, request: DeleteTopicsRequest, context: ControllerContext
) -> DeleteTopicsResponse:
    """Cancelling (the client has left) does not stop the deletion."""
    return await home.controller.write(lambda image: delete_topics(image, home.settings, request))


def refuse(request: DeleteTopicsRequest, error: KafkaError, version: int) -> DeleteTopicsResponse:
    known = error.code is not ErrorCode.TOPIC_DELETION_DISABLED or version >= DELETION_DISABLED_SINCE
    code = error.code if known else ErrorCode.INVALID_REQUEST
    asked = [(name, None) for name in request.topic_names] + [(t.name, t.topic_id) for t in request.topics]
    results = [
        DeletableTopicResult(name=name, error_code=code, error_message=error.message)
        if topic_id is None
        else DeletableTopicResult(name=name, topic_id=topic_id, error_code=code, error_message=error.message)
        for name, topic_id in asked
    ]
    return DeleteTopicsResponse(responses=results)
