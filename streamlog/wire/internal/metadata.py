"""Records of the topic __cluster_metadata: the cluster's state is their fold.

Each value is framed by `framing.encode_metadata_record`. Types 7, 8, 21 are written by no one any more, but stand in
old logs. Every record is flexible, so a newer Kafka may add tagged fields that we skip.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.internal.framing import MetadataRecord
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32, Int64, Struct, UInt16, since


class BrokerEndpoint(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0
    security_protocol: Int16 = 0


class BrokerFeature(Struct):
    name: str = ""
    min_supported_version: Int16 = 0
    max_supported_version: Int16 = 0


class RegisterBrokerRecord(MetadataRecord):
    """A broker has registered under a new epoch, fenced at first.

    Version 3 adds log directories (KIP-858), 4 cordoned ones (KIP-1066).
    """

    record_type = 0
    max_version = 4
    flexible_since = 0

    broker_id: Int32 = 0
    is_migrating_zk_broker: Annotated[bool, since(2)] = False
    incarnation_id: UUID = ZERO_UUID
    broker_epoch: Int64 = 0
    end_points: list[BrokerEndpoint] = []
    features: list[BrokerFeature] = []
    rack: str | None = ""
    fenced: bool = True
    in_controlled_shutdown: Annotated[bool, since(1)] = False
    log_dirs: Annotated[list[UUID], since(3, tag=0)] = []
    cordoned_log_dirs: Annotated[list[UUID] | None, since(4, tag=1)] = None


class UnregisterBrokerRecord(MetadataRecord):
    """A broker is gone for good."""

    record_type = 1
    max_version = 0
    flexible_since = 0

    broker_id: Int32 = 0
    broker_epoch: Int64 = 0


class TopicRecord(MetadataRecord):
    """A topic exists."""

    record_type = 2
    max_version = 0
    flexible_since = 0

    name: str = ""
    topic_id: UUID = ZERO_UUID


class PartitionRecord(MetadataRecord):
    """A partition as it was created. Version 1 adds directories (KIP-858), 2 eligible leader replicas (KIP-966).

    `leader_recovery_state` 1: the leader was elected uncleanly and is still recovering.
    """

    record_type = 3
    max_version = 2
    flexible_since = 0

    partition_id: Int32 = -1
    topic_id: UUID = ZERO_UUID
    replicas: list[Int32] = []
    isr: list[Int32] = []
    removing_replicas: list[Int32] = []
    adding_replicas: list[Int32] = []
    leader: Int32 = -1
    leader_recovery_state: Annotated[Int8, since(0, tag=0)] = 0
    leader_epoch: Int32 = -1
    partition_epoch: Int32 = -1
    directories: Annotated[list[UUID], since(1)] = []
    eligible_leader_replicas: Annotated[list[Int32] | None, since(2, tag=1)] = None
    last_known_elr: Annotated[list[Int32] | None, since(2, tag=2)] = None


class ConfigRecord(MetadataRecord):
    """One config of a resource; value None removes it."""

    record_type = 4
    max_version = 0
    flexible_since = 0

    resource_type: Int8 = 0
    resource_name: str = ""
    name: str = ""
    value: str | None = ""


class PartitionChangeRecord(MetadataRecord):
    """What has changed about a partition; every default means "as before".

    `leader` -1: none now. Versions as PartitionRecord's.
    """

    record_type = 5
    max_version = 2
    flexible_since = 0

    partition_id: Int32 = -1
    topic_id: UUID = ZERO_UUID
    isr: Annotated[list[Int32] | None, since(0, tag=0)] = None
    leader: Annotated[Int32, since(0, tag=1)] = -2
    replicas: Annotated[list[Int32] | None, since(0, tag=2)] = None
    removing_replicas: Annotated[list[Int32] | None, since(0, tag=3)] = None
    adding_replicas: Annotated[list[Int32] | None, since(0, tag=4)] = None
    leader_recovery_state: Annotated[Int8, since(0, tag=5)] = -1
    directories: Annotated[list[UUID] | None, since(1, tag=8)] = None
    eligible_leader_replicas: Annotated[list[Int32] | None, since(2, tag=6)] = None
    last_known_elr: Annotated[list[Int32] | None, since(2, tag=7)] = None


class FenceBrokerRecord(MetadataRecord):
    """Replaced by BrokerRegistrationChangeRecord."""

    record_type = 7
    max_version = 0
    flexible_since = 0

    id: Int32 = 0
    epoch: Int64 = 0


class UnfenceBrokerRecord(MetadataRecord):
    """Replaced by BrokerRegistrationChangeRecord."""

    record_type = 8
    max_version = 0
    flexible_since = 0

    id: Int32 = 0
    epoch: Int64 = 0


class RemoveTopicRecord(MetadataRecord):
    """A topic, its partitions and its configs are gone."""

    record_type = 9
    max_version = 0
    flexible_since = 0

    topic_id: UUID = ZERO_UUID


class DelegationTokenRecord(MetadataRecord):
    """A delegation token was made or renewed."""

    record_type = 10
    max_version = 0
    flexible_since = 0

    owner: str = ""
    requester: str = ""
    renewers: list[str] = []
    issue_timestamp: Int64 = 0
    max_timestamp: Int64 = 0
    expiration_timestamp: Int64 = 0
    token_id: str = ""


class UserScramCredentialRecord(MetadataRecord):
    """A SCRAM credential of a user (KIP-554)."""

    record_type = 11
    max_version = 0
    flexible_since = 0

    name: str = ""
    mechanism: Int8 = 0
    salt: bytes = b""
    stored_key: bytes = b""
    server_key: bytes = b""
    iterations: Int32 = 0


class FeatureLevelRecord(MetadataRecord):
    """A feature's finalized level; 0 removes it."""

    record_type = 12
    max_version = 0
    flexible_since = 0

    name: str = ""
    feature_level: Int16 = 0


