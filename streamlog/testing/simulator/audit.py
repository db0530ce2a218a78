"""The files a stopped broker leaves, opened again with the broker's own code and compared with what clients read.

Three looks at every partition: its batches, one by one; the log as it opens after the stop, read from its beginning
and from anywhere; and the log as it opens when everything that can be derived is gone. The first must hold what
consumers read, the other two must agree.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final, TypeVar

from streamlog.broker.log.checkpoint import (
    CLEAN_SHUTDOWN_FILE,
    LEADER_EPOCH_FILE,
    PARTITION_METADATA_FILE,
    decode_partition_metadata,
)
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import STRAY_SUFFIX, LogDirectory
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.producer_state import PRODUCER_EXPIRATION_MS
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.client.values import TopicPartition
from streamlog.env import Env, NoHooks
from streamlog.testing.simulator.disk import SimDisk
from streamlog.testing.simulator.environment import SimEntropy
from streamlog.testing.simulator.invariants import Violation
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.storage import DiskFaults, DiskKnobs, SimStorage
from streamlog.testing.simulator.workload import TABLE, Everything
from streamlog.wire.records import CorruptBatch, decode_records, iter_batch_headers, verify_crc

T = TypeVar("T")

OFFSET_MAX = 2**63 - 1

LEADER_EPOCH_AT, CHECKSUM_AT = 12, 16
"""In a batch header."""

DERIVED = (".index", ".timeindex", ".txnindex", ".snapshot", LEADER_EPOCH_FILE)

PLACES_READ: Final = 8
"""Offsets of each partition from which it is read."""


class _Nobody:
    """Reads a disk that belongs to no machine any more: nothing takes time, nothing fails."""

    def check(self) -> None:
        return None

    def spend(self, cost_ns: int) -> None:
        return None

    def wall_ms(self) -> int:
        return 0

    def mono_ms(self) -> int:
        return 0

    def mono_ns(self) -> int:
        return 0

    async def run(self, work: Callable[[], T]) -> T:
        return work()

    def close(self) -> None:
        return None


def audit(disk: SimDisk, data_dir: str, node_id: int, setup: Setup, everything: Everything) -> list[Violation]:
    """Look at the data directory of a broker that has stopped. Returns what is wrong with it."""
    violations: list[Violation] = []
    random = Random(f"{setup.seed}/flips")
    try:
        if not setup.moves:  # or a node finds at its start what went to others meanwhile
            _check_strays(disk, data_dir, everything.topics)
        _check_producer_ids(disk, data_dir, everything.logs)
    except Violation as violation:
        violations.append(violation)
    for one, log in everything.logs.items():
        is_table = one.topic == TABLE
        if disk.find(f"{data_dir}/{one}") is None:
            continue  # it has no replica there
        try:
            # A leader that was away when records were deleted has them, and who was not away has not.
            expires = setup.expires or (setup.trims and setup.shape == "cluster")
            _check_batches(disk, f"{data_dir}/{one}", log, has_gaps=is_table, expires=expires)
            _check_flip(_copy(disk), data_dir, node_id, one, log, random)
            with _opened(_copy(disk), data_dir, node_id, one, is_table) as kept_log:
                kept = _describe(kept_log)
                _check_places(kept_log, one, random)
            with _opened(_without_derived(disk, f"{data_dir}/{one}"), data_dir, node_id, one, is_table) as derived_log:
                derived = _describe(derived_log)
        except Violation as violation:
            violations.append(violation)
            continue
        except PartitionOffline as error:
            violations.append(Violation(28, f"{one} does not open: {error}"))
            continue
        if kept["end"] != everything.ends[one]:
            violations.append(Violation(28, f"{one} ended at {everything.ends[one]} and opens with {kept['end']}"))
        compared = ["end"] if is_table else ["end", "epochs", "producers"]
        if any(fault.kind == "clock_jump" and abs(fault.amount) >= PRODUCER_EXPIRATION_MS for fault in setup.faults):
            compared = compared[:2]  # producers were forgotten for their age, which the log does not tell
        if kept["start"] == kept["end"]:
            compared = compared[:1] + compared[2:]  # without a record there is nothing to derive an epoch from
        for name in compared:
            if name == "producers" and (setup.trims or setup.expires):
                kept[name] = _as_far_as_known(kept[name], derived[name])
            if kept[name] != derived[name]:
                number = 43 if name == "producers" else 21
                violations.append(Violation(number, f"{one} {name}: {kept[name]}, and derived {derived[name]}"))
    return violations


def _check_strays(disk: SimDisk, data_dir: str, topics: Iterable[str]) -> None:
    """Raise Violation when a partition was put aside and its topic is there: no name is used for two topics."""
    for name in disk.directory(data_dir).entries:
        topic = name.partition(".")[0].rpartition("-")[0]
        if name.endswith(STRAY_SUFFIX) and topic in topics:
            raise Violation(27, f"{name} was put aside, and {topic} is there")


def _check_producer_ids(disk: SimDisk, data_dir: str, partitions: Iterable[TopicPartition]) -> None:
    """Raise Violation when two programs, or two lives of one, wrote under the same producer id."""
    sessions: dict[int, bytes] = {}
    for one in partitions:
        if disk.find(f"{data_dir}/{one}") is None:
            continue
        for path, inode in disk.walk(f"{data_dir}/{one}"):
            if not path.endswith(".log"):
                continue
            data = bytes(inode.content)
            for position, header in iter_batch_headers(data):
                if header.producer_id < 0 or header.record_count == 0 or header.is_control:
                    continue
                value = decode_records(data, position, header, verify=False).values[0] or b""
                session = value.partition(b":")[0]
                before = sessions.setdefault(header.producer_id, session)
                if before != session:
                    raise Violation(52, f"producer id {header.producer_id} is of {before!r} and of {session!r}")


def _check_places(log: PartitionLog, one: TopicPartition, random: Random) -> None:
    """Raise Violation unless a read from any offset begins with the record that is there, or else the next one."""
    offsets = [offset for offset, _ in _records(log, 1_000_000)]
    for _ in range(PLACES_READ if offsets else 0):
        wanted = random.randrange(offsets[0], offsets[-1] + 1)
        due = offsets[bisect_left(offsets, wanted)]
        found = next((offset for offset, _ in _records(log, 1, wanted)), None)
        if found != due:
            raise Violation(21, f"{one}: a read from {wanted} begins at {found}, and {due} was due")


def _records(log: PartitionLog, bytes_max: int, start_offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, value) of what the log gives from an offset on."""
    offset = max(start_offset, log.log_start_offset)
    while offset < log.log_end_offset:
        data, next_offset = log.read(offset, bytes_max, end_offset=log.log_end_offset)
        if next_offset <= offset:
            return
        for position, header in iter_batch_headers(data):
            columns = decode_records(data, position, header, verify=False)
            for at, value in zip(columns.offsets, columns.values, strict=True):
                if at >= offset:
                    yield at, value or b""
        offset = next_offset


