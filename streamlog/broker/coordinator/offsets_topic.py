"""`__consumer_offsets` on this node: who creates it, what of it is led here, and its partitions as shard logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import UUID

from streamlog.broker.config import BrokerConfig
from streamlog.broker.controller_channel import ControllerChannel
from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.groups import TOPIC, GroupCoordinator
from streamlog.broker.log.partition import Origin
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.image import MetadataDelta
from streamlog.broker.partition import Partition
from streamlog.broker.partitions import Partitions
from streamlog.env import Env, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

READ_BYTES_MAX = 32 * 1024
"""How much of a log is folded before other tasks get their turn: some 400 committed offsets, 5 ms."""

FOLLOW_MS_MAX = 5_000
"""How long the creation waits for this broker to have heard of the new topic. Who asks for a group asks again."""


class PartitionShardLog:
    """A led partition behind the runtime's ShardLog seam."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._leader_epoch = partition.leader_epoch

    @property
    def leadership(self) -> tuple[UUID, int]:
        return self._partition.topic_id, self._leader_epoch

    @property
    def end_offset(self) -> int:
        return self._partition.log.log_end_offset

    @property
    def committed_offset(self) -> int:
        return self._partition.log.high_watermark

    @property
    def is_cut_off(self) -> bool:
        return self._partition.is_cut_off

    def append(self, batch: bytearray, now_ms: int) -> None:
        self._check_leader()
        self._partition.check_min_isr()
        self._partition.append(batch, now_ms, Origin.COORDINATOR)

    async def wait_committed(self, offset: int) -> None:
        await self._partition.committed(offset)
        self._check_leader()

    async def read(self) -> AsyncIterator[bytes]:
        log = self._partition.log
        position, end_offset = log.log_start_offset, log.log_end_offset
        while position < end_offset:
            self._check_leader()
            data, position = log.read(position, READ_BYTES_MAX, end_offset=end_offset)
            yield bytes(data)

    def _check_leader(self) -> None:
        if not self._partition.is_leader or self._partition.leader_epoch != self._leader_epoch:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)


class OffsetsTopic:
    """The topic as the coordinator needs it (`groups.GroupTopic`)."""

    def __init__(
        self,
        controller: Controller,
        channel: ControllerChannel,
        partitions: Partitions,
        *,
        partition_count: int,
        replicas: Callable[[int], int],
        segment_bytes: int,
    ) -> None:
        self._controller = controller
        self._channel = channel
        self._partitions = partitions
        self._count = partition_count
        self._replicas = replicas  # how many, given how many brokers are alive
        self._segment_bytes = segment_bytes

    def partition_count(self) -> int | None:
        topic = self._controller.image.topics.get(TOPIC)
        return None if topic is None else len(topic.partitions)

    async def create(self) -> None:
        active = sum(broker.is_active for broker in self._controller.image.brokers.values())
        request = CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name=TOPIC,
                    num_partitions=self._count,
                    replication_factor=self._replicas(active),
                    configs=[
                        CreatableTopicConfig(name="cleanup.policy", value="compact"),
                        CreatableTopicConfig(name="compression.type", value="producer"),
                        CreatableTopicConfig(name="segment.bytes", value=str(self._segment_bytes)),
                    ],
                )
            ]
        )
        response = await self._channel.forward(request, CreateTopicsRequest.max_version)
        assert isinstance(response, CreateTopicsResponse), "the answer is of the request's API"
        (result,) = response.topics
        if result.error_code not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
            raise KafkaError(ErrorCode.of(result.error_code), result.error_message or "")
        await self._controller.until(lambda image: TOPIC in image.topics, FOLLOW_MS_MAX)

    def led(self) -> dict[int, PartitionShardLog]:
        opened = sorted(self._partitions.opened(TOPIC).items())
        return {index: PartitionShardLog(one) for index, one in opened if one.is_leader}

    def lead(self, partition: int) -> PartitionShardLog | None:
        found = self._partitions.find(TOPIC, partition)
        return PartitionShardLog(found) if found is not None and found.is_leader else None


def open_groups(
    env: Env,
    config: BrokerConfig,
    controller: Controller,
    channel: ControllerChannel,
    partitions: Partitions,
    scope: Scope,
) -> GroupCoordinator:
    """The group coordinator of a broker, with its settings. It leads nothing before `follow`."""
    limits = GroupLimits(
        group_min_session_timeout_ms=config.integer("group.min.session.timeout.ms"),
        group_max_session_timeout_ms=config.integer("group.max.session.timeout.ms"),
        group_initial_rebalance_delay_ms=config.integer("group.initial.rebalance.delay.ms"),
        group_max_size=config.integer("group.max.size"),
        offset_metadata_max_bytes=config.integer("offset.metadata.max.bytes"),
        offsets_retention_ms=config.integer("offsets.retention.minutes") * 60_000,
        offsets_retention_check_interval_ms=config.integer("offsets.retention.check.interval.ms"),
    )
    topic = OffsetsTopic(
        controller,
        channel,
        partitions,
        partition_count=config.integer("offsets.topic.num.partitions"),
        replicas=config.offsets_replicas,
        segment_bytes=config.integer("offsets.topic.segment.bytes"),
    )
    return GroupCoordinator(env, limits, topic, scope)


def follow_metadata(groups: GroupCoordinator, delta: MetadataDelta) -> None:
    """Tell the coordinator what a run of committed records means for it, after the partitions have followed."""
    gone = {topic.name: topic.id for topic in delta.deleted.values()}
    if TOPIC in delta.topics or TOPIC in gone:
        groups.follow()
    if gone:
        groups.forget_topics(gone)
