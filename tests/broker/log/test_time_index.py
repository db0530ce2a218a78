"""Time index files against brute force over the log. Kafka's DumpLogSegments looks at offset indexes only."""

from __future__ import annotations

import struct
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from streamlog.wire.records import iter_batch_headers
from tests.broker.log.harness import NOW_MS, TINY, Bench, append, batch_of

TIMES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=3), min_size=1, max_size=60)
"""Of each record in each batch, after NOW_MS: they go up and down, and repeat."""


def entries_of(path: Path, layout: str) -> list[tuple[int, int]]:
    data = path.read_bytes()
    size = struct.calcsize(layout)
    assert len(data) % size == 0
    return [(first, second) for first, second in struct.iter_unpack(layout, data)]


def check_segment(log_file: Path) -> int:
    """Everything that may be asked of one segment's time index, from the bytes alone; how many entries it has."""
    base_offset = int(log_file.stem)
    batches = [header for _, header in iter_batch_headers(log_file.read_bytes())]
    entries = entries_of(log_file.with_suffix(".timeindex"), ">qi")
    by_time = [timestamp_ms for timestamp_ms, _ in entries]
    assert by_time == sorted(set(by_time)), "timestamps rise"
    assert [relative for _, relative in entries] == sorted({relative for _, relative in entries}), "offsets rise"
    for timestamp_ms, relative in entries:
        until = [batch for batch in batches if batch.last_offset <= base_offset + relative]
        assert until[-1].last_offset == base_offset + relative, "an entry names the end of a batch"
        assert until[-1].max_timestamp_ms == timestamp_ms, "which brought its timestamp"
        assert all(batch.max_timestamp_ms < timestamp_ms for batch in until[:-1]), "and was the first to"
    if batches:
        newest = max(batch.max_timestamp_ms for batch in batches)
        assert by_time[-1:] == [newest], "the largest timestamp of a finished segment is its last entry"
    for relative, position in entries_of(log_file.with_suffix(".index"), ">ii"):
        newest = max(batch.max_timestamp_ms for batch in batches if batch.last_offset <= base_offset + relative)
        assert newest in by_time, f"whoever seeks by time to byte {position} finds an entry as near as by offset"
    return len(entries)


def check(directory: Path) -> int:
    """Every segment; how many entries there are."""
    return sum(check_segment(path) for path in sorted(directory.glob("*.log")))


@given(times=TIMES, cut=st.integers(0, 120))
@settings(max_examples=40, deadline=None)
def test_time_index_files_say_what_the_log_says(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]], cut: int
) -> None:
    """Written while appending, after a truncation, told again by recovery, and rebuilt from nothing."""
    bench = Bench(tmp_path_factory.mktemp("time") / "t-0", TINY)
    log = bench.open()
    for batch in times:
        append(log, batch_of(*[b"x" * 40] * len(batch), timestamps_ms=[NOW_MS + time for time in batch]))
    bench.checkpoint(log)
    assert check(bench.directory) > 0
    log.truncate_to(cut, NOW_MS)
    for batch in times[:20]:
        append(log, batch_of(*[b"x" * 40] * len(batch), timestamps_ms=[NOW_MS + time for time in batch]))
    bench.checkpoint(log)
    assert check(bench.directory) > 0
    log = bench.crash(log)
    log.close()
    assert check(bench.directory) > 0
    for path in bench.directory.glob("*index"):
        path.unlink()
    log = bench.open()
    for segment in log.segments:
        assert segment.search_from(NOW_MS) >= segment.base_offset  # loads it, or builds it anew
        segment.finish()
    assert check(bench.directory) > 0  # perhaps fewer: a checkpoint leaves an entry of its own
    log.abandon()
