"""Compaction against a dict, with crashes, tombstones, transactions and producers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.broker.log.cleaner import CleanResult, Step, clean, find_cleanable, is_due
from streamlog.broker.log.partition import PartitionLog
from streamlog.wire.records import BatchHeader, Compression, ControlType, decode_records, iter_batch_headers
from tests.broker.log.faulty_storage import PowerCut, cut_power_at, faulty_env
from tests.broker.log.harness import NOW_MS, TINY, Bench, append, append_marker, batch_of, marker_of

COMPACTED = replace(TINY, compact=True, delete=False, segment_bytes=400)
DAY_MS = 86_400_000


def put(log: PartitionLog, key: bytes, value: bytes | None, compression: Compression = Compression.NONE) -> int:
    return append(log, batch_of(value, keys=[key], compression=compression)).base_offset


def settle(bench: Bench, log: PartitionLog) -> None:
    """Everything so far may be cleaned: replicated, closed, below the recovery point."""
    log.high_watermark = log.log_end_offset
    log.roll(NOW_MS)
    bench.checkpoint(log)


def clean_now(
    bench: Bench, log: PartitionLog, clean_offset: int = 0, now_ms: int = NOW_MS, map_bytes_max: int = 1 << 20
) -> CleanResult:
    cleanable = find_cleanable(log, clean_offset, now_ms)
    assert cleanable is not None
    return finish(clean(log, bench.env.storage, cleanable, now_ms, map_bytes_max))


def finish(work: Generator[Step, None, CleanResult]) -> CleanResult:
    """Drive a round to its end without pauses."""
    while True:
        try:
            step = next(work)
        except StopIteration as stop:
            result: CleanResult = stop.value
            return result
        if step is not None:
            step()


def batches(log: PartitionLog) -> Iterator[tuple[BatchHeader, list[tuple[int, bytes | None, bytes | None]]]]:
    position = log.log_start_offset
    while position < log.log_end_offset:
        result = log.read(position, 1 << 20, end_offset=log.log_end_offset)
        if not result.data:
            return
        for at, header in iter_batch_headers(result.data):
            columns = decode_records(result.data, at, header)
            yield header, list(zip(columns.offsets, columns.keys, columns.values, strict=True))
        position = result.next_offset


def rows(log: PartitionLog) -> list[tuple[int, bytes | None, bytes | None]]:
    """(offset, key, value) of every data record."""
    return [row for header, records in batches(log) if not header.is_control for row in records]


def table(log: PartitionLog) -> dict[bytes | None, bytes]:
    """What a reader of the whole topic ends up with."""
    state: dict[bytes | None, bytes] = {}
    for _, key, value in rows(log):
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
    return state


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "table-0", COMPACTED)


@given(
    puts=st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 99))), max_size=60),
    later=st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 99))), max_size=20),
    map_bytes_max=st.sampled_from([1, 300, 1 << 20]),
    compression=st.sampled_from([Compression.NONE, Compression.ZSTD]),
)
@settings(max_examples=60, deadline=None)
def test_compacted_log_gives_the_same_table_in_the_same_order(
    tmp_path_factory: pytest.TempPathFactory,
    puts: list[tuple[int, int | None]],
    later: list[tuple[int, int | None]],
    map_bytes_max: int,
    compression: Compression,
) -> None:
    """Every key's last value survives, records keep their offsets and order, and each key is there once at most."""
    bench = Bench(tmp_path_factory.mktemp("clean") / "table-0", COMPACTED)
    log = bench.open()
    for key, value in puts:
        put(log, b"k%d" % key, None if value is None else b"v%d" % value, compression)
    settle(bench, log)
    before, expected = rows(log), table(log)
    clean_offset = 0
    while (cleanable := find_cleanable(log, clean_offset, NOW_MS)) is not None:
        result = clean_now(bench, log, clean_offset, map_bytes_max=map_bytes_max)
        assert clean_offset < result.end_offset <= cleanable.end_offset
        clean_offset = result.end_offset
    assert table(log) == expected
    after = rows(log)
    assert [row for row in before if row in after] == after
    assert len({key for _, key, _ in after}) == len(after)
    for key, value in later:
        put(log, b"k%d" % key, None if value is None else b"v%d" % value)
    expected = table(log)
    end_offset = log.log_end_offset
    log = bench.crash(log)
    assert (table(log), log.log_end_offset) == (expected, end_offset)
    log.abandon()


def test_tombstone_stays_for_delete_retention_and_then_goes(bench: Bench) -> None:
    """KIP-534: the first round stamps the batch, a round after the horizon drops it."""
    log = bench.open()
    put(log, b"a", b"1")
    put(log, b"a", None)
    settle(bench, log)
    clean_now(bench, log)
    assert [(key, value) for _, key, value in rows(log)] == [(b"a", None)]
    (header,) = [header for header, records in batches(log) if records]
    assert header.delete_horizon_ms == NOW_MS + DAY_MS
    for number in range(2):
        put(log, b"other", b"%d" % number)
        settle(bench, log)
        clean_now(bench, log, 0, now_ms=NOW_MS + number * (DAY_MS + 1))
        tombstones = [key for _, key, value in rows(log) if value is None]
        assert tombstones == ([b"a"] if number == 0 else [])
    log.abandon()


