"""Changes of partitions within one decision: by whom they can be led, and what a broker's coming and going does.

A decision may touch a partition twice (its directory fails while its broker is fenced). So each change builds on the
ones before it, not on the image alone, and the records tell one story.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from streamlog.broker.features import ELIGIBLE_LEADER_REPLICAS
from streamlog.broker.metadata.decision import ControllerSettings
from streamlog.broker.metadata.image import (
    NO_LEADER,
    RESOURCE_BROKER,
    RESOURCE_TOPIC,
    BrokerRegistration,
    ConfigKey,
    KnownRecord,
    MetadataImage,
    PartitionRegistration,
    TopicImage,
)
from streamlog.broker.metadata.partition_change import Election, Terms, Wanted, change_partition
from streamlog.broker.topic_configs import TOPIC_CONFIGS, ConfigSource, find_value

DIRECTORY_MIGRATING: Final = UUID(int=0)
DIRECTORY_UNASSIGNED: Final = UUID(int=1)
DIRECTORY_LOST: Final = UUID(int=2)
"""KIP-858: a broker that does not tell its directories; one that has not told yet where a replica is; one that is
gone."""

NO_BROKER: Final = -1

MIN_ISR: Final = "min.insync.replicas"
UNCLEAN: Final = "unclean.leader.election.enable"


def has_online_directory(broker: BrokerRegistration, directory: UUID) -> bool:
    if not broker.directories or directory in broker.directories:
        return True
    return directory in (DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED)


def default_directory(image: MetadataImage, broker_id: int) -> UUID:
    """Where a broker's new replicas go: its only directory, or it decides by itself and tells (KIP-858)."""
    broker = image.brokers.get(broker_id)
    if broker is None:
        return DIRECTORY_UNASSIGNED
    if not broker.directories:
        return DIRECTORY_MIGRATING
    return broker.directories[0] if len(broker.directories) == 1 else DIRECTORY_UNASSIGNED


def has_elr(image: MetadataImage) -> bool:
    return image.features.get(ELIGIBLE_LEADER_REPLICAS, 0) > 0


