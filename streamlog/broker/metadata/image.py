"""What the cluster looks like: the fold of `__cluster_metadata`.

`MetadataImage.apply` trusts the log: it validates nothing, draws nothing and cannot fail on a record the controller
wrote. Two images live in a node: the controller's, which runs ahead with records that are appended and not
committed yet, and the broker's, which holds what is committed and is what requests are answered from.

Partitions, brokers and topics are values: a change replaces the value, so whoever holds one across an await
holds a consistent one. `MetadataDelta` names what a run of records touched, so that the broker looks at nothing else.

Sources: KIP-500, KIP-631 (the records), KIP-516 (topic ids), KIP-966 (eligible leader replicas), and the records'
schemas of Kafka 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias, TypeVar, assert_never
from uuid import UUID

from streamlog.wire.internal.metadata import (
    BeginTransactionRecord,
    BrokerEndpoint,
    BrokerFeature,
    BrokerRegistrationChangeRecord,
    ClearElrRecord,
    ConfigRecord,
    EndTransactionRecord,
    FeatureLevelRecord,
    NoOpRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RegisterControllerRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
)

T = TypeVar("T")

KnownRecord: TypeAlias = (
    BeginTransactionRecord
    | BrokerRegistrationChangeRecord
    | ClearElrRecord
    | ConfigRecord
    | EndTransactionRecord
    | FeatureLevelRecord
    | NoOpRecord
    | PartitionChangeRecord
    | PartitionRecord
    | ProducerIdsRecord
    | RegisterBrokerRecord
    | RegisterControllerRecord
    | RemoveTopicRecord
    | TopicRecord
    | UnregisterBrokerRecord
)
"""Every record this version writes, or can make sense of."""

METADATA_VERSION_FEATURE: Final = "metadata.version"

NO_LEADER: Final = -1
UNCHANGED_LEADER: Final = -2

RESOURCE_TOPIC: Final = 2
RESOURCE_BROKER: Final = 4
ConfigKey: TypeAlias = tuple[int, str]
"""Resource type and name; ("4", "") are the defaults of all brokers."""

NO_CONFIGS: Final[Mapping[str, str]] = MappingProxyType({})


class PartitionRegistration(NamedTuple):
    """One partition as the controller has decided it. A named tuple, because a fence makes thousands of them."""

    replicas: tuple[int, ...]
    directories: tuple[UUID, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int
    """Grows with every change of leader, and whenever the leader has to prove itself anew."""
    partition_epoch: int
    """Grows with every change of anything; the compare-and-set token of AlterPartition."""
    removing_replicas: tuple[int, ...] = ()
    adding_replicas: tuple[int, ...] = ()
    eligible_leader_replicas: tuple[int, ...] = ()
    last_known_elr: tuple[int, ...] = ()
    leader_recovery_state: int = 0
    """1: elected without being in sync; the leader has not yet said that it is through with it (KIP-704)."""

    def directory(self, broker_id: int) -> UUID | None:
        """Where a replica is; None: the broker has none, or none is known."""
        for replica, directory in zip(self.replicas, self.directories, strict=False):
            if replica == broker_id:
                return directory
        return None

    def merge(self, change: PartitionChangeRecord) -> PartitionRegistration:
        """The registration after `change`. A leader named in it, the same one too, begins a new leader epoch."""
        new_leader = change.leader != UNCHANGED_LEADER
        return PartitionRegistration(
            replicas=_changed(change.replicas, self.replicas),
            directories=_changed(change.directories, self.directories),
            isr=_changed(change.isr, self.isr),
            leader=change.leader if new_leader else self.leader,
            leader_epoch=self.leader_epoch + 1 if new_leader else self.leader_epoch,
            partition_epoch=self.partition_epoch + 1,
            removing_replicas=_changed(change.removing_replicas, self.removing_replicas),
            adding_replicas=_changed(change.adding_replicas, self.adding_replicas),
            eligible_leader_replicas=_changed(change.eligible_leader_replicas, self.eligible_leader_replicas),
            last_known_elr=_changed(change.last_known_elr, self.last_known_elr),
            leader_recovery_state=(
                self.leader_recovery_state if change.leader_recovery_state < 0 else change.leader_recovery_state
            ),
        )


@dataclass(frozen=True, slots=True)
class TopicImage:
    """A topic. The name may come back after a deletion; the id never does (KIP-516)."""

    name: str
    id: UUID
    partitions: dict[int, PartitionRegistration] = field(default_factory=dict)
    """Dense from 0, in order. Grows and changes in place; the values in it do not."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    name: str
    host: str
    port: int
    security_protocol: int


