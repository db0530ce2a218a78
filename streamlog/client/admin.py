"""Admin: topics, configs, groups and offsets, one method per thing an operator does.

Every method retries what passes (no controller yet, a coordinator that moves) until its timeout. Methods about
several things at once raise `SomeFailed`, which names each thing that failed; the others are done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from streamlog.client import admin_configs, admin_groups, admin_quorum, admin_records, admin_replicas, admin_topics
from streamlog.client.admin_values import (
    BROKER_DEFAULT,
    BROKER_RESOURCE,
    GROUP_RESOURCE,
    HIGH_WATERMARK,
    TOPIC_RESOURCE,
    ClusterDescription,
    ConfigEntry,
    ControllerEndpoint,
    Election,
    FeatureChange,
    FeatureLevels,
    GroupDescription,
    GroupListing,
    GroupMember,
    NewTopic,
    QuorumDescription,
    QuorumReplica,
    Reassignment,
    ReplicaLog,
    SomeFailed,
)
from streamlog.client.asking import Asking, check
from streamlog.client.cluster import Cluster
from streamlog.client.config import ConnectionSettings
from streamlog.client.metadata import TopicInfo
from streamlog.client.values import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from streamlog.env import Env
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages import DescribeClusterRequest, DescribeClusterResponse

__all__ = [
    "BROKER_DEFAULT",
    "BROKER_RESOURCE",
    "GROUP_RESOURCE",
    "HIGH_WATERMARK",
    "TOPIC_RESOURCE",
    "Admin",
    "ClusterDescription",
    "ConfigEntry",
    "ControllerEndpoint",
    "Election",
    "FeatureChange",
    "FeatureLevels",
    "GroupDescription",
    "GroupListing",
    "GroupMember",
    "NewTopic",
    "QuorumDescription",
    "QuorumReplica",
    "Reassignment",
    "ReplicaLog",
    "SomeFailed",
]


class Admin:
    """See the module's essay. All of one admin belong to one event loop."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        env: Env,
        client_id: str = "streamlog-admin",
        timeout_ms: int = 60_000,
        connection: ConnectionSettings | None = None,
    ) -> None:
        self._cluster = Cluster(bootstrap, env, connection or ConnectionSettings(client_id=client_id))
        self._timeout_ms = timeout_ms
        self._asking = Asking(self._cluster, timeout_ms)

    async def open(self) -> None:
        """Reach the cluster. Raises BrokerUnreachable naming the addresses when nobody answers in time."""
        try:
            await self._cluster.open(self._timeout_ms)
        except BaseException:
            await self._cluster.close()
            raise

    async def close(self) -> None:
        await self._cluster.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- the cluster

    async def describe_cluster(self) -> ClusterDescription:
        answer = await self._asking.any("describing the cluster", DescribeClusterRequest(), DescribeClusterResponse)
        check(answer.error_code, answer.error_message, "describing the cluster")
        await self._cluster.refresh(timeout_ms=self._timeout_ms)
        brokers = tuple(self._cluster.metadata.brokers[one] for one in sorted(self._cluster.metadata.brokers))
        return ClusterDescription(answer.cluster_id, answer.controller_id, brokers)

    async def unregister_broker(self, broker_id: int) -> None:
        """Forget a broker that will not come back."""
        await admin_quorum.unregister_broker(self._asking, broker_id)

    async def describe_features(self) -> dict[str, FeatureLevels]:
        """What the cluster's features are set to, and what the answering broker could do, by name."""
        return await admin_quorum.describe_features(self._asking)

    async def update_features(
        self, levels: Mapping[str, tuple[int, FeatureChange]], *, validate_only: bool = False
    ) -> None:
        """Change levels of features, all or none; level 0 turns one off. Raises SomeFailed, KafkaError."""
        await admin_quorum.update_features(self._asking, levels, validate_only=validate_only)

    # -- the metadata quorum

    async def describe_quorum(self) -> QuorumDescription:
        """Leader, voters and observers of the metadata log."""
        return await admin_quorum.describe_quorum(self._asking)

    async def add_raft_voter(
        self,
        node_id: int,
        directory_id: UUID,
        endpoints: Sequence[ControllerEndpoint],
        *,
        cluster_id: str | None = None,
    ) -> None:
        """Make a controller that follows the metadata log a voter (KIP-853). Returns when it is one."""
        await admin_quorum.add_raft_voter(self._asking, node_id, directory_id, endpoints, cluster_id)

    async def remove_raft_voter(self, node_id: int, directory_id: UUID, *, cluster_id: str | None = None) -> None:
        """Take a controller's vote away; it may be gone for good (KIP-853)."""
        await admin_quorum.remove_raft_voter(self._asking, node_id, directory_id, cluster_id)

    # -- replicas

    async def elect_leaders(
        self, election: Election, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, KafkaError | None]:
        """Elect leaders now. To each partition None when it got one, else why not.

        Asked about all partitions (None), a cluster mentions only those where there was something to elect.
        """
        return await admin_replicas.elect_leaders(self._asking, election, partitions)

    async def alter_partition_reassignments(
        self,
        targets: Mapping[TopicPartition, Sequence[int] | None],
        *,
        allow_replication_factor_change: bool = True,
    ) -> None:
        """Begin to move partitions to these brokers, the preferred leader first; None cancels. Raises SomeFailed."""
        await admin_replicas.alter_partition_reassignments(
            self._asking, targets, allow_replication_factor_change=allow_replication_factor_change
        )

    async def list_partition_reassignments(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, Reassignment]:
        """What is on its way now, of these partitions or (None) of all."""
        return await admin_replicas.list_partition_reassignments(self._asking, partitions)

    async def describe_log_dirs(
        self, broker_ids: Iterable[int], topics: Iterable[str] | None = None
    ) -> list[ReplicaLog]:
        """Replicas in the data directories of these brokers, of these topics or (None) of all."""
        return await admin_replicas.describe_log_dirs(self._asking, broker_ids, topics)

    # -- topics

    async def create_topics(self, topics: Iterable[NewTopic], *, validate_only: bool = False) -> None:
        """Create topics. Raises SomeFailed; TOPIC_ALREADY_EXISTS for one that is there."""
        await admin_topics.create_topics(self._asking, topics, validate_only=validate_only)

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics with everything in them. Raises SomeFailed."""
        await admin_topics.delete_topics(self._asking, names)

    async def create_partitions(self, counts: Mapping[str, int], *, validate_only: bool = False) -> None:
        """Grow topics to these partition counts. Raises SomeFailed."""
        await admin_topics.create_partitions(self._asking, counts, validate_only=validate_only)

    async def list_topics(self, *, internal: bool = False) -> list[str]:
        """All topics this client may see, sorted."""
        return await admin_topics.list_topics(self._asking, internal=internal)

    async def describe_topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Ids, partitions, leaders, which replicas are in sync.

        Raises: SomeFailed, with UNKNOWN_TOPIC_OR_PARTITION for what is not there.
        """
        return await admin_topics.describe_topics(self._asking, names)

    # -- records

    async def delete_records(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Delete records before these offsets (-1: all there are). Returns the new first offsets. Raises SomeFailed."""
        return await admin_records.delete_records(self._asking, offsets)

    async def list_offsets(
        self, timestamps: Mapping[TopicPartition, int], *, read_committed: bool = False
    ) -> dict[TopicPartition, OffsetAndTimestamp]:
        """First offset at or after a time in ms; -2 the earliest, -1 the end, -3 that of the largest timestamp.

        An offset of -1: there is none.
        """
        return await admin_records.list_offsets(self._asking, timestamps, read_committed=read_committed)

    # -- configs

    async def describe_configs(
        self, resource: str, *, kind: int = TOPIC_RESOURCE, names: Sequence[str] | None = None
    ) -> dict[str, ConfigEntry]:
        """Settings of a topic, a broker (`kind=BROKER_RESOURCE`, the id as text) or a group."""
        return await admin_configs.describe_configs(self._asking, resource, kind=kind, names=names)

    async def incremental_alter_configs(
        self,
        resource: str,
        *,
        set: Mapping[str, str] | None = None,  # noqa: A002  # Kafka's names of the operations
        delete: Iterable[str] = (),
        append: Mapping[str, str] | None = None,
        subtract: Mapping[str, str] | None = None,
        kind: int = TOPIC_RESOURCE,
        validate_only: bool = False,
    ) -> None:
        """Change some settings and leave the others; `delete` goes back to the default."""
        await admin_configs.incremental_alter_configs(
            self._asking,
            resource,
            set=set,
            delete=delete,
            append=append,
            subtract=subtract,
            kind=kind,
            validate_only=validate_only,
        )

    # -- groups

    async def list_groups(self, *, states: Sequence[str] = (), types: Sequence[str] = ()) -> list[GroupListing]:
        """The groups of all brokers, sorted by id."""
        return await admin_groups.list_groups(self._asking, states=states, types=types)

    async def describe_groups(self, group_ids: Iterable[str]) -> dict[str, GroupDescription]:
        """Members and what they have. A group that does not exist has the state Dead. Raises SomeFailed."""
        return await admin_groups.describe_groups(self._asking, group_ids)

    async def delete_groups(self, group_ids: Iterable[str]) -> None:
        """Delete groups without members, and their offsets. Raises SomeFailed."""
        await admin_groups.delete_groups(self._asking, group_ids)

    async def list_group_offsets(self, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Everything a group has committed."""
        return await admin_groups.list_group_offsets(self._asking, group_id)

    async def alter_group_offsets(self, group_id: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit offsets for a group that has no members now. Raises SomeFailed."""
        await admin_groups.alter_group_offsets(self._asking, group_id, offsets)

    async def delete_group_offsets(self, group_id: str, partitions: Iterable[TopicPartition]) -> None:
        """Forget committed offsets of topics that no member subscribes to. Raises SomeFailed."""
        await admin_groups.delete_group_offsets(self._asking, group_id, partitions)
