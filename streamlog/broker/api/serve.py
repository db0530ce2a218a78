"""From a frame to its answer: header, version, handler, response.

What is not in `SERVED` does not exist: ApiVersions advertises what is in it and nothing else, and a request for
anything else closes the connection, as in Kafka.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import NamedTuple, TypeAlias, TypeVar

from streamlog.broker.api import (
    api_versions,
    delete_groups,
    delete_records,
    describe_cluster,
    describe_configs,
    describe_groups,
    describe_log_dirs,
    describe_topic_partitions,
    fetch,
    find_coordinator,
    forward,
    heartbeat,
    init_producer_id,
    join_group,
    large,
    leave_group,
    list_groups,
    list_offsets,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    offset_for_leader_epoch,
    produce,
    sync_group,
)
from streamlog.broker.api.decided import TellsErrors
from streamlog.broker.broker import Broker
from streamlog.broker.connection import Answer, Connection, Parts, Waiting
from streamlog.broker.context import Deferred, Exclusive, Large, RequestContext
from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.frames import decode_request_header, encode_response_parts
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    AlterConfigsRequest,
    ApiVersionsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteGroupsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeGroupsRequest,
    DescribeLogDirsRequest,
    DescribeTopicPartitionsRequest,
    FetchRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    IncrementalAlterConfigsRequest,
    InitProducerIdRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListGroupsRequest,
    ListOffsetsRequest,
    MetadataRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    OffsetForLeaderEpochRequest,
    ProduceRequest,
    SyncGroupRequest,
)

log = logging.getLogger(__name__)

Q = TypeVar("Q", bound=Request)
Reply: TypeAlias = Response | Awaitable[Response | None] | Deferred | Exclusive | Large | None
Outcome: TypeAlias = Response | RemoteProtocolError | None
"""A reply that is there: a response, a reason to close the connection, or nothing to say."""


class Service(NamedTuple):
    """One API as it is served."""

    key: ApiKey
    min_version: int
    max_version: int
    handle: Callable[[Broker, RequestContext, memoryview, int], Reply]
    """Decodes the request's body, which begins at the given position, and handles it."""
    decode: Callable[[int, memoryview, int], Request]
    """The first half of it; takes the version."""
    handle_decoded: Callable[[Broker, RequestContext, Request], Reply]
    """The second half."""
    response: Callable[[], Response]
    """An empty one."""


def _service(key: ApiKey, request: type[Q], handle: Callable[[Broker, RequestContext, Q], Reply]) -> Service:
    api = API_TABLE[key]
    assert api.request is request, f"{key!r} is served by the handler of another API"
    decoders = request.decoders

    def decode_and_handle(broker: Broker, context: RequestContext, frame: memoryview, position: int) -> Reply:
        message: Q
        message, _ = decoders[context.version](frame, position)
        return handle(broker, context, message)

    def decode(version: int, frame: memoryview, position: int) -> Request:
        message: Q
        message, _ = decoders[version](frame, position)
        return message

    def handle_decoded(broker: Broker, context: RequestContext, message: Request) -> Reply:
        assert isinstance(message, request), f"a {type(message).__name__} came to {key!r}"
        return handle(broker, context, message)

    return Service(
        key, api.min_version, api.stable_max_version, decode_and_handle, decode, handle_decoded, api.response
    )


def _forwarded(key: ApiKey) -> Service:
    """One that the active controller answers. Its messages are imported when somebody asks for the first time."""
    api = API_TABLE[key]

    def decode_and_handle(broker: Broker, context: RequestContext, frame: memoryview, position: int) -> Reply:
        return forward.handle(broker, context, api.request.decode(frame, context.version, position))

    def decode(version: int, frame: memoryview, position: int) -> Request:
        return api.request.decode(frame, version, position)

    def respond() -> Response:
        return api.response()

    return Service(key, api.min_version, api.stable_max_version, decode_and_handle, decode, forward.handle, respond)