def _as_far_as_known(kept: Any, derived: Any) -> Any:
    """What is known of producers without the batches that were deleted: fewer producers, fewer batches of each."""
    known = {}
    for number, (_, batches, _) in derived.items():
        if number in kept:
            epoch, kept_batches, transaction_offset = kept[number]
            known[number] = (epoch, kept_batches[-len(batches) :], transaction_offset)
    return known


def _check_batches(
    disk: SimDisk, directory: str, read: list[tuple[int, bytes]], *, has_gaps: bool, expires: bool
) -> None:
    """Raise Violation unless the batches of all segments follow each other and hold what was read."""
    found: list[tuple[int, bytes | None]] = []
    next_offset = -1
    for path, inode in disk.walk(directory):
        if not path.endswith(".log"):
            continue
        data = bytes(inode.content)
        end = 0
        for position, header in iter_batch_headers(data):
            if not verify_crc(data, position, header):
                raise Violation(18, f"{path}:{position} fails its checksum")
            if header.base_offset < next_offset or (header.base_offset > next_offset >= 0 and not has_gaps):
                raise Violation(18, f"{path}:{position} has offset {header.base_offset} where {next_offset} was due")
            columns = decode_records(data, position, header)
            found += zip(columns.offsets, columns.values, strict=True)
            next_offset, end = header.next_offset, position + header.size_bytes
        if end != len(data):
            raise Violation(18, f"{path} has {len(data) - end} bytes behind its last batch")
    first = read[0][0] if read else next_offset
    if expires:  # some of it perhaps since it was read
        first = max(first, found[0][0]) if found else OFFSET_MAX
        read = [entry for entry in read if entry[0] >= first]
    if not has_gaps and [entry for entry in found if entry[0] >= first] != read:
        raise Violation(18, f"{directory} holds other records than were read")


