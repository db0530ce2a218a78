"""What the disk promised is there after the power came back, whatever it did to the rest."""

from __future__ import annotations

import random
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given, settings

from streamlog.broker.log.cleaner import clean, find_cleanable
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.retention import delete_old_segments
from streamlog.env import real_env
from tests.broker.log.harness import NOW_MS, TINY, append, batch_of, values_of
from tests.broker.log.lossy_storage import LossyStorage

DIRECTORY = "/data/orders-0"
STEPS = 60


class Machine:
    """A partition on a disk that forgets, its recorded recovery point, and what it has promised."""

    def __init__(self, seed: int, config: LogConfig, *, unordered: bool = False) -> None:
        self.random = random.Random(seed)
        self.unordered = unordered
        self.storage = LossyStorage(seed, unordered=unordered)
        self.storage.make_directory(DIRECTORY)
        self.env = replace(real_env(), storage=self.storage)
        self.config = config
        self.recovery_point = 0
        self.log_start_offset = 0
        self.written: dict[int, bytes | None] = {}
        self.abandoned: list[dict[int, bytes | None]] = []  # what was written before each truncation
        self.epoch = 0
        self.promised_offset = 0
        self.count = 0
        self.times_ms: dict[bytes | None, int] = {}
        self.log = self.open()

    def open(self) -> PartitionLog:
        log = PartitionLog.open(
            self.env,
            DIRECTORY,
            self.config,
            recovery_point=self.recovery_point,
            log_start_offset=self.log_start_offset,
            may_have_gaps=self.config.compact,
            now_ms=NOW_MS,
        )
        log.before_cut = self.lower
        log.high_watermark = log.log_end_offset
        return log

    def lower(self, offset: int) -> None:
        self.recovery_point = min(self.recovery_point, offset)

    def step(self) -> None:
        name = self.random.choices(
            ["append", "flush", "checkpoint", "roll", "truncate", "retain", "compact", "remove", "cut"],
            [20, 4, 3, 1, 1, 1, 1, 1, 2],
        )[0]
        getattr(self, name)()

    def append(self) -> None:
        values = [b"%d" % (self.count + number) for number in range(self.random.randint(1, 3))]
        self.count += len(values)
        keys: list[bytes | None] = [b"k%d" % self.random.randint(0, 3) for _ in values]
        producer = (7, 0, self.log.producers.entries[7].last_sequence + 1 if 7 in self.log.producers.entries else 0)
        times_ms = [NOW_MS + self.random.randint(-1000, 1000) for _ in values]
        self.times_ms.update(zip(values, times_ms, strict=True))
        batch = batch_of(*values, keys=keys, producer=producer, timestamps_ms=times_ms)
        base_offset = append(self.log, batch, epoch=self.epoch).base_offset
        self.written.update({base_offset + number: value for number, value in enumerate(values)})
        self.log.high_watermark = self.log.log_end_offset

    def flush(self) -> None:
        work = self.log.begin_flush()
        if work is not None:
            work.run()
            self.log.end_flush(work, None)
        self.promised_offset = self.log.flushed_offset

    def checkpoint(self) -> None:
        work = self.log.begin_checkpoint()
        if work is not None:
            work.run()
            if self.random.random() < 0.2:
                return self.cut()  # between the last sync and the checkpoint file
            self.log.end_checkpoint(work, None)
        self.recovery_point = self.log.recovery_point
        self.log_start_offset = self.log.log_start_offset
        self.promised_offset = self.log.flushed_offset
        return None

    def roll(self) -> None:
        self.log.roll(NOW_MS)

    def truncate(self) -> None:
        if self.config.compact:
            return  # a leader of a compacted topic; replication tests cut those
        offset = self.random.randint(self.log.log_start_offset, self.log.log_end_offset)
        self.abandoned.append(dict(self.written))
        self.epoch += 1  # what makes a log truncate is a new leader
        self.log.truncate_to(offset, NOW_MS)
        end_offset = self.log.log_end_offset
        self.written = {at: value for at, value in self.written.items() if at < end_offset}
        self.promised_offset = min(self.promised_offset, end_offset)

    def retain(self) -> None:
        self.log.delete_records_before(
            self.random.randint(self.log.log_start_offset, max(self.promised_offset, self.log.log_start_offset))
        )
        if not self.unordered:  # deletions from the start must happen in order, and on journaling file systems they do
            delete_old_segments(self.log, NOW_MS)

    def compact(self) -> None:
        if not self.config.compact:
            return None
        cleanable = find_cleanable(self.log, 0, NOW_MS)
        if cleanable is None:
            return None
        for step in clean(self.log, self.storage, cleanable, NOW_MS, slice_bytes=1):
            if step is not None:
                step()
            if self.random.random() < 0.05:
                return self.cut()
        return None

    def remove(self) -> None:
        for _, path in self.log.doomed:
            if self.storage.exists(path):
                self.storage.remove(path)
        self.log.doomed = []

    def cut(self) -> None:
        before = values_of(self.log)
        promised = {at: value for at, value in before.items() if at < self.promised_offset}
        self.log.abandon()
        self.storage.cut_power()
        self.log = self.open()
        after = values_of(self.log)
        assert self.log.log_end_offset >= self.promised_offset
        assert {at: value for at, value in after.items() if at in promised} == promised
        histories = [self.written, *self.abandoned]
        assert any(after.items() <= history.items() for history in histories), "never was the log like this"
        assert list(after) == sorted(after)
        newest = self.log.max_timestamp()
        assert (newest and newest.timestamp_ms) == max((self.times_ms[value] for value in after.values()), default=None)
        self.written = after if not self.config.compact else self.written
        self.written = {at: value for at, value in self.written.items() if at < self.log.log_end_offset}
        self.promised_offset = min(self.promised_offset, self.log.log_end_offset)
        self.abandoned = []
        self.epoch = max(self.epoch, self.log.leader_epoch)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_power_cuts_keep_every_promise_of_a_growing_log(seed: int) -> None:
    """Appends, flushes, checkpoints, rolls, truncations and retention, with the power going at any time."""
    machine = Machine(seed, replace(TINY, segment_bytes=400))
    for _ in range(STEPS):
        machine.step()
    machine.cut()


@given(seed=st.integers(0, 2**32), unordered=st.booleans())
@settings(max_examples=100, deadline=None)
def test_power_cuts_keep_every_promise_of_a_compacted_log(seed: int, unordered: bool) -> None:
    """The same with compaction: each key's last promised value survives, whatever the directory forgets."""
    machine = Machine(seed, replace(TINY, segment_bytes=400, compact=True, delete=False), unordered=unordered)
    for _ in range(STEPS):
        machine.step()
    machine.cut()


def test_tail_that_recovery_cut_does_not_come_back() -> None:
    """A torn tail, cut, then the segment closed behind it, then another power cut: the torn bytes stay away."""
    for seed in range(60):
        machine = Machine(seed, replace(TINY, segment_bytes=400))
        for _ in range(4):
            machine.append()
            machine.cut()
            machine.roll()
            machine.append()
            machine.checkpoint()
        machine.cut()
