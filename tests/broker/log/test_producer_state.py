"""Producer state is a fold: live, replayed, and snapshot plus tail are the same."""

from __future__ import annotations

import struct
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.producer_state import DamagedSnapshot, ProducerState
from streamlog.broker.log.refusal import AppendRefused
from streamlog.broker.log.replay import RECALLED_INDEX_ENTRIES
from streamlog.wire.crc import crc32c
from streamlog.wire.records import ControlType
from tests.broker.log.harness import NOW_MS, Bench, append, append_marker, batch_of, marker_of

DAY_MS = 86_400_000

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("end"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("fence"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("roll"), st.just(0), st.just(False)),
        st.tuples(st.just("checkpoint"), st.just(0), st.just(False)),
        st.tuples(st.just("truncate"), st.integers(0, 40), st.just(False)),
    ),
    max_size=40,
)


class Producers:
    """A few producers that mostly behave; a refused append changes nothing and is part of life."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.log = bench.open()

    def do(self, step: tuple[str, int, bool]) -> None:
        kind, number, flag = step
        entry = self.log.producers.entries.get(number)
        epoch = entry.epoch if entry is not None and entry.epoch >= 0 else 0
        sequence = (entry.last_sequence + 1) if entry is not None else 0
        try:
            match kind:
                case "data":
                    transactional = flag or (entry is not None and entry.transaction_offset >= 0)
                    append(
                        self.log, batch_of(b"x", b"y", producer=(number, epoch, sequence), transactional=transactional)
                    )
                case "end":
                    append_marker(self.log, marker_of(ControlType.COMMIT if flag else ControlType.ABORT, number, epoch))
                case "fence":
                    append_marker(self.log, marker_of(ControlType.ABORT, number, epoch + 1))
                case "roll":
                    self.log.roll(NOW_MS)
                case "checkpoint":
                    self.bench.checkpoint(self.log)
                case _:
                    self.log.truncate_to(number, NOW_MS)
        except AppendRefused:
            pass


def state_of(log: PartitionLog) -> tuple[bytes, list[tuple[int, int]]]:
    return log.producers.encode_snapshot(), list(log.producers.open_transactions())


@given(steps=STEPS)
@settings(max_examples=80, deadline=None)
def test_replay_gives_the_live_state(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]
) -> None:
    """After any history: a crash, a clean stop, and a replay without snapshots all fold to what was live."""
    bench = Bench(tmp_path_factory.mktemp("fold") / "orders-0")
    producers = Producers(bench)
    for step in steps:
        producers.do(step)
    log = producers.log
    live = state_of(log)
    aborted = log.aborted_transactions(0, log.log_end_offset)
    log = bench.crash(log)
    assert state_of(log) == live
    log = bench.reopen(log)
    assert state_of(log) == live
    log.abandon()
    for path in bench.directory.glob("*.snapshot"):
        path.unlink()
    log = bench.open(clean=True)
    assert state_of(log) == live
    assert log.aborted_transactions(0, log.log_end_offset) == aborted
    log.abandon()


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_snapshot_round_trip(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]) -> None:
    """What a snapshot holds is the whole folded state."""
    producers = Producers(Bench(tmp_path_factory.mktemp("fold") / "orders-0"))
    for step in steps:
        producers.do(step)
    state = producers.log.producers
    copy = ProducerState.decode_snapshot(state.encode_snapshot(), state.end_offset)
    assert copy.encode_snapshot() == state.encode_snapshot()
    assert list(copy.open_transactions()) == list(state.open_transactions())
    for producer_id, entry in state.entries.items():
        assert copy.entries[producer_id].batches == entry.batches
    producers.log.abandon()


def test_damaged_snapshot_is_recognised_at_every_byte() -> None:
    """A flipped byte or a cut anywhere fails the checksum."""
    state = ProducerState()
    data = state.encode_snapshot()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1
        for damaged in (bytes(flipped), data[:position]):
            with pytest.raises(DamagedSnapshot):
                ProducerState.decode_snapshot(damaged, 0)


def test_silent_producers_are_forgotten_unless_a_transaction_is_open(tmp_path: Path) -> None:
    """producer.id.expiration.ms counts from when we last saw the producer, not from its records' timestamps."""
    log = Bench(tmp_path / "orders-0").open()
    append(log, batch_of(b"x", producer=(1, 0, 0), timestamp_ms=5))
    append(log, batch_of(b"x", producer=(2, 0, 0), transactional=True))
    log.high_watermark = log.log_end_offset
    assert log.expire_producers(1_000) == 0
    assert log.expire_producers(1_000 + DAY_MS - 1) == 0
    assert log.expire_producers(1_000 + DAY_MS) == 1
    assert sorted(log.producers.entries) == [2]
    log.abandon()