def test_records_of_a_batch_leave_while_others_stay(bench: Bench) -> None:
    """A batch that loses records keeps its offset range, and its remaining records their offsets."""
    log = bench.open()
    append(log, batch_of(b"1", b"2", b"3", keys=[b"a", b"b", b"c"]))
    append(log, batch_of(b"4", b"5", keys=[b"a", b"c"]))
    put(log, b"z", b"9")
    settle(bench, log)
    clean_now(bench, log)
    assert rows(log) == [(1, b"b", b"2"), (3, b"a", b"4"), (4, b"c", b"5"), (5, b"z", b"9")]
    first = next(batches(log))[0]
    assert (first.base_offset, first.last_offset, first.record_count) == (0, 2, 1)
    log.abandon()


def test_min_compaction_lag_protects_young_records(tmp_path: Path) -> None:
    """A segment with a record younger than min.compaction.lag.ms is left alone."""
    bench = Bench(tmp_path / "table-0", replace(COMPACTED, min_compaction_lag_ms=1000))
    log = bench.open()
    put(log, b"a", b"1")
    put(log, b"a", b"2")
    settle(bench, log)
    assert find_cleanable(log, 0, NOW_MS + 999) is None
    assert find_cleanable(log, 0, NOW_MS + 1000) is not None
    log.abandon()


def test_round_is_due_by_ratio_or_by_age(tmp_path: Path) -> None:
    """A little dirt waits until max.compaction.lag.ms has passed."""
    bench = Bench(tmp_path / "table-0", replace(COMPACTED, max_compaction_lag_ms=DAY_MS))
    log = bench.open()
    for number in range(20):
        put(log, b"k%d" % number, b"v")
    settle(bench, log)
    clean_offset = clean_now(bench, log).end_offset
    put(log, b"k1", b"w")
    settle(bench, log)
    cleanable = find_cleanable(log, clean_offset, NOW_MS)
    assert cleanable is not None
    assert not is_due(log, cleanable)
    old = find_cleanable(log, clean_offset, NOW_MS + DAY_MS + 1)
    assert old is not None
    assert is_due(log, old)
    log.abandon()


def test_records_above_the_last_stable_offset_are_not_touched(bench: Bench) -> None:
    """An open transaction holds compaction back."""
    log = bench.open()
    put(log, b"a", b"1")
    append(log, batch_of(b"2", keys=[b"a"], producer=(7, 0, 0), transactional=True))
    put(log, b"a", b"3")
    settle(bench, log)
    assert find_cleanable(log, 0, NOW_MS) is None
    log.abandon()


def test_aborted_records_go_and_their_marker_follows_after_its_horizon(bench: Bench) -> None:
    """Aborted data is dropped at once; the abort stays in the index as long as a reader could need it."""
    log = bench.open()
    put(log, b"a", b"1")
    append(log, batch_of(b"2", keys=[b"a"], producer=(7, 0, 0), transactional=True))
    append_marker(log, marker_of(ControlType.ABORT, 7, 0))
    append(log, batch_of(b"x", keys=[b"b"], producer=(8, 0, 0), transactional=True))
    append_marker(log, marker_of(ControlType.COMMIT, 8, 0))
    append(log, batch_of(b"y", keys=[b"c"], producer=(7, 0, 1)))
    append(log, batch_of(b"y", keys=[b"d"], producer=(8, 0, 1)))
    settle(bench, log)
    end_offset = log.log_end_offset
    clean_now(bench, log)
    assert [(key, value) for _, key, value in rows(log)] == [(b"a", b"1"), (b"b", b"x"), (b"c", b"y"), (b"d", b"y")]
    assert [entry.producer_id for entry in log.aborted_transactions(0, end_offset)] == [7]
    kinds = [header.producer_id for header, _ in batches(log) if header.is_control]
    assert kinds == [7, 8]
    for round_number in (1, 2):
        put(log, b"z", b"%d" % round_number)
        settle(bench, log)
        clean_now(bench, log, 0, now_ms=NOW_MS + round_number * (DAY_MS + 1))
    kinds = [header.producer_id for header, _ in batches(log) if header.is_control]
    assert kinds == [8], "the marker of the abort has gone, the one of live committed data has not"
    assert log.aborted_transactions(0, end_offset) == []
    log.abandon()


