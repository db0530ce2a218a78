"""A log that follows another: bytes as they are, cuts that take everything with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.partition import Origin, PartitionLog
from streamlog.broker.log.refusal import AppendRefused
from tests.broker.log.harness import NOW_MS, Bench, batch_of

WHOLE = 1 << 20


def lead(log: PartitionLog, *batches: bytearray, epoch: int = 0) -> None:
    for batch in batches:
        log.append(bytearray(batch), leader_epoch=epoch, now_ms=NOW_MS)


def read(log: PartitionLog, start: int = 0) -> bytes:
    return bytes(log.read(start, WHOLE, end_offset=log.log_end_offset).data)


@pytest.fixture
def leader(tmp_path: Path) -> PartitionLog:
    return Bench(tmp_path / "leader-0", LogConfig()).open()


@pytest.fixture
def follower(tmp_path: Path) -> PartitionLog:
    return Bench(tmp_path / "follower-0").open()


def test_a_follower_has_its_leaders_bytes(leader: PartitionLog, follower: PartitionLog) -> None:
    """Offsets, epochs, and a retry is recognised by whoever leads next."""
    batch = batch_of(b"b", producer=(7, 0, 0))
    lead(leader, batch_of(b"a"), epoch=1)
    lead(leader, batch, batch_of(b"c", b"d"), epoch=3)
    follower.append_from_leader(read(leader), 0, NOW_MS)
    assert read(follower) == read(leader)
    assert follower.epochs.entries() == leader.epochs.entries() == [(1, 0), (3, 1)]
    result = follower.append(bytearray(batch), leader_epoch=4, now_ms=NOW_MS)
    assert (result.is_duplicate, result.base_offset) == (True, 1)


def test_a_torn_batch_at_the_end_is_left_out(leader: PartitionLog, follower: PartitionLog) -> None:
    """A fetch may end within one."""
    lead(leader, batch_of(b"a"), batch_of(b"b"))
    follower.append_from_leader(read(leader)[:-5], 0, NOW_MS)
    assert follower.log_end_offset == 1
    follower.append_from_leader(read(leader, 1), 0, NOW_MS)
    assert read(follower) == read(leader)


def test_what_does_not_follow_or_is_damaged_is_refused(leader: PartitionLog, follower: PartitionLog) -> None:
    """And leaves nothing behind."""
    lead(leader, batch_of(b"a"), batch_of(b"b"))
    good = read(leader)
    follower.append_from_leader(good, 0, NOW_MS)
    with pytest.raises(AppendRefused):
        follower.append_from_leader(good, 0, NOW_MS)
    lead(leader, batch_of(b"c"))
    damaged = bytearray(read(leader, 2))
    damaged[-1] ^= 1
    with pytest.raises(AppendRefused):
        follower.append_from_leader(bytes(damaged), 0, NOW_MS)
    assert read(follower) == good


def test_a_log_that_begins_within_a_batch_takes_the_whole_batch(leader: PartitionLog, follower: PartitionLog) -> None:
    """DeleteRecords has put the leader's log start there; the follower shows no more than the leader does."""
    lead(leader, batch_of(b"a", b"b", b"c"), batch_of(b"d"))
    leader.high_watermark = 4
    leader.delete_records_before(1)
    follower.truncate_fully_and_start_at(1, NOW_MS)
    follower.append_from_leader(read(leader, 1), 1, NOW_MS)
    assert (follower.log_start_offset, follower.log_end_offset) == (1, 4)
    assert read(follower, 1) == read(leader, 1)


def test_a_cut_takes_epochs_and_producers_with_it(leader: PartitionLog, follower: PartitionLog) -> None:
    """A sequence that was cut is no duplicate, and no gap."""
    first = batch_of(b"a", producer=(7, 0, 0))
    second = batch_of(b"b", producer=(7, 0, 1))
    lead(leader, first, epoch=1)
    lead(leader, second, epoch=2)
    follower.append_from_leader(read(leader), 0, NOW_MS)
    follower.truncate_to(1, NOW_MS)
    assert follower.epochs.entries() == [(1, 0)]
    result = follower.append(bytearray(second), leader_epoch=3, now_ms=NOW_MS)
    assert (result.is_duplicate, result.base_offset) == (False, 1)


def test_an_epoch_without_records_goes_with_a_cut_at_the_end(follower: PartitionLog) -> None:
    """A leader that wrote nothing would otherwise be asked about for ever."""
    follower.append(batch_of(b"a"), leader_epoch=1, now_ms=NOW_MS, origin=Origin.CLIENT)
    follower.epochs.assign(2, 1)
    assert not follower.truncate_to(1, NOW_MS)
    assert follower.epochs.entries() == [(1, 0)]
    assert follower.epochs.latest_with_records(1) == 1