def test_a_producer_that_was_heard_of_between_two_sweeps_has_its_full_time_again(tmp_path: Path) -> None:
    """New batches and retries both say that it lives."""
    log = Bench(tmp_path / "orders-0").open()
    first, second = batch_of(b"x", producer=(1, 0, 0)), batch_of(b"y", producer=(1, 0, 1))
    for at_ms, batch in ((0, first), (DAY_MS, second), (2 * DAY_MS, bytearray(second))):
        append(log, batch)
        log.high_watermark = log.log_end_offset
        assert log.expire_producers(at_ms) == 0
    assert log.log_end_offset == 2
    assert log.expire_producers(3 * DAY_MS) == 1
    log.abandon()


def test_a_producer_is_remembered_while_its_last_batch_is_not_stored(tmp_path: Path) -> None:
    """Nobody was told what became of it: it will be sent again. Only when it is stored does silence begin."""
    log = Bench(tmp_path / "orders-0").open()
    append(log, batch_of(b"x", producer=(1, 0, 0)))
    log.high_watermark = 0
    assert log.expire_producers(0) == 0
    assert log.expire_producers(5 * DAY_MS) == 0
    log.high_watermark = 1
    assert log.expire_producers(5 * DAY_MS + 1) == 0
    assert append(log, batch_of(b"x", producer=(1, 0, 0))).is_duplicate
    log.abandon()


def as_kafka_writes_it(snapshot: bytes) -> bytes:
    """The same snapshot without what Kafka does not know: batches before each producer's last one."""
    (count,) = struct.unpack_from(">i", snapshot, 6)
    body = snapshot[6 : 10 + 46 * count]
    return struct.pack(">hI", 1, crc32c(body)) + body


def leave_to_kafka(bench: Bench) -> None:
    for path in bench.directory.glob("*.snapshot"):
        path.write_bytes(as_kafka_writes_it(path.read_bytes()))


@pytest.mark.parametrize("restart", ["clean", "crash", "truncation"])
@pytest.mark.parametrize("others", [0, 1, 40])
def test_retries_are_recognised_behind_a_snapshot_that_kafka_wrote(tmp_path: Path, restart: str, others: int) -> None:
    """Kafka's snapshots keep one batch of each producer. The log has the others, among those of strangers."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    for number in range(7):
        append(log, batch_of(b"%d" % number, producer=(7, 0, number)))
        for stranger in range(others if number == 0 else 1):
            append(log, batch_of(b"x", producer=(100 + stranger, 0, number)))
    live = state_of(log)
    places = [batch.last_offset for batch in log.producers.entries[7].batches]
    bench.checkpoint(log)
    if restart == "truncation":
        append(log, batch_of(b"unreplicated", producer=(7, 0, 7)))
        leave_to_kafka(bench)
        log.truncate_to(log.log_end_offset - 1, NOW_MS)
    else:
        log.abandon()
        leave_to_kafka(bench)
        log = bench.open(clean=restart == "clean")
    assert state_of(log) == live
    for number, offset in zip(range(2, 7), places, strict=True):
        result = append(log, batch_of(b"%d" % number, producer=(7, 0, number)))
        assert (result.is_duplicate, result.base_offset) == (True, offset)
    append(log, batch_of(b"7", producer=(7, 0, 7)))
    log.abandon()


def test_only_batches_that_lead_up_to_the_last_one_are_recalled(tmp_path: Path) -> None:
    """An older epoch's, and what a producer wrote before it was forgotten, are no retries of today's sequence."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    append(log, batch_of(b"old epoch", producer=(7, 0, 0)))
    append(log, batch_of(b"forgotten", producer=(7, 1, 0)))
    del log.producers.entries[7]
    for sequence in (5, 6):
        append(log, batch_of(b"%d" % sequence, producer=(7, 1, sequence)))
    append(log, batch_of(b"other", producer=(8, 0, 0)))
    live = state_of(log)
    bench.checkpoint(log)
    log.abandon()
    leave_to_kafka(bench)
    log = bench.open()
    assert state_of(log) == live
    log.abandon()


def test_a_snapshot_of_kafkas_is_completed_from_a_bounded_stretch(tmp_path: Path) -> None:
    """A start does not read a whole log for it. Batches that lie too far back are refused, not stored twice."""
    bench = Bench(tmp_path / "orders-0")
    log = bench.open()
    for number in range(3):
        append(log, batch_of(b"%d" % number, producer=(7, 0, number)))
    for _ in range(3 * RECALLED_INDEX_ENTRIES):
        append(log, batch_of(b"x" * 100))
    bench.checkpoint(log)
    log.abandon()
    leave_to_kafka(bench)
    log = bench.open()
    assert append(log, batch_of(b"2", producer=(7, 0, 2))).is_duplicate
    with pytest.raises(AppendRefused):
        append(log, batch_of(b"1", producer=(7, 0, 1)))
    append(log, batch_of(b"3", producer=(7, 0, 3)))
    log.abandon()
