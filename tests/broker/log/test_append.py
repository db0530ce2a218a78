"""What a partition accepts, what it refuses and with which code, and what a failing disk does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.partition import Origin, PartitionLog
from streamlog.broker.log.refusal import AppendRefused, OffsetOutOfRange, PartitionOffline
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.records import (
    Compression,
    ControlType,
    decode_batch_header,
    decode_records,
    set_base_offset,
    set_leader_epoch,
)
from tests.broker.log.faulty_storage import faulty_env
from tests.broker.log.harness import NOW_MS, TINY, Bench, append, append_marker, batch_of, marker_of, values_of

HOUR_MS = 3_600_000


def open_log(tmp_path: Path, config: LogConfig = TINY) -> PartitionLog:
    return Bench(tmp_path / "orders-0", config).open()


def refused(log: PartitionLog, batch: bytearray, origin: Origin = Origin.CLIENT) -> AppendRefused:
    """The refusal, after checking that nothing has changed."""
    before = (log.log_end_offset, log.size_bytes, log.producers.encode_snapshot())
    with pytest.raises(AppendRefused) as caught:
        log.append(batch, leader_epoch=0, now_ms=NOW_MS, origin=origin)
    assert (log.log_end_offset, log.size_bytes, log.producers.encode_snapshot()) == before
    return caught.value


def flip_crc(batch: bytearray) -> bytearray:
    batch[-1] ^= 1
    return batch


def old_magic(batch: bytearray) -> bytearray:
    batch[16] = 1
    return batch


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (flip_crc, ErrorCode.CORRUPT_MESSAGE),
        (old_magic, ErrorCode.INVALID_RECORD),
        (lambda batch: batch[:40], ErrorCode.INVALID_RECORD),
        (lambda batch: batch[:-1], ErrorCode.INVALID_RECORD),
        (lambda batch: batch + batch, ErrorCode.INVALID_RECORD),
        (lambda batch: bytearray(), ErrorCode.INVALID_RECORD),
        (lambda batch: marker_of(ControlType.COMMIT, 7, 0), ErrorCode.INVALID_RECORD),
        (lambda batch: batch_of(b"x", producer=(7, 0, -1)), ErrorCode.INVALID_RECORD),
    ],
)
def test_what_is_not_one_sound_batch_is_refused(
    tmp_path: Path, spoil: Callable[[bytearray], bytearray], code: ErrorCode
) -> None:
    """Bad checksum, old format, cut, doubled, empty, control, no sequence: each has Kafka's code."""
    log = open_log(tmp_path)
    append(log, batch_of(b"0"))
    assert refused(log, spoil(batch_of(b"x"))).code is code
    log.abandon()


def test_size_limits_have_their_own_codes(tmp_path: Path) -> None:
    """max.message.bytes and segment.bytes."""
    log = open_log(tmp_path, replace(TINY, max_message_bytes=200))
    assert refused(log, batch_of(b"x" * 200)).code is ErrorCode.MESSAGE_TOO_LARGE
    log.update_config(replace(TINY, segment_bytes=150))
    assert refused(log, batch_of(b"x" * 200)).code is ErrorCode.RECORD_LIST_TOO_LARGE
    log.abandon()


def test_compacted_topic_names_the_records_without_a_key(tmp_path: Path) -> None:
    """INVALID_RECORD with record_errors."""
    log = open_log(tmp_path, replace(TINY, compact=True))
    refusal = refused(log, batch_of(b"1", b"2", b"3", keys=[b"a", None, None]))
    assert (refusal.code, refusal.record_indexes) == (ErrorCode.INVALID_RECORD, (1, 2))
    log.abandon()


