"""Requests and responses, one file per API.

Versions, fields and defaults are those of Apache Kafka 4.3.1; names are Kafka's, in snake case.

A message's module is imported when its name is first asked for.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which cannot follow __getattr__
    from streamlog.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest, AddOffsetsToTxnResponse
    from streamlog.wire.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnResponse
    from streamlog.wire.messages.add_raft_voter import AddRaftVoterRequest, AddRaftVoterResponse
    from streamlog.wire.messages.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
    from streamlog.wire.messages.alter_client_quotas import AlterClientQuotasRequest
    from streamlog.wire.messages.alter_client_quotas_response import AlterClientQuotasResponse
    from streamlog.wire.messages.alter_configs import AlterConfigsRequest, AlterConfigsResponse
    from streamlog.wire.messages.alter_partition import AlterPartitionRequest
    from streamlog.wire.messages.alter_partition_reassignments import (
        AlterPartitionReassignmentsRequest,
        AlterPartitionReassignmentsResponse,
    )
    from streamlog.wire.messages.alter_partition_response import AlterPartitionResponse
    from streamlog.wire.messages.alter_replica_log_dirs import AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse
    from streamlog.wire.messages.alter_share_group_offsets import (
        AlterShareGroupOffsetsRequest,
        AlterShareGroupOffsetsResponse,
    )
    from streamlog.wire.messages.alter_user_scram_credentials import (
        AlterUserScramCredentialsRequest,
        AlterUserScramCredentialsResponse,
    )
    from streamlog.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
    from streamlog.wire.messages.assign_replicas_to_dirs import AssignReplicasToDirsRequest
    from streamlog.wire.messages.assign_replicas_to_dirs_response import AssignReplicasToDirsResponse
    from streamlog.wire.messages.begin_quorum_epoch import BeginQuorumEpochRequest
    from streamlog.wire.messages.begin_quorum_epoch_response import BeginQuorumEpochResponse
    from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse
    from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, BrokerRegistrationResponse
    from streamlog.wire.messages.consumer_group_describe import (
        ConsumerGroupDescribeRequest,
        ConsumerGroupDescribeResponse,
    )
    from streamlog.wire.messages.consumer_group_heartbeat import (
        ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatResponse,
    )
    from streamlog.wire.messages.controller_registration import (
        ControllerRegistrationRequest,
        ControllerRegistrationResponse,
    )
    from streamlog.wire.messages.create_acls import CreateAclsRequest, CreateAclsResponse
    from streamlog.wire.messages.create_delegation_token import (
        CreateDelegationTokenRequest,
        CreateDelegationTokenResponse,
    )
    from streamlog.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsResponse
    from streamlog.wire.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse
    from streamlog.wire.messages.delete_acls import DeleteAclsRequest, DeleteAclsResponse
    from streamlog.wire.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
    from streamlog.wire.messages.delete_records import DeleteRecordsRequest, DeleteRecordsResponse
    from streamlog.wire.messages.delete_share_group_offsets import (
        DeleteShareGroupOffsetsRequest,
        DeleteShareGroupOffsetsResponse,
    )
    from streamlog.wire.messages.delete_share_group_state import (
        DeleteShareGroupStateRequest,
        DeleteShareGroupStateResponse,
    )
    from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
    from streamlog.wire.messages.describe_acls import DescribeAclsRequest, DescribeAclsResponse
    from streamlog.wire.messages.describe_client_quotas import DescribeClientQuotasRequest, DescribeClientQuotasResponse
    from streamlog.wire.messages.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
    from streamlog.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResponse
    from streamlog.wire.messages.describe_delegation_token import (
        DescribeDelegationTokenRequest,
        DescribeDelegationTokenResponse,
    )
    from streamlog.wire.messages.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
    from streamlog.wire.messages.describe_log_dirs import DescribeLogDirsRequest, DescribeLogDirsResponse
    from streamlog.wire.messages.describe_producers import DescribeProducersRequest, DescribeProducersResponse
    from streamlog.wire.messages.describe_quorum import DescribeQuorumRequest
    from streamlog.wire.messages.describe_quorum_response import DescribeQuorumResponse
    from streamlog.wire.messages.describe_share_group_offsets import (
        DescribeShareGroupOffsetsRequest,
        DescribeShareGroupOffsetsResponse,
    )
    from streamlog.wire.messages.describe_topic_partitions import (
        DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse,
    )
    from streamlog.wire.messages.describe_transactions import DescribeTransactionsRequest, DescribeTransactionsResponse
    from streamlog.wire.messages.describe_user_scram_credentials import (
        DescribeUserScramCredentialsRequest,
        DescribeUserScramCredentialsResponse,
    )
    from streamlog.wire.messages.elect_leaders import ElectLeadersRequest, ElectLeadersResponse
    from streamlog.wire.messages.end_quorum_epoch import EndQuorumEpochRequest
    from streamlog.wire.messages.end_quorum_epoch_response import EndQuorumEpochResponse
    from streamlog.wire.messages.end_txn import EndTxnRequest, EndTxnResponse
    from streamlog.wire.messages.envelope import EnvelopeRequest, EnvelopeResponse
    from streamlog.wire.messages.expire_delegation_token import (
        ExpireDelegationTokenRequest,
        ExpireDelegationTokenResponse,
    )
    from streamlog.wire.messages.fetch import FetchRequest, FetchResponse
    from streamlog.wire.messages.fetch_snapshot import FetchSnapshotRequest
    from streamlog.wire.messages.fetch_snapshot_response import FetchSnapshotResponse
    from streamlog.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
    from streamlog.wire.messages.get_telemetry_subscriptions import (
        GetTelemetrySubscriptionsRequest,
        GetTelemetrySubscriptionsResponse,
    )
    from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
    from streamlog.wire.messages.incremental_alter_configs import (
        IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse,
    )
    from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
    from streamlog.wire.messages.initialize_share_group_state import (
        InitializeShareGroupStateRequest,
        InitializeShareGroupStateResponse,
    )
    from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
    from streamlog.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse
    from streamlog.wire.messages.list_config_resources import ListConfigResourcesRequest, ListConfigResourcesResponse
    from streamlog.wire.messages.list_groups import ListGroupsRequest, ListGroupsResponse
    from streamlog.wire.messages.list_offsets import ListOffsetsRequest, ListOffsetsResponse
    from streamlog.wire.messages.list_partition_reassignments import (
        ListPartitionReassignmentsRequest,
        ListPartitionReassignmentsResponse,
    )
    from streamlog.wire.messages.list_transactions import ListTransactionsRequest, ListTransactionsResponse
    from streamlog.wire.messages.metadata import MetadataRequest, MetadataResponse
    from streamlog.wire.messages.offset_commit import OffsetCommitRequest, OffsetCommitResponse
    from streamlog.wire.messages.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
    from streamlog.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchResponse
    from streamlog.wire.messages.offset_for_leader_epoch import (
        OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse,
    )
    from streamlog.wire.messages.produce import ProduceRequest, ProduceResponse
    from streamlog.wire.messages.push_telemetry import PushTelemetryRequest, PushTelemetryResponse
    from streamlog.wire.messages.read_share_group_state import ReadShareGroupStateRequest, ReadShareGroupStateResponse
    from streamlog.wire.messages.read_share_group_state_summary import (
        ReadShareGroupStateSummaryRequest,
        ReadShareGroupStateSummaryResponse,
    )
    from streamlog.wire.messages.remove_raft_voter import RemoveRaftVoterRequest, RemoveRaftVoterResponse
    from streamlog.wire.messages.renew_delegation_token import RenewDelegationTokenRequest, RenewDelegationTokenResponse
    from streamlog.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
    from streamlog.wire.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
    from streamlog.wire.messages.share_acknowledge import ShareAcknowledgeRequest, ShareAcknowledgeResponse
    from streamlog.wire.messages.share_fetch import ShareFetchRequest, ShareFetchResponse
    from streamlog.wire.messages.share_group_describe import ShareGroupDescribeRequest, ShareGroupDescribeResponse
    from streamlog.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse
    from streamlog.wire.messages.streams_group_describe import StreamsGroupDescribeRequest, StreamsGroupDescribeResponse
    from streamlog.wire.messages.streams_group_heartbeat import (
        StreamsGroupHeartbeatRequest,
        StreamsGroupHeartbeatResponse,
    )
    from streamlog.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse
    from streamlog.wire.messages.txn_offset_commit import TxnOffsetCommitRequest, TxnOffsetCommitResponse
    from streamlog.wire.messages.unregister_broker import UnregisterBrokerRequest, UnregisterBrokerResponse
    from streamlog.wire.messages.update_features import UpdateFeaturesRequest, UpdateFeaturesResponse
    from streamlog.wire.messages.update_raft_voter import UpdateRaftVoterRequest, UpdateRaftVoterResponse
    from streamlog.wire.messages.vote import VoteRequest
    from streamlog.wire.messages.vote_response import VoteResponse
    from streamlog.wire.messages.write_share_group_state import (
        WriteShareGroupStateRequest,
        WriteShareGroupStateResponse,
    )
    from streamlog.wire.messages.write_txn_markers import WriteTxnMarkersRequest, WriteTxnMarkersResponse

__all__ = [
    "AddOffsetsToTxnRequest",
    "AddOffsetsToTxnResponse",
    "AddPartitionsToTxnRequest",
    "AddPartitionsToTxnResponse",
    "AddRaftVoterRequest",
    "AddRaftVoterResponse",
    "AllocateProducerIdsRequest",
    "AllocateProducerIdsResponse",
    "AlterClientQuotasRequest",
    "AlterClientQuotasResponse",
    "AlterConfigsRequest",
    "AlterConfigsResponse",
    "AlterPartitionReassignmentsRequest",
    "AlterPartitionReassignmentsResponse",
    "AlterPartitionRequest",
    "AlterPartitionResponse",
    "AlterReplicaLogDirsRequest",
    "AlterReplicaLogDirsResponse",
    "AlterShareGroupOffsetsRequest",
    "AlterShareGroupOffsetsResponse",
    "AlterUserScramCredentialsRequest",
    "AlterUserScramCredentialsResponse",
    "ApiVersionsRequest",
    "ApiVersionsResponse",
    "AssignReplicasToDirsRequest",
    "AssignReplicasToDirsResponse",
    "BeginQuorumEpochRequest",
    "BeginQuorumEpochResponse",
    "BrokerHeartbeatRequest",
    "BrokerHeartbeatResponse",
    "BrokerRegistrationRequest",
    "BrokerRegistrationResponse",
    "ConsumerGroupDescribeRequest",
    "ConsumerGroupDescribeResponse",
    "ConsumerGroupHeartbeatRequest",
    "ConsumerGroupHeartbeatResponse",
    "ControllerRegistrationRequest",
    "ControllerRegistrationResponse",
    "CreateAclsRequest",
    "CreateAclsResponse",
    "CreateDelegationTokenRequest",
    "CreateDelegationTokenResponse",
    "CreatePartitionsRequest",
    "CreatePartitionsResponse",
    "CreateTopicsRequest",
    "CreateTopicsResponse",
    "DeleteAclsRequest",
    "DeleteAclsResponse",
    "DeleteGroupsRequest",
    "DeleteGroupsResponse",
    "DeleteRecordsRequest",
    "DeleteRecordsResponse",
    "DeleteShareGroupOffsetsRequest",
    "DeleteShareGroupOffsetsResponse",
    "DeleteShareGroupStateRequest",
    "DeleteShareGroupStateResponse",
    "DeleteTopicsRequest",
    "DeleteTopicsResponse",
    "DescribeAclsRequest",
    "DescribeAclsResponse",
    "DescribeClientQuotasRequest",
    "DescribeClientQuotasResponse",
    "DescribeClusterRequest",
    "DescribeClusterResponse",
    "DescribeConfigsRequest",
    "DescribeConfigsResponse",
    "DescribeDelegationTokenRequest",
    "DescribeDelegationTokenResponse",
    "DescribeGroupsRequest",
    "DescribeGroupsResponse",
    "DescribeLogDirsRequest",
    "DescribeLogDirsResponse",
    "DescribeProducersRequest",
    "DescribeProducersResponse",
    "DescribeQuorumRequest",
    "DescribeQuorumResponse",
    "DescribeShareGroupOffsetsRequest",
    "DescribeShareGroupOffsetsResponse",
    "DescribeTopicPartitionsRequest",
    "DescribeTopicPartitionsResponse",
    "DescribeTransactionsRequest",
    "DescribeTransactionsResponse",
    "DescribeUserScramCredentialsRequest",
    "DescribeUserScramCredentialsResponse",
    "ElectLeadersRequest",
    "ElectLeadersResponse",
    "EndQuorumEpochRequest",
    "EndQuorumEpochResponse",
    "EndTxnRequest",
    "EndTxnResponse",
    "EnvelopeRequest",
    "EnvelopeResponse",
    "ExpireDelegationTokenRequest",
    "ExpireDelegationTokenResponse",
    "FetchRequest",
    "FetchResponse",
    "FetchSnapshotRequest",
    "FetchSnapshotResponse",
    "FindCoordinatorRequest",
    "FindCoordinatorResponse",
    "GetTelemetrySubscriptionsRequest",
    "GetTelemetrySubscriptionsResponse",
    "HeartbeatRequest",
    "HeartbeatResponse",
    "IncrementalAlterConfigsRequest",
    "IncrementalAlterConfigsResponse",
    "InitProducerIdRequest",
    "InitProducerIdResponse",
    "InitializeShareGroupStateRequest",
    "InitializeShareGroupStateResponse",
    "JoinGroupRequest",
    "JoinGroupResponse",
    "LeaveGroupRequest",
    "LeaveGroupResponse",
    "ListConfigResourcesRequest",
    "ListConfigResourcesResponse",
    "ListGroupsRequest",
    "ListGroupsResponse",
    "ListOffsetsRequest",
    "ListOffsetsResponse",
    "ListPartitionReassignmentsRequest",
    "ListPartitionReassignmentsResponse",
    "ListTransactionsRequest",
    "ListTransactionsResponse",
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
    "PushTelemetryRequest",
    "PushTelemetryResponse",
    "ReadShareGroupStateRequest",
    "ReadShareGroupStateResponse",
    "ReadShareGroupStateSummaryRequest",
    "ReadShareGroupStateSummaryResponse",
    "RemoveRaftVoterRequest",
    "RemoveRaftVoterResponse",
    "RenewDelegationTokenRequest",
    "RenewDelegationTokenResponse",
    "SaslAuthenticateRequest",
    "SaslAuthenticateResponse",
    "SaslHandshakeRequest",
    "SaslHandshakeResponse",
    "ShareAcknowledgeRequest",
    "ShareAcknowledgeResponse",
    "ShareFetchRequest",
    "ShareFetchResponse",
    "ShareGroupDescribeRequest",
    "ShareGroupDescribeResponse",
    "ShareGroupHeartbeatRequest",
    "ShareGroupHeartbeatResponse",
    "StreamsGroupDescribeRequest",
    "StreamsGroupDescribeResponse",
    "StreamsGroupHeartbeatRequest",
    "StreamsGroupHeartbeatResponse",
    "SyncGroupRequest",
    "SyncGroupResponse",
    "TxnOffsetCommitRequest",
    "TxnOffsetCommitResponse",
    "UnregisterBrokerRequest",
    "UnregisterBrokerResponse",
    "UpdateFeaturesRequest",
    "UpdateFeaturesResponse",
    "UpdateRaftVoterRequest",
    "UpdateRaftVoterResponse",
    "VoteRequest",
    "VoteResponse",
    "WriteShareGroupStateRequest",
    "WriteShareGroupStateResponse",
    "WriteTxnMarkersRequest",
    "WriteTxnMarkersResponse",
]

_RESPONSES_APART = (
    "AlterClientQuotasResponse",
    "AlterPartitionResponse",
    "AssignReplicasToDirsResponse",
    "BeginQuorumEpochResponse",
    "DescribeQuorumResponse",
    "EndQuorumEpochResponse",
    "FetchSnapshotResponse",
    "VoteResponse",
)
"""Their structs have the names of the request's, so they have a module of their own."""

_NAMES = frozenset(__all__)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    stem = name if name in _RESPONSES_APART else name.removesuffix("Request").removesuffix("Response")
    module = re.sub("(?<=[a-z])(?=[A-Z])", "_", stem).lower()
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
