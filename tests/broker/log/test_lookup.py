"""Searching by timestamp, against a search by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from streamlog.broker.log.partition import PartitionLog
from tests.broker.log.harness import Bench, append, batch_of

BATCHES = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=4), max_size=30)


def first_at_or_after(times: list[int], timestamp_ms: int) -> tuple[int, int] | None:
    return next(((ms, offset) for offset, ms in enumerate(times) if ms >= timestamp_ms), None)


def check(log: PartitionLog, times: list[int], start: int) -> None:
    for timestamp_ms in range(0, 310, 3):
        found = log.offset_for_timestamp(timestamp_ms)
        expected = next(
            ((ms, offset) for offset, ms in enumerate(times) if ms >= timestamp_ms and offset >= start), None
        )
        assert (found and (found.timestamp_ms, found.offset)) == expected
    newest = log.max_timestamp()
    left = times[start:]
    assert (newest and newest.timestamp_ms) == max(left, default=None)
    assert newest is None or newest.offset == start + left.index(max(left))


@given(batches=BATCHES, start=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_lookup_by_timestamp_finds_the_first_record_that_is_new_enough(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], start: int
) -> None:
    """In any order of timestamps, live, after a crash, after a clean stop, and above a moved log start."""
    bench = Bench(tmp_path_factory.mktemp("times") / "orders-0")
    log = bench.open()
    times: list[int] = []
    for batch in batches:
        append(log, batch_of(*[b"x"] * len(batch), timestamps_ms=batch))
        times += batch
    check(log, times, 0)
    log = bench.crash(log)
    check(log, times, 0)
    log = bench.reopen(log)
    check(log, times, 0)
    log.high_watermark = log.log_end_offset
    start = min(start, len(times))
    log.delete_records_before(start)
    check(log, times, start)
    log.abandon()


def test_lookup_respects_the_readers_limit(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A record above the reader's end offset is not found."""
    log = Bench(tmp_path_factory.mktemp("times") / "orders-0").open()
    for number in range(4):
        append(log, batch_of(b"x", timestamp_ms=number * 10))
    assert log.offset_for_timestamp(20, end_offset=2) is None
    assert log.offset_for_timestamp(20, end_offset=3) == (20, 2, 0)
    log.abandon()


def test_records_without_timestamps_are_never_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    """-1 is not a time."""
    bench = Bench(tmp_path_factory.mktemp("times") / "orders-0")
    log = bench.open()
    for _ in range(20):
        append(log, batch_of(b"x", timestamp_ms=-1))
    assert log.max_timestamp() is None
    assert log.offset_for_timestamp(0) is None
    log = bench.reopen(log)
    assert log.max_timestamp() is None
    log.abandon()
