"""The invariants of replicated partitions, looked at in running nodes and on their disks.

A leader's high watermark says what is committed. From then on every replica that has a batch there has that one, and
whoever leads later has it too. (Not so where records may be forgotten: see `Setup.forgets`.) It moves only over what
the members of the in-sync set have, and no fewer replicas than the topic wants; a replica that is down is looked up on
its disk, one whose disk may have lost something says nothing.

Whoever may be elected without loss, a member of the in-sync set or who is eligible besides, has all that is committed,
whether it comes to an election or not. That is asked of the newest metadata that any node has, and not while a leader
knows of a later in-sync set than that.

In a compacted topic, as that of the coordinators is, batches lose records when nobody needs them any more. They are
compared as they were written: a batch counts if it was seen while nobody had closed a segment above it, because only
closed segments are compacted, and a follower that lags gets of its leader what compaction has left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from streamlog.broker.broker import Broker
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.metadata.image import MetadataImage
from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.testing.simulator.invariants import DiskPromises, Violation
from streamlog.testing.simulator.log_view import Entry, LogView
from streamlog.testing.simulator.machine import Machine, Process
from streamlog.testing.simulator.replication_watch import ReplicationWatch
from streamlog.testing.simulator.trim_watch import PartitionId, TrimWatch


@dataclass(slots=True)
class _Replica:
    """One partition on one machine."""

    view: LogView
    process: Process | None = None
    log: PartitionLog | None = None
    """Of the following: a partition that went to other nodes and comes back begins again."""
    leader_epoch: int = -1
    high_watermark: int = 0
    led: int = -1
    """The last epoch in which it was seen to lead."""
    partition_epoch: int = -1
    """As it knew it then."""
    checked_end: int = 0
    """Up to where its batches were compared with the committed ones."""
    generation: int = -1


@dataclass(slots=True)
class _Committed:
    """What is known to be committed of one partition."""

    entries: dict[int, Entry] = field(default_factory=dict)
    """By base offset."""
    end_offset: int = 0
    """The highest high watermark of any leader."""
    seen_down: dict[int, int] = field(default_factory=dict)
    """What that was when the disk of a node that was down was looked at."""


@dataclass(slots=True)
class ClusterWatch:
    """Looks into running nodes between two callbacks. Raises Violation."""

    forgets: bool
    doubtful: frozenset[str] = frozenset()
    """Machines whose disks may lose what is not synced."""
    moves: bool = False
    """Partitions go to other nodes and come back."""
    forgets_compacted: bool = False
    """As `forgets`, of compacted topics: nobody asks for a sync of them."""
    promises: DiskPromises = field(default_factory=DiskPromises)
    trims: TrimWatch = field(default_factory=TrimWatch)
    replication: ReplicationWatch = field(default_factory=ReplicationWatch)
    _running: list[tuple[Machine, Node]] = field(default_factory=list)
    _machines: dict[int, Machine] = field(default_factory=dict)
    """By node id, as far as they have been seen to run."""
    _replicas: dict[tuple[str, PartitionId], _Replica] = field(default_factory=dict)
    _newest: dict[PartitionId, int] = field(default_factory=dict)
    """The latest leader epoch that anybody knew."""
    _leaders: dict[tuple[PartitionId, int], tuple[str, int]] = field(default_factory=dict)
    """By leader epoch: the machine, and where its log ended then."""
    _committed: dict[PartitionId, _Committed] = field(default_factory=dict)
    _known: dict[PartitionId, int] = field(default_factory=dict)
    """The latest partition epoch that a leader knew."""
    _closed_ends: dict[PartitionId, int] = field(default_factory=dict)
    """Of compacted partitions: below it some replica has closed its segments."""

    def check(self, running: Iterable[tuple[Machine, Node]]) -> None:
        self._running = list(running)
        self._machines.update((node.broker.node_id, machine) for machine, node in self._running)
        for machine, node in self._running:
            self.promises.check(machine, node.broker.logs)
            for partition in node.broker.partitions:
                if partition.log.failure is None and not partition.closed:
                    self._check_replica(machine, partition)
        self.trims.look(self._machines, self._running)
        if self._running:
            image = max((node.broker.image for _, node in self._running), key=lambda one: one.applied_offset)
            self._check_candidates(image)
            self.replication.check(self._running, image)

    def _check_candidates(self, image: MetadataImage) -> None:
        """Who may be elected has all that is committed."""
        nodes = {node.broker.node_id: node.broker for _, node in self._running}
        for key, committed in self._committed.items():
            topic = image.topics_by_id.get(key[0])
            found = None if topic is None else topic.partitions.get(key[1])
            if topic is None or found is None or found.partition_epoch < self._known.get(key, -1):
                continue
            for member in (*found.isr, *found.eligible_leader_replicas):
                end = self._end_of(key, topic.name, member, nodes.get(member), image.brokers[member].epoch, committed)
                if end is not None and end < committed.end_offset:
                    what = "in sync" if member in found.isr else "eligible"
                    raise Violation(
                        5, f"{topic.name}-{key[1]}: node{member} is {what} and ends at {end}: {committed.end_offset}"
                    )

    def _end_of(
        self, key: PartitionId, topic: str, member: int, broker: Broker | None, epoch: int, committed: _Committed
    ) -> int | None:
        """Where the log of a member ends, if that is known and says something."""
        if broker is not None:
            partition = broker.partitions.opened(topic).get(key[1])
            if partition is None or partition.topic_id != key[0] or partition.closed or partition.log.failure:
                return None
            # Before the cluster has heard that this is another incarnation, it is told nothing about what that has.
            is_known = broker.producer_ids.broker_epoch == epoch and not self._forgets(partition)
            return partition.log.log_end_offset if is_known else None
        machine = self._machines.get(member)
        replica = None if machine is None else self._replicas.get((machine.name, key))
        if machine is None or replica is None or machine.process is not None:
            return None  # it has not been seen yet, or is starting
        if machine.name in self.doubtful or self.forgets_compacted:
            return None
        if committed.seen_down.get(member) != committed.end_offset:
            replica.view.read_disk()
            committed.seen_down[member] = committed.end_offset
            return max(replica.view.end_offset, 0)
        return None

    def _check_replica(self, machine: Machine, partition: Partition) -> None:
        key = (partition.topic_id, partition.index)
        log = partition.log
        replica = self._replicas.get((machine.name, key))
        if replica is None:
            replica = self._replicas[machine.name, key] = _Replica(LogView(machine.disk, log.directory))
        start, stable, high, end = log.log_start_offset, log.last_stable_offset, log.high_watermark, log.log_end_offset
        name = f"{machine.name} {partition!r}"
        if not (start <= high <= end and stable <= high):
            raise Violation(9, f"{name}: log start {start}, last stable {stable}, high watermark {high}, end {end}")
        if replica.process is not machine.process or (replica.log is not log and self.moves):
            replica.process, replica.log, replica.view = machine.process, log, LogView(machine.disk, log.directory)
            replica.high_watermark, replica.led, replica.checked_end = 0, -1, 0
            replica.leader_epoch = -1
        if partition.leader_epoch < replica.leader_epoch:
            raise Violation(7, f"{name}: leader epoch {partition.leader_epoch} after {replica.leader_epoch}")
        if not partition.is_leader and partition.is_waited_for:
            raise Violation(12, f"{name}: producers wait for a leader that is none any more")
        self.trims.note_start(machine, key, start)
        replica.leader_epoch = partition.leader_epoch
        self._newest[key] = max(partition.leader_epoch, self._newest.get(key, -1))
        if high < replica.high_watermark and not self._forgets(partition):
            raise Violation(8, f"{name}: high watermark {high} after {replica.high_watermark}")
        replica.high_watermark = high
        if log.config.compact:
            closed_end = max(log.active.base_offset, self._closed_ends.get(key, 0))
            self._closed_ends[key] = closed_end
            replica.view.look(machine.process, log, closed_end)
        else:
            replica.view.look(machine.process, log)
        self.replication.look(machine, partition, replica.view)
        for entry, before in replica.view.fresh:
            noted = log.epochs.epoch_at(entry.base_offset)
            if entry.epoch < before or (noted != entry.epoch and entry.base_offset >= start):
                raise Violation(11, f"{name}: {entry} follows epoch {before}, and epoch {noted} is noted there")
        if log.generation != replica.generation:
            replica.generation, replica.checked_end = log.generation, 0
        if partition.is_leader and partition.replica_count > 1:
            self._check_leader(machine, key, replica, partition)
            if not self.forgets and self._is_newest(key, partition.leader_epoch):
                self.trims.check_leader(machine, key, name, start)
        if not self._forgets(partition):
            self._check_prefix(name, key, replica, high)

    def _forgets(self, partition: Partition) -> bool:
        return self.forgets_compacted if partition.log.config.compact else self.forgets

    def _check_leader(self, machine: Machine, key: PartitionId, replica: _Replica, partition: Partition) -> None:
        committed = self._committed.setdefault(key, _Committed())
        epoch, log = partition.leader_epoch, partition.log
        name = f"{machine.name} {partition!r}"
        assert partition.leader is not None, "who leads alone is not looked at"
        if log.epochs.latest != epoch:
            raise Violation(11, f"{name} leads epoch {epoch}, and has noted {log.epochs.latest} as the latest")
        known = partition.leader.partition_epoch
        if replica.led == epoch and known < replica.partition_epoch:
            raise Violation(17, f"{name} goes by partition epoch {known} after {replica.partition_epoch}")
        replica.partition_epoch = known
        self._known[key] = max(known, self._known.get(key, -1))
        if replica.led != epoch:
            replica.led = epoch
            before, _ = self._leaders.setdefault((key, epoch), (machine.name, partition.leader.epoch_start_offset))
            if before != machine.name:
                raise Violation(7, f"{partition!r}: epoch {epoch} is led by {before} and {machine.name}")
            if (
                log.log_end_offset < committed.end_offset
                and not self._forgets(partition)
                and self._is_newest(key, epoch)
            ):
                raise Violation(
                    5, f"{name} leads epoch {epoch} and ends at {log.log_end_offset}; committed: {committed.end_offset}"
                )
        high = log.high_watermark
        if high > committed.end_offset:
            if not self._is_newest(key, epoch) and not self._newest_leader_has(
                key, replica, committed.end_offset, high
            ):
                raise Violation(12, f"{name} commits up to {high} in epoch {epoch}, which is over")
            for base_offset, entry in replica.view.entries.items():
                if committed.end_offset <= base_offset < high:
                    committed.entries[base_offset] = entry
            committed.end_offset = high
            if not self._forgets(partition):
                self._check_holders(name, key, partition, high)

    def _check_holders(self, name: str, key: PartitionId, partition: Partition, high: int) -> None:
        """What has just become committed is where it has to be."""
        assert partition.leader is not None, "who leads alone is not looked at"
        ends: dict[int, int] = {}
        machines = {machine.name: (node.broker.node_id, node) for machine, node in self._running}
        for (machine_name, other), replica in self._replicas.items():
            if other != key or machine_name in self.doubtful:
                continue
            number, node = machines.get(machine_name, (0, None))
            found = None if node is None else node.broker.partitions.opened(partition.topic).get(partition.index)
            if found is not None and number:
                ends[number] = found.log.log_end_offset
            elif node is None:
                replica.view.read_disk()
                ends[-len(ends) - 1] = replica.view.end_offset
        lacking = [number for number, end in ends.items() if end < high]
        wanted = min(partition.log.config.min_insync_replicas, partition.replica_count)
        if partition.replica_count - len(lacking) < wanted:
            raise Violation(3, f"{name} commits up to {high}; {lacking} lack it, and {wanted} have to have it")
        late = [number for number in lacking if number in partition.leader.isr]
        if late:
            raise Violation(2, f"{name} commits up to {high}, which {late} lack and are in sync")

    def _is_newest(self, key: PartitionId, epoch: int) -> bool:
        return not any(other == key and later > epoch for other, later in self._leaders)

    def _newest_leader_has(self, key: PartitionId, replica: _Replica, start: int, end: int) -> bool:
        """Whether what a deposed leader commits is so already: a fetch of its epoch, which its follower sent before it
        led itself, may have been long under way."""
        newest = max(epoch for other, epoch in self._leaders if other == key)
        leading = self._replicas.get((self._leaders[key, newest][0], key))
        return leading is not None and all(
            leading.view.entries.get(base_offset) == entry
            for base_offset, entry in replica.view.entries.items()
            if start <= base_offset < end
        )

    def _check_prefix(self, name: str, key: PartitionId, replica: _Replica, high: int) -> None:
        """What a replica knows to be committed is what is committed."""
        committed = self._committed.get(key)
        if committed is None or replica.checked_end >= high:
            return
        for base_offset, entry in replica.view.entries.items():
            if replica.checked_end <= base_offset < min(high, committed.end_offset):
                known = committed.entries.get(base_offset, entry)
                if known != entry:
                    raise Violation(4, f"{name} has {entry}, and committed was {known}")
        replica.checked_end = min(high, committed.end_offset)

    def is_newest(self, partition: Partition) -> bool:
        """Whether nobody has been seen in a later leader epoch."""
        for _, node in self._running:
            other = node.broker.partitions.opened(partition.topic).get(partition.index)
            if other is not None and other.leader_epoch > partition.leader_epoch:
                return False
        return partition.leader_epoch >= self._newest.get((partition.topic_id, partition.index), -1)

    def check_answer(self, running: Iterable[tuple[Machine, Node]], topic: str, index: int, offset: int) -> None:
        """A client was just told that this record is stored by all in-sync replicas. Raises Violation."""
        nodes = list(running)
        found = [(machine, node.broker.partitions.opened(topic).get(index)) for machine, node in nodes]
        replicas = [(machine, partition) for machine, partition in found if partition is not None]
        if not replicas or self.forgets:
            return
        wanted = replicas[0][1].log.config.min_insync_replicas
        away = max(partition.replica_count for _, partition in replicas) - len(replicas)
        holders = [machine.name for machine, partition in replicas if partition.log.log_end_offset > offset]
        if len(holders) + away < wanted:
            raise Violation(2, f"{topic}-{index}@{offset} was acknowledged, and only {holders} have it")
