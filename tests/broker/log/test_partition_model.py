"""A partition against a list: whatever is done to it, reading gives what a list would."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamlog.broker.log.retention import delete_old_segments
from streamlog.wire.records import decode_batch_header
from tests.broker.log.harness import NOW_MS, TINY, Bench, append, batch_of, values_of


class PartitionAgainstList(RuleBasedStateMachine):
    """The model: (offset, epoch, value) of each record above the log start, and the epochs' starts."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="streamlog-test-"))
        self.records: dict[int, bytes] = {}
        self.ends: list[int] = [0]  # offsets between batches
        self.epochs: list[tuple[int, int]] = []
        self.epoch = 0
        self.start = 0
        self.count = 0

    @initialize(segment_bytes=st.integers(150, 1500), interval=st.integers(0, 400))
    def open(self, segment_bytes: int, interval: int) -> None:
        config = replace(TINY, segment_bytes=segment_bytes, index_interval_bytes=interval)
        self.bench = Bench(self.root / "orders-0", config)
        self.log = self.bench.open()

    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        values = [b"%d" % (self.count + number) for number in range(count)]
        self.count += count
        result = append(self.log, batch_of(*values), epoch=self.epoch)
        assert result.base_offset == self.ends[-1]
        if not self.epochs or self.epochs[-1][0] != self.epoch:
            self.epochs.append((self.epoch, result.base_offset))
        self.records.update(zip(range(result.base_offset, result.last_offset + 1), values, strict=True))
        self.ends.append(result.last_offset + 1)
        self.log.high_watermark = self.log.log_end_offset

    @rule()
    def new_leader(self) -> None:
        self.epoch += 1

    @rule()
    def roll(self) -> None:
        self.log.roll(NOW_MS)

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(self.start, self.ends[-1] + 2))
        self.log.truncate_to(offset, NOW_MS)
        while self.ends[-1] > offset:
            self.ends.pop()
        self.records = {at: value for at, value in self.records.items() if at < self.ends[-1]}
        self.epochs = [(epoch, at) for epoch, at in self.epochs if at < self.ends[-1]]
        self.bench.save(self.log)

    @rule(data=st.data())
    def delete_before(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(self.start, self.ends[-1]))
        self.log.delete_records_before(offset)
        delete_old_segments(self.log, NOW_MS)
        self.start = offset
        self.records = {at: value for at, value in self.records.items() if at >= offset}
        self.ends = [offset, *(end for end in self.ends if end > offset)]
        self.bench.log_start_offset = self.log.log_start_offset

    @rule()
    def start_over(self) -> None:
        offset = self.ends[-1] + 7
        self.log.truncate_fully_and_start_at(offset, NOW_MS)
        self.bench.save(self.log)
        self.records, self.ends, self.epochs, self.start = {}, [offset], [], offset

    @rule()
    def checkpoint(self) -> None:
        self.bench.checkpoint(self.log)

    @rule()
    def stop_and_start(self) -> None:
        self.log = self.bench.reopen(self.log)
        self.log.high_watermark = self.log.log_end_offset

    @rule()
    def crash(self) -> None:
        self.log = self.bench.crash(self.log)
        self.log.high_watermark = self.log.log_end_offset

    @rule()
    def lose_indexes(self) -> None:
        self.log.close()
        self.bench.save(self.log)
        for path in self.bench.directory.iterdir():
            if path.suffix in (".index", ".timeindex", ".txnindex", ".snapshot"):
                path.unlink()
        self.log = self.bench.open(clean=True)
        self.log.high_watermark = self.log.log_end_offset

    @invariant()
    def ends_agree(self) -> None:
        if hasattr(self, "log"):
            assert self.log.log_end_offset == self.ends[-1]
            assert self.log.log_start_offset == self.start

    @invariant()
    def reads_agree(self) -> None:
        if hasattr(self, "log"):
            for bytes_max in (1, 200, 100_000):
                assert values_of(self.log, bytes_max=bytes_max) == self.records

    @invariant()
    def every_offset_is_found(self) -> None:
        if hasattr(self, "log"):
            for offset in self.records:
                result = self.log.read(offset, 1, end_offset=self.log.log_end_offset)
                header = decode_batch_header(result.data)
                assert header.base_offset <= offset <= header.last_offset
                assert result.next_offset == header.next_offset
                assert len(result.data) == header.size_bytes

    @invariant()
    def epochs_agree(self) -> None:
        if hasattr(self, "log"):
            for offset in self.records:
                expected = max(epoch for epoch, at in self.epochs if at <= offset)
                assert self.log.epochs.epoch_at(offset) == expected

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.abandon()
        shutil.rmtree(self.root)


TestPartitionAgainstList = PartitionAgainstList.TestCase
TestPartitionAgainstList.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
