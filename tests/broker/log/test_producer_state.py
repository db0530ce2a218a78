"""Producer state is a fold: live, replayed, and snapshot plus tail are the same."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.producer_state import DamagedSnapshot, ProducerState
from streamlog.broker.log.refusal import AppendRefused
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
