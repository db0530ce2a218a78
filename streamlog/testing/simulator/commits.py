"""Whether a commit that was acknowledged is stored: its record has to lie below the high watermark of the group's log.

Only what the newest leader has appended itself, in its own epoch, says anything. Its high watermark does not go back
within an epoch, so what lies above it now cannot have been stored when it was acknowledged. One that does not know yet
that it leads no more may have a commit that another has acknowledged since. And one commit may be there twice: a first
attempt that the network held back comes after the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from streamlog.broker.coordinator.group import record_codec
from streamlog.broker.coordinator.group.records import OffsetCommitted
from streamlog.broker.coordinator.groups import TOPIC
from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.client.values import TopicPartition
from streamlog.testing.simulator.disk import SimDisk
from streamlog.testing.simulator.invariants import Violation
from streamlog.testing.simulator.machine import Machine
from streamlog.wire.records import decode_records, iter_batch_headers


def check_commit(
    running: Iterable[tuple[Machine, Node]],
    group: str,
    offsets: Mapping[TopicPartition, int],
    is_newest: Callable[[Partition], bool],
) -> None:
    """A member was just told that these offsets, sent to these incarnations, are committed. Raises Violation.

    `is_newest`: nobody has been seen in a later leader epoch of this partition.
    """
    for machine, node in running:
        for index, partition in node.broker.partitions.opened(TOPIC).items():
            log = partition.log
            if log.failure is not None or log.high_watermark == log.log_end_offset:
                continue
            if not partition.is_leader or not is_newest(partition):
                continue
            first: dict[TopicPartition, int] = {}
            for at, epoch, commit in _commits(machine.disk, partition):
                one = TopicPartition(commit.topic, commit.partition)
                if commit.group_id == group and offsets.get(one) == commit.offset:
                    first.setdefault(one, at if epoch == partition.leader_epoch else -1)
            for one, at in first.items():
                if at >= log.high_watermark:
                    raise Violation(
                        56,
                        f"{one}={offsets[one]} was acknowledged, and is {TOPIC}-{index}@{at} on {machine.name}, "
                        f"where the high watermark is {log.high_watermark}",
                    )


def _commits(disk: SimDisk, partition: Partition) -> Iterator[tuple[int, int, OffsetCommitted]]:
    """(offset, leader epoch, commit) of all that are in the log."""
    for path, inode in disk.walk(partition.log.directory):
        if not path.endswith(".log"):
            continue
        data = bytes(inode.content)
        for position, header in iter_batch_headers(data):
            columns = decode_records(data, position, header)
            for offset, key, value in zip(columns.offsets, columns.keys, columns.values, strict=True):
                record = None if key is None else record_codec.decode(key, value)
                if isinstance(record, OffsetCommitted):
                    yield offset, header.leader_epoch, record