SERVED: dict[int, Service] = {
    service.key: service
    for service in (
        _service(ApiKey.PRODUCE, ProduceRequest, produce.handle),
        _service(ApiKey.FETCH, FetchRequest, fetch.handle),
        _service(ApiKey.LIST_OFFSETS, ListOffsetsRequest, list_offsets.handle),
        _service(ApiKey.METADATA, MetadataRequest, metadata.handle),
        _service(ApiKey.OFFSET_COMMIT, OffsetCommitRequest, offset_commit.handle),
        _service(ApiKey.OFFSET_FETCH, OffsetFetchRequest, offset_fetch.handle),
        _service(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest, find_coordinator.handle),
        _service(ApiKey.JOIN_GROUP, JoinGroupRequest, join_group.handle),
        _service(ApiKey.HEARTBEAT, HeartbeatRequest, heartbeat.handle),
        _service(ApiKey.LEAVE_GROUP, LeaveGroupRequest, leave_group.handle),
        _service(ApiKey.SYNC_GROUP, SyncGroupRequest, sync_group.handle),
        _service(ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest, describe_groups.handle),
        _service(ApiKey.LIST_GROUPS, ListGroupsRequest, list_groups.handle),
        _service(ApiKey.API_VERSIONS, ApiVersionsRequest, api_versions.handle),
        _service(ApiKey.CREATE_TOPICS, CreateTopicsRequest, forward.handle),
        _service(ApiKey.DELETE_TOPICS, DeleteTopicsRequest, forward.handle),
        _service(ApiKey.DELETE_RECORDS, DeleteRecordsRequest, delete_records.handle),
        _service(ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest, init_producer_id.handle),
        _service(ApiKey.OFFSET_FOR_LEADER_EPOCH, OffsetForLeaderEpochRequest, offset_for_leader_epoch.handle),
        _service(ApiKey.DESCRIBE_CONFIGS, DescribeConfigsRequest, describe_configs.handle),
        _service(ApiKey.ALTER_CONFIGS, AlterConfigsRequest, forward.handle),
        _service(ApiKey.CREATE_PARTITIONS, CreatePartitionsRequest, forward.handle),
        _service(ApiKey.DELETE_GROUPS, DeleteGroupsRequest, delete_groups.handle),
        _service(ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest, forward.handle),
        _service(ApiKey.OFFSET_DELETE, OffsetDeleteRequest, offset_delete.handle),
        _service(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest, describe_cluster.handle),
        _service(ApiKey.DESCRIBE_LOG_DIRS, DescribeLogDirsRequest, describe_log_dirs.handle),
        _service(ApiKey.DESCRIBE_TOPIC_PARTITIONS, DescribeTopicPartitionsRequest, describe_topic_partitions.handle),
        _forwarded(ApiKey.ELECT_LEADERS),
        _forwarded(ApiKey.ALTER_PARTITION_REASSIGNMENTS),
        _forwarded(ApiKey.LIST_PARTITION_REASSIGNMENTS),
        _forwarded(ApiKey.DESCRIBE_QUORUM),
        _forwarded(ApiKey.UPDATE_FEATURES),
        _forwarded(ApiKey.UNREGISTER_BROKER),
        _forwarded(ApiKey.ADD_RAFT_VOTER),
        _forwarded(ApiKey.REMOVE_RAFT_VOTER),
    )
}
"""Everything that is served, by API key."""