def test_timestamps_outside_the_allowed_window_are_named(tmp_path: Path) -> None:
    """INVALID_TIMESTAMP for too new by default, for too old where message.timestamp.before.max.ms says so."""
    log = open_log(tmp_path)
    late = [NOW_MS, NOW_MS + HOUR_MS, NOW_MS + HOUR_MS + 1]
    refusal = refused(log, batch_of(b"1", b"2", b"3", timestamps_ms=late))
    assert (refusal.code, refusal.record_indexes) == (ErrorCode.INVALID_TIMESTAMP, (2,))
    append(log, batch_of(b"old", timestamp_ms=1))
    log.update_config(replace(TINY, message_timestamp_before_max_ms=HOUR_MS))
    refusal = refused(log, batch_of(b"1", b"2", timestamps_ms=[NOW_MS, NOW_MS - HOUR_MS - 1]))
    assert (refusal.code, refusal.record_indexes) == (ErrorCode.INVALID_TIMESTAMP, (1,))
    log.abandon()


def test_log_append_time_stamps_every_record(tmp_path: Path) -> None:
    """The producer's timestamps, however wrong, are replaced by ours."""
    log = open_log(tmp_path, replace(TINY, log_append_time=True))
    result = append(log, batch_of(b"1", b"2", timestamps_ms=[5, NOW_MS * 2]), now_ms=NOW_MS + 3)
    assert result.log_append_time_ms == NOW_MS + 3
    data = log.read(0, 1000, end_offset=2).data
    assert decode_records(data).timestamps_ms == [NOW_MS + 3] * 2
    assert log.offset_for_timestamp(NOW_MS + 3) == (NOW_MS + 3, 0, 0)
    log.abandon()


def test_topic_compression_replaces_the_producers(tmp_path: Path) -> None:
    """compression.type other than producer recompresses, and leaves a batch that complies alone."""
    log = open_log(tmp_path, replace(TINY, compression=Compression.ZSTD))
    append(log, batch_of(b"a" * 50, b"b", producer=(7, 0, 0)))
    append(log, batch_of(b"c", producer=(7, 0, 2), compression=Compression.ZSTD))
    append(log, batch_of(b"d", producer=(7, 0, 3), compression=Compression.GZIP))
    assert values_of(log) == {0: b"a" * 50, 1: b"b", 2: b"c", 3: b"d"}
    for offset in (0, 2, 3):
        header = decode_batch_header(log.read(offset, 1, end_offset=4).data)
        assert header.compression is Compression.ZSTD
        assert header.producer_id == 7
    log.abandon()


def test_retry_of_the_last_five_batches_gets_the_original_offset(tmp_path: Path) -> None:
    """Older duplicates are out of order, as in Kafka."""
    log = open_log(tmp_path)
    for number in range(7):
        append(log, batch_of(b"%d" % number, b"x", producer=(7, 0, 2 * number)))
    for number in range(2, 7):
        result = append(log, batch_of(b"%d" % number, b"x", producer=(7, 0, 2 * number)))
        assert (result.is_duplicate, result.base_offset, result.last_offset) == (True, 2 * number, 2 * number + 1)
    code = refused(log, batch_of(b"1", b"x", producer=(7, 0, 2))).code
    assert code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert log.log_end_offset == 14
    log.abandon()


