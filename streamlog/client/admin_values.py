"""What an operator hands to `Admin` and gets back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

from streamlog.client.failures import one_line
from streamlog.client.metadata import Broker
from streamlog.client.values import TopicPartition
from streamlog.wire.error_codes import KafkaError

TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
GROUP_RESOURCE = 32

BROKER_DEFAULT = -1
"""For counts: whatever the broker's own configuration says."""

HIGH_WATERMARK = -1
"""For delete_records: everything that can be read now."""


class SomeFailed(KafkaError):
    """Several things were asked for and some were refused. `code` is the first one's."""

    def __init__(self, errors: Mapping[str, KafkaError]) -> None:
        first = next(iter(errors.values()))
        parts = [f"{name}: {one_line(error)}" for name, error in errors.items()]
        super().__init__(first.code, "; ".join(parts))
        self.errors = dict(errors)
        """By the name of the thing that failed."""


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create. Counts of -1 take the controllers' defaults; `replicas` places each partition by hand."""

    name: str
    partitions: int = BROKER_DEFAULT
    replication_factor: int = BROKER_DEFAULT
    configs: Mapping[str, str] = field(default_factory=dict)
    replicas: Mapping[int, Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One setting. `source`: 1 topic, 2 dynamic broker, 3 dynamic default, 4 static broker, 5 default, 8 group."""

    name: str
    value: str | None
    source: int
    read_only: bool
    is_sensitive: bool

    @property
    def is_default(self) -> bool:
        return self.source == 5


@dataclass(frozen=True, slots=True)
class GroupListing:
    group_id: str
    protocol_type: str
    state: str
    type: str


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member. `topics` and `partitions` are empty when its protocol is not the consumers'."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    topics: tuple[str, ...]
    partitions: tuple[TopicPartition, ...]
    userdata: bytes | None
    """What the member's assignor told the leader; told only while the group is Stable."""
    assigned_userdata: bytes | None = None
    """What the leader's assignor told the member; during a rebalance still that of before, with `partitions`."""


@dataclass(frozen=True, slots=True)
class GroupDescription:
    group_id: str
    state: str
    protocol_type: str
    assignor: str
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    cluster_id: str
    controller_id: int
    brokers: tuple[Broker, ...]


class Election(IntEnum):
    """Who may become leader."""

    PREFERRED = 0
    """The first replica, if it is in sync."""
    UNCLEAN = 1
    """Any replica that is alive, where no other is left. What it has not got is lost."""


class FeatureChange(IntEnum):
    """How the level of a feature may change."""

    UPGRADE = 1
    SAFE_DOWNGRADE = 2
    UNSAFE_DOWNGRADE = 3
    """Metadata that the lower level cannot express is lost."""


@dataclass(frozen=True, slots=True)
class Reassignment:
    """A partition on its way to other brokers. `replicas` are all that have it now."""

    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]

    @property
    def target(self) -> tuple[int, ...]:
        """The replicas when it is done."""
        return tuple(one for one in self.replicas if one not in self.removing)


@dataclass(frozen=True, slots=True)
class ReplicaLog:
    """One replica in a data directory of a broker."""

    broker_id: int
    log_dir: str
    partition: TopicPartition
    size_bytes: int
    offset_lag: int
    """Behind the high watermark; for a future replica behind the current one."""
    is_future: bool
    """A copy that is being made to move the replica to another directory of the same broker."""


@dataclass(frozen=True, slots=True)
class FeatureLevels:
    """A feature of the cluster: the level that is in force (0: off) and what the answering broker could do."""

    name: str
    level: int
    supported_low: int
    supported_high: int


@dataclass(frozen=True, slots=True)
class QuorumReplica:
    """One replica of the metadata log, as its leader knows it. Times are in ms since the epoch, -1 where unknown."""

    node_id: int
    directory_id: UUID
    """Of zeros where the quorum goes by node ids alone (kraft.version 0)."""
    log_end_offset: int
    last_fetch_at_ms: int
    last_caught_up_at_ms: int


@dataclass(frozen=True, slots=True)
class ControllerEndpoint:
    """Where a controller listens. `listener` is the name in its configuration."""

    listener: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class QuorumDescription:
    """The metadata quorum. `leader_id` is -1 while there is none."""

    leader_id: int
    leader_epoch: int
    high_watermark: int
    voters: tuple[QuorumReplica, ...]
    observers: tuple[QuorumReplica, ...]
    endpoints: Mapping[int, tuple[ControllerEndpoint, ...]] = field(default_factory=dict)
    """Of the voters, by node; empty from brokers older than Kafka 3.9."""

    @property
    def leader_end_offset(self) -> int:
        """Where the leader's log ends; -1 while there is no leader."""
        return next((one.log_end_offset for one in self.voters if one.node_id == self.leader_id), -1)
