"""Opening a partition after it was not closed: torn tails, flipped bits, lost and damaged files, repeated crashes."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from streamlog.broker.log.partition import Origin, PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.wire.records import ControlType, set_base_offset, set_leader_epoch
from tests.broker.log.faulty_storage import PowerCut, cut_power_at, faulty_env
from tests.broker.log.harness import NOW_MS, TINY, Bench, append, append_marker, batch_of, marker_of, values_of

ONE_SEGMENT = replace(TINY, segment_bytes=1 << 20)


def log_file(bench: Bench, number: int = -1) -> Path:
    return sorted(bench.directory.glob("*.log"))[number]


def filled(bench: Bench, count: int) -> dict[int, bytes | None]:
    """A partition with `count` batches of two records, left as a crash leaves it."""
    log = bench.open()
    for number in range(count):
        append(log, batch_of(b"a%d" % number, b"b%d" % number), epoch=number // 4)
    values = values_of(log)
    log.abandon()
    return values


def test_torn_tail_is_cut_at_the_last_whole_batch_wherever_it_tears(tmp_path: Path) -> None:
    """For every number of bytes of the last batch that reached the disk, exactly the batches before it are there."""
    original = Bench(tmp_path / "original-0", ONE_SEGMENT)
    values = filled(original, 6)
    data = log_file(original).read_bytes()
    batch_bytes = len(batch_of(b"a5", b"b5"))
    for torn in range(batch_bytes):
        bench = Bench(tmp_path / f"torn-{torn}", ONE_SEGMENT)
        shutil.copytree(original.directory, bench.directory)
        log_file(bench).write_bytes(data[: len(data) - batch_bytes + torn])
        log = bench.open()
        assert values_of(log) == {offset: value for offset, value in values.items() if offset < 10}
        assert log.log_end_offset == 10
        assert log.recovery_report.cut_bytes == torn
        assert append(log, batch_of(b"new")).base_offset == 10
        log.abandon()


def test_tail_that_was_extended_with_zeros_is_cut(tmp_path: Path) -> None:
    """A file whose size reached the disk before its bytes ends in zeros."""
    bench = Bench(tmp_path / "orders-0", ONE_SEGMENT)
    values = filled(bench, 4)
    with log_file(bench).open("ab") as file:
        file.write(bytes(500))
    log = bench.open()
    assert values_of(log) == values
    assert log.recovery_report.cut_bytes == 500
    log.abandon()


@pytest.mark.parametrize("clean", [False, True])
def test_flipped_bit_below_the_recovery_point_is_never_served_and_never_cut(tmp_path: Path, clean: bool) -> None:
    """Each bit of a middle batch, flipped: reads give the true values or an error, and no byte is removed."""
    original = Bench(tmp_path / "original-0", ONE_SEGMENT)
    log = original.open()
    for number in range(8):
        append(log, batch_of(b"a%d" % number, b"b%d" % number))
    values = values_of(log)
    log.close()
    original.save(log)
    data = log_file(original).read_bytes()
    batch_bytes = len(data) // 8
    # The leader epoch (bytes 12 to 15) is not under the checksum and not visible in the values.
    for position in (*range(12), *range(16, batch_bytes)):
        bench = Bench(tmp_path / f"flip-{clean}-{position}", ONE_SEGMENT, recovery_point=original.recovery_point)
        shutil.copytree(original.directory, bench.directory)
        flipped = bytearray(data)
        flipped[3 * batch_bytes + position] ^= 1 << (position % 8)
        log_file(bench).write_bytes(flipped)
        with suppress(PartitionOffline):
            damaged = bench.open(clean=clean)
            for start in values:
                with suppress(PartitionOffline):
                    served = values_of(damaged, start, bytes_max=1, end=start + 1)
                    assert served.items() <= values.items(), f"bit of byte {position} was served"
            with pytest.raises(PartitionOffline):
                values_of(damaged)
            damaged.abandon()
        assert log_file(bench).read_bytes() == bytes(flipped), f"byte {position}: something was cut"


@pytest.mark.parametrize("bit", range(64))
def test_last_offset_that_cannot_be_is_damage_when_indexes_are_built_again(tmp_path: Path, bit: int) -> None:
    """A flip in the base offset of the last batch contradicts its index entry; building that anew notices it."""
    bench = Bench(tmp_path / "orders-0", replace(ONE_SEGMENT, index_interval_bytes=0))
    log = bench.open()
    for number in range(4):
        append(log, batch_of(b"%d" % number))
    last = log.size_bytes // 4 * 3
    log.close()
    bench.save(log)
    data = bytearray(log_file(bench).read_bytes())
    data[last + bit // 8] ^= 1 << (bit % 8)
    log_file(bench).write_bytes(data)
    try:
        log = bench.open(clean=True)
    except PartitionOffline:
        return
    with pytest.raises(PartitionOffline):
        values_of(log)
    log.abandon()


@pytest.mark.parametrize("bit", range(64))
def test_offset_that_grew_into_the_next_batch_is_damage_and_nothing_is_cut(tmp_path: Path, bit: int) -> None:
    """After a kill: it is not the next batch, which goes back then, that is wrong."""
    bench = Bench(tmp_path / "orders-0", ONE_SEGMENT)
    log = bench.open()
    append(log, batch_of(b"a"))
    append(log, batch_of(b"b"))
    log.close()
    bench.save(log)
    data = bytearray(log_file(bench).read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    log_file(bench).write_bytes(data)
    with pytest.raises(PartitionOffline):
        bench.open(clean=False)
    assert log_file(bench).read_bytes() == bytes(data)


@pytest.mark.parametrize("bit", range(64))
def test_offset_that_grew_into_the_next_segment_of_a_compacted_log_is_damage(tmp_path: Path, bit: int) -> None:
    """Its segments need not join each other. But the last batch of one ends before the next begins."""
    bench = Bench(tmp_path / "orders-0", replace(TINY, segment_bytes=100))
    log = bench.open()
    for number in range(3):
        append(log, batch_of(b"%d" % number))
    log.close()
    bench.save(log)
    first = log_file(bench, 0)
    data = bytearray(first.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    first.write_bytes(data)
    bench.config = replace(bench.config, compact=True)
    log = bench.open(clean=True)
    with pytest.raises(PartitionOffline):
        log.read(0, 1, end_offset=3)
    with pytest.raises(PartitionOffline):
        log.offset_for_timestamp(NOW_MS)
    assert values_of(log, 1) == {1: b"1", 2: b"2"}
    log.abandon()


def test_flipped_bit_above_the_recovery_point_cuts_there_and_says_so(tmp_path: Path) -> None:
    """What no checkpoint promised may be cut, but the report names the place."""
    bench = Bench(tmp_path / "orders-0", ONE_SEGMENT)
    values = filled(bench, 6)
    data = bytearray(log_file(bench).read_bytes())
    data[2 * len(data) // 6 + 70] ^= 4
    log_file(bench).write_bytes(data)
    log = bench.open()
    assert values_of(log) == {offset: value for offset, value in values.items() if offset < 4}
    assert "checksum" in log.recovery_report.cut_at
    log.abandon()


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("damage", ["truncate", "remove", "zero"])
def test_lost_bytes_below_the_recovery_point_take_the_partition_offline(
    tmp_path: Path, damage: str, clean: bool
) -> None:
    """A closed segment that is cut, gone or zeroed is not a gap that readers step over."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    for number in range(30):
        append(log, batch_of(b"%d" % number))
    log.close()
    bench.save(log)
    path = log_file(bench, 2)
    data = path.read_bytes()
    match damage:
        case "truncate":
            path.write_bytes(data[: len(data) - 10])
        case "zero":
            path.write_bytes(bytes(len(data)))
        case _:
            path.unlink()
    with pytest.raises(PartitionOffline):
        bench.open(clean=clean)


