"""The invariants of the metadata quorum, looked at in running nodes and on their disks.

Everything known here has been seen: who led which epoch, who voted for whom, which batch was committed where. The
nodes do not know that anybody looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.raft.messages import ReplicaKey
from streamlog.broker.raft.quorum import Quorum
from streamlog.testing.simulator.invariants import DiskPromises, Violation
from streamlog.testing.simulator.log_view import NO_EPOCH, Entry, LogView
from streamlog.testing.simulator.machine import Machine, Process
from streamlog.testing.simulator.members import METADATA_DIR


@dataclass(slots=True)
class Replica:
    """What has been seen of one machine, over all its incarnations."""

    machine: Machine
    view: LogView
    epoch: int = -1
    votes: dict[int, ReplicaKey] = field(default_factory=dict)
    """By epoch."""
    process: Process | None = None
    """Of the following two."""
    committed_end: int = 0
    led: int = -1
    """The last epoch in which it was seen to lead."""


@dataclass(slots=True)
class QuorumWatch:
    """Looks into running nodes between two callbacks. Raises Violation."""

    replicas: Mapping[int, Replica]
    """By node id."""
    promises: DiskPromises = field(default_factory=DiskPromises)
    leaders: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Epoch -> (node id, number of its process)."""
    batches: dict[tuple[int, int], tuple[Entry, int]] = field(default_factory=dict)
    """(base offset, epoch) -> the batch, and the epoch of the one before it."""
    committed: dict[int, Entry] = field(default_factory=dict)
    """By base offset."""
    committed_in: dict[int, int] = field(default_factory=dict)
    """Base offset -> an epoch in which it was known to be committed."""

    @classmethod
    def of(cls, machines: Mapping[int, Machine]) -> QuorumWatch:
        return cls({number: Replica(one, LogView(one.disk, METADATA_DIR)) for number, one in machines.items()})

    def check(self, running: Iterable[tuple[int, Quorum, LogDirectory]]) -> None:
        nodes = list(running)
        for node_id, quorum, logs in nodes:
            replica = self.replicas[node_id]
            self.promises.check(replica.machine, logs)
            if not quorum.is_over:
                self._check_epoch(node_id, replica, quorum)
                self._check_log(node_id, replica, quorum)
        for node_id, quorum, _ in nodes:
            if not quorum.is_over:
                self._check_leader(node_id, self.replicas[node_id], quorum)
                self._check_committed(node_id, self.replicas[node_id], quorum, nodes)

    def _check_epoch(self, node_id: int, replica: Replica, quorum: Quorum) -> None:
        core = quorum.core
        if core.epoch < replica.epoch:
            raise Violation(33, f"node {node_id} is in epoch {core.epoch} after {replica.epoch}")
        replica.epoch = core.epoch
        if core.voted_for is not None:
            before = replica.votes.setdefault(core.epoch, core.voted_for)
            if before.id != core.voted_for.id:
                raise Violation(33, f"node {node_id} voted for {before} and {core.voted_for} in epoch {core.epoch}")
        process = replica.machine.process
        if replica.process is not process:
            replica.process, replica.committed_end, replica.led = process, 0, -1

    def _check_log(self, node_id: int, replica: Replica, quorum: Quorum) -> None:
        view = replica.view
        view.look(replica.machine.process, quorum.log.partition)
        for entry, before in view.fresh:
            if entry.epoch < before:
                raise Violation(30, f"node {node_id}: epoch {entry.epoch} follows {before} at {entry.base_offset}")
            known, known_before = self.batches.setdefault((entry.base_offset, entry.epoch), (entry, before))
            if known != entry or (before != known_before and NO_EPOCH not in (before, known_before)):
                raise Violation(30, f"node {node_id}: two logs differ at {entry.base_offset} of epoch {entry.epoch}")

    def _check_leader(self, node_id: int, replica: Replica, quorum: Quorum) -> None:
        core = quorum.core
        if not core.is_leader or replica.led == core.epoch:
            return
        replica.led = core.epoch
        assert replica.machine.process is not None, "who leads is up"
        me = (node_id, replica.machine.process.number)
        before = self.leaders.setdefault(core.epoch, me)
        if before != me:
            raise Violation(29, f"epoch {core.epoch} is led by (node, process) {before} and {me}")
        start_offset = quorum.log.start_offset
        for base_offset, entry in self.committed.items():
            if base_offset < start_offset or self.committed_in[base_offset] >= core.epoch:
                continue
            if replica.view.entries.get(base_offset) != entry:
                raise Violation(31, f"leader {node_id} of epoch {core.epoch} lacks {entry}, which was committed")

    def _check_committed(
        self, node_id: int, replica: Replica, quorum: Quorum, nodes: list[tuple[int, Quorum, LogDirectory]]
    ) -> None:
        end_offset, before = quorum.committed_end_offset, replica.committed_end
        if end_offset < before:
            raise Violation(34, f"the high watermark of node {node_id} falls from {before} to {end_offset}")
        if end_offset == before:
            return
        replica.committed_end = end_offset
        last: Entry | None = None
        for base_offset, entry in replica.view.entries.items():
            if before <= base_offset < end_offset:
                last = entry
                known = self.committed.setdefault(base_offset, entry)
                self.committed_in.setdefault(base_offset, quorum.epoch)
                if known != entry:
                    raise Violation(32, f"node {node_id} commits {entry}, and committed was {known}")
        if quorum.core.is_leader and last is not None:
            self._check_majority(node_id, quorum, last, nodes)

    def _check_majority(
        self, node_id: int, quorum: Quorum, entry: Entry, nodes: list[tuple[int, Quorum, LogDirectory]]
    ) -> None:
        if entry.epoch != quorum.epoch:
            raise Violation(34, f"leader {node_id} commits {entry} with nothing of its epoch {quorum.epoch} behind it")
        flushed = {number: found.log.flushed_offset for number, found, _ in nodes}
        voters = quorum.core.voters
        holders = [number for number in voters.ids if self._has(number, entry, flushed.get(number), quorum.epoch)]
        if len(holders) < voters.majority:
            raise Violation(34, f"leader {node_id} commits {entry}, which only {holders} of {list(voters.ids)} have")

    def _has(self, node_id: int, entry: Entry, flushed_offset: int | None, epoch: int) -> bool:
        """Whether a voter has it on disk. One that has gone on to a later epoch had its say before."""
        replica = self.replicas[node_id]
        if flushed_offset is None:
            replica.view.read_disk()
        elif flushed_offset < entry.next_offset:
            return replica.epoch > epoch
        return replica.view.entries.get(entry.base_offset) == entry or replica.epoch > epoch
