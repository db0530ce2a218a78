"""Requests that the active controller decides, wherever they arrive.

A handler here is `handle(home, request, context)` and raises KafkaError freely; NOT_CONTROLLER among them means that
somebody else has to be asked, and everything else is put into a response by the API's `refuse`. Requests come by the
controller's own listener, forwarded by brokers (Envelope), or from the broker in the same process
(controller_channel.py).

The table holds what every broker needs from its start on; `serve_controller` has the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from streamlog.broker.api import (
    allocate_producer_ids,
    alter_configs,
    broker_heartbeat,
    broker_registration,
    create_partitions,
    create_topics,
    delete_topics,
    incremental_alter_configs,
)
from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    AllocateProducerIdsRequest,
    AlterConfigsRequest,
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    IncrementalAlterConfigsRequest,
)

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)


@runtime_checkable
class TellsErrors(Protocol):
    """A response with an error code of its own, beside those of topics or partitions in it."""

    error_code: int


@runtime_checkable
class TellsReasons(Protocol):
    """One that has room for a sentence too."""

    error_message: str | None


class ControllerService(NamedTuple):
    """One API as a controller serves it."""

    key: ApiKey
    handle: Callable[[ControllerHome, Request, ControllerContext], Awaitable[Response]]
    refuse: Callable[[Request, KafkaError, int], Response]
    """The response that says why not, in a version."""
    only_active: bool
    """Only the active controller has an answer."""
    is_forwarded: bool
    """Clients ask a broker for it, which asks the controller."""


def service(
    key: ApiKey,
    request: type[Q],
    handle: Callable[[ControllerHome, Q, ControllerContext], Awaitable[Response]],
    refuse: Callable[[Q, KafkaError, int], Response] | None = None,
    *,
    only_active: bool = True,
    is_forwarded: bool = False,
) -> ControllerService:
    """A row of the tables. `refuse` may be left out where the response has an error code of its own."""

    def handle_any(home: ControllerHome, message: Request, context: ControllerContext) -> Awaitable[Response]:
        assert isinstance(message, request), f"a {type(message).__name__} came to {key!r}"
        return handle(home, message, context)

    def refuse_any(message: Request, error: KafkaError, version: int) -> Response:
        assert isinstance(message, request), f"a {type(message).__name__} came to {key!r}"
        if refuse is not None:
            return refuse(message, error, version)
        response = API_TABLE[key].response()
        assert isinstance(response, TellsErrors), f"{key!r} has no way to say what is wrong"
        response.error_code = int(error.code)
        if isinstance(response, TellsReasons):
            response.error_message = error.message or None
        return response

    return ControllerService(key, handle_any, refuse_any, only_active, is_forwarded)


DECIDED: dict[int, ControllerService] = {
    row.key: row
    for row in (
        service(
            ApiKey.CREATE_TOPICS, CreateTopicsRequest, create_topics.handle, create_topics.refuse, is_forwarded=True
        ),
        service(
            ApiKey.DELETE_TOPICS, DeleteTopicsRequest, delete_topics.handle, delete_topics.refuse, is_forwarded=True
        ),
        service(
            ApiKey.ALTER_CONFIGS, AlterConfigsRequest, alter_configs.handle, alter_configs.refuse, is_forwarded=True
        ),
        service(
            ApiKey.CREATE_PARTITIONS,
            CreatePartitionsRequest,
            create_partitions.handle,
            create_partitions.refuse,
            is_forwarded=True,
        ),
        service(
            ApiKey.INCREMENTAL_ALTER_CONFIGS,
            IncrementalAlterConfigsRequest,
            incremental_alter_configs.handle,
            incremental_alter_configs.refuse,
            is_forwarded=True,
        ),
        service(ApiKey.BROKER_REGISTRATION, BrokerRegistrationRequest, broker_registration.handle),
        service(ApiKey.BROKER_HEARTBEAT, BrokerHeartbeatRequest, broker_heartbeat.handle),
        service(ApiKey.ALLOCATE_PRODUCER_IDS, AllocateProducerIdsRequest, allocate_producer_ids.handle),
    )
}


def find_service(key: int) -> ControllerService | None:
    """The row of an API that controllers serve."""
    found = DECIDED.get(key)
    if found is not None:
        return found
    # Not at the top: the quorum's messages would be a twentieth of a broker's start.
    from streamlog.broker.api.serve_controller import SERVED_BY_CONTROLLERS

    return SERVED_BY_CONTROLLERS.get(key)


async def decide(
    home: ControllerHome, row: ControllerService, request: Request, context: ControllerContext
) -> Response:
    """Answer `request`. Raises KafkaError NOT_CONTROLLER, and nothing else that is a KafkaError."""
    if row.only_active and not home.controller.is_active:
        raise KafkaError(ErrorCode.NOT_CONTROLLER, "another node is the active controller")
    try:
        return await row.handle(home, request, context)
    except KafkaError as error:
        if error.code is ErrorCode.NOT_CONTROLLER:
            raise
        return row.refuse(request, error, context.version)