@dataclass(frozen=True, slots=True)
class BrokerRegistration:
    """One incarnation of a broker. `epoch` is the offset of its registration record."""

    id: int
    epoch: int
    incarnation_id: UUID
    endpoints: tuple[Endpoint, ...]
    features: tuple[tuple[str, int, int], ...]
    """Name, lowest and highest supported level."""
    rack: str | None
    fenced: bool
    """Registered, and not (yet) trusted to lead: it has not caught up, or has missed its heartbeats."""
    in_controlled_shutdown: bool
    directories: tuple[UUID, ...]

    @property
    def is_active(self) -> bool:
        return not self.fenced and not self.in_controlled_shutdown

    def endpoint(self, listener: str) -> Endpoint | None:
        return next((e for e in self.endpoints if e.name == listener), None)


@dataclass(frozen=True, slots=True)
class ProducerIdsImage:
    """The next producer id nobody owns, and who was given the block before it."""

    broker_id: int = -1
    broker_epoch: int = -1
    next_producer_id: int = 0


@dataclass(slots=True)
class MetadataDelta:
    """What a run of records touched. Dictionaries as ordered sets: their order replays."""

    topics: dict[str, None] = field(default_factory=dict)
    """Topics that were created, or whose partitions changed; some may be gone again."""
    deleted: dict[UUID, TopicImage] = field(default_factory=dict)
    configs: dict[ConfigKey, None] = field(default_factory=dict)
    brokers: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True)
