"""What a controller serves on its own listener: the quorum's requests, what brokers ask, what they forward.

A broker's APIs do not exist here, and most of these not on a broker's listener: whoever can reach the one need not be
trusted with the other.
"""

from __future__ import annotations

import logging
from typing import Final

from streamlog.broker.api import (
    alter_partition,
    alter_partition_reassignments,
    api_versions,
    assign_replicas_to_dirs,
    controller_registration,
    describe_quorum,
    elect_leaders,
    list_partition_reassignments,
    quorum,
    unregister_broker,
    update_features,
)
from streamlog.broker.api.api_versions import advertise, describe
from streamlog.broker.api.decided import DECIDED, ControllerService, decide, service
from streamlog.broker.connection import Answer, Connection, Parts, Waiting
from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.errors import RemoteProtocolError
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.frames import decode_request_header, encode_response_parts
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    AddRaftVoterRequest,
    AlterPartitionReassignmentsRequest,
    AlterPartitionRequest,
    ApiVersionsRequest,
    AssignReplicasToDirsRequest,
    BeginQuorumEpochRequest,
    ControllerRegistrationRequest,
    DescribeClusterRequest,
    DescribeQuorumRequest,
    ElectLeadersRequest,
    EndQuorumEpochRequest,
    EnvelopeRequest,
    FetchRequest,
    FetchSnapshotRequest,
    ListPartitionReassignmentsRequest,
    RemoveRaftVoterRequest,
    UnregisterBrokerRequest,
    UpdateFeaturesRequest,
    UpdateRaftVoterRequest,
    VoteRequest,
)
from streamlog.wire.messages.api_versions import ApiVersionsResponse
from streamlog.wire.messages.describe_cluster import DescribeClusterBroker, DescribeClusterResponse
from streamlog.wire.messages.describe_quorum_response import DescribeQuorumResponse
from streamlog.wire.messages.envelope import EnvelopeResponse

log = logging.getLogger(__name__)

CONTROLLERS: Final = 2
"""DescribeCluster's endpoint type (KIP-919)."""

NOBODY: Final = -1


async def _ask_quorum(home: ControllerHome, request: Request, context: ControllerContext) -> Response:
    return await quorum.handle(home.quorum, request)


async def _describe_quorum(
    home: ControllerHome, request: DescribeQuorumRequest, context: ControllerContext
) -> DescribeQuorumResponse:
    return describe_quorum.handle(home.env, home.quorum, request, context.version)


async def _api_versions(
    home: ControllerHome, request: ApiVersionsRequest, context: ControllerContext
) -> ApiVersionsResponse:
    return describe(home.served_apis, home.controller.image, home.quorum.core.kraft_version, context.version)


async def _describe_cluster(
    home: ControllerHome, request: DescribeClusterRequest, context: ControllerContext
) -> DescribeClusterResponse:
    if request.endpoint_type != CONTROLLERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="this listener is a controller's: it describes controllers",
        )
    found = ((voter.key.id, voter.address(home.listener)) for voter in home.quorum.core.voters)
    leader_id = home.quorum.leader_id
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


async def _envelope(home: ControllerHome, request: EnvelopeRequest, context: ControllerContext) -> EnvelopeResponse:
    """What a client has asked a broker (KIP-590). NOT_CONTROLLER sends the broker to another of us."""
    header, position = decode_request_header(request.request_data)
    key, version = header.request_api_key, header.request_api_version
    row, api = SERVED_BY_CONTROLLERS.get(key), API_TABLE[key]
    if row is None or not row.is_forwarded:
        return EnvelopeResponse(error_code=ErrorCode.INVALID_REQUEST)
    if not api.min_version <= version <= api.stable_max_version:
        return EnvelopeResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    message = api.request.decode(memoryview(request.request_data), version, position)
    if not home.quorum.is_leader:
        return EnvelopeResponse(error_code=ErrorCode.NOT_CONTROLLER)
    try:
        response = await decide(home, row, message, ControllerContext(version, context.connection))
    except KafkaError as error:
        return EnvelopeResponse(error_code=error.code)
    parts = encode_response_parts(key, version, header.correlation_id, response)
    return EnvelopeResponse(response_data=b"".join(parts)[4:])


