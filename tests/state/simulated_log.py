"""Logs in memory behind the LogReader seam: compaction gaps, markers, truncation, topics made again, silence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from streamlog.env import RealClock
from streamlog.state.logs import LogState
from streamlog.wire.records import RecordColumns

ID = UUID(int=1)


class ManualClock(RealClock):
    def __init__(self) -> None:
        self.now_ms = 10**12
        self.mono = 0

    def wall_ms(self) -> int:
        return self.now_ms

    def mono_ms(self) -> int:
        return self.mono


@dataclass(frozen=True, slots=True)
class Fetched:
    topic: str
    partition: int
    columns: RecordColumns
    start_offset: int
    next_offset: int
    leader_epoch: int


@dataclass(slots=True)
class Log:
    """One partition. `records` are (offset, key, value, epoch), sorted; offsets without a record are gaps."""

    topic_id: UUID = ID
    start: int = 0
    end: int = 0
    epoch: int = 0
    records: list[tuple[int, bytes | None, bytes | None, int]] = field(default_factory=list)
    silent: bool = False
    held_at: int | None = None
    """What comes from this offset on is not returned for now."""

    def append(self, key: bytes | None, value: bytes | None) -> int:
        self.records.append((self.end, key, value, self.epoch))
        self.end += 1
        return self.end

    def marker(self) -> None:
        """A control record: takes an offset and is never returned."""
        self.end += 1

    def compact(self, *, drop_tombstones: bool = False) -> None:
        """Keep the last record of each key, except that the newest record always stays, as in Kafka."""
        last = {record[1]: record for record in self.records}
        kept = sorted(last.values(), key=lambda record: record[0])
        if drop_tombstones:
            kept = [record for record in kept if record[2] is not None]
        self.records = kept

    def truncate(self, end: int) -> None:
        """An unclean election: the log is cut and a new epoch begins."""
        self.records = [record for record in self.records if record[0] < end]
        self.end, self.epoch = end, self.epoch + 1

    def delete_before(self, start: int) -> None:
        self.records = [record for record in self.records if record[0] >= start]
        self.start = start

    def epoch_end(self, epoch: int) -> int:
        later = [offset for offset, _, _, other in self.records if other > epoch]
        return min(later, default=self.end)

    def state(self) -> dict[bytes, bytes]:
        """What folding the whole log gives."""
        rows: dict[bytes, bytes] = {}
        for _, key, value, _ in self.records:
            if key is None:
                continue
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        return rows


class SimulatedReader:
    """A LogReader over `logs`, in batches of random size, with waits that give other tasks their turn."""

    def __init__(self, seed: int = 0) -> None:
        self.logs: dict[tuple[str, int], Log] = {}
        self.random = Random(seed)
        self.offsets: dict[tuple[str, int], int] = {}
        self.paused: set[tuple[str, int]] = set()
        self.fetches = 0
        self.failure: Exception | None = None
        self.on_fetch: list[tuple[int, object]] = []
        """(fetch number, callable): what happens to the logs while they are being read."""
        self.batch_records_max = 7

    def log(self, topic: str, partition: int = 0) -> Log:
        return self.logs.setdefault((topic, partition), Log())

    async def describe(self, topic: str, partition: int, leader_epoch: int = -1) -> LogState:
        log = self.log(topic, partition)
        await asyncio.sleep(0)
        return LogState(log.start, log.end, log.topic_id, log.epoch_end(leader_epoch) if leader_epoch >= 0 else None)

    async def ends(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        await asyncio.sleep(0)
        return {number: self.log(topic, number).end for number in partitions}

    async def partition_count(self, topic: str) -> int:
        return sum(1 for name, _ in self.logs if name == topic)

    def follow(self, topic: str, partition: int, offset: int) -> None:
        assert (topic, partition) not in self.offsets
        self.offsets[topic, partition] = offset

    def unfollow(self, topic: str, partition: int) -> None:
        del self.offsets[topic, partition]
        self.paused.discard((topic, partition))

    def pause(self, topic: str, partition: int) -> None:
        self.paused.add((topic, partition))

    def resume(self, topic: str, partition: int) -> None:
        self.paused.discard((topic, partition))

    async def fetch(self, timeout_ms: int) -> list[Fetched]:
        self.fetches += 1
        for number, action in list(self.on_fetch):
            if number <= self.fetches:
                self.on_fetch.remove((number, action))
                assert callable(action)
                action()
        if self.failure is not None:
            raise self.failure
        found = [batch for key in sorted(self.offsets) if (batch := self._batch(key)) is not None]
        if not found:
            await asyncio.sleep(0.001)
        return found

    def _batch(self, key: tuple[str, int]) -> Fetched | None:
        log, position = self.logs[key], self.offsets[key]
        if key in self.paused or log.silent:
            return None
        if position < log.start or position > log.end:
            position = log.start  # what auto_offset_reset=earliest does
        end = log.end if log.held_at is None else min(log.end, log.held_at)
        if position >= end:
            return None
        records = [record for record in log.records if position <= record[0] < end]
        records = records[: self.random.randint(0, self.batch_records_max)]
        next_offset = records[-1][0] + 1 if records else position
        remaining = [record[0] for record in log.records if next_offset <= record[0] < end]
        next_offset = self.random.randint(next_offset, min(remaining, default=end))
        self.offsets[key] = next_offset
        columns = RecordColumns(
            [record[0] for record in records],
            [0] * len(records),
            [record[1] for record in records],
            [record[2] for record in records],
            [()] * len(records),
        )
        epoch = records[-1][3] if records else -1
        return Fetched(*key, columns, position, next_offset, epoch)
