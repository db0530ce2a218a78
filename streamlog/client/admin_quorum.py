"""The metadata quorum, brokers that are gone for good, and the features of the cluster.

Brokers pass these requests on to the active controller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from streamlog.client.admin_values import (
    ControllerEndpoint,
    FeatureChange,
    FeatureLevels,
    QuorumDescription,
    QuorumReplica,
    SomeFailed,
)
from streamlog.client.asking import Asking, check
from streamlog.client.config import SOFTWARE_NAME, SOFTWARE_VERSION
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    AddRaftVoterRequest,
    AddRaftVoterResponse,
    ApiVersionsRequest,
    ApiVersionsResponse,
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    RemoveRaftVoterRequest,
    RemoveRaftVoterResponse,
    UnregisterBrokerRequest,
    UnregisterBrokerResponse,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)
from streamlog.wire.messages import add_raft_voter as add
from streamlog.wire.messages import describe_quorum as question
from streamlog.wire.messages import describe_quorum_response as quorum
from streamlog.wire.messages.update_features import FeatureUpdateKey

METADATA_TOPIC = "__cluster_metadata"


async def describe_quorum(asking: Asking) -> QuorumDescription:
    """Leader, voters and observers of the metadata log."""
    partition = question.PartitionData(partition_index=0)
    request = DescribeQuorumRequest(topics=[question.TopicData(topic_name=METADATA_TOPIC, partitions=[partition])])

    def read(answer: DescribeQuorumResponse) -> QuorumDescription:
        check(answer.error_code, answer.error_message, "describing the quorum")
        if not answer.topics or not answer.topics[0].partitions:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "the answer does not mention the metadata log")
        one = answer.topics[0].partitions[0]
        check(one.error_code, one.error_message, "describing the quorum")
        return QuorumDescription(
            one.leader_id,
            one.leader_epoch,
            one.high_watermark,
            tuple(map(_replica, one.current_voters)),
            tuple(map(_replica, one.observers)),
            {
                node.node_id: tuple(ControllerEndpoint(at.name, at.host, at.port) for at in node.listeners)
                for node in answer.nodes
            },
        )

    return await asking.through_any("describing the quorum", request, DescribeQuorumResponse, read)


def _replica(one: quorum.ReplicaState) -> QuorumReplica:
    return QuorumReplica(
        one.replica_id,
        one.replica_directory_id,
        one.log_end_offset,
        one.last_fetch_timestamp,
        one.last_caught_up_timestamp,
    )


async def add_raft_voter(
    asking: Asking, node_id: int, directory_id: UUID, endpoints: Sequence[ControllerEndpoint], cluster_id: str | None
) -> None:
    """Make a controller that follows the metadata log a voter (KIP-853). Returns when it is one."""
    request = AddRaftVoterRequest(
        cluster_id=cluster_id,
        timeout_ms=asking.timeout_ms,
        voter_id=node_id,
        voter_directory_id=directory_id,
        listeners=[add.Listener(name=one.listener, host=one.host, port=one.port) for one in endpoints],
    )

    async def attempt() -> None:
        answer = await asking.controller(request, AddRaftVoterResponse)
        check(answer.error_code, answer.error_message, f"adding controller {node_id}")

    await asking.cluster.retrying("adding a voter", attempt, timeout_ms=asking.timeout_ms)


async def remove_raft_voter(asking: Asking, node_id: int, directory_id: UUID, cluster_id: str | None) -> None:
    """Take a controller's vote away; it may be gone for good (KIP-853)."""
    request = RemoveRaftVoterRequest(cluster_id=cluster_id, voter_id=node_id, voter_directory_id=directory_id)

    async def attempt() -> None:
        answer = await asking.controller(request, RemoveRaftVoterResponse)
        check(answer.error_code, answer.error_message, f"removing controller {node_id}")

    await asking.cluster.retrying("removing a voter", attempt, timeout_ms=asking.timeout_ms)


async def unregister_broker(asking: Asking, broker_id: int) -> None:
    """Forget a broker that will not come back."""

    async def attempt() -> None:
        answer = await asking.controller(UnregisterBrokerRequest(broker_id=broker_id), UnregisterBrokerResponse)
        check(answer.error_code, answer.error_message, f"unregistering broker {broker_id}")

    await asking.cluster.retrying("unregistering a broker", attempt, timeout_ms=asking.timeout_ms)


async def describe_features(asking: Asking) -> dict[str, FeatureLevels]:
    """Features by name."""
    request = ApiVersionsRequest(client_software_name=SOFTWARE_NAME, client_software_version=SOFTWARE_VERSION)
    answer = await asking.any("describing features", request, ApiVersionsResponse)
    check(answer.error_code, None, "describing features")
    levels = {one.name: one.max_version_level for one in answer.finalized_features}
    return {
        one.name: FeatureLevels(one.name, levels.get(one.name, 0), one.min_version, one.max_version)
        for one in sorted(answer.supported_features, key=lambda one: one.name)
    }


async def update_features(
    asking: Asking, levels: Mapping[str, tuple[int, FeatureChange]], *, validate_only: bool = False
) -> None:
    """Change levels of features, all or none; level 0 turns one off. Raises SomeFailed, KafkaError."""
    request = UpdateFeaturesRequest(
        timeout_ms=asking.timeout_ms,
        feature_updates=[
            FeatureUpdateKey(
                feature=name,
                max_version_level=level,
                upgrade_type=change,
            )
            for name, (level, change) in sorted(levels.items())
        ],
        validate_only=validate_only,
    )

    async def attempt() -> None:
        answer = await asking.controller(request, UpdateFeaturesResponse)
        check(answer.error_code, answer.error_message, "updating features")
        errors = {
            one.feature: KafkaError(ErrorCode.of(one.error_code), one.error_message or "")
            for one in answer.results
            if one.error_code
        }
        if errors:
            raise SomeFailed(errors)

    await asking.cluster.retrying("updating features", attempt, timeout_ms=asking.timeout_ms)