@dataclass(slots=True)
class PartitionChanges:
    """What a decision has changed so far. `image` stays as it is."""

    image: MetadataImage
    settings: ControllerSettings
    records: list[KnownRecord] = field(default_factory=list)
    coming: int = NO_BROKER
    """A broker that counts as active, although the image does not know it yet."""
    going: int = NO_BROKER
    """A broker that does not count as active any more."""
    offline: frozenset[UUID] = frozenset()
    """Directories that have failed, although the image does not know it yet."""
    configs: Mapping[ConfigKey, Mapping[str, str]] = field(default_factory=dict)
    """Configs of resources that the same decision changes, as they are then."""
    _changed: dict[UUID, dict[int, PartitionRegistration]] = field(default_factory=dict)
    _rules: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """By topic: min ISR, and whether unclean elections are wanted."""

    def partition(self, topic: TopicImage, index: int) -> PartitionRegistration:
        changed = self._changed.get(topic.id)
        return topic.partitions[index] if changed is None else changed.get(index) or topic.partitions[index]

    def partitions(self) -> Iterator[tuple[TopicImage, int, PartitionRegistration]]:
        """All of the cluster, as they are by now."""
        for topic in self.image.topics.values():
            changed = self._changed.get(topic.id, {})
            for index, partition in topic.partitions.items():
                yield topic, index, changed.get(index, partition)

    def change(self, topic: TopicImage, index: int, wanted: Wanted) -> PartitionRegistration | None:
        """Note the change; returns the partition after it, or None if nothing changes."""
        before = self.partition(topic, index)
        record = change_partition(topic.id, index, before, wanted, self.terms(topic, before, wanted))
        if record is None:
            return None
        after = before.merge(record)
        self.records.append(record)
        self._changed.setdefault(topic.id, {})[index] = after
        return after

    def terms(self, topic: TopicImage, before: PartitionRegistration, wanted: Wanted) -> Terms:
        def is_alive(replica: int) -> bool:
            broker = self.image.brokers.get(replica)
            return replica != self.going and broker is not None and (broker.is_active or replica == self.coming)

        def has_disk(replica: int) -> bool:
            directory = wanted.directories.get(replica) or before.directory(replica) or DIRECTORY_UNASSIGNED
            broker = self.image.brokers.get(replica)
            return directory not in self.offline and broker is not None and has_online_directory(broker, directory)

        def may_lead(replica: int) -> bool:
            return is_alive(replica) and has_disk(replica)

        return Terms(
            self.min_isr(topic.name), has_elr(self.image), may_lead, self._default_directory, has_disk, is_alive
        )

    def directories_of(self, partition: PartitionRegistration, members: Iterable[int]) -> dict[int, UUID]:
        """Where those of them are, being in sync, whose disk was replaced: the new one has everything by now."""
        found: dict[int, UUID] = {}
        for member in members:
            broker = self.image.brokers.get(member)
            known = partition.directory(member) or DIRECTORY_UNASSIGNED
            if broker is not None and not has_online_directory(broker, known):
                found[member] = self._default_directory(member)
        return found

    def _default_directory(self, broker_id: int) -> UUID:
        return default_directory(self.image, broker_id)

    def min_isr(self, topic: str) -> int:
        return self._rules_of(topic)[0]

    def election(self, topic: str) -> Election:
        """The kind of election that happens by itself."""
        return Election.UNCLEAN if self._rules_of(topic)[1] else Election.ONLINE

    def _rules_of(self, topic: str) -> tuple[int, bool]:
        found = self._rules.get(topic)
        if found is None:
            unclean = self._topic_config(topic, UNCLEAN).strip().lower() == "true"
            found = self._rules[topic] = (int(self._topic_config(topic, MIN_ISR)), unclean)
        return found

    def _topic_config(self, topic: str, name: str) -> str:
        """As the cluster sees it: the topic's own, else the default of all brokers, else this node's."""
        layers = [
            (ConfigSource.DYNAMIC_DEFAULT_BROKER, self._config((RESOURCE_BROKER, ""))),
            (ConfigSource.STATIC_BROKER, self.settings.topic_defaults),
        ]
        return find_value(TOPIC_CONFIGS[name], self._config((RESOURCE_TOPIC, topic)), layers)[0].value

    def _config(self, key: ConfigKey) -> Mapping[str, str]:
        changed = self.configs.get(key)
        return self.image.config(*key) if changed is None else changed

    # -- what a config does ---------------------------------------------------------------------------------------

    def apply_configs(self, topics: Iterable[TopicImage]) -> None:
        """Min ISR or unclean elections are other than they were: of these topics, make the partitions follow.

        Where the ISR is not below min ISR any more, the high watermark moves without those who were eligible.
        """
        for topic in topics:
            for index in topic.partitions:
                self.change(topic, index, Wanted(election=self.election(topic.name)))

    # -- what a broker's coming and going does --------------------------------------------------------------------

    def remove_broker(self, broker_id: int) -> None:
        """Take a broker out of every ISR, and its leaderships from it."""
        self.going = broker_id
        for topic, index, partition in self.partitions():
            if broker_id in partition.isr:
                self._leave_isr(topic, index, partition, broker_id)

    def restart_broker(self, broker_id: int) -> None:
        """A broker is back after it stopped in order. What others can lead they lead; the rest waits for it.

        A partition that nobody else could have led meanwhile stays as it is: nothing has happened to it, so nobody
        has to be told, and a single node writes no records about its partitions when it starts.
        """
        self.going = broker_id
        for topic, index, partition in self.partitions():
            if broker_id in partition.isr:
                isr = tuple(replica for replica in partition.isr if replica != broker_id)
                wanted = Wanted(isr=isr, election=self.election(topic.name))
                if partition.leader != broker_id or self._leader_after(topic, index, wanted) != NO_LEADER:
                    self.change(topic, index, wanted)

    def _leader_after(self, topic: TopicImage, index: int, wanted: Wanted) -> int:
        before = self.partition(topic, index)
        record = change_partition(topic.id, index, before, wanted, self.terms(topic, before, wanted))
        return before.leader if record is None else before.merge(record).leader

    def _leave_isr(self, topic: TopicImage, index: int, partition: PartitionRegistration, broker_id: int) -> None:
        isr = tuple(replica for replica in partition.isr if replica != broker_id)
        self.change(topic, index, Wanted(isr=isr, election=self.election(topic.name)))

    def lose_data_of(self, broker_id: int, gone: frozenset[UUID] = frozenset()) -> None:
        """A broker stopped without warning, and may lack what it had acknowledged: neither ISR nor ELR may trust it.

        `gone`: directories that it had then and has not now. What was in them is lost.
        """
        self.going = broker_id
        self.offline = gone
        lost = (broker_id,)
        for topic, index, partition in self.partitions():
            if (
                broker_id in partition.isr
                or broker_id in partition.eligible_leader_replicas
                or broker_id in partition.last_known_elr
            ):
                isr = tuple(replica for replica in partition.isr if replica != broker_id)
                self.change(topic, index, Wanted(isr=isr, lost_data=lost, election=self.election(topic.name)))

    def add_broker(self, broker_id: int) -> None:
        """A broker may lead again: let it, where nobody does."""
        self.coming = broker_id
        for topic, index, partition in self.partitions():
            if partition.leader == NO_LEADER and broker_id in partition.replicas:
                self.change(topic, index, Wanted(election=self.election(topic.name)))

    def lose_directories(self, broker_id: int, offline: frozenset[UUID]) -> None:
        """Replicas in directories that failed leave their ISR; others of the same broker stay."""
        self.offline = offline
        for topic, index, partition in self.partitions():
            if broker_id in partition.isr and partition.directory(broker_id) in offline:
                self._leave_isr(topic, index, partition, broker_id)


def leads_anything(image: MetadataImage, broker_id: int) -> bool:
    return any(
        partition.leader == broker_id for topic in image.topics.values() for partition in topic.partitions.values()
    )
