"""Requests and responses, one file per API.

Versions, fields and defaults are those of Apache Kafka 4.3.1; names are Kafka's, in snake case.
"""

from streamlog.wire.messages.alter_configs import AlterConfigsRequest, AlterConfigsResponse
from streamlog.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from streamlog.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsResponse
from streamlog.wire.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse
from streamlog.wire.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from streamlog.wire.messages.delete_records import DeleteRecordsRequest, DeleteRecordsResponse
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from streamlog.wire.messages.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
from streamlog.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResponse
from streamlog.wire.messages.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from streamlog.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
)
from streamlog.wire.messages.fetch import FetchRequest, FetchResponse
from streamlog.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlog.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
from streamlog.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse
from streamlog.wire.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from streamlog.wire.messages.list_offsets import ListOffsetsRequest, ListOffsetsResponse
from streamlog.wire.messages.metadata import MetadataRequest, MetadataResponse
from streamlog.wire.messages.offset_commit import OffsetCommitRequest, OffsetCommitResponse
from streamlog.wire.messages.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from streamlog.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from streamlog.wire.messages.offset_for_leader_epoch import OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse
from streamlog.wire.messages.produce import ProduceRequest, ProduceResponse
from streamlog.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

__all__ = [
    "AlterConfigsRequest",
    "AlterConfigsResponse",
    "ApiVersionsRequest",
    "ApiVersionsResponse",
    "CreatePartitionsRequest",
    "CreatePartitionsResponse",
    "CreateTopicsRequest",
    "CreateTopicsResponse",
    "DeleteGroupsRequest",
    "DeleteGroupsResponse",
    "DeleteRecordsRequest",
    "DeleteRecordsResponse",
    "DeleteTopicsRequest",
    "DeleteTopicsResponse",
    "DescribeClusterRequest",
    "DescribeClusterResponse",
    "DescribeConfigsRequest",
    "DescribeConfigsResponse",
    "DescribeGroupsRequest",
    "DescribeGroupsResponse",
    "DescribeTopicPartitionsRequest",
    "DescribeTopicPartitionsResponse",
    "FetchRequest",
    "FetchResponse",
    "FindCoordinatorRequest",
    "FindCoordinatorResponse",
    "HeartbeatRequest",
    "HeartbeatResponse",
    "IncrementalAlterConfigsRequest",
    "IncrementalAlterConfigsResponse",
    "InitProducerIdRequest",
    "InitProducerIdResponse",
    "JoinGroupRequest",
    "JoinGroupResponse",
    "LeaveGroupRequest",
    "LeaveGroupResponse",
    "ListGroupsRequest",
    "ListGroupsResponse",
    "ListOffsetsRequest",
    "ListOffsetsResponse",
    "MetadataRequest",
    "MetadataResponse",
    "OffsetCommitRequest",
    "OffsetCommitResponse",
    "OffsetDeleteRequest",
    "OffsetDeleteResponse",
    "OffsetFetchRequest",
    "OffsetFetchResponse",
    "OffsetForLeaderEpochRequest",
    "OffsetForLeaderEpochResponse",
    "ProduceRequest",
    "ProduceResponse",
    "SyncGroupRequest",
    "SyncGroupResponse",
]
