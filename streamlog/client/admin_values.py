"""What an operator hands to `Admin` and gets back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    """A topic to create. Counts of -1 take the broker's defaults; `replicas` places each partition by hand instead."""

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
    """What the member's assignor told the leader."""


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