def test_retries_are_recognised_after_a_crash_and_after_a_clean_stop(tmp_path: Path) -> None:
    """All five batches, not only the last one that Kafka's snapshot keeps."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    for number in range(6):
        append(log, batch_of(b"%d" % number, producer=(7, 0, number)))
    for restart in (bench.crash, bench.reopen, bench.crash):
        log = restart(log)
        for number in range(1, 6):
            assert append(log, batch_of(b"%d" % number, producer=(7, 0, number))).base_offset == number
    assert log.log_end_offset == 6
    log.abandon()


def test_sequences_and_epochs(tmp_path: Path) -> None:
    """Gap: 45. Old epoch: 47. A new epoch starts at 0. An unknown producer may start anywhere (KIP-360)."""
    log = open_log(tmp_path)
    append(log, batch_of(b"0", producer=(7, 3, 40)))
    assert refused(log, batch_of(b"x", producer=(7, 3, 42))).code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(log, batch_of(b"x", producer=(7, 2, 0))).code is ErrorCode.INVALID_PRODUCER_EPOCH
    assert refused(log, batch_of(b"x", producer=(7, 4, 1))).code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    append(log, batch_of(b"1", producer=(7, 4, 0)))
    append(log, batch_of(b"2", producer=(7, 4, 1)))
    log.abandon()


def test_sequence_wraps_to_zero(tmp_path: Path) -> None:
    """After 2^31 - 1 comes 0, within a batch and between batches."""
    log = open_log(tmp_path)
    append(log, batch_of(b"0", b"1", producer=(7, 0, 2**31 - 2)))
    append(log, batch_of(b"2", producer=(7, 0, 0)))
    append(log, batch_of(b"0", b"1", b"2", producer=(8, 0, 2**31 - 2)))
    assert append(log, batch_of(b"0", b"1", b"2", producer=(8, 0, 2**31 - 2))).is_duplicate
    append(log, batch_of(b"3", producer=(8, 0, 1)))
    log.abandon()


def test_plain_batch_inside_a_transaction_is_refused(tmp_path: Path) -> None:
    """INVALID_TXN_STATE, and a marker of an older coordinator is fenced."""
    log = open_log(tmp_path)
    append(log, batch_of(b"0", producer=(7, 0, 0), transactional=True))
    assert refused(log, batch_of(b"1", producer=(7, 0, 1))).code is ErrorCode.INVALID_TXN_STATE
    append_marker(log, marker_of(ControlType.COMMIT, 7, 0, coordinator_epoch=4))
    refusal = refused(log, marker_of(ControlType.COMMIT, 7, 0, coordinator_epoch=3), Origin.COORDINATOR)
    assert refusal.code is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    log.abandon()


def test_marker_with_a_bumped_epoch_fences_what_comes_late(tmp_path: Path) -> None:
    """KIP-890: the batch of the ended transaction that arrives after its marker is refused."""
    log = open_log(tmp_path)
    append(log, batch_of(b"0", producer=(7, 0, 0), transactional=True))
    append_marker(log, marker_of(ControlType.ABORT, 7, 1))
    late = batch_of(b"1", producer=(7, 0, 1), transactional=True)
    assert refused(log, late).code is ErrorCode.INVALID_PRODUCER_EPOCH
    append(log, batch_of(b"2", producer=(7, 1, 0), transactional=True))
    assert log.producers.has_open_transaction(7, 1)
    log.abandon()


def test_last_stable_offset_follows_open_transactions_and_the_high_watermark(tmp_path: Path) -> None:
    """It stops at the first undecided record, and at a decision that is not replicated."""
    log = open_log(tmp_path)
    append(log, batch_of(b"0"))
    append(log, batch_of(b"1", producer=(7, 0, 0), transactional=True))
    append(log, batch_of(b"2", producer=(8, 0, 0), transactional=True))
    log.high_watermark = 3
    assert log.last_stable_offset == 1
    append_marker(log, marker_of(ControlType.ABORT, 7, 0))
    assert log.last_stable_offset == 1
    log.high_watermark = 4
    assert log.last_stable_offset == 2
    append_marker(log, marker_of(ControlType.COMMIT, 8, 0))
    log.high_watermark = 5
    assert log.last_stable_offset == 5
    (aborted,) = log.aborted_transactions(0, 5)
    assert aborted == (7, 1, 3, 2)
    log.abandon()


def test_replicated_batches_keep_their_offsets_and_epochs(tmp_path: Path) -> None:
    """Several batches with a gap and a torn one behind: the whole ones are appended as they are."""
    log = open_log(tmp_path)
    stream = bytearray()
    for offset, epoch in ((0, 1), (1, 1), (5, 2), (6, 4)):
        batch = batch_of(b"%d" % offset)
        set_base_offset(batch, 0, offset)
        set_leader_epoch(batch, 0, epoch)
        stream += batch
    result = log.append(stream[:-3], leader_epoch=9, now_ms=NOW_MS, origin=Origin.REPLICA)
    assert (result.base_offset, result.last_offset, log.log_end_offset) == (0, 5, 6)
    assert log.epochs.entries() == [(1, 0), (2, 5)]
    assert values_of(log, bytes_max=1) == {0: b"0", 1: b"1", 5: b"5"}
    assert refused(log, stream[:80], Origin.REPLICA).code is ErrorCode.CORRUPT_MESSAGE
    log.abandon()


def test_replicated_stream_is_split_over_segments(tmp_path: Path) -> None:
    """One fetch response larger than a segment fills several, each batch indexed where it stands."""
    log = open_log(tmp_path)
    stream = bytearray()
    for offset in range(40):
        batch = batch_of(b"%d" % offset)
        set_base_offset(batch, 0, offset)
        set_leader_epoch(batch, 0, 0)
        stream += batch
    log.append(stream, leader_epoch=0, now_ms=NOW_MS, origin=Origin.REPLICA)
    assert len(log.segments) > 3
    assert max(segment.size_bytes for segment in log.segments) <= TINY.segment_bytes
    assert values_of(log, bytes_max=1) == {offset: b"%d" % offset for offset in range(40)}
    log.abandon()


def test_coordinator_appends_several_batches_or_none(tmp_path: Path) -> None:
    """One write for all of them; when one is refused, none is there."""
    log = open_log(tmp_path)
    append(log, batch_of(b"0", producer=(7, 0, 0), transactional=True))
    append(log, batch_of(b"1", producer=(8, 3, 0), transactional=True))
    stale = marker_of(ControlType.COMMIT, 7, 0) + marker_of(ControlType.COMMIT, 8, 2)
    assert refused(log, stale, Origin.COORDINATOR).code is ErrorCode.INVALID_PRODUCER_EPOCH
    both = marker_of(ControlType.COMMIT, 7, 0) + marker_of(ControlType.ABORT, 8, 3) + batch_of(b"2", b"3")
    result = log.append(both, leader_epoch=5, now_ms=NOW_MS, origin=Origin.COORDINATOR)
    assert (result.base_offset, result.last_offset, log.log_end_offset) == (2, 5, 6)
    assert values_of(log, bytes_max=1) == {0: b"0", 1: b"1", 4: b"2", 5: b"3"}
    assert log.epochs.entries() == [(0, 0), (5, 2)]
    assert log.last_stable_offset == log.high_watermark == 0
    log.high_watermark = 6
    assert log.last_stable_offset == 6
    log.abandon()


def test_replica_that_runs_out_of_disk_keeps_what_it_has(tmp_path: Path) -> None:
    """Whole batches that were written count, and whoever waits hears of them."""
    env, faults = faulty_env()
    log = Bench(tmp_path / "orders-0", env=env).open()
    batches = [batch_of(b"%d" % offset) for offset in range(20)]
    for offset, batch in enumerate(batches):
        set_base_offset(batch, 0, offset)
    heard: list[int] = []
    log.on_append.append(lambda: heard.append(log.log_end_offset))
    faults.write_bytes_left = 700
    with pytest.raises(PartitionOffline):
        log.append(bytearray().join(batches), leader_epoch=0, now_ms=NOW_MS, origin=Origin.REPLICA)
    assert heard == [log.log_end_offset] == [8]
    faults.write_bytes_left = None
    log.append(bytearray().join(batches[8:]), leader_epoch=0, now_ms=NOW_MS, origin=Origin.REPLICA)
    assert values_of(log) == {offset: b"%d" % offset for offset in range(20)}
    log.abandon()


def test_full_disk_refuses_without_a_trace_and_recovers_when_there_is_room(tmp_path: Path) -> None:
    """For every number of bytes that still fit, nothing partial is visible and reading goes on."""
    for room in range(0, 75, 7):
        env, faults = faulty_env()
        bench = Bench(tmp_path / f"orders-{room}", env=env)
        log = bench.open()
        append(log, batch_of(b"0"))
        faults.write_bytes_left = room
        with pytest.raises(PartitionOffline, match="No space left"):
            append(log, batch_of(b"lost" * 5))
        assert values_of(log) == {0: b"0"}
        faults.write_bytes_left = None
        assert append(log, batch_of(b"1")).base_offset == 1
        log = bench.crash(log)
        assert values_of(log) == {0: b"0", 1: b"1"}
        assert log.recovery_report.cut_bytes == 0
        log.abandon()


def test_disk_that_can_neither_write_nor_cut_back_takes_the_partition_offline(tmp_path: Path) -> None:
    """Until a restart every append fails; what was readable stays readable."""
    env, faults = faulty_env()
    bench = Bench(tmp_path / "orders-0", env=env)
    log = bench.open()
    append(log, batch_of(b"0"))
    faults.write_bytes_left = 5

    def no_truncate(name: str, path: str) -> None:
        if name == "truncate":
            raise OSError(5, "Input/output error")

    faults.before = no_truncate
    with pytest.raises(PartitionOffline):
        append(log, batch_of(b"1"))
    faults.write_bytes_left = None
    with pytest.raises(PartitionOffline):
        append(log, batch_of(b"1"))
    assert log.failure is not None
    assert values_of(log) == {0: b"0"}
    faults.before = lambda name, path: None
    log = bench.crash(log)
    assert values_of(log) == {0: b"0"}
    log.abandon()


def test_segment_that_cannot_be_created_leaves_the_old_one_active(tmp_path: Path) -> None:
    """Rolling fails with the append, and works when the disk does."""
    env, faults = faulty_env()
    log = Bench(tmp_path / "orders-0", env=env).open()
    while log.size_bytes < 540:
        append(log, batch_of(b"0"))

    def no_create(name: str, path: str) -> None:
        if name == "create" and path.endswith(".log"):
            raise OSError(28, "No space left on device")

    faults.before = no_create
    with pytest.raises(PartitionOffline):
        append(log, batch_of(b"1"))
    faults.before = lambda name, path: None
    end_offset = log.log_end_offset
    assert append(log, batch_of(b"1")).base_offset == end_offset
    assert len(log.segments) == 2
    log.abandon()


def test_segments_roll_by_record_time(tmp_path: Path) -> None:
    """segment.ms counts from the first record's timestamp."""
    log = open_log(tmp_path, replace(TINY, segment_bytes=1 << 20, segment_ms=100))
    for ms in (0, 100, 101, 150, 202):
        append(log, batch_of(b"x", timestamp_ms=NOW_MS + ms))
    assert [segment.base_offset for segment in log.segments] == [0, 2, 4]
    log.abandon()