class EntityData(Struct):
    entity_type: str = ""
    entity_name: str | None = ""


class ClientQuotaRecord(MetadataRecord):
    """One quota of an entity (KIP-546)."""

    record_type = 14
    max_version = 0
    flexible_since = 0

    entity: list[EntityData] = []
    key: str = ""
    value: float = 0.0
    remove: bool = False


class ProducerIdsRecord(MetadataRecord):
    """A block of producer ids was handed out; the next one begins at `next_producer_id` (KIP-730)."""

    record_type = 15
    max_version = 0
    flexible_since = 0

    broker_id: Int32 = 0
    broker_epoch: Int64 = -1
    next_producer_id: Int64 = 0


class BrokerRegistrationChangeRecord(MetadataRecord):
    """What has changed about a registered broker.

    `fenced` 1: now fenced, -1: no longer, 0: as before. Version 2 adds log directories (KIP-858), 3 cordoned
    ones (KIP-1066).
    """

    record_type = 17
    max_version = 3
    flexible_since = 0

    broker_id: Int32 = 0
    broker_epoch: Int64 = 0
    fenced: Annotated[Int8, since(0, tag=0)] = 0
    in_controlled_shutdown: Annotated[Int8, since(1, tag=1)] = 0
    log_dirs: Annotated[list[UUID], since(2, tag=2)] = []
    cordoned_log_dirs: Annotated[list[UUID] | None, since(3, tag=3)] = None


class AccessControlEntryRecord(MetadataRecord):
    """An ACL exists."""

    record_type = 18
    max_version = 0
    flexible_since = 0

    id: UUID = ZERO_UUID
    resource_type: Int8 = 0
    resource_name: str = ""
    pattern_type: Int8 = 0
    principal: str = ""
    host: str = ""
    operation: Int8 = 0
    permission_type: Int8 = 0


class RemoveAccessControlEntryRecord(MetadataRecord):
    """An ACL is gone."""

    record_type = 19
    max_version = 0
    flexible_since = 0

    id: UUID = ZERO_UUID


class NoOpRecord(MetadataRecord):
    """Nothing happened; keeps the high watermark moving (KIP-835)."""

    record_type = 20
    max_version = 0
    flexible_since = 0


class ZkMigrationStateRecord(MetadataRecord):
    """How far a migration from ZooKeeper has come; 0 for clusters that never had one."""

    record_type = 21
    max_version = 0
    flexible_since = 0

    zk_migration_state: Int8 = 0


class RemoveUserScramCredentialRecord(MetadataRecord):
    """A SCRAM credential is gone."""

    record_type = 22
    max_version = 0
    flexible_since = 0

    name: str = ""
    mechanism: Int8 = 0


class BeginTransactionRecord(MetadataRecord):
    """What follows up to the end of the transaction counts together or not at all (KIP-868)."""

    record_type = 23
    max_version = 0
    flexible_since = 0

    name: Annotated[str | None, since(0, tag=0)] = None


class EndTransactionRecord(MetadataRecord):
    """The records since the beginning count."""

    record_type = 24
    max_version = 0
    flexible_since = 0


class AbortTransactionRecord(MetadataRecord):
    """The records since the beginning do not count."""

    record_type = 25
    max_version = 0
    flexible_since = 0

    reason: Annotated[str | None, since(0, tag=0)] = None


class RemoveDelegationTokenRecord(MetadataRecord):
    """A delegation token is gone."""

    record_type = 26
    max_version = 0
    flexible_since = 0

    token_id: str = ""


class ControllerEndpoint(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0
    security_protocol: Int16 = 0


class ControllerFeature(Struct):
    name: str = ""
    min_supported_version: Int16 = 0
    max_supported_version: Int16 = 0


class RegisterControllerRecord(MetadataRecord):
    """A controller has registered its endpoints and features (KIP-919)."""

    record_type = 27
    max_version = 0
    flexible_since = 0

    controller_id: Int32 = 0
    incarnation_id: UUID = ZERO_UUID
    zk_migration_ready: bool = False
    end_points: list[ControllerEndpoint] = []
    features: list[ControllerFeature] = []


class ClearElrRecord(MetadataRecord):
    """Eligible leader replicas of a topic, or of all with an empty name, are forgotten (KIP-966)."""

    record_type = 28
    max_version = 0
    flexible_since = 0

    topic_name: str = ""


METADATA_RECORDS: dict[int, type[MetadataRecord]] = {
    record.record_type: record
    for record in (
        RegisterBrokerRecord,
        UnregisterBrokerRecord,
        TopicRecord,
        PartitionRecord,
        ConfigRecord,
        PartitionChangeRecord,
        FenceBrokerRecord,
        UnfenceBrokerRecord,
        RemoveTopicRecord,
        DelegationTokenRecord,
        UserScramCredentialRecord,
        FeatureLevelRecord,
        ClientQuotaRecord,
        ProducerIdsRecord,
        BrokerRegistrationChangeRecord,
        AccessControlEntryRecord,
        RemoveAccessControlEntryRecord,
        NoOpRecord,
        ZkMigrationStateRecord,
        RemoveUserScramCredentialRecord,
        BeginTransactionRecord,
        EndTransactionRecord,
        AbortTransactionRecord,
        RemoveDelegationTokenRecord,
        RegisterControllerRecord,
        ClearElrRecord,
    )
}
