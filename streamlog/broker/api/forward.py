"""Requests that a broker takes and the active controller answers: CreateTopics and its neighbours (KIP-590)."""

from __future__ import annotations

from typing import TypeVar

from streamlog.broker.api.decided import find_service
from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.image import MetadataImage
from streamlog.wire.apis import API_TABLE
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse

R = TypeVar("R", bound=Response)

FOLLOW_MS_MAX = 1_000
"""How long the answer to a creation waits for this broker to have heard of the new topics."""


async def handle(broker: Broker, context: RequestContext, request: Request) -> Response:
    """Cancelling (the client has left) does not stop what the controller does."""
    response = await _answer(broker, request, context.version, context.client_host)
    if isinstance(response, CreateTopicsResponse) and not (
        isinstance(request, CreateTopicsRequest) and request.validate_only
    ):
        await _follow(broker, response)
    return response


async def ask(broker: Broker, request: Request, expected: type[R]) -> R:
    """What this broker asks for by itself, as a client would."""
    response = await _answer(broker, request, API_TABLE[request.api_key].stable_max_version, "")
    assert isinstance(response, expected), "the answer is of the request's API"
    if isinstance(response, CreateTopicsResponse):
        await _follow(broker, response)
    return response


async def _answer(broker: Broker, request: Request, version: int, client_host: str) -> Response:
    try:
        return await broker.channel.forward(request, version, client_host)
    except KafkaError as error:
        row = find_service(request.api_key)
        assert row is not None, "what is forwarded is served by controllers"
        return row.refuse(request, error, version)


async def _follow(broker: Broker, response: CreateTopicsResponse) -> None:
    """Who was told that its topics are there may ask this broker for them next."""
    names = [topic.name for topic in response.topics if topic.error_code == ErrorCode.NONE]

    def has_all(image: MetadataImage) -> bool:
        return all(name in image.topics for name in names)

    await broker.controller.until(has_all, FOLLOW_MS_MAX)
