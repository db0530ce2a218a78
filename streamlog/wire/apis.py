"""The table of APIs: key, messages, versions. Nothing is served or sent that does not stand here."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    AlterConfigsRequest,
    AlterConfigsResponse,
    ApiVersionsRequest,
    ApiVersionsResponse,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    FetchRequest,
    FetchResponse,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    ListGroupsRequest,
    ListGroupsResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    MetadataRequest,
    MetadataResponse,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    ProduceRequest,
    ProduceResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)


class ApiKey(IntEnum):
    """Kafka's numbers."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    INCREMENTAL_ALTER_CONFIGS = 44
    OFFSET_DELETE = 47
    DESCRIBE_CLUSTER = 60
    DESCRIBE_TOPIC_PARTITIONS = 75


class Api(NamedTuple):
    """One API. Both messages have the same versions, from `min_version` to `max_version`, both included.

    A version above `stable_max_version` is understood but not advertised: its meaning may still change.
    """

    key: ApiKey
    name: str
    request: type[Request]
    response: type[Response]
    min_version: int
    max_version: int
    stable_max_version: int
    flexible_since: int


def _api(key: ApiKey, request: type[Request], response: type[Response], stable_max_version: int | None = None) -> Api:
    versions = (request.min_version, request.max_version, request.flexible_since)
    assert versions == (response.min_version, response.max_version, response.flexible_since), f"{key!r} disagrees"
    assert request.api_key == response.api_key == key, f"{key!r} stands before the messages of another API"
    stable = request.max_version if stable_max_version is None else stable_max_version
    name = request.__name__.removesuffix("Request")
    return Api(key, name, request, response, request.min_version, request.max_version, stable, request.flexible_since)


API_TABLE: dict[int, Api] = {
    api.key: api
    for api in (
        _api(ApiKey.PRODUCE, ProduceRequest, ProduceResponse),
        _api(ApiKey.FETCH, FetchRequest, FetchResponse),
        _api(ApiKey.LIST_OFFSETS, ListOffsetsRequest, ListOffsetsResponse),
        _api(ApiKey.METADATA, MetadataRequest, MetadataResponse),
        _api(ApiKey.OFFSET_COMMIT, OffsetCommitRequest, OffsetCommitResponse),
        _api(ApiKey.OFFSET_FETCH, OffsetFetchRequest, OffsetFetchResponse),
        _api(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest, FindCoordinatorResponse),
        _api(ApiKey.JOIN_GROUP, JoinGroupRequest, JoinGroupResponse),
        _api(ApiKey.HEARTBEAT, HeartbeatRequest, HeartbeatResponse),
        _api(ApiKey.LEAVE_GROUP, LeaveGroupRequest, LeaveGroupResponse),
        _api(ApiKey.SYNC_GROUP, SyncGroupRequest, SyncGroupResponse),
        _api(ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest, DescribeGroupsResponse),
        _api(ApiKey.LIST_GROUPS, ListGroupsRequest, ListGroupsResponse),
        _api(ApiKey.API_VERSIONS, ApiVersionsRequest, ApiVersionsResponse),
        _api(ApiKey.CREATE_TOPICS, CreateTopicsRequest, CreateTopicsResponse),
        _api(ApiKey.DELETE_TOPICS, DeleteTopicsRequest, DeleteTopicsResponse),
        _api(ApiKey.DELETE_RECORDS, DeleteRecordsRequest, DeleteRecordsResponse),
        _api(ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest, InitProducerIdResponse, stable_max_version=5),
        _api(ApiKey.OFFSET_FOR_LEADER_EPOCH, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse),
        _api(ApiKey.DESCRIBE_CONFIGS, DescribeConfigsRequest, DescribeConfigsResponse),
        _api(ApiKey.ALTER_CONFIGS, AlterConfigsRequest, AlterConfigsResponse),
        _api(ApiKey.CREATE_PARTITIONS, CreatePartitionsRequest, CreatePartitionsResponse),
        _api(ApiKey.DELETE_GROUPS, DeleteGroupsRequest, DeleteGroupsResponse),
        _api(ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse),
        _api(ApiKey.OFFSET_DELETE, OffsetDeleteRequest, OffsetDeleteResponse),
        _api(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest, DescribeClusterResponse),
        _api(ApiKey.DESCRIBE_TOPIC_PARTITIONS, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse),
    )
}


def request_header_version(api_key: int, version: int) -> int:
    """Header version 2 has tagged fields and goes with the flexible versions of an API, which must be in the table."""
    return 2 if version >= API_TABLE[api_key].flexible_since else 1


def response_header_version(api_key: int, version: int) -> int:
    """One lower than the request's; but ApiVersions keeps 0, as its reader may not know the version (KIP-511)."""
    return 1 if version >= API_TABLE[api_key].flexible_since and api_key != ApiKey.API_VERSIONS else 0