def test_reading_outside_the_log_is_refused(tmp_path: Path) -> None:
    """Below the start and beyond the end; at the end there is just nothing yet."""
    log = open_log(tmp_path)
    for number in range(3):
        append(log, batch_of(b"%d" % number))
    log.high_watermark = 3
    log.delete_records_before(1)
    for offset in (-1, 0, 4):
        with pytest.raises(OffsetOutOfRange):
            log.read(offset, 100, end_offset=3)
    assert log.read(3, 100, end_offset=3) == (b"", 3)
    with pytest.raises(OffsetOutOfRange):
        log.delete_records_before(4)
    log.abandon()


def test_reading_stops_at_the_limit_wherever_the_reader_stands(tmp_path: Path) -> None:
    """No batch at or above the end offset is returned, from the head and through the index alike."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    for number in range(30):
        append(log, batch_of(b"%d" % number))
    for current in (log, bench.reopen(log)):
        for end_offset in range(31):
            assert values_of(current, end=end_offset) == {offset: b"%d" % offset for offset in range(end_offset)}
        current.abandon()


def test_first_batch_comes_whole_only_when_asked(tmp_path: Path) -> None:
    """at_least_one_batch decides about a first batch larger than the limit."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    append(log, batch_of(b"x" * 100))
    append(log, batch_of(b"y"))
    for current in (log, bench.reopen(log)):
        assert len(current.read(0, 10, end_offset=2).data) > 100
        assert current.read(0, 10, end_offset=2, at_least_one_batch=False) == (b"", 0)
        current.abandon()


def test_callbacks_tell_of_appends_and_of_the_high_watermark(tmp_path: Path) -> None:
    """Whoever waits for the log hears of every change."""
    log = open_log(tmp_path)
    heard: list[tuple[str, int]] = []
    log.on_append.append(lambda: heard.append(("end", log.log_end_offset)))
    log.on_high_watermark.append(lambda: heard.append(("hw", log.high_watermark)))
    append(log, batch_of(b"0", b"1"))
    log.high_watermark = 9
    log.high_watermark = 2
    assert heard == [("end", 2), ("hw", 2)]
    log.abandon()
