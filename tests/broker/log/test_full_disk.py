"""A disk that is full, and is not any more."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flush import DerivedFileFailed
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.env import Env, NoHooks, RealClock, RealEntropy, ThreadOffload
from streamlog.testing.simulator.disk import CAPACITY_BYTES, SimDisk
from streamlog.testing.simulator.storage import DiskFaults, DiskKnobs, SimStorage
from tests.broker.log.harness import NOW_MS, append, batch_of


class Nobody:
    def check(self) -> None:
        return None

    def spend(self, cost_ns: int) -> None:
        return None


def on_disk(disk: SimDisk) -> Env:
    storage = SimStorage(disk, Nobody(), DiskFaults(), DiskKnobs(), Random(1))
    storage.make_directory("/data/t-0")
    return Env(RealClock(), RealEntropy(), storage, ThreadOffload(), NoHooks())


def test_segment_that_could_not_be_begun_leaves_no_file_behind() -> None:
    """The old segment grows on; the next start does not find a second one that begins inside it."""
    disk = SimDisk(Random(1))
    env = on_disk(disk)
    config = replace(LogConfig(), segment_index_bytes=8, index_interval_bytes=0)
    log = PartitionLog.open(env, "/data/t-0", config, now_ms=NOW_MS)
    append(log, batch_of(b"0"))
    append(log, batch_of(b"1"))
    log.segments.active.finish()
    disk.capacity_bytes = disk.used_bytes + 1
    with pytest.raises(PartitionOffline, match="could not be begun"):
        append(log, batch_of(b"2"))
    disk.capacity_bytes = CAPACITY_BYTES
    log.update_config(LogConfig())
    for number in range(3):
        append(log, batch_of(b"%d" % number))
    log.close()
    log = PartitionLog.open(env, "/data/t-0", config, recovery_point=5, clean_shutdown=True, now_ms=NOW_MS)
    assert log.log_end_offset == 5
    log.abandon()


def test_bytes_of_an_undone_append_do_not_come_back_in_a_closed_segment() -> None:
    """What did not fit was cut off again; the cut is on disk before anything behind it counts as flushed."""
    disk = SimDisk(Random(1))
    env = on_disk(disk)
    log = PartitionLog.open(env, "/data/t-0", LogConfig(), now_ms=NOW_MS)
    append(log, batch_of(b"0"))
    flush(log)
    disk.capacity_bytes = disk.used_bytes + 10
    with pytest.raises(PartitionOffline, match="could not be written"):
        append(log, batch_of(b"1"))
    disk.capacity_bytes = CAPACITY_BYTES
    log.roll(NOW_MS)
    append(log, batch_of(b"2"))
    flush(log)
    assert log.flushed_offset == 2
    assert disk.file("/data/t-0/00000000000000000000.log").unsynced == []
    log.abandon()


def test_directory_on_a_full_disk_is_closed_without_the_clean_marker() -> None:
    """Whoever stops a broker is not answered with an error of the disk; the next start recovers."""
    disk = SimDisk(Random(1))
    env = on_disk(disk)
    logs = LogDirectory.open(env, "/data", node_id=1, now_ms=NOW_MS)
    append(logs.open_partition("u", 0, UUID(int=1), LogConfig(), NOW_MS), batch_of(b"0"))
    disk.capacity_bytes = disk.used_bytes
    logs.close()
    disk.capacity_bytes = CAPACITY_BYTES
    assert not env.storage.exists("/data/.kafka_cleanshutdown")
    logs = LogDirectory.open(env, "/data", node_id=1, now_ms=NOW_MS)
    assert logs.open_partition("u", 0, UUID(int=1), LogConfig(), NOW_MS).log_end_offset == 1
    logs.abandon()


def flush(log: PartitionLog) -> None:
    work = log.begin_flush()
    assert work is not None
    work.run()
    log.end_flush(work, None)


def test_checkpoint_that_finds_the_disk_full_is_made_when_there_is_room_again() -> None:
    """Only the producer snapshot did not fit: the log is synced, stays online, and the recovery point moves later."""
    disk = SimDisk(Random(1))
    env = on_disk(disk)
    log = PartitionLog.open(env, "/data/t-0", LogConfig(), now_ms=NOW_MS)
    append(log, batch_of(b"value"))
    work = log.begin_checkpoint()
    assert work is not None
    disk.capacity_bytes = disk.used_bytes
    try:
        work.run()
    except DerivedFileFailed as error:
        log.end_checkpoint(work, error)
    assert (log.failure, log.flushed_offset, log.recovery_point) == (None, 1, 0)
    disk.capacity_bytes = CAPACITY_BYTES
    again = log.begin_checkpoint()
    assert again is not None
    again.run()
    log.end_checkpoint(again, None)
    assert log.recovery_point == 1
    log.abandon()