def test_log_that_ends_below_the_recovery_point_stays_offline(tmp_path: Path) -> None:
    """Losing promised records at the end is damage too."""
    bench = Bench(tmp_path / "orders-0", ONE_SEGMENT)
    log = bench.open()
    for number in range(5):
        append(log, batch_of(b"%d" % number))
    bench.checkpoint(log)
    log.abandon()
    data = log_file(bench).read_bytes()
    log_file(bench).write_bytes(data[:-1])
    for _ in range(2):
        with pytest.raises(PartitionOffline, match="was on disk"):
            bench.open()
    assert log_file(bench).read_bytes() == data[:-1]


DERIVED = [".index", ".timeindex", ".txnindex", ".snapshot", "leader-epoch-checkpoint"]
DAMAGES = [
    (suffix, damage)
    for suffix in DERIVED
    for damage in ("remove", "empty", "garbage", "shift")
    if (suffix, damage) != (".txnindex", "empty")  # which is what a segment without aborts has
]


@pytest.mark.parametrize(("suffix", "damage"), DAMAGES)
@pytest.mark.parametrize("clean", [False, True])
def test_damaged_derived_files_are_rebuilt_with_the_same_answers(
    tmp_path: Path, suffix: str, damage: str, clean: bool
) -> None:
    """Offsets, timestamps, epochs, producers and aborted transactions do not depend on any derived file."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    for number in range(24):
        append(log, batch_of(b"%d" % number, timestamp_ms=NOW_MS + number * 10), epoch=number // 8)
        append(log, batch_of(b"t", producer=(7, 0, number), transactional=True), epoch=number // 8)
        if number % 5 == 4:
            append_marker(log, marker_of(ControlType.ABORT, 7, 0))
    log.high_watermark = log.log_end_offset
    before = answers(log)
    log.close()
    bench.save(log)
    for path in sorted(bench.directory.iterdir()):
        if path.name.endswith(suffix):
            data = path.read_bytes()
            match damage:
                case "remove":
                    path.unlink()
                case "empty":
                    path.write_bytes(b"")
                case "garbage":
                    path.write_bytes(bytes((byte * 7 + 3) % 256 for byte in data))
                case _:
                    path.write_bytes(data[4:] + data[:4])
    log = bench.open(clean=clean)
    log.high_watermark = log.log_end_offset
    assert answers(log) == before
    log.abandon()


def answers(log: PartitionLog) -> dict[str, object]:
    end_offset = log.log_end_offset
    return {
        "values": values_of(log, bytes_max=1),
        "ends": (log.log_start_offset, end_offset, log.last_stable_offset),
        "times": [log.offset_for_timestamp(NOW_MS + ms) for ms in range(0, 260, 7)],
        "newest": log.max_timestamp(),
        "epochs": [log.end_offset_for_epoch(epoch) for epoch in range(5)],
        "aborted": [log.aborted_transactions(start, end_offset) for start in range(0, end_offset, 3)],
        "producers": log.producers.encode_snapshot()[:6],
        "sequence": log.producers.entries[7].last_sequence,
    }


def test_recovery_survives_a_power_cut_at_every_step(tmp_path: Path) -> None:
    """A crash during recovery, as often as it likes, is a crash."""
    original = Bench(tmp_path / "original-0")
    values = filled(original, 20)
    with log_file(original).open("ab") as file:
        file.write(b"torn")
    number = 0
    finished = False
    while not finished:
        env, faults = faulty_env()
        bench = Bench(tmp_path / f"run-{number}", env=env)
        shutil.copytree(original.directory, bench.directory)
        for attempt in range(3):
            cut_power_at(faults, max(number - attempt, 0))
            finished = False
            with suppress(PowerCut):
                bench.open().abandon()
                finished = True
        faults.before = lambda name, path: None
        log = bench.open()
        assert values_of(log) == values
        log.abandon()
        number += 1


def test_only_what_follows_the_recovery_point_is_walked(tmp_path: Path) -> None:
    """After a checkpoint a restart reads the tail, not the segment."""
    bench = Bench(tmp_path / "orders-0", ONE_SEGMENT)
    log = bench.open()
    for number in range(200):
        append(log, batch_of(b"%d" % number, producer=(7, 0, number)))
    bench.checkpoint(log)
    for number in range(3):
        append(log, batch_of(b"x", producer=(7, 0, 200 + number)))
    log = bench.crash(log)
    assert log.recovery_report.walked_bytes < 1000
    assert log.producers.entries[7].last_sequence == 202
    log.abandon()


def test_segment_after_a_torn_one_goes_with_it(tmp_path: Path) -> None:
    """Above the recovery point, what lies behind a cut cannot be reached without a gap."""
    bench = Bench(tmp_path / "orders-0")
    values = filled(bench, 20)
    path = log_file(bench, 1)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    log = bench.open()
    assert log.log_end_offset < 40
    assert values_of(log) == {offset: value for offset, value in values.items() if offset < log.log_end_offset}
    assert log_file(bench) == path
    log.abandon()


def test_bytes_of_an_older_leader_behind_a_newer_ones_are_leftovers(tmp_path: Path) -> None:
    """Leader epochs rise along a log; above the recovery point a step back is what a truncation has left."""
    bench = Bench(tmp_path / "orders-0", ONE_SEGMENT)
    log = bench.open()
    for offset, epoch in enumerate((1, 1, 3, 2, 3)):
        batch = batch_of(b"%d" % epoch)
        set_base_offset(batch, 0, offset)
        set_leader_epoch(batch, 0, epoch)
        log.append(batch, leader_epoch=3, now_ms=NOW_MS, origin=Origin.REPLICA)
    log = bench.crash(log)
    assert values_of(log) == {0: b"1", 1: b"1", 2: b"3"}
    assert "epoch 2" in log.recovery_report.cut_at
    log.abandon()


def test_half_deleted_files_are_removed(tmp_path: Path) -> None:
    """Leftovers of an interrupted deletion or compaction do not come back to life."""
    bench = Bench(tmp_path / "orders-0")
    values = filled(bench, 3)
    for name in ("00000000000000000099.log.deleted", "00000000000000000000.log.cleaned", "x.tmp"):
        (bench.directory / name).write_bytes(b"old")
    (bench.directory / "00000000000000000000.index.swap").write_bytes(b"old")
    (bench.directory / "00000000000000000777.index").write_bytes(b"orphan")
    log = bench.open()
    assert values_of(log) == values
    names = {path.name for path in bench.directory.iterdir()}
    assert not [name for name in names if "deleted" in name or "cleaned" in name or "swap" in name or "777" in name]
    log.abandon()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_producers_of_a_recovered_tail_are_not_expired(tmp_path: Path, checkpointed: bool) -> None:
    """A batch whose answer a crash took away is sent again; it must still be known when housekeeping has run."""
    bench = Bench(tmp_path / "t-0")
    log = bench.open()
    append(log, batch_of(b"before", producer=(1, 0, 0)))
    if checkpointed:
        bench.checkpoint(log)
    append(log, batch_of(b"a", producer=(1, 0, 1)))
    append(log, batch_of(b"b", producer=(2, 0, 0)))
    log = bench.crash(log)
    assert log.expire_producers(0) == 0
    assert log.expire_producers(86_399_999) == 0
    assert append(log, batch_of(b"b", producer=(2, 0, 0))).is_duplicate
    assert append(log, batch_of(b"a", producer=(1, 0, 1))).is_duplicate
    log.close()
