"""One request for each API and version that a broker with a topic and a consumer group can do something with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.add_raft_voter import AddRaftVoterRequest, Listener
from streamlog.wire.messages.alter_configs import AlterableConfig, AlterConfigsRequest, AlterConfigsResource
from streamlog.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from streamlog.wire.messages.api_versions import ApiVersionsRequest
from streamlog.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from streamlog.wire.messages.delete_groups import DeleteGroupsRequest
from streamlog.wire.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from streamlog.wire.messages.describe_cluster import DescribeClusterRequest
from streamlog.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from streamlog.wire.messages.describe_groups import DescribeGroupsRequest
from streamlog.wire.messages.describe_log_dirs import DescribableLogDirTopic, DescribeLogDirsRequest
from streamlog.wire.messages.describe_quorum import DescribeQuorumRequest
from streamlog.wire.messages.describe_quorum import PartitionData as QuorumPartition
from streamlog.wire.messages.describe_quorum import TopicData as QuorumTopic
from streamlog.wire.messages.describe_topic_partitions import DescribeTopicPartitionsRequest, TopicRequest
from streamlog.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from streamlog.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from streamlog.wire.messages.heartbeat import HeartbeatRequest
from streamlog.wire.messages.incremental_alter_configs import AlterableConfig as IncrementalConfig
from streamlog.wire.messages.incremental_alter_configs import AlterConfigsResource as IncrementalResource
from streamlog.wire.messages.incremental_alter_configs import IncrementalAlterConfigsRequest
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from streamlog.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from streamlog.wire.messages.list_groups import ListGroupsRequest
from streamlog.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from streamlog.wire.messages.list_partition_reassignments import ListPartitionReassignmentsRequest
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from streamlog.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from streamlog.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from streamlog.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData
from streamlog.wire.messages.remove_raft_voter import RemoveRaftVoterRequest
from streamlog.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse
from streamlog.wire.messages.unregister_broker import UnregisterBrokerRequest
from streamlog.wire.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from streamlog.wire.schema import Struct
from tests.broker.batches import new_batch
from tests.broker.running import RawClient

TOPIC = "t"
GROUP = "g"
OFFSET = 7
ABSENT = 99
"""A node that is not there."""

REFUSED = {
    ApiKey.ELECT_LEADERS: {ErrorCode.NONE, ErrorCode.ELECTION_NOT_NEEDED},
    ApiKey.UNREGISTER_BROKER: {ErrorCode.BROKER_ID_NOT_REGISTERED},
    ApiKey.ADD_RAFT_VOTER: {ErrorCode.REQUEST_TIMED_OUT},
    ApiKey.REMOVE_RAFT_VOTER: {ErrorCode.VOTER_NOT_FOUND},
}
"""What a cluster of one node cannot do, and the codes that it says so with."""


@dataclass
class Situation:
    """A broker with a topic, some records, and a group with one member that has committed."""

    client: RawClient
    topic_id: UUID
    cluster_id: str
    member_id: str = ""
    generation_id: int = -1

    async def prepare(self) -> None:
        await self._produce()
        member = await self.join(GROUP, 9)
        self.member_id, self.generation_id = member.member_id, member.generation_id
        mine = [SyncGroupRequestAssignment(member_id=self.member_id, assignment=b"everything")]
        sync = SyncGroupRequest(
            group_id=GROUP, generation_id=self.generation_id, member_id=self.member_id, assignments=mine
        )
        synced = await self.client.ask(sync, 4, SyncGroupResponse)
        assert isinstance(synced, SyncGroupResponse)
        assert synced.error_code == 0
        await self.commit(GROUP, self.member_id, self.generation_id)

    async def _produce(self) -> None:
        response = await self.client.ask(self.request(ApiKey.PRODUCE, 12), 12, ProduceResponse)
        assert set(error_codes(response)) == {0}

    async def join(self, group_id: str, version: int) -> JoinGroupResponse:
        """The answer to a join that is let in: since version 4 a member is given its id first."""
        found = FindCoordinatorRequest(coordinator_keys=[group_id])
        response: Response = await self.client.ask(found, 4, FindCoordinatorResponse)
        assert set(error_codes(response)) == {0}, response
        member_id = ""
        while True:
            response = await self.client.ask(self.joining(group_id, member_id), version, JoinGroupResponse)
            assert isinstance(response, JoinGroupResponse)
            if response.error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                continue
            if response.error_code != ErrorCode.MEMBER_ID_REQUIRED:
                return response
            assert version >= 4
            member_id = response.member_id

    def joining(self, group_id: str, member_id: str) -> JoinGroupRequest:
        return JoinGroupRequest(
            group_id=group_id,
            session_timeout_ms=30_000,
            rebalance_timeout_ms=30_000,
            member_id=member_id,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
        )

    async def commit(self, group_id: str, member_id: str = "", generation_id: int = -1) -> None:
        request = self.committing(group_id, member_id, generation_id)
        response = await self.client.ask(request, 9, OffsetCommitResponse)
        while ErrorCode.COORDINATOR_LOAD_IN_PROGRESS in error_codes(response):  # a group of another partition
            response = await self.client.ask(request, 9, OffsetCommitResponse)
        assert set(error_codes(response)) == {0}, response

    def committing(self, group_id: str, member_id: str, generation_id: int) -> OffsetCommitRequest:
        offsets = [OffsetCommitRequestPartition(partition_index=0, committed_offset=OFFSET)]
        topics = [OffsetCommitRequestTopic(name=TOPIC, topic_id=self.topic_id, partitions=offsets)]
        return OffsetCommitRequest(
            group_id=group_id, generation_id_or_member_epoch=generation_id, member_id=member_id, topics=topics
        )

    async def ask(self, key: ApiKey, version: int, response: type[Response]) -> Response:
        """Ask so that the broker can do what is asked, whatever was done before."""
        if key is ApiKey.JOIN_GROUP:
            return await self.join(f"join-{version}", version)
        if key is ApiKey.LEAVE_GROUP:
            member = await self.join(f"leave-{version}", 9)
            leaving = LeaveGroupRequest(
                group_id=f"leave-{version}",
                member_id="" if version >= 3 else member.member_id,
                members=[MemberIdentity(member_id=member.member_id)] if version >= 3 else [],
            )
            return await self.client.ask(leaving, version, response)
        if key in (ApiKey.DELETE_GROUPS, ApiKey.OFFSET_DELETE):
            await self.commit(f"empty-{version}")
        return await self.client.ask(self.request(key, version), version, response)

    def request(self, key: ApiKey, version: int) -> Request:
        match key:
            case ApiKey.PRODUCE:
                data = [PartitionProduceData(index=0, records=new_batch(b"v"))]
                topics = [TopicProduceData(name=TOPIC, topic_id=self.topic_id, partition_data=data)]
                return ProduceRequest(acks=-1, timeout_ms=1000, topic_data=topics)
            case ApiKey.FETCH:
                asked = [FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)]
                return FetchRequest(topics=[FetchTopic(topic=TOPIC, topic_id=self.topic_id, partitions=asked)])
            case ApiKey.LIST_OFFSETS:
                wanted = [ListOffsetsPartition(partition_index=0, timestamp=-1)]
                return ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=TOPIC, partitions=wanted)])
            case ApiKey.METADATA:
                return MetadataRequest(topics=[MetadataRequestTopic(name=TOPIC)])
            case ApiKey.OFFSET_COMMIT:
                return self.committing(GROUP, self.member_id, self.generation_id)
            case ApiKey.OFFSET_FETCH if version >= 8:
                by_id = [OffsetFetchRequestTopics(name=TOPIC, topic_id=self.topic_id, partition_indexes=[0])]
                return OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=GROUP, topics=by_id)])
            case ApiKey.OFFSET_FETCH:
                return OffsetFetchRequest(
                    group_id=GROUP, topics=[OffsetFetchRequestTopic(name=TOPIC, partition_indexes=[0])]
                )
            case ApiKey.FIND_COORDINATOR if version >= 4:
                return FindCoordinatorRequest(coordinator_keys=[GROUP])
            case ApiKey.FIND_COORDINATOR:
                return FindCoordinatorRequest(key=GROUP)
            case ApiKey.HEARTBEAT:
                return HeartbeatRequest(group_id=GROUP, member_id=self.member_id, generation_id=self.generation_id)
            case ApiKey.SYNC_GROUP:
                return SyncGroupRequest(
                    group_id=GROUP,
                    member_id=self.member_id,
                    generation_id=self.generation_id,
                    protocol_type="consumer",
                    protocol_name="range",
                )
            case ApiKey.DESCRIBE_GROUPS:
                return DescribeGroupsRequest(groups=[GROUP])
            case ApiKey.LIST_GROUPS:
                return ListGroupsRequest()
            case ApiKey.DELETE_GROUPS:
                return DeleteGroupsRequest(groups_names=[f"empty-{version}"])
            case ApiKey.OFFSET_DELETE:
                parts = [OffsetDeleteRequestPartition(partition_index=0)]
                return OffsetDeleteRequest(
                    group_id=f"empty-{version}", topics=[OffsetDeleteRequestTopic(name=TOPIC, partitions=parts)]
                )
            case ApiKey.API_VERSIONS:
                return ApiVersionsRequest(client_software_name="test", client_software_version="1.0")
            case ApiKey.CREATE_TOPICS:
                new = CreatableTopic(name=f"new-{version}", num_partitions=1, replication_factor=1)
                return CreateTopicsRequest(topics=[new], timeout_ms=5000)
            case ApiKey.DELETE_TOPICS if version >= 6:
                return DeleteTopicsRequest(topics=[DeleteTopicState(name=f"old-{version}")], timeout_ms=5000)
            case ApiKey.DELETE_TOPICS:
                return DeleteTopicsRequest(topic_names=[f"old-{version}"], timeout_ms=5000)
            case ApiKey.DELETE_RECORDS:
                before = [DeleteRecordsPartition(partition_index=0, offset=1)]
                return DeleteRecordsRequest(topics=[DeleteRecordsTopic(name=TOPIC, partitions=before)], timeout_ms=5000)
            case ApiKey.INIT_PRODUCER_ID:
                return InitProducerIdRequest(transactional_id=None)
            case ApiKey.OFFSET_FOR_LEADER_EPOCH:
                epochs = [OffsetForLeaderPartition(partition=0, leader_epoch=0)]
                return OffsetForLeaderEpochRequest(
                    replica_id=-1, topics=[OffsetForLeaderTopic(topic=TOPIC, partitions=epochs)]
                )
            case ApiKey.DESCRIBE_CONFIGS:
                return DescribeConfigsRequest(
                    resources=[
                        DescribeConfigsResource(
                            resource_type=2, resource_name=TOPIC, configuration_keys=["retention.ms"]
                        )
                    ]
                )
            case ApiKey.ALTER_CONFIGS:
                configs = [AlterableConfig(name="retention.ms", value="1000")]
                return AlterConfigsRequest(
                    resources=[AlterConfigsResource(resource_type=2, resource_name=TOPIC, configs=configs)]
                )
            case ApiKey.INCREMENTAL_ALTER_CONFIGS:
                changes = [IncrementalConfig(name="retention.ms", config_operation=0, value="1000")]
                return IncrementalAlterConfigsRequest(
                    resources=[IncrementalResource(resource_type=2, resource_name=TOPIC, configs=changes)]
                )
            case ApiKey.CREATE_PARTITIONS:
                more = CreatePartitionsTopic(name=TOPIC, count=version + 2, assignments=None)
                return CreatePartitionsRequest(topics=[more], timeout_ms=5000)
            case ApiKey.DESCRIBE_CLUSTER:
                return DescribeClusterRequest()
            case ApiKey.DESCRIBE_LOG_DIRS:
                return DescribeLogDirsRequest(topics=[DescribableLogDirTopic(topic=TOPIC, partitions=[0])])
            case ApiKey.DESCRIBE_TOPIC_PARTITIONS:
                return DescribeTopicPartitionsRequest(topics=[TopicRequest(name=TOPIC)])
            case ApiKey.ELECT_LEADERS:
                return ElectLeadersRequest(topic_partitions=[TopicPartitions(topic=TOPIC, partitions=[0])])
            case ApiKey.ALTER_PARTITION_REASSIGNMENTS:
                there = [ReassignablePartition(partition_index=0, replicas=[1])]
                return AlterPartitionReassignmentsRequest(topics=[ReassignableTopic(name=TOPIC, partitions=there)])
            case ApiKey.LIST_PARTITION_REASSIGNMENTS:
                return ListPartitionReassignmentsRequest()
            case ApiKey.DESCRIBE_QUORUM:
                quorum = QuorumTopic(topic_name="__cluster_metadata", partitions=[QuorumPartition(partition_index=0)])
                return DescribeQuorumRequest(topics=[quorum])
            case ApiKey.UPDATE_FEATURES:
                level = FeatureUpdateKey(feature="eligible.leader.replicas.version", max_version_level=1)
                return UpdateFeaturesRequest(feature_updates=[level])
            case ApiKey.UNREGISTER_BROKER:
                return UnregisterBrokerRequest(broker_id=ABSENT)
            case ApiKey.ADD_RAFT_VOTER:
                return AddRaftVoterRequest(
                    cluster_id=self.cluster_id,
                    timeout_ms=200,
                    voter_id=ABSENT,
                    voter_directory_id=UUID(int=ABSENT),
                    listeners=[Listener(name="CONTROLLER", host="127.0.0.1", port=1)],
                )
            case ApiKey.REMOVE_RAFT_VOTER:
                return RemoveRaftVoterRequest(
                    cluster_id=self.cluster_id, voter_id=ABSENT, voter_directory_id=UUID(int=ABSENT)
                )
            case _:
                raise AssertionError(f"write down what {key.name} is asked, and what it has to say")


def error_codes(value: object) -> Iterator[int]:
    """Every error code of an answer, wherever it is."""
    if isinstance(value, list):
        for one in value:
            yield from error_codes(one)
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            found = getattr(value, name)
            if name == "error_code":
                yield found
            else:
                yield from error_codes(found)


def mentions(key: ApiKey, version: int) -> str:
    """A part of the answer's repr that only the situation can have put there."""
    match key:
        case ApiKey.PRODUCE:
            return f"base_offset={version - 2}"  # one was there, and each version from 3 on adds one
        case ApiKey.FETCH:
            return "high_watermark=1"
        case ApiKey.LIST_OFFSETS:
            return "offset=1"
        case ApiKey.OFFSET_FETCH:
            return f"committed_offset={OFFSET}"
        case ApiKey.FIND_COORDINATOR:
            return "node_id=1"
        case ApiKey.JOIN_GROUP:
            return "protocol_name='range'"
        case ApiKey.SYNC_GROUP:
            return "assignment=b'everything'"
        case ApiKey.DESCRIBE_GROUPS:
            return "group_state='Stable'"
        case ApiKey.LIST_GROUPS:
            return f"group_id='{GROUP}'"
        case ApiKey.DELETE_GROUPS:
            return f"group_id='empty-{version}'"
        case ApiKey.API_VERSIONS:
            return "api_key=18"
        case ApiKey.CREATE_TOPICS:
            return f"name='new-{version}'"
        case ApiKey.DELETE_TOPICS:
            return f"name='old-{version}'"
        case ApiKey.DELETE_RECORDS:
            return "low_watermark=1"
        case ApiKey.INIT_PRODUCER_ID:
            return "producer_epoch=0"
        case ApiKey.OFFSET_FOR_LEADER_EPOCH:
            return "end_offset=1"
        case ApiKey.DESCRIBE_CONFIGS:
            return "name='retention.ms'"
        case ApiKey.ALTER_CONFIGS | ApiKey.INCREMENTAL_ALTER_CONFIGS:
            return f"resource_name='{TOPIC}'"
        case ApiKey.METADATA | ApiKey.DESCRIBE_TOPIC_PARTITIONS | ApiKey.DESCRIBE_QUORUM:
            return "leader_id=1"
        case ApiKey.DESCRIBE_CLUSTER:
            return "broker_id=1"
        case ApiKey.DESCRIBE_LOG_DIRS | ApiKey.CREATE_PARTITIONS | ApiKey.ALTER_PARTITION_REASSIGNMENTS:
            return f"name='{TOPIC}'"
        case ApiKey.ELECT_LEADERS:
            return f"topic='{TOPIC}'"
        case _:
            return "Response("  # it has nothing but a code
