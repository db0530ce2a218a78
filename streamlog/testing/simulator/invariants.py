"""What must hold, by the numbers of the failure model, and the checks that look into running brokers.

Every check of the simulator names the invariant it is about, so that a violation can be looked up and a catalogue can
say which invariants are watched, and where: `online` between two callbacks of a running node, `history` over what
clients saw, `dump` over the files that are left in the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.testing.simulator.durable import Promises
from streamlog.testing.simulator.machine import Machine, Process


class Invariant(NamedTuple):
    number: int
    name: str
    where: str
    claim: str


INVARIANTS: Final = {
    one.number: one
    for one in (
        Invariant(1, "durability", "history", "an acknowledged record outlives kills and power cuts"),
        Invariant(
            2, "ack-is-stored", "online", "what is acknowledged is committed, what is committed is on disk and in sync"
        ),
        Invariant(3, "too-few-commit-nothing", "online", "what is committed has as many replicas as the topic wants"),
        Invariant(4, "committed-prefix", "online", "what two replicas know to be committed is the same"),
        Invariant(5, "leaders-are-complete", "online", "who leads, or may be elected, has all that was committed"),
        Invariant(
            7, "leader-epochs-rise", "online", "a partition's leader epoch never goes back, and rises after a crash"
        ),
        Invariant(8, "high-watermark-rises", "online", "what was visible stays visible, across restarts too"),
        Invariant(9, "offsets-in-order", "online", "log start <= last stable <= high watermark <= log end"),
        Invariant(10, "one-record-per-offset", "history", "an offset has one record for ever, in rising order"),
        Invariant(11, "epochs-are-noted", "online", "epochs rise in a log, and each is noted where it begins"),
        Invariant(
            12,
            "deposed-leaders-are-mute",
            "online",
            "a leader that is replaced commits nothing that the next one lacks, no producer waits there, and "
            "nobody who follows another takes what it sent",
        ),
        Invariant(13, "linearizable-appends", "history", "acked before another was sent: at a lower offset"),
        Invariant(
            14, "offsets-are-found", "history", "ends are never below what was read; times lead to the first record"
        ),
        Invariant(15, "deleted-stays-deleted", "history", "records below a told log start are gone, and no others"),
        Invariant(16, "compaction-keeps-the-last", "history", "the last record of each key survives compaction"),
        Invariant(
            17,
            "sets-are-compared",
            "online",
            "a leader never goes back to an older in-sync set; who joins has everything, and was asked for by name",
        ),
        Invariant(18, "recovered-is-a-prefix", "dump", "the log after a crash is whole batches, in order, no gap"),
        Invariant(19, "flips-are-noticed", "dump", "a bit that turns over on disk is never served"),
        Invariant(21, "derived-files-derive", "dump", "without indexes and snapshots the log opens to the same state"),
        Invariant(23, "failed-sync-is-final", "online", "nothing is acknowledged by a log whose sync has failed"),
        Invariant(27, "strays-are-strangers", "dump", "only what belongs to a deleted topic is put aside"),
        Invariant(28, "reopening-changes-nothing", "dump", "open(close(x)) is x"),
        Invariant(29, "election-safety", "online", "an epoch of the quorum has one leader, in one life of it"),
        Invariant(30, "log-matching", "online", "logs of the quorum that agree in a batch agree before it"),
        Invariant(31, "leader-completeness", "online", "a new leader of the quorum has all that is committed"),
        Invariant(32, "state-machine-safety", "online", "the quorum commits one batch at an offset"),
        Invariant(33, "votes-are-kept", "online", "epochs rise, and a voter has one vote in each, across crashes"),
        Invariant(34, "majorities-commit", "online", "committed is on the disks of a majority, and stays so"),
        Invariant(35, "images-are-folds", "history", "nodes with the same log, or its snapshot, have one image"),
        Invariant(40, "admin-operations-last", "history", "a topic that was created is there, with one id"),
        Invariant(41, "no-duplicates", "history", "one record per send of an idempotent producer"),
        Invariant(42, "no-reordering", "history", "a producer's records stand in the order of its sends"),
        Invariant(43, "producers-are-a-fold", "dump", "producer state is what the log says"),
        Invariant(
            44, "gaps-are-refused", "history", "a batch that leaves a gap in its producer's numbers is not stored"
        ),
        Invariant(52, "producer-ids-are-unique", "dump", "a producer id is given to one producer, ever"),
        Invariant(54, "one-owner", "history", "a partition has one owner in a generation"),
        Invariant(56, "commits-last", "history", "commits are stored when they are answered; the last one counts"),
        Invariant(58, "groups-converge", "history", "after the faults the group is stable and reads everything"),
        Invariant(61, "every-send-is-answered", "history", "a send has its answer within the delivery timeout"),
        Invariant(62, "refused-is-not-stored", "history", "what definitely failed is not in the log"),
        Invariant(63, "positions-rise", "history", "a consumer skips nothing and reads nothing twice"),
        Invariant(77, "liveness", "history", "after the last fault everything works again, in time"),
        Invariant(80, "clean-stop", "dump", "a stop that was asked for succeeds and loses nothing"),
        Invariant(83, "determinism", "campaign", "one seed, one trace"),
        Invariant(85, "no-unhandled-errors", "online", "no task and no callback dies of an exception nobody expects"),
        Invariant(86, "flushed-is-on-disk", "online", "what a log calls flushed needs no page cache"),
        Invariant(87, "sound-disks-stay-online", "online", "a partition is offline only if its disk reported an error"),
        Invariant(88, "metadata-lasts", "dump", "what the active controller was told is committed outlives everything"),
    )
}
"""85 and up are not in the failure model's list: 85 because an exception that reaches the event loop is a bug wherever
it comes from, 86 and 87 because they show at once what 1, 18 and 77 would show to whoever is lucky with a power cut, 88
because 1 speaks of partitions only. What is missing below 85 is in `unwatched.py`, with the reason."""


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number} {INVARIANTS[number].name}: {text}")
        self.number = number


@dataclass(slots=True)
class _Seen:
    """What a partition has shown so far, over all incarnations of its broker."""

    leader_epoch: int = -1
    high_watermark: int = 0
    process: Process | None = None
    """Who served it."""
    has_failed: bool = False
    """Whether it was offline then."""


@dataclass(slots=True)
class DiskPromises:
    """Whether the disks have what the logs on them promise. Raises Violation."""

    _by_machine: dict[str, Promises] = field(default_factory=dict)

    def check(self, machine: Machine, logs: LogDirectory) -> None:
        promises = self._by_machine.setdefault(machine.name, Promises(machine.disk))
        for log in logs.logs.values():
            broken = promises.broken(log)
            if broken:
                raise Violation(86, f"{machine.name}: {broken}")
            if log.failure is not None and not machine.disk_faults.has_failed:
                raise Violation(87, f"{machine.name}: {log.failure}")
        if logs.offline and not machine.disk_faults.has_failed and not machine.disk.was_full:
            (topic, index), why = next(iter(logs.offline.items()))
            raise Violation(87, f"{machine.name}: {topic}-{index}: {why}")


@dataclass(slots=True)
class Watch:
    """Looks into running nodes between two callbacks. Raises Violation."""

    forgets: bool = False
    """High watermarks may go back at a restart: topics are not flushed before ack, and the power is cut."""
    _seen: dict[tuple[UUID, int], _Seen] = field(default_factory=dict)
    promises: DiskPromises = field(default_factory=DiskPromises)

    def check(self, running: Iterable[tuple[Machine, Node]]) -> None:
        for machine, node in running:
            for partition in node.broker.partitions:
                self._check_partition(machine.process, partition)
            self.promises.check(machine, node.broker.logs)

    def _check_partition(self, process: Process | None, partition: Partition) -> None:
        log = partition.log
        seen = self._seen.setdefault((partition.topic_id, partition.index), _Seen())
        seen.has_failed = seen.has_failed or log.failure is not None
        if log.failure is not None or partition.closed:
            return
        name = f"{partition.topic}-{partition.index}"
        start, stable, high, end = log.log_start_offset, log.last_stable_offset, log.high_watermark, log.log_end_offset
        if not (start <= high <= end and stable <= high):
            raise Violation(9, f"{name}: log start {start}, last stable {stable}, high watermark {high}, end {end}")
        if not log.recovery_point <= log.flushed_offset <= end:
            raise Violation(9, f"{name}: recovery point {log.recovery_point}, flushed {log.flushed_offset}, end {end}")
        if partition.flush_before_ack and high > max(log.flushed_offset, start):
            raise Violation(2, f"{name}: high watermark {high}, and on disk is {log.flushed_offset}")
        if partition.leader_epoch < seen.leader_epoch:
            raise Violation(7, f"{name}: leader epoch {partition.leader_epoch} after {seen.leader_epoch}")
        is_new = seen.process is not None and seen.process is not process
        crashed = is_new and seen.process is not None and (seen.has_failed or not seen.process.has_returned)
        if crashed and partition.leader_epoch == seen.leader_epoch:
            raise Violation(7, f"{name}: epoch {seen.leader_epoch} again after a crash, in which records may be lost")
        restarted = partition.leader_epoch > seen.leader_epoch  # and may be syncing what it found
        if high < seen.high_watermark and not (restarted and (self.forgets or end >= seen.high_watermark)):
            raise Violation(8, f"{name}: high watermark {high} after {seen.high_watermark}, log end {end}")
        if high >= seen.high_watermark or self.forgets:
            seen.leader_epoch, seen.high_watermark = partition.leader_epoch, high
            seen.process, seen.has_failed = process, False

    def is_newest(self, partition: Partition) -> bool:
        """Whether nobody has been seen in a later leader epoch."""
        seen = self._seen.get((partition.topic_id, partition.index))
        return seen is None or partition.leader_epoch >= seen.leader_epoch

    def check_answer(self, running: Iterable[tuple[Machine, Node]], topic: str, index: int, offset: int) -> None:
        """A client was just told that this record, sent to these incarnations, is stored. Raises Violation."""
        for _, node in running:
            partition = node.broker.partitions.find(topic, index)
            if partition is None or partition.closed or not partition.flush_before_ack:
                continue
            log = partition.log
            if log.flushed_offset <= offset:
                number = 2 if log.failure is None else 23
                raise Violation(number, f"{topic}-{index}@{offset} was acknowledged, on disk is {log.flushed_offset}")