_QUORUM_ROWS = (
    service(ApiKey.FETCH, FetchRequest, _ask_quorum, only_active=False),
    service(ApiKey.API_VERSIONS, ApiVersionsRequest, _api_versions, only_active=False),
    service(ApiKey.VOTE, VoteRequest, _ask_quorum, only_active=False),
    service(ApiKey.BEGIN_QUORUM_EPOCH, BeginQuorumEpochRequest, _ask_quorum, only_active=False),
    service(ApiKey.END_QUORUM_EPOCH, EndQuorumEpochRequest, _ask_quorum, only_active=False),
    service(ApiKey.DESCRIBE_QUORUM, DescribeQuorumRequest, _describe_quorum, only_active=False, is_forwarded=True),
    service(ApiKey.ENVELOPE, EnvelopeRequest, _envelope, only_active=False),
    service(ApiKey.FETCH_SNAPSHOT, FetchSnapshotRequest, _ask_quorum, only_active=False),
    service(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest, _describe_cluster, only_active=False),
    service(ApiKey.ADD_RAFT_VOTER, AddRaftVoterRequest, _ask_quorum, only_active=False, is_forwarded=True),
    service(ApiKey.REMOVE_RAFT_VOTER, RemoveRaftVoterRequest, _ask_quorum, only_active=False, is_forwarded=True),
    service(ApiKey.UPDATE_RAFT_VOTER, UpdateRaftVoterRequest, _ask_quorum, only_active=False),
    service(ApiKey.CONTROLLER_REGISTRATION, ControllerRegistrationRequest, controller_registration.handle),
)

_METADATA_ROWS = (
    service(ApiKey.ELECT_LEADERS, ElectLeadersRequest, elect_leaders.handle, elect_leaders.refuse, is_forwarded=True),
    service(
        ApiKey.ALTER_PARTITION_REASSIGNMENTS,
        AlterPartitionReassignmentsRequest,
        alter_partition_reassignments.handle,
        is_forwarded=True,
    ),
    service(
        ApiKey.LIST_PARTITION_REASSIGNMENTS,
        ListPartitionReassignmentsRequest,
        list_partition_reassignments.handle,
        is_forwarded=True,
    ),
    service(ApiKey.ALTER_PARTITION, AlterPartitionRequest, alter_partition.handle),
    service(
        ApiKey.UPDATE_FEATURES, UpdateFeaturesRequest, update_features.handle, update_features.refuse, is_forwarded=True
    ),
    service(ApiKey.UNREGISTER_BROKER, UnregisterBrokerRequest, unregister_broker.handle, is_forwarded=True),
    service(ApiKey.ASSIGN_REPLICAS_TO_DIRS, AssignReplicasToDirsRequest, assign_replicas_to_dirs.handle),
)

SERVED_BY_CONTROLLERS: Final[dict[int, ControllerService]] = DECIDED | {
    row.key: row for row in (*_QUORUM_ROWS, *_METADATA_ROWS)
}
"""Everything a controller serves, by API key."""


class ControllerDispatcher:
    """Answers the frames of a controller's connections. Nobody is accepted before `serve_for`."""

    def __init__(self) -> None:
        self._home: ControllerHome | None = None

    def serve_for(self, home: ControllerHome) -> None:
        home.served_apis = advertise(ApiKey(key) for key in SERVED_BY_CONTROLLERS)
        self._home = home

    def serve(self, connection: Connection, frame: memoryview) -> Answer:
        home = self._home
        assert home is not None, "a controller accepts nobody before its parts are there"
        header, position = decode_request_header(frame)
        api_key, version, number = header.request_api_key, header.request_api_version, header.correlation_id
        row, api = SERVED_BY_CONTROLLERS.get(api_key), API_TABLE[api_key]
        if row is None or not api.min_version <= version <= api.stable_max_version:
            if api_key == ApiKey.API_VERSIONS:
                return encode_response_parts(api_key, 0, number, api_versions.refuse_version())
            raise RemoteProtocolError(f"{api.name} version {version} is not served by a controller")
        request = api.request.decode(frame, version, position)
        task = home.scope.spawn(api.name, _answer(home, row, request, ControllerContext(version, connection)))

        def finish() -> Parts | None:
            outcome = task.result()
            if isinstance(outcome, RemoteProtocolError):
                raise outcome
            return encode_response_parts(api_key, version, number, outcome)

        return Waiting(task, finish)


async def _answer(
    home: ControllerHome, row: ControllerService, request: Request, context: ControllerContext
) -> Response | RemoteProtocolError:
    """Errors are values here: one request must not end the tasks of the others."""
    try:
        return await decide(home, row, request, context)
    except RemoteProtocolError as error:
        return error
    except KafkaError as error:
        return row.refuse(request, error, context.version)
    except Exception as error:
        log.error("%s failed", row.key.name, exc_info=error)
        return RemoteProtocolError(f"{row.key.name} failed: {error}")
