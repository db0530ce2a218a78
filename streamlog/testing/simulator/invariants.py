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

from streamlog.broker.node import Node
from streamlog.broker.partition import Partition


class Invariant(NamedTuple):
    number: int
    name: str
    where: str
    claim: str


INVARIANTS: Final = {
    one.number: one
    for one in (
        Invariant(1, "durability", "history", "an acknowledged record outlives kills and power cuts"),
        Invariant(2, "ack-is-stored", "online", "what is acknowledged lies below the high watermark, and is on disk"),
        Invariant(7, "leader-epochs-rise", "online", "a partition's leader epoch never goes back"),
        Invariant(8, "high-watermark-rises", "online", "what was visible stays visible, across restarts too"),
        Invariant(9, "offsets-in-order", "online", "log start <= last stable <= high watermark <= log end"),
        Invariant(10, "one-record-per-offset", "history", "an offset has one record for ever, in rising order"),
        Invariant(13, "linearizable-appends", "history", "acked before another was sent: at a lower offset"),
        Invariant(14, "end-offsets-rise", "history", "a partition's end is never below what somebody has read"),
        Invariant(16, "compaction-keeps-the-last", "history", "the last record of each key survives compaction"),
        Invariant(18, "recovered-is-a-prefix", "dump", "the log after a crash is whole batches, in order, no gap"),
        Invariant(21, "derived-files-derive", "dump", "without indexes and snapshots the log opens to the same state"),
        Invariant(23, "failed-sync-is-final", "online", "nothing is acknowledged by a log whose sync has failed"),
        Invariant(28, "reopening-changes-nothing", "dump", "open(close(x)) is x"),
        Invariant(40, "admin-operations-last", "history", "a topic that was created is there, with one id"),
        Invariant(41, "no-duplicates", "history", "one record per send of an idempotent producer"),
        Invariant(42, "no-reordering", "history", "a producer's records stand in the order of its sends"),
        Invariant(43, "producers-are-a-fold", "dump", "producer state is what the log says"),
        Invariant(54, "one-owner", "history", "a partition has one owner in a generation"),
        Invariant(56, "commits-last", "history", "the committed offset is the last one committed"),
        Invariant(58, "groups-converge", "history", "after the faults the group is stable and reads everything"),
        Invariant(61, "every-send-is-answered", "history", "a send has its answer within the delivery timeout"),
        Invariant(62, "refused-is-not-stored", "history", "what definitely failed is not in the log"),
        Invariant(63, "positions-rise", "history", "a consumer skips nothing and reads nothing twice"),
        Invariant(77, "liveness", "history", "after the last fault everything works again, in time"),
        Invariant(80, "clean-stop", "dump", "a stop that was asked for succeeds and loses nothing"),
        Invariant(83, "determinism", "campaign", "one seed, one trace"),
        Invariant(85, "no-unhandled-errors", "online", "no task and no callback dies of an exception nobody expects"),
    )
}
"""85 is not in the failure model's list: an exception that reaches the event loop is a bug wherever it comes from."""


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


@dataclass(slots=True)
class Watch:
    """Looks into running nodes between two callbacks. Raises Violation."""

    forgets: bool = False
    """High watermarks may go back at a restart: topics are not flushed before ack, and the power is cut."""
    _seen: dict[tuple[UUID, int], _Seen] = field(default_factory=dict)

    def check(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            for partition in node.broker.partitions:
                self._check_partition(partition)

    def _check_partition(self, partition: Partition) -> None:
        log = partition.log
        if log.failure is not None or partition.closed:
            return
        name = f"{partition.topic}-{partition.index}"
        start, stable, high, end = log.log_start_offset, log.last_stable_offset, log.high_watermark, log.log_end_offset
        if not (start <= high <= end and stable <= high):
            raise Violation(9, f"{name}: log start {start}, last stable {stable}, high watermark {high}, end {end}")
        if not log.recovery_point <= log.flushed_offset <= end:
            raise Violation(9, f"{name}: recovery point {log.recovery_point}, flushed {log.flushed_offset}, end {end}")
        if partition.flush_before_ack and high > log.flushed_offset:
            raise Violation(2, f"{name}: high watermark {high}, and on disk is {log.flushed_offset}")
        seen = self._seen.setdefault((partition.topic_id, partition.index), _Seen())
        if partition.leader_epoch < seen.leader_epoch:
            raise Violation(7, f"{name}: leader epoch {partition.leader_epoch} after {seen.leader_epoch}")
        restarted = partition.leader_epoch > seen.leader_epoch  # and may be syncing what it found
        if high < seen.high_watermark and not (restarted and (self.forgets or end >= seen.high_watermark)):
            raise Violation(8, f"{name}: high watermark {high} after {seen.high_watermark}, log end {end}")
        if high >= seen.high_watermark or self.forgets:
            seen.leader_epoch, seen.high_watermark = partition.leader_epoch, high

    def check_answer(self, nodes: Iterable[Node], topic: str, index: int, offset: int) -> None:
        """A client was just told that this record, sent to these incarnations, is stored. Raises Violation."""
        for node in nodes:
            partition = node.broker.partitions.find(topic, index)
            if partition is None or partition.closed or not partition.flush_before_ack:
                continue
            log = partition.log
            if log.flushed_offset <= offset:
                number = 2 if log.failure is None else 23
                raise Violation(number, f"{topic}-{index}@{offset} was acknowledged, on disk is {log.flushed_offset}")