class MetadataImage:
    """All of it. Mutable by `apply` only; readers keep the values in it, never the image, across an await."""

    features: dict[str, int] = field(default_factory=dict)
    """Finalized feature levels; a feature at level 0 is absent."""
    brokers: dict[int, BrokerRegistration] = field(default_factory=dict)
    controllers: dict[int, RegisterControllerRecord] = field(default_factory=dict)
    topics: dict[str, TopicImage] = field(default_factory=dict)
    topics_by_id: dict[UUID, TopicImage] = field(default_factory=dict)
    names_by_collision: dict[str, dict[str, None]] = field(default_factory=dict)
    """Topic names that contain `.` or `_`, by the name with every `.` replaced by `_`."""
    configs: dict[ConfigKey, dict[str, str]] = field(default_factory=dict)
    producer_ids: ProducerIdsImage = field(default_factory=ProducerIdsImage)
    applied_offset: int = -1
    """Offset of the last record applied, or of the last record a loaded snapshot covers."""

    # -- reading ----------------------------------------------------------------------------------------------

    def partition(self, topic: str, index: int) -> PartitionRegistration | None:
        found = self.topics.get(topic)
        return None if found is None else found.partitions.get(index)

    def config(self, resource_type: int, name: str) -> Mapping[str, str]:
        """What was set explicitly on a resource."""
        return self.configs.get((resource_type, name), NO_CONFIGS)

    def copy(self) -> MetadataImage:
        """An image that changes on its own; the values in both are the same objects."""
        topics = {name: TopicImage(topic.name, topic.id, dict(topic.partitions)) for name, topic in self.topics.items()}
        return MetadataImage(
            features=dict(self.features),
            brokers=dict(self.brokers),
            controllers=dict(self.controllers),
            topics=topics,
            topics_by_id={topic.id: topic for topic in topics.values()},
            names_by_collision={form: dict(names) for form, names in self.names_by_collision.items()},
            configs={key: dict(values) for key, values in self.configs.items()},
            producer_ids=self.producer_ids,
            applied_offset=self.applied_offset,
        )

    # -- the fold ---------------------------------------------------------------------------------------------

    def apply(self, record: KnownRecord, offset: int, delta: MetadataDelta | None = None) -> None:
        """Change the image by the record at `offset`, and note in `delta` what that touched."""
        delta = delta or MetadataDelta()
        match record:
            case PartitionRecord():
                self._apply_partition(record, delta)
            case PartitionChangeRecord():
                self._apply_partition_change(record, delta)
            case TopicRecord():
                self._apply_topic(record, delta)
            case ConfigRecord():
                self._apply_config(record, delta)
            case RemoveTopicRecord():
                self._apply_remove_topic(record, delta)
            case ProducerIdsRecord():
                self.producer_ids = ProducerIdsImage(record.broker_id, record.broker_epoch, record.next_producer_id)
            case RegisterBrokerRecord():
                self._apply_register_broker(record, delta)
            case BrokerRegistrationChangeRecord():
                self._apply_broker_change(record, delta)
            case UnregisterBrokerRecord():
                self.brokers.pop(record.broker_id, None)
                delta.brokers[record.broker_id] = None
            case ClearElrRecord():
                self._apply_clear_elr(record, delta)
            case FeatureLevelRecord():
                self._apply_feature_level(record)
            case RegisterControllerRecord():
                self.controllers[record.controller_id] = record
            case BeginTransactionRecord() | EndTransactionRecord() | NoOpRecord():
                pass  # each group of records is one batch here, which is atomic without brackets
            case _:
                assert_never(record)
        self.applied_offset = offset

    def _apply_feature_level(self, record: FeatureLevelRecord) -> None:
        if record.feature_level == 0:
            self.features.pop(record.name, None)
        else:
            self.features[record.name] = record.feature_level

    def _apply_register_broker(self, record: RegisterBrokerRecord, delta: MetadataDelta) -> None:
        self.brokers[record.broker_id] = BrokerRegistration(
            id=record.broker_id,
            epoch=record.broker_epoch,
            incarnation_id=record.incarnation_id,
            endpoints=tuple(Endpoint(e.name, e.host, e.port, e.security_protocol) for e in record.end_points),
            features=tuple((f.name, f.min_supported_version, f.max_supported_version) for f in record.features),
            rack=record.rack,
            fenced=record.fenced,
            in_controlled_shutdown=record.in_controlled_shutdown,
            directories=tuple(record.log_dirs),
        )
        delta.brokers[record.broker_id] = None

    def _apply_broker_change(self, record: BrokerRegistrationChangeRecord, delta: MetadataDelta) -> None:
        broker = self.brokers[record.broker_id]
        if record.fenced:
            broker = replace(broker, fenced=record.fenced > 0)
        if record.in_controlled_shutdown:
            broker = replace(broker, in_controlled_shutdown=record.in_controlled_shutdown > 0)
        if record.log_dirs:
            broker = replace(broker, directories=tuple(record.log_dirs))
        self.brokers[record.broker_id] = broker
        delta.brokers[record.broker_id] = None

    def _apply_topic(self, record: TopicRecord, delta: MetadataDelta) -> None:
        topic = TopicImage(record.name, record.topic_id)
        self.topics[record.name] = self.topics_by_id[record.topic_id] = topic
        if "." in record.name or "_" in record.name:
            self.names_by_collision.setdefault(record.name.replace(".", "_"), {})[record.name] = None
        delta.topics[record.name] = None

    def _apply_partition(self, record: PartitionRecord, delta: MetadataDelta) -> None:
        topic = self.topics_by_id[record.topic_id]
        topic.partitions[record.partition_id] = PartitionRegistration(
            replicas=tuple(record.replicas),
            directories=tuple(record.directories),
            isr=tuple(record.isr),
            leader=record.leader,
            leader_epoch=record.leader_epoch,
            partition_epoch=record.partition_epoch,
            removing_replicas=tuple(record.removing_replicas),
            adding_replicas=tuple(record.adding_replicas),
            eligible_leader_replicas=tuple(record.eligible_leader_replicas or ()),
            last_known_elr=tuple(record.last_known_elr or ()),
            leader_recovery_state=record.leader_recovery_state,
        )
        delta.topics[topic.name] = None

    def _apply_partition_change(self, record: PartitionChangeRecord, delta: MetadataDelta) -> None:
        topic = self.topics_by_id[record.topic_id]
        topic.partitions[record.partition_id] = topic.partitions[record.partition_id].merge(record)
        delta.topics[topic.name] = None

    def _apply_clear_elr(self, record: ClearElrRecord, delta: MetadataDelta) -> None:
        topics = [self.topics[record.topic_name]] if record.topic_name else list(self.topics.values())
        for topic in topics:
            for index, partition in topic.partitions.items():
                if partition.eligible_leader_replicas or partition.last_known_elr:
                    cleared = PartitionChangeRecord(eligible_leader_replicas=[], last_known_elr=[])
                    topic.partitions[index] = partition.merge(cleared)
                    delta.topics[topic.name] = None

    def _apply_remove_topic(self, record: RemoveTopicRecord, delta: MetadataDelta) -> None:
        topic = self.topics_by_id.pop(record.topic_id)
        del self.topics[topic.name]
        colliding = self.names_by_collision.get(topic.name.replace(".", "_"))
        if colliding is not None:
            colliding.pop(topic.name, None)
            if not colliding:
                del self.names_by_collision[topic.name.replace(".", "_")]
        self.configs.pop((RESOURCE_TOPIC, topic.name), None)
        delta.deleted[topic.id] = topic

    def _apply_config(self, record: ConfigRecord, delta: MetadataDelta) -> None:
        key = (record.resource_type, record.resource_name)
        configs = self.configs.setdefault(key, {})
        if record.value is None:
            configs.pop(record.name, None)
            if not configs:
                del self.configs[key]
        else:
            configs[record.name] = record.value
        delta.configs[key] = None


