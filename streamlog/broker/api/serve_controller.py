"""What a controller serves on its own listener: the quorum's requests, and what it takes to find the quorum's leader.

A broker's APIs do not exist here, and these not on a broker's listener: whoever can reach the one need not be trusted
with the other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from streamlog.broker.api import api_versions, describe_quorum, quorum
from streamlog.broker.connection import Answer, Connection, Parts, Waiting
from streamlog.broker.features import KRAFT_VERSION, SUPPORTED_FEATURES
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.raft.quorum import Quorum
from streamlog.env import Env, Scope
from streamlog.errors import RemoteProtocolError
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.frames import decode_request_header, encode_response_parts
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)
from streamlog.wire.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from streamlog.wire.messages.describe_quorum import DescribeQuorumRequest

log = logging.getLogger(__name__)

CONTROLLERS: Final = 2
"""DescribeCluster's endpoint type (KIP-919)."""

NOBODY: Final = -1


@dataclass(slots=True)
class ControllerHome:
    """What a handler can reach."""

    env: Env
    node_id: int
    cluster_id: str
    listener: str
    scope: Scope
    quorum: Quorum
    controller: Controller
    served_apis: list[ApiVersion] = field(default_factory=list)


Handler: TypeAlias = Callable[[ControllerHome, int, Request], Awaitable[Response] | Response]


def _ask_quorum(home: ControllerHome, version: int, request: Request) -> Awaitable[Response]:
    return quorum.handle(home.quorum, request)


def _describe_quorum(home: ControllerHome, version: int, request: Request) -> Response:
    assert isinstance(request, DescribeQuorumRequest), "the table says so"
    return describe_quorum.handle(home.env, home.quorum, request)


def _api_versions(home: ControllerHome, version: int, request: Request) -> Response:
    assert isinstance(request, ApiVersionsRequest), "the table says so"
    levels = dict(home.controller.image.features)
    levels[KRAFT_VERSION] = home.quorum.core.kraft_version
    return ApiVersionsResponse(
        api_keys=home.served_apis,
        supported_features=[
            SupportedFeatureKey(name=name, min_version=known.low, max_version=known.high)
            for name, known in SUPPORTED_FEATURES.items()
        ],
        finalized_features_epoch=home.controller.image.applied_offset,
        finalized_features=[
            FinalizedFeatureKey(name=name, min_version_level=level, max_version_level=level)
            for name, level in levels.items()
            if level > 0
        ],
    )


def _describe_cluster(home: ControllerHome, version: int, request: Request) -> Response:
    assert isinstance(request, DescribeClusterRequest), "the table says so"
    if request.endpoint_type != CONTROLLERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="this listener is a controller's: it describes controllers",
        )
    found = ((voter.key.id, voter.address(home.listener)) for voter in home.quorum.core.voters)
    leader_id = home.quorum.core.leader_id
    return DescribeClusterResponse(
        error_message=None,
        endpoint_type=CONTROLLERS,
        cluster_id=home.cluster_id,
        controller_id=NOBODY if leader_id is None else leader_id,
        brokers=[
            DescribeClusterBroker(broker_id=node_id, host=address[0], port=address[1])
            for node_id, address in found
            if address is not None
        ],
    )


SERVED_BY_CONTROLLERS: Final[dict[int, Handler]] = {
    ApiKey.FETCH: _ask_quorum,
    ApiKey.API_VERSIONS: _api_versions,
    ApiKey.VOTE: _ask_quorum,
    ApiKey.BEGIN_QUORUM_EPOCH: _ask_quorum,
    ApiKey.END_QUORUM_EPOCH: _ask_quorum,
    ApiKey.DESCRIBE_QUORUM: _describe_quorum,
    ApiKey.FETCH_SNAPSHOT: _ask_quorum,
    ApiKey.DESCRIBE_CLUSTER: _describe_cluster,
    ApiKey.ADD_RAFT_VOTER: _ask_quorum,
    ApiKey.REMOVE_RAFT_VOTER: _ask_quorum,
    ApiKey.UPDATE_RAFT_VOTER: _ask_quorum,
}


class ControllerDispatcher:
    """Answers the frames of a controller's connections. `home` is there before the first one is accepted."""

    def __init__(self) -> None:
        self.home: ControllerHome | None = None

    def serve(self, connection: Connection, frame: memoryview) -> Answer:
        home = self.home
        assert home is not None, "a controller accepts nobody before its parts are there"
        header, position = decode_request_header(frame)
        api_key, version, number = header.request_api_key, header.request_api_version, header.correlation_id
        handler = SERVED_BY_CONTROLLERS.get(api_key)
        api = API_TABLE[api_key]
        if handler is None or not api.min_version <= version <= api.stable_max_version:
            if api_key == ApiKey.API_VERSIONS:
                return encode_response_parts(api_key, 0, number, api_versions.refuse_version())
            raise RemoteProtocolError(f"{api.name} version {version} is not served by a controller")
        request = api.request.decode(frame, version, position)
        reply = handler(home, version, request)
        if isinstance(reply, Response):
            return encode_response_parts(api_key, version, number, reply)
        task = home.scope.spawn(api.name, _settle(api.name, reply))

        def finish() -> Parts | None:
            outcome = task.result()
            if isinstance(outcome, RemoteProtocolError):
                raise outcome
            return encode_response_parts(api_key, version, number, outcome)

        return Waiting(task, finish)


async def _settle(name: str, reply: Awaitable[Response]) -> Response | RemoteProtocolError:
    """Wait for a reply. Errors are values here: one request must not end the tasks of the others."""
    try:
        return await reply
    except RemoteProtocolError as error:
        return error
    except KafkaError as error:
        return RemoteProtocolError(f"{name} failed: {error}")
    except Exception as error:
        log.error("%s failed", name, exc_info=error)
        return RemoteProtocolError(f"{name} failed: {error}")