class ApiDispatcher:
    """Answers the frames of all connections. Owns the tasks of requests that wait."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def serve(self, connection: Connection, frame: memoryview) -> Answer:
        header, position = decode_request_header(frame)
        api_key, version = header.request_api_key, header.request_api_version
        service = SERVED.get(api_key)
        if service is None or not service.min_version <= version <= service.max_version:
            if api_key == ApiKey.API_VERSIONS:
                # KIP-511: whatever version was asked for, the answer is one that every client can read.
                return encode_response_parts(api_key, 0, header.correlation_id, api_versions.refuse_version())
            raise RemoteProtocolError(f"{API_TABLE[api_key].name} version {version} is not served")
        context = RequestContext(api_key, version, header.correlation_id, header.client_id or "", connection)
        is_large = len(frame) >= large.LARGE_FRAME_BYTES
        if is_large and api_key != ApiKey.PRODUCE:
            work = self._serve_large(service, context, bytes(frame), position)
            finished = self._broker.scope.spawn(service.key.name, work)
            return Waiting(finished, lambda: _raised(finished.result()))
        try:
            if is_large:
                message = service.decode(version, frame, position)
                large.check_size(api_key, message)
                reply = service.handle_decoded(self._broker, context, message)
            else:
                reply = service.handle(self._broker, context, frame, position)
        except Exception as error:
            return _encode(context, _failed(service, context, error))
        if isinstance(reply, Deferred):
            finish = reply.finish
            return Waiting(reply.done, lambda: _encode(context, finish()))
        if reply is None or isinstance(reply, Response):
            return _encode(context, reply)
        if isinstance(reply, asyncio.Future):
            future: asyncio.Future[Response | None] = reply
            return Waiting(future, lambda: _encode(context, _outcome_of(service, context, future)))
        if isinstance(reply, Exclusive):
            alone = self._broker.scope.spawn(service.key.name, _settle(service, context, reply.work))
            return Waiting(asyncio.shield(alone), lambda: _encode(context, alone.result()), exclusive=True)
        if isinstance(reply, Large):
            encoded = self._broker.scope.spawn(service.key.name, self._serve_in_turns(service, context, reply.work))
            return Waiting(encoded, lambda: _raised(encoded.result()))
        task = self._broker.scope.spawn(service.key.name, _settle(service, context, reply))
        if isinstance(reply, Coroutine):
            task.add_done_callback(lambda _: reply.close())  # where the task was cancelled before it began
        return Waiting(task, lambda: _encode(context, task.result()))

    async def _serve_large(
        self, service: Service, context: RequestContext, frame: bytes, position: int
    ) -> Parts | RemoteProtocolError | None:
        """Decode and encode in a thread, and handle slice by slice (large.py)."""
        run = self._broker.env.offload.run
        outcome: Outcome
        try:
            message = await run(lambda: service.decode(context.version, memoryview(frame), position))
            outcome = await self._answer_in_slices(service, context, message)
        except Exception as error:
            outcome = _failed(service, context, error)
        return await self._encode_in_thread(context, outcome)

    async def _serve_in_turns(
        self, service: Service, context: RequestContext, work: Awaitable[Response | None]
    ) -> Parts | RemoteProtocolError | None:
        return await self._encode_in_thread(context, await _settle(service, context, work))

    async def _encode_in_thread(self, context: RequestContext, outcome: Outcome) -> Parts | RemoteProtocolError | None:
        try:
            return await self._broker.env.offload.run(lambda: _encode(context, outcome))
        except RemoteProtocolError as error:
            return error

    async def _answer_in_slices(self, service: Service, context: RequestContext, message: Request) -> Response | None:
        slicing = large.SLICINGS.get(service.key)
        if slicing is None:
            large.check_size(service.key, message)
            return await _answered(service.handle_decoded(self._broker, context, message))
        whole: Response | None = None
        for request, continues in large.cut(message, slicing):
            answer = await _answered(service.handle_decoded(self._broker, context, request))
            assert answer is not None, f"{service.key!r} is always answered"
            if whole is None:
                whole = answer
            else:
                large.join(whole, answer, slicing, continues)
            await asyncio.sleep(large.PAUSE_S)
        return whole


async def _answered(reply: Reply) -> Response | None:
    assert not isinstance(reply, Deferred | Exclusive), "only Produce defers, and it is never cut"
    if isinstance(reply, Large):
        return await reply.work
    return reply if reply is None or isinstance(reply, Response) else await reply


def _raised(result: Parts | RemoteProtocolError | None) -> Parts | None:
    if isinstance(result, RemoteProtocolError):
        raise result
    return result


async def _settle(service: Service, context: RequestContext, reply: Awaitable[Response | None]) -> Outcome:
    """Wait for a reply. Errors are values here: one request must not end the tasks of the others."""
    try:
        return await reply
    except Exception as error:
        return _failed(service, context, error)


def _outcome_of(service: Service, context: RequestContext, future: asyncio.Future[Response | None]) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return _failed(service, context, error)
    raise error


def _failed(service: Service, context: RequestContext, error: Exception) -> Outcome:
    """What a handler's exception becomes."""
    if isinstance(error, RemoteProtocolError):
        return error
    if isinstance(error, KafkaError):
        code = error.code
    else:
        code = ErrorCode.UNKNOWN_SERVER_ERROR
        log.error("%s version %d of %s failed", service.key.name, context.version, context.client_host, exc_info=error)
    response = service.response()
    if not isinstance(response, TellsErrors):
        return RemoteProtocolError(f"{service.key.name} failed with {code.name}, and its response cannot say so")
    response.error_code = int(code)
    return response


def _encode(context: RequestContext, outcome: Outcome) -> Parts | None:
    if outcome is None:
        return None
    if isinstance(outcome, RemoteProtocolError):
        raise outcome
    try:
        return encode_response_parts(context.api_key, context.version, context.correlation_id, outcome)
    except LocalProtocolError as error:
        log.error("%s does not fit version %d: %s", type(outcome).__name__, context.version, error)
        raise RemoteProtocolError("the response does not fit the version that was asked for") from error