def new_partition_record(topic_id: UUID, index: int, partition: PartitionRegistration) -> PartitionRecord:
    return PartitionRecord(
        partition_id=index,
        topic_id=topic_id,
        replicas=list(partition.replicas),
        isr=list(partition.isr),
        removing_replicas=list(partition.removing_replicas),
        adding_replicas=list(partition.adding_replicas),
        leader=partition.leader,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        directories=list(partition.directories),
        leader_recovery_state=partition.leader_recovery_state,
        eligible_leader_replicas=list(partition.eligible_leader_replicas) or None,
        last_known_elr=list(partition.last_known_elr) or None,
    )


def new_register_broker_record(broker: BrokerRegistration) -> RegisterBrokerRecord:
    return RegisterBrokerRecord(
        broker_id=broker.id,
        incarnation_id=broker.incarnation_id,
        broker_epoch=broker.epoch,
        end_points=[
            BrokerEndpoint(name=e.name, host=e.host, port=e.port, security_protocol=e.security_protocol)
            for e in broker.endpoints
        ],
        features=[
            BrokerFeature(name=name, min_supported_version=low, max_supported_version=high)
            for name, low, high in broker.features
        ],
        rack=broker.rack,
        fenced=broker.fenced,
        in_controlled_shutdown=broker.in_controlled_shutdown,
        log_dirs=list(broker.directories),
    )


def image_records(image: MetadataImage) -> Iterator[KnownRecord]:
    """The records whose fold is `image`: what a snapshot holds. In the order Kafka's snapshots have."""
    if METADATA_VERSION_FEATURE in image.features:  # first: it decides how the others are to be read
        yield FeatureLevelRecord(name=METADATA_VERSION_FEATURE, feature_level=image.features[METADATA_VERSION_FEATURE])
    for name, level in image.features.items():
        if name != METADATA_VERSION_FEATURE:
            yield FeatureLevelRecord(name=name, feature_level=level)
    yield from image.controllers.values()
    for broker in image.brokers.values():
        yield new_register_broker_record(broker)
    for topic in image.topics.values():
        yield TopicRecord(name=topic.name, topic_id=topic.id)
        for index, partition in topic.partitions.items():
            yield new_partition_record(topic.id, index, partition)
    for (resource_type, resource_name), configs in image.configs.items():
        for name, value in configs.items():
            yield ConfigRecord(resource_type=resource_type, resource_name=resource_name, name=name, value=value)
    if image.producer_ids.next_producer_id > 0:
        yield ProducerIdsRecord(
            broker_id=image.producer_ids.broker_id,
            broker_epoch=image.producer_ids.broker_epoch,
            next_producer_id=image.producer_ids.next_producer_id,
        )


def _changed(values: list[T] | None, before: tuple[T, ...]) -> tuple[T, ...]:
    return before if values is None else tuple(values)
