"""The partitions this broker serves, kept as the committed metadata says.

`publish` is told what a run of committed records touched and makes the disk and the open logs agree: partitions
assigned here are opened or created, deleted ones closed and moved away, changed configs swapped in. It runs without
an await between, so no request sees half of a change.

Creating a partition takes a fraction of a millisecond, so those of a large topic are created a few at a time by a task.
Whoever asks for one before has it created at once: nobody can tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

from streamlog.broker.disk_watch import DiskWatch, is_for_want_of_room
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.metadata.image import (
    RESOURCE_BROKER,
    RESOURCE_TOPIC,
    MetadataDelta,
    MetadataImage,
    PartitionRegistration,
    TopicImage,
)
from streamlog.broker.metadata.topic_names import CLUSTER_METADATA
from streamlog.broker.partition import Partition, Role
from streamlog.broker.replication.roles import Replication
from streamlog.env import OFFLOAD_THREADS_MAX, Env, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)

CREATE_AT_ONCE: Final = 8
"""New partitions that one change of the metadata may create on the spot, and how many the task creates at a time: 2 ms,
and ten times that on a busy disk."""

CREATE_PAUSE_S: Final = 0.002
"""Others get at least this much in between."""

RECOVER_AT_ONCE: Final = 32
"""Partitions that are read at a start before they are synced by a thread, while the next are being read. Reading them
in threads too gains nothing: it is the interpreter that works there, and not the disk."""


RETRY_AT_ONCE: Final = 32
"""Partitions that had no room on the disk, tried again together: some ten milliseconds if all of them have now."""


class _Missing(NamedTuple):
    """Partitions of a topic that are assigned here and not created yet."""

    topic_id: UUID
    config: LogConfig
    registrations: dict[int, PartitionRegistration]
    """By number; never empty."""


class Partitions:
    """Every replica here, by topic and number."""

    def __init__(
        self,
        env: Env,
        node_id: int,
        logs: LogDirectory,
        flusher: Flusher,
        scope: Scope,
        defaults: Mapping[str, str],
        replication: Replication,
    ) -> None:
        """`defaults`: the broker-side names of topic configs, from the properties file."""
        self._image = MetadataImage()
        self._replication = replication
        self._env = env
        self._node_id = node_id
        self._logs = logs
        self._flusher = flusher
        self._scope = scope
        self._static_defaults = dict(defaults)
        self.disk_watch = DiskWatch(env.clock)
        self._missing: dict[str, _Missing] = {}  # a task works on it while it is not empty
        self._is_creating = False
        self._refused: dict[tuple[str, int], None] = {}  # what the disk had no room for, longest untried first
        self._by_topic: dict[str, dict[int, Partition]] = {}

    def find(self, topic: str, index: int) -> Partition | None:
        """The partition, if a replica of it is here, in whatever role."""
        partitions = self._by_topic.get(topic)
        found = None if partitions is None else partitions.get(index)
        if found is None and self._missing:
            return self._create_missing(topic, index)
        return found

    def opened(self, topic: str) -> Mapping[int, Partition]:
        """The replicas of a topic that are here and were created already."""
        return self._by_topic.get(topic, {})

    def lead(self, topic: str, index: int, leader_epoch: int = -1) -> Partition:
        """The partition, for a request that believes its leader epoch is `leader_epoch` (-1: does not say).

        Raises KafkaError: there is none here, or the client knows less or more than we do (KIP-320).
        """
        partition = self.find(topic, index)
        if partition is None:
            if self.is_offline(topic, index):
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{topic}-{index} is offline")
            raise KafkaError(self.absence(topic, index), f"there is no replica of {topic}-{index} here")
        if leader_epoch >= 0 and leader_epoch != partition.leader_epoch:
            older = leader_epoch < partition.leader_epoch
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH if older else ErrorCode.UNKNOWN_LEADER_EPOCH)
        if partition.role is not Role.LEADER:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, f"{topic}-{index} is not led here")
        return partition

    def absence(self, topic: str, index: int) -> ErrorCode:
        """Why `find` finds nothing: there is no such partition, or other brokers have it."""
        known = self._image.partition(topic, index) is not None
        return ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def __iter__(self) -> Iterator[Partition]:
        for partitions in list(self._by_topic.values()):
            yield from list(partitions.values())  # copies: `find` may create one meanwhile

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

    async def publish_all(self, image: MetadataImage) -> None:
        """At start: open everything, and set aside what the cluster does not know.

        Returns when all that recovery has found is on disk. Nobody may read it before, and nobody may miss it.
        """
        self._see(image)
        self._publish_throttles(image)
        for name in image.topics:
            self._replication.set_throttled(name, image.config(RESOURCE_TOPIC, name))
        expected = [(CLUSTER_METADATA, 0)]
        for topic in image.topics.values():
            expected += [(topic.name, index) for index, p in topic.partitions.items() if self._node_id in p.replicas]
        for path in self._logs.quarantine_strays(expected):
            log.warning("a partition the cluster does not know was set aside as %s", path)
        for topic in image.topics.values():
            self._publish_topic(image, topic)
        pending = self._open_missing_logs()
        async with asyncio.TaskGroup() as group:
            for _ in range(OFFLOAD_THREADS_MAX):
                group.create_task(self._sync_opened(pending))
        self._create_next(sum(len(missing.registrations) for missing in self._missing.values()))

    def _open_missing_logs(self) -> Iterator[PartitionLog]:
        """Open one log after the other; `_open` will find them open. Those that have to be synced first."""
        for topic, index in [(topic, index) for topic, m in self._missing.items() for index in m.registrations]:
            missing = self._missing.get(topic)
            registration = None if missing is None else missing.registrations.get(index)
            if missing is None or registration is None:
                continue  # deleted or asked for meanwhile
            opened = self._open_log(topic, index, missing)
            if missing.config.flushes_before_ack(len(registration.replicas)):
                yield from opened
            else:
                list(opened)

    async def _sync_opened(self, pending: Iterator[PartitionLog]) -> None:
        while opened := list(islice(pending, RECOVER_AT_ONCE)):
            await self._flusher.flush_opened(opened)

    def publish(self, image: MetadataImage, delta: MetadataDelta) -> None:
        """Follow a run of committed records."""
        self._see(image)
        for topic in delta.deleted.values():
            self._replication.set_throttled(topic.name, image.config(RESOURCE_TOPIC, topic.name))
            self._remove_topic(topic)
        # A leader commits by its in-sync set and min.insync.replicas together: never by one of them from these metadata
        # and the other from those before.
        reconfigured = self._publish_configs(image, delta)
        for name in delta.topics:
            created = image.topics.get(name)
            if created is not None:
                self._publish_topic(image, created)
        for partition in reconfigured:
            partition.on_config_updated()
        if sum(len(missing.registrations) for missing in self._missing.values()) <= CREATE_AT_ONCE:
            self._create_next(CREATE_AT_ONCE)
        elif not self._is_creating:
            self._is_creating = True
            self._scope.spawn("create partitions", self._create_in_turns())
        if delta.brokers:
            self._replication.refresh()

    def _publish_configs(self, image: MetadataImage, delta: MetadataDelta) -> list[Partition]:
        """Give partitions their new configs. Returns them; nothing has followed from it yet."""
        topics: dict[str, None] = {}
        for resource_type, name in delta.configs:
            if resource_type == RESOURCE_BROKER:
                self._publish_throttles(image)
                topics |= dict.fromkeys({**self._by_topic, **self._missing})
            elif resource_type == RESOURCE_TOPIC:
                self._replication.set_throttled(name, image.config(RESOURCE_TOPIC, name))
                topics[name] = None
        return [partition for topic in topics for partition in self._publish_config(image, topic)]

    def _see(self, image: MetadataImage) -> None:
        self._image = image
        self._replication.see(image)

    def _publish_throttles(self, image: MetadataImage) -> None:
        self._replication.set_throttles(
            {**image.config(RESOURCE_BROKER, ""), **image.config(RESOURCE_BROKER, str(self._node_id))}
        )

    def _publish_topic(self, image: MetadataImage, topic: TopicImage) -> None:
        served = self._by_topic.get(topic.name, {})
        missing: dict[int, PartitionRegistration] = {}
        for index, registration in topic.partitions.items():
            partition = served.get(index)
            if self._node_id not in registration.replicas:
                if partition is not None:
                    log.info("partition=%r has moved to %s", partition, ",".join(map(str, registration.replicas)))
                    del served[index]
                    self._remove(topic, index, partition)
            elif partition is not None:
                self._replication.assign(partition, registration)
            else:
                missing[index] = registration
        self._missing.pop(topic.name, None)
        if missing:
            self._missing[topic.name] = _Missing(topic.id, self._config_of(image, topic.name), missing)

    def _create_missing(self, topic: str, index: int) -> Partition | None:
        """Create or open a partition whose turn has not come yet, if it is one."""
        missing = self._missing.get(topic)
        registration = None if missing is None else missing.registrations.pop(index, None)
        if missing is None or registration is None:
            return None
        if not missing.registrations:
            del self._missing[topic]
        return self._open(topic, index, missing, registration)

    def _create_next(self, count: int) -> None:
        for _ in range(count):
            if not self._missing:
                return
            topic, missing = next(iter(self._missing.items()))
            self._create_missing(topic, next(iter(missing.registrations)))

    async def _create_in_turns(self) -> None:
        try:
            while self._missing:
                self._create_next(CREATE_AT_ONCE)
                await asyncio.sleep(CREATE_PAUSE_S)
        finally:
            self._is_creating = False

    def _open(self, topic: str, index: int, missing: _Missing, registration: PartitionRegistration) -> Partition | None:
        topic_id, config = missing.topic_id, missing.config
        key = topic, index
        try:
            opened = self._logs.open_partition(topic, index, topic_id, config, self._env.clock.wall_ms())
        except PartitionOffline as error:
            if is_for_want_of_room(error):
                if key not in self._refused:
                    log.error("partition=%s-%d state=offline reason=%s (tried again)", topic, index, error.message)
                self._refused.pop(key, None)
                self._refused[key] = None  # others have their turn before it
            else:
                log.error("partition=%s-%d state=offline reason=%s", topic, index, error.message)
            return None
        if key in self._refused:
            del self._refused[key]
            log.warning("partition=%s-%d state=online: the disk has taken it", topic, index)
        partition = self._by_topic.setdefault(topic, {})[index] = Partition(
            topic,
            index,
            topic_id,
            opened,
            self._flusher,
            self._scope,
            self.disk_watch,
            self._env.clock,
            self._replication.isr_changes,
        )
        self._replication.assign(partition, registration)
        return partition

    async def retry_refused(self) -> None:
        """Open or create what the disk had no room for when its turn came, a few at a time. Every few seconds."""
        for topic, index in list(self._refused)[:RETRY_AT_ONCE]:
            found = self._to_open(topic, index)
            if found is not None:
                missing, registration = found
                if missing.config.flushes_before_ack(len(registration.replicas)):
                    await self._sync_opened(self._open_log(topic, index, missing))
                found = self._to_open(topic, index)  # as it is after the wait
            if found is None:
                self._refused.pop((topic, index), None)
            elif self._open(topic, index, *found) is None:
                return  # and neither will the others have room

    def _to_open(self, topic: str, index: int) -> tuple[_Missing, PartitionRegistration] | None:
        """What `_open` has to know of a partition, if it belongs here and is not open."""
        found, registration = self._image.topics.get(topic), self._image.partition(topic, index)
        if found is None or registration is None or self._node_id not in registration.replicas:
            return None
        if self.find(topic, index) is not None:
            return None
        return _Missing(found.id, self._config_of(self._image, topic), {}), registration

    def _open_log(self, topic: str, index: int, missing: _Missing) -> Iterator[PartitionLog]:
        with suppress(PartitionOffline):  # `_open` tells
            yield self._logs.open_partition(topic, index, missing.topic_id, missing.config, self._env.clock.wall_ms())

    def _remove_topic(self, topic: TopicImage) -> None:
        served = self._by_topic.get(topic.name, {})
        missing = self._missing.get(topic.name)
        present = [partition.topic_id for partition in served.values()] + ([missing.topic_id] if missing else [])
        if any(topic_id != topic.id for topic_id in present):
            return  # its successor of the same name is served already
        self._missing.pop(topic.name, None)
        self._by_topic.pop(topic.name, None)
        for index in topic.partitions:
            self._remove(topic, index, served.get(index))

    def _remove(self, topic: TopicImage, index: int, partition: Partition | None) -> None:
        if partition is not None:
            partition.close()
            self._replication.release(partition)
            self._flusher.forget(partition.log)
        self._logs.delete_partition(topic.name, index, self._env.clock.wall_ms())

    def _config_of(self, image: MetadataImage, topic: str) -> LogConfig:
        return LogConfig.from_topic(image.config(RESOURCE_TOPIC, topic), self.defaults(image))

    def _publish_config(self, image: MetadataImage, topic: str) -> list[Partition]:
        partitions, missing = self._by_topic.get(topic, {}), self._missing.get(topic)
        if partitions or missing:
            config = self._config_of(image, topic)
            for partition in partitions.values():
                partition.update_config(config)
            if missing:
                self._missing[topic] = missing._replace(config=config)
        return list(partitions.values())

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
