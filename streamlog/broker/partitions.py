"""The partitions this broker serves, kept as the committed metadata says.

`publish` is told what a run of committed records touched and makes the disk and the open logs agree: partitions
assigned here are opened or created, deleted ones closed and moved away, changed configs swapped in. It runs without
an await between, so no request sees half of a change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from uuid import UUID

from streamlog.broker.disk_watch import DiskWatch
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC, MetadataDelta, MetadataImage, TopicImage
from streamlog.broker.metadata.topic_names import CLUSTER_METADATA
from streamlog.broker.partition import Partition
from streamlog.env import Env, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)


class Partitions:
    """Everything led here, by topic and number."""

    def __init__(
        self, env: Env, node_id: int, logs: LogDirectory, flusher: Flusher, scope: Scope, defaults: Mapping[str, str]
    ) -> None:
        """`defaults`: the broker-side names of topic configs, from the properties file."""
        self._env = env
        self._node_id = node_id
        self._logs = logs
        self._flusher = flusher
        self._scope = scope
        self._static_defaults = dict(defaults)
        self.disk_watch = DiskWatch(env.clock)
        self._by_topic: dict[str, dict[int, Partition]] = {}

    def find(self, topic: str, index: int) -> Partition | None:
        """The partition, if it is led and open here."""
        partitions = self._by_topic.get(topic)
        return None if partitions is None else partitions.get(index)

    def lead(self, topic: str, index: int, leader_epoch: int = -1) -> Partition:
        """The partition, for a request that believes its leader epoch is `leader_epoch` (-1: does not say).

        Raises KafkaError: there is none here, or the client knows less or more than we do (KIP-320).
        """
        partition = self.find(topic, index)
        if partition is None:
            if self.is_offline(topic, index):
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{topic}-{index} is offline")
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no partition {topic}-{index}")
        if leader_epoch >= 0 and leader_epoch != partition.leader_epoch:
            older = leader_epoch < partition.leader_epoch
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH if older else ErrorCode.UNKNOWN_LEADER_EPOCH)
        return partition

    def __iter__(self) -> Iterator[Partition]:
        for partitions in self._by_topic.values():
            yield from partitions.values()

    def is_offline(self, topic: str, index: int) -> bool:
        """Whether the partition belongs here and its disk or its bytes are damaged."""
        return (topic, index) in self._logs.offline

    # -- following the metadata -------------------------------------------------------------------------------

    def defaults(self, image: MetadataImage) -> dict[str, str]:
        """What topics inherit: this broker's dynamic configs, those of all brokers, the properties file."""
        return {
            **self._static_defaults,
            **image.config(RESOURCE_BROKER, ""),
            **image.config(RESOURCE_BROKER, str(self._node_id)),
        }

    def publish_all(self, image: MetadataImage) -> None:
        """At start: open everything, and set aside what the cluster does not know."""
        expected = [(CLUSTER_METADATA, 0)]
        for topic in image.topics.values():
            expected += [(topic.name, index) for index, p in topic.partitions.items() if self._node_id in p.replicas]
        for path in self._logs.quarantine_strays(expected):
            log.warning("a partition the cluster does not know was set aside as %s", path)
        for topic in image.topics.values():
            self._publish_topic(image, topic)

    def publish(self, image: MetadataImage, delta: MetadataDelta) -> None:
        """Follow a run of committed records."""
        for topic in delta.deleted.values():
            self._remove_topic(topic)
        for name in delta.topics:
            created = image.topics.get(name)
            if created is not None:
                self._publish_topic(image, created)
        for resource_type, name in delta.configs:
            if resource_type == RESOURCE_BROKER:
                for topic_name in self._by_topic:
                    self._publish_config(image, topic_name)
            elif resource_type == RESOURCE_TOPIC:
                self._publish_config(image, name)

    def _publish_topic(self, image: MetadataImage, topic: TopicImage) -> None:
        config: LogConfig | None = None
        for index, registration in topic.partitions.items():
            if self._node_id not in registration.replicas:
                continue
            partition = self.find(topic.name, index)
            if partition is not None:
                partition.leader_epoch = registration.leader_epoch
                continue
            config = config or self._config_of(image, topic.name)
            self._open(topic.name, index, topic.id, config, registration.leader_epoch, len(registration.replicas))

    def _open(
        self, topic: str, index: int, topic_id: UUID, config: LogConfig, leader_epoch: int, replica_count: int
    ) -> None:
        try:
            opened = self._logs.open_partition(topic, index, topic_id, config, self._env.clock.wall_ms())
        except PartitionOffline as error:
            log.error("partition=%s-%d state=offline reason=%s", topic, index, error.message)
            return
        self._by_topic.setdefault(topic, {})[index] = Partition(
            topic,
            index,
            topic_id,
            opened,
            self._flusher,
            self._scope,
            self.disk_watch,
            leader_epoch=leader_epoch,
            replica_count=replica_count,
        )

    def _remove_topic(self, topic: TopicImage) -> None:
        served = self._by_topic.get(topic.name, {})
        if any(partition.topic_id != topic.id for partition in served.values()):
            return  # its successor of the same name is served already
        self._by_topic.pop(topic.name, None)
        for index in topic.partitions:
            partition = served.get(index)
            if partition is not None:
                partition.close()
                self._flusher.forget(partition.log)
            self._logs.delete_partition(topic.name, index, self._env.clock.wall_ms())

    def _config_of(self, image: MetadataImage, topic: str) -> LogConfig:
        return LogConfig.from_topic(image.config(RESOURCE_TOPIC, topic), self.defaults(image))

    def _publish_config(self, image: MetadataImage, topic: str) -> None:
        partitions = self._by_topic.get(topic)
        if partitions:
            config = self._config_of(image, topic)
            for partition in partitions.values():
                partition.update_config(config)

    # -- the clock --------------------------------------------------------------------------------------------

    def expire_acknowledgements(self, now_ms: int) -> None:
        """Tell producers whose timeout has passed that their records may not be stored."""
        for partition in self:
            partition.expire(now_ms)

    def flush_overdue(self, now_ms: int) -> None:
        """Flush what has been waiting for longer than its topic's `flush.ms`."""
        for partition in self:
            partition.flush_overdue(now_ms)

    def close(self) -> None:
        for partition in self:
            partition.close()