def test_aborts_behind_the_mapped_part_stay_in_the_index(tmp_path: Path) -> None:
    """A round that runs out of memory in the middle of a segment still copies the rest of it, aborts included."""
    bench = Bench(tmp_path / "table-0", replace(COMPACTED, segment_bytes=100_000))
    log = bench.open()
    for number in range(6):
        put(log, b"k%d" % number, b"v")
    append(log, batch_of(b"secret", keys=[b"a"], producer=(7, 0, 0), transactional=True))
    append_marker(log, marker_of(ControlType.ABORT, 7, 0))
    settle(bench, log)
    before = log.aborted_transactions(0, log.log_end_offset)
    result = clean_now(bench, log, map_bytes_max=300)
    assert result.end_offset < 6
    assert log.aborted_transactions(0, log.log_end_offset) == before
    log.abandon()


def test_last_sequence_of_a_producer_survives_compaction_and_restart(bench: Bench) -> None:
    """The batch with a producer's last sequence stays without records, so a retry is still recognised."""
    log = bench.open()
    first = append(log, batch_of(b"1", keys=[b"a"], producer=(7, 0, 0)))
    for number in range(12):
        put(log, b"a", b"%d" % number)
    settle(bench, log)
    clean_now(bench, log)
    assert all(value != b"1" for _, _, value in rows(log))
    for path in bench.directory.glob("*.snapshot"):
        path.unlink()
    log.abandon()
    log = bench.open(clean=True)
    again = append(log, batch_of(b"1", keys=[b"a"], producer=(7, 0, 0)))
    assert again.is_duplicate
    assert again.base_offset == first.base_offset
    log.abandon()


def test_compaction_survives_a_power_cut_at_every_step(tmp_path: Path) -> None:
    """Whatever change the process dies before, the table, the offsets and the end are the same afterwards."""
    number = 0
    finished = False
    while not finished:
        env, faults = faulty_env()
        bench = Bench(tmp_path / f"run-{number}" / "table-0", COMPACTED, env)
        log = bench.open()
        for turn in range(30):
            put(log, b"k%d" % (turn % 4), b"v%d" % turn)
        settle(bench, log)
        expected, end_offset = table(log), log.log_end_offset
        cut_power_at(faults, number)
        try:
            clean_now(bench, log)
            finished = True
        except PowerCut:
            pass
        faults.before = lambda name, path: None
        log = bench.crash(log)
        assert (table(log), log.log_end_offset) == (expected, end_offset), f"cut at change {number}"
        offsets = [offset for offset, _, _ in rows(log)]
        assert offsets == sorted(set(offsets)), f"cut at change {number}"
        assert not [path.name for path in bench.directory.iterdir() if path.suffix in (".swap", ".cleaned")]
        log.abandon()
        number += 1
    assert number > 15, "a round makes more changes than that"


def test_recovery_from_a_cut_during_the_swap_survives_another_cut(tmp_path: Path) -> None:
    """Recovery finishes a swap; dying while it does is no worse."""
    for second in range(8):
        env, faults = faulty_env()
        bench = Bench(tmp_path / f"run-{second}" / "table-0", COMPACTED, env)
        log = bench.open()
        for turn in range(30):
            put(log, b"k%d" % (turn % 4), b"v%d" % turn)
        settle(bench, log)
        expected, end_offset = table(log), log.log_end_offset

        def cut_at_first_deletion(name: str, path: str) -> None:
            if name == "rename" and path.endswith(".log"):
                raise PowerCut(path)

        faults.before = cut_at_first_deletion
        with pytest.raises(PowerCut):
            clean_now(bench, log)
        log.abandon()
        cut_power_at(faults, second)
        with suppress(PowerCut):
            bench.open().abandon()
        faults.before = lambda name, path: None
        log = bench.open()
        assert (table(log), log.log_end_offset) == (expected, end_offset), f"second cut at change {second}"
        log.abandon()


def test_segments_deleted_during_a_round_stay_deleted(bench: Bench) -> None:
    """Retention may delete segments while a round is paused; the round gives up."""
    log = bench.open()
    for turn in range(30):
        put(log, b"k%d" % (turn % 4), b"v%d" % turn)
    settle(bench, log)
    cleanable = find_cleanable(log, 0, NOW_MS)
    assert cleanable is not None
    work = clean(log, bench.env.storage, cleanable, NOW_MS, slice_bytes=1)
    for _ in range(35):
        next(work)
    log.delete_segments([log.segments[0]], NOW_MS)
    start = log.log_start_offset
    assert finish(work).was_interrupted
    assert min(offset for offset, _, _ in rows(log)) >= start
    log.abandon()


def test_segments_close_early_enough_for_max_compaction_lag(tmp_path: Path) -> None:
    """Only closed segments are compacted, so none stays open longer than max.compaction.lag.ms allows."""
    log = Bench(tmp_path / "table-0", replace(COMPACTED, segment_bytes=1 << 20, max_compaction_lag_ms=100)).open()
    for ms in (0, 100, 101):
        append(log, batch_of(b"v", keys=[b"k"], timestamp_ms=NOW_MS + ms))
    assert [segment.base_offset for segment in log.segments] == [0, 2]
    log.abandon()