def _check_flip(
    disk: SimDisk, data_dir: str, node_id: int, one: TopicPartition, log: list[tuple[int, bytes]], random: Random
) -> None:
    """Turn one bit over: what is served then is what was written, or nothing. Raises Violation.

    Not in what no checksum covers: the leader epochs, and in a compacted log, which has gaps, the offsets.
    """
    files = [inode for path, inode in disk.walk(f"{data_dir}/{one}") if path.endswith(".log") and inode.content]
    if not files:
        return
    content = random.choice(files).content
    at = random.randrange(len(content))
    batch = next(
        position for position, header in iter_batch_headers(bytes(content)) if at < position + header.size_bytes
    )
    if LEADER_EPOCH_AT <= at - batch < CHECKSUM_AT or (one.topic == TABLE and at - batch < LEADER_EPOCH_AT):
        return
    # Replicas are compacted each in its own time: what this one has may be gone from where everything was read.
    written = dict(_served(_copy(disk), data_dir, node_id, one, Random(0)) if one.topic == TABLE else log)
    content[at] ^= 1 << random.randrange(8)
    if random.random() < 0.5:
        disk.remove(f"{data_dir}/{CLEAN_SHUTDOWN_FILE}")
    try:
        for offset, value in _served(disk, data_dir, node_id, one, random):
            if offset >= (log[0][0] if log else 0) and written.get(offset) != value:
                raise Violation(19, f"{one}: byte {at} flipped, and {value[:40]!r} is served at {offset}")
    except (PartitionOffline, CorruptBatch):
        return


def _served(
    disk: SimDisk, data_dir: str, node_id: int, one: TopicPartition, random: Random
) -> Iterator[tuple[int, bytes]]:
    with _opened(disk, data_dir, node_id, one, one.topic == TABLE) as log:
        yield from _records(log, 1 + random.randrange(5_000))


@contextmanager
def _opened(disk: SimDisk, data_dir: str, node_id: int, one: TopicPartition, is_table: bool) -> Iterator[PartitionLog]:
    nobody = _Nobody()
    storage = SimStorage(disk, nobody, DiskFaults(), DiskKnobs(), Random(0))
    env = Env(nobody, SimEntropy(Random(0)), storage, nobody, NoHooks(), process_id=0)
    logs = LogDirectory.open(env, data_dir, node_id=node_id, now_ms=0)
    topic_id = _topic_id(storage, f"{data_dir}/{one}")
    try:
        yield logs.open_partition(one.topic, one.partition, topic_id, LogConfig(compact=is_table), 0)
    finally:
        logs.abandon()


def _describe(log: PartitionLog) -> dict[str, object]:
    producers = {
        number: (entry.epoch, tuple(entry.batches), entry.transaction_offset)
        for number, entry in sorted(log.producers.entries.items())
    }
    return {
        "start": log.log_start_offset,
        "end": log.log_end_offset,
        "epochs": list(log.epochs.entries()),
        "producers": producers,
    }


def _topic_id(storage: SimStorage, directory: str) -> uuid.UUID:
    return decode_partition_metadata(storage.read_bytes(f"{directory}/{PARTITION_METADATA_FILE}"))


def _copy(disk: SimDisk) -> SimDisk:
    copy = SimDisk(Random(0))
    for path, inode in disk.walk():
        copy.make_directory(path.rpartition("/")[0])
        copy.create(path).write(bytes(inode.content), 0)
    return copy


def _without_derived(disk: SimDisk, directory: str) -> SimDisk:
    copy = _copy(disk)
    for path in [path for path, _ in copy.walk(directory) if path.endswith(DERIVED)]:
        copy.remove(path)
    return copy
