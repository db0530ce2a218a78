"""A controller's image with brokers in it, and what a decision does to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TypeVar
from uuid import UUID

from streamlog.broker.features import (
    ELIGIBLE_LEADER_REPLICAS,
    ELIGIBLE_LEADER_REPLICAS_LEVEL,
    METADATA_VERSION,
    METADATA_VERSION_LEVEL,
    SUPPORTED_FEATURES,
)
from streamlog.broker.metadata.alter_partition import alter_partition
from streamlog.broker.metadata.decision import ControllerSettings, Decision
from streamlog.broker.metadata.heartbeats import Heartbeat, broker_heartbeat, fence_broker
from streamlog.broker.metadata.image import RESOURCE_TOPIC, KnownRecord, MetadataImage, PartitionRegistration
from streamlog.broker.metadata.liveness import Liveness
from streamlog.broker.metadata.records import encode_record
from streamlog.broker.metadata.registration import Registered, register_broker
from streamlog.broker.metadata.topics import create_topics
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.metadata import ConfigRecord, FeatureLevelRecord
from streamlog.wire.messages.alter_partition import AlterPartitionRequest, BrokerState, PartitionData, TopicData
from streamlog.wire.messages.alter_partition_response import PartitionData as AlterPartitionResult
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, Feature
from streamlog.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

A = TypeVar("A")

CLUSTER_ID = "cluster"
SESSION_MS = 3000


class Cluster:
    """Decides and applies, as the controller does, without a log."""

    def __init__(self, brokers: int = 1, settings: ControllerSettings | None = None, *, elr: bool = True) -> None:
        self.image = MetadataImage()
        self.settings = settings or ControllerSettings(cluster_id=CLUSTER_ID)
        self.liveness = Liveness(SESSION_MS)
        self.now_ms = 1000
        self.next_offset = 0
        self.log: list[bytes] = []
        """Every record as the bytes the metadata log would hold."""
        self.last: tuple[KnownRecord, ...] = ()
        """What the last decision wrote."""
        self._uuids = count(100)
        features = [FeatureLevelRecord(name=METADATA_VERSION, feature_level=METADATA_VERSION_LEVEL)]
        if elr:
            features.append(
                FeatureLevelRecord(name=ELIGIBLE_LEADER_REPLICAS, feature_level=ELIGIBLE_LEADER_REPLICAS_LEVEL)
            )
        self.take(lambda image: Decision(tuple(features), None))
        for number in range(1, brokers + 1):
            self.start(number)

    def new_uuid(self) -> UUID:
        return UUID(int=next(self._uuids))

    def take(self, decide: Callable[[MetadataImage], Decision[A]]) -> A:
        decision = decide(self.image)
        self.last = decision.records
        for record in decision.records:
            self.log.append(encode_record(record))
            self.image.apply(record, self.next_offset)
            self.next_offset += 1
        return decision.response

    # -- brokers --------------------------------------------------------------------------------------------------

    def registration(self, number: int, *, clean: bool = True) -> BrokerRegistrationRequest:
        """What a new process of the broker would ask for."""
        before = self.image.brokers.get(number)
        return BrokerRegistrationRequest(
            broker_id=number,
            cluster_id=self.settings.cluster_id,
            incarnation_id=self.new_uuid(),
            features=[
                Feature(name=name, min_supported_version=levels.low, max_supported_version=levels.high)
                for name, levels in SUPPORTED_FEATURES.items()
            ],
            rack=None,
            log_dirs=[UUID(int=1000 + number)],
            previous_broker_epoch=before.epoch if before is not None and clean else -1,
        )

    def register(self, request: BrokerRegistrationRequest) -> Registered:
        registered = self.take(
            lambda image: register_broker(image, self.settings, self.liveness, request, self.next_offset, self.now_ms)
        )
        self.liveness.on_registered(request.broker_id, registered.epoch, self.now_ms)
        return registered

    def start(self, number: int, *, clean: bool = True) -> None:
        """A broker's process starts, its older one being dead, and is unfenced."""
        self.liveness.on_gone(number)
        self.register(self.registration(number, clean=clean))
        self.beat(number)

    def beat(
        self,
        number: int,
        *,
        offset: int | None = None,
        fence: bool = False,
        stop: bool = False,
        offline: tuple[UUID, ...] = (),
    ) -> Heartbeat:
        """A heartbeat of the broker as it is registered, which has read everything if `offset` does not say else."""
        epoch = self.image.brokers[number].epoch
        request = BrokerHeartbeatRequest(
            broker_id=number,
            broker_epoch=epoch,
            current_metadata_offset=self.next_offset - 1 if offset is None else offset,
            want_fence=fence,
            want_shut_down=stop,
            offline_log_dirs=list(offline),
        )
        found = self.take(lambda image: broker_heartbeat(image, self.settings, self.liveness, request))
        self.liveness.on_heartbeat(number, epoch, request.current_metadata_offset, self.now_ms)
        if found.begins_shutdown:
            self.liveness.on_shutdown_begun(number, epoch, self.next_offset - 1, self.now_ms)
        if found.is_gone:
            self.liveness.on_gone(number)
        return found

    def fence(self, *numbers: int) -> None:
        for number in numbers:
            epoch = self.image.brokers[number].epoch
            self.take(partial(fence_broker, settings=self.settings, broker_id=number, broker_epoch=epoch))
            self.liveness.on_gone(number)

    # -- topics ---------------------------------------------------------------------------------------------------

    def create(self, *topics: CreatableTopic, validate_only: bool = False) -> CreateTopicsResponse:
        request = CreateTopicsRequest(topics=list(topics), validate_only=validate_only)
        return self.take(lambda image: create_topics(image, self.settings, request, self.new_uuid))

    def create_codes(self, *topics: CreatableTopic) -> list[ErrorCode]:
        return [ErrorCode.of(result.error_code) for result in self.create(*topics).topics]

    def place(self, name: str, *replicas: int, **configs: str) -> None:
        """A topic of one partition on these brokers, with configs whose dots are underscores here."""
        asked = CreatableTopic(
            name=name,
            num_partitions=-1,
            replication_factor=-1,
            assignments=[CreatableReplicaAssignment(partition_index=0, broker_ids=list(replicas))],
        )
        assert self.create_codes(asked) == [ErrorCode.NONE]
        for key, value in configs.items():
            self.configure(name, key.replace("_", "."), value)

    def configure(self, name: str, key: str, value: str, *, kind: int = RESOURCE_TOPIC) -> None:
        record = ConfigRecord(resource_type=kind, resource_name=name, name=key, value=value)
        self.take(lambda image: Decision((record,), None))

    def partition(self, name: str = "t", index: int = 0) -> PartitionRegistration:
        return self.image.topics[name].partitions[index]

    def isr_request(self, name: str, isr: tuple[int, ...], *, recovery_state: int = 0) -> AlterPartitionRequest:
        """What the leader would ask for, knowing everything."""
        partition = self.partition(name)
        members = [BrokerState(broker_id=m, broker_epoch=self.image.brokers[m].epoch) for m in isr]
        asked = PartitionData(
            partition_index=0,
            leader_epoch=partition.leader_epoch,
            new_isr_with_epochs=members,
            leader_recovery_state=recovery_state,
            partition_epoch=partition.partition_epoch,
        )
        leader = self.image.brokers[partition.leader]
        return AlterPartitionRequest(
            broker_id=leader.id,
            broker_epoch=leader.epoch,
            topics=[TopicData(topic_id=self.image.topics[name].id, partitions=[asked])],
        )

    def alter(self, request: AlterPartitionRequest) -> AlterPartitionResult:
        response = self.take(lambda image: alter_partition(image, self.settings, request))
        return response.topics[0].partitions[0]

    def set_isr(self, name: str, *isr: int) -> ErrorCode:
        return ErrorCode.of(self.alter(self.isr_request(name, isr)).error_code)


def topic(name: str, partitions: int = 1, replicas: int = 1) -> CreatableTopic:
    return CreatableTopic(name=name, num_partitions=partitions, replication_factor=replicas)
