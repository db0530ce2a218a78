"""What followers take from leaders, and whom leaders take into their in-sync sets (invariants 12 and 17).

A follower appends what the leader of its epoch has, and nothing else: what was under way from the one before is thrown
away. It would mostly be cut again, but not if the follower leads before that.

A set grows because its leader asked for it. So every proposal of a leader is kept as it is seen. Whom it is to take in
has everything that was there when the leader began and all that is committed; and when the metadata has the larger set,
somebody must have asked for it of the set before, and for the incarnation that is registered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streamlog.broker.broker import Broker
from streamlog.broker.metadata.image import MetadataImage, PartitionRegistration
from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.broker.replication.leader import UNKNOWN_EPOCH, IsrProposal
from streamlog.testing.simulator.invariants import Violation
from streamlog.testing.simulator.log_view import Entry, LogView
from streamlog.testing.simulator.machine import Machine, Process
from streamlog.testing.simulator.trim_watch import PartitionId


class _Place(NamedTuple):
    """How far a follower was seen to be."""

    process: Process | None
    generation: int
    leader_epoch: int
    end_offset: int


@dataclass(slots=True)
class ReplicationWatch:
    """Looks at replicas as they are looked at by others, then at all of them. Raises Violation."""

    _places: dict[tuple[str, PartitionId], _Place] = field(default_factory=dict)
    _taken: list[tuple[str, Partition, Entry]] = field(default_factory=list)
    """What followers have appended since the last look."""
    _views: dict[tuple[str, PartitionId], LogView] = field(default_factory=dict)
    _asked: dict[tuple[PartitionId, int], list[IsrProposal]] = field(default_factory=dict)
    """By leader epoch."""
    _sets: dict[PartitionId, PartitionRegistration] = field(default_factory=dict)
    """The newest that any node knew."""
    _applied_offset: int = -1
    """Of the metadata that these are from."""

    def look(self, machine: Machine, partition: Partition, view: LogView) -> None:
        """`view` has just been brought up to date."""
        key, log = (partition.topic_id, partition.index), partition.log
        self._views[machine.name, key] = view
        place = _Place(machine.process, log.generation, partition.leader_epoch, view.end_offset)
        before = self._places.get((machine.name, key))
        self._places[machine.name, key] = place
        if before is not None and before[:3] == place[:3] and partition.follower is not None and not log.config.compact:
            fresh = (entry for entry, _ in view.fresh if entry.base_offset >= before.end_offset)
            self._taken += [(machine.name, partition, entry) for entry in fresh]

    def check(self, running: Iterable[tuple[Machine, Node]], image: MetadataImage) -> None:
        """Every replica that runs has been looked at; `image` is the newest."""
        nodes = list(running)
        brokers = {node.broker.node_id: node.broker for _, node in nodes}
        taken, self._taken = self._taken, []
        for name, partition, entry in taken:
            self._check_taken(nodes, name, partition, entry)
        for broker in brokers.values():
            for partition in broker.partitions:
                if partition.leader is not None and partition.leader.proposed is not None:
                    self._check_proposal(brokers, partition, partition.leader.proposed)
        self._check_sets(image)

    def _check_taken(self, nodes: list[tuple[Machine, Node]], name: str, partition: Partition, entry: Entry) -> None:
        for machine, node in nodes:
            leading = _replica(node.broker, partition)
            if leading is None or not leading.is_leader or leading.leader_epoch != partition.leader_epoch:
                continue
            view = self._views[machine.name, (partition.topic_id, partition.index)]
            if entry.base_offset >= leading.log.log_start_offset and view.entries.get(entry.base_offset) != entry:
                raise Violation(
                    12,
                    f"{name} {partition!r} takes {entry} in epoch {partition.leader_epoch}; its leader {machine.name} "
                    f"has {view.entries.get(entry.base_offset)} there",
                )

    def _check_proposal(self, brokers: Mapping[int, Broker], partition: Partition, proposal: IsrProposal) -> None:
        key, leader = (partition.topic_id, partition.index), partition.leader
        asked = self._asked.setdefault((key, proposal.leader_epoch), [])
        if leader is None or any(one is proposal for one in asked):
            return
        asked.append(proposal)
        wanted = max(leader.epoch_start_offset, partition.log.high_watermark)
        for member, broker_epoch in proposal.isr:
            broker = brokers.get(member)
            if member in leader.isr or broker is None or broker.producer_ids.broker_epoch != broker_epoch:
                continue
            replica = _replica(broker, partition)
            if replica is None or replica.leader_epoch != partition.leader_epoch:
                continue  # it knows of a later leader, who decides what it keeps
            if replica.log.log_end_offset < wanted:
                raise Violation(
                    17,
                    f"{partition!r}: node{member} is to be in sync and ends at {replica.log.log_end_offset}; "
                    f"the leader began at {leader.epoch_start_offset}, committed: {partition.log.high_watermark}",
                )

    def _check_sets(self, image: MetadataImage) -> None:
        for topic in image.topics_by_id.values():
            for index, found in topic.partitions.items():
                key = (topic.id, index)
                before = self._sets.get(key)
                if before is not None and found.partition_epoch <= before.partition_epoch:
                    continue
                self._sets[key] = found
                if (
                    before is not None
                    and found.partition_epoch == before.partition_epoch + 1
                    and found.leader_epoch == before.leader_epoch
                ):
                    for member in sorted(set(found.isr) - set(before.isr)):
                        self._check_joined(image, f"{topic.name}-{index}", key, before, member)
        self._applied_offset = max(self._applied_offset, image.applied_offset)

    def _check_joined(
        self, image: MetadataImage, name: str, key: PartitionId, before: PartitionRegistration, member: int
    ) -> None:
        asked = [one for one in self._asked.get((key, before.leader_epoch), []) if member in one.members]
        valid = [one for one in asked if one.partition_epoch == before.partition_epoch]
        if asked and not valid:
            epochs = [one.partition_epoch for one in asked]
            raise Violation(
                17, f"{name}: node{member} joins the set of partition epoch {before.partition_epoch}, asked of {epochs}"
            )
        registered = image.brokers[member].epoch
        named = [dict(one.isr)[member] for one in valid]
        if named and registered <= self._applied_offset and not {registered, UNKNOWN_EPOCH} & set(named):
            raise Violation(17, f"{name}: node{member} joins as {registered}, and its leader has seen {named}")


def _replica(broker: Broker, partition: Partition) -> Partition | None:
    """The same partition on another node, if it can be looked at."""
    found = broker.partitions.opened(partition.topic).get(partition.index)
    if found is None or found.topic_id != partition.topic_id or found.closed or found.log.failure is not None:
        return None
    return found
