"""Which segments go, and which never do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.retention import delete_old_segments
from tests.broker.log.harness import NOW_MS, TINY, Bench, append, batch_of, values_of


def filled(tmp_path: Path, config: LogConfig, count: int = 30) -> tuple[Bench, PartitionLog]:
    """One record a second, all replicated."""
    bench = Bench(tmp_path / "orders-0", config)
    log = bench.open()
    for number in range(count):
        append(log, batch_of(b"%d" % number, timestamp_ms=NOW_MS + number * 1000))
    log.high_watermark = log.log_end_offset
    return bench, log


def test_segments_whose_newest_record_is_too_old_go(tmp_path: Path) -> None:
    """retention.ms looks at the newest record of each segment and keeps every younger one."""
    _, log = filled(tmp_path, replace(TINY, retention_ms=10_000))
    now_ms = NOW_MS + 25_000
    assert delete_old_segments(log, now_ms) > 0
    left = values_of(log)
    assert set(range(15, 30)) <= left.keys()
    assert log.segments[0].largest_timestamp_ms >= now_ms - 10_000
    assert delete_old_segments(log, now_ms) == 0
    log.abandon()


def test_topic_that_is_wholly_expired_becomes_empty_and_goes_on(tmp_path: Path) -> None:
    """The active segment is closed when it is too old, and offsets continue."""
    bench, log = filled(tmp_path, replace(TINY, retention_ms=10_000))
    delete_old_segments(log, NOW_MS + 10**9)
    assert (log.log_start_offset, log.log_end_offset, values_of(log)) == (30, 30, {})
    bench.save(log)
    log = bench.crash(log)
    assert (log.log_start_offset, log.log_end_offset) == (30, 30)
    assert append(log, batch_of(b"next")).base_offset == 30
    log.abandon()


def test_size_limit_is_never_undercut(tmp_path: Path) -> None:
    """retention.bytes deletes only what leaves at least that much."""
    _, log = filled(tmp_path, replace(TINY, retention_ms=-1, retention_bytes=900))
    delete_old_segments(log, NOW_MS)
    assert 900 <= log.size_bytes < 900 + TINY.segment_bytes
    log.abandon()


def test_nothing_above_the_high_watermark_goes(tmp_path: Path) -> None:
    """What is not replicated is not deleted, however old."""
    bench = Bench(tmp_path / "orders-0", replace(TINY, retention_ms=1, retention_bytes=0))
    log = bench.open()
    for number in range(30):
        append(log, batch_of(b"%d" % number))
    log.high_watermark = log.segments[2].base_offset
    assert delete_old_segments(log, NOW_MS + 10**9) == 2
    assert log.log_start_offset == log.high_watermark
    log.abandon()


def test_delete_records_frees_whole_segments_even_of_compacted_topics(tmp_path: Path) -> None:
    """The log start moves at once, segments below it go with the next round, and neither comes back."""
    bench, log = filled(tmp_path, replace(TINY, compact=True, delete=False, retention_ms=1), 0)
    for number in range(30):
        append(log, batch_of(b"%d" % number, keys=[b"k"]))
    log.high_watermark = 30
    offset = log.segments[2].base_offset + 1
    log.delete_records_before(offset)
    assert min(values_of(log)) == offset
    assert delete_old_segments(log, NOW_MS + 10**9) == 2
    bench.save(log)
    log = bench.crash(log)
    assert log.log_start_offset == offset
    assert min(values_of(log)) == offset
    log.abandon()


def test_deleted_files_wait_for_their_delay(tmp_path: Path) -> None:
    """file.delete.delay.ms: renamed at once, removed later."""
    _, log = filled(tmp_path, replace(TINY, retention_ms=1, file_delete_delay_ms=5000))
    delete_old_segments(log, NOW_MS + 10**9)
    assert {at_ms for at_ms, _ in log.doomed} == {NOW_MS + 10**9 + 5000}
    assert all(Path(path).exists() for _, path in log.doomed)
    log.abandon()
