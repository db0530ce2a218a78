"""Bringing a task's tables to the end of their changelogs, while other tasks keep processing.

    asked --> planned --> reading --> complete
                 ^           |
                 +-----------+  the log is not what it was: drop the rows, begin again

A restore ends when the position reaches the end that the log had when it began, both exclusive. Everything a range of
offsets does not hold (compacted records, aborted ones, control markers) is passed by the range, never by counting
records; so an empty changelog and one that ends in markers are complete at once.

Records are folded into a dict first, so that only the last value of a key is written, and written in threads in large
chunks, each together with the position it reaches. Cancelling a restore at any point leaves what was written, and the
next one goes on from there.

One pump fetches for all restores; each has a short queue, and its partition is paused while that is full.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure
from streamlog.state.changelog import RestoredTable
from streamlog.state.logs import AWAY, LogReader, LogState, Records, plan
from streamlog.state.store import Change, Position, Store
from streamlog.state.table import index_name
from streamlog.state.threads import begin, finish, in_thread

logger = logging.getLogger(__name__)

CHUNK_ROWS_MAX = 100_000
"""Keys folded before they are written: some 20 MB of Python objects per table that is being restored."""

CHUNK_BYTES_MAX = 16 * 1024 * 1024
"""The same bound for large values."""

QUEUED_BATCHES_MAX = 2
"""Fetched batches that wait for one restore, each up to a fetch's 1 MB."""

FETCH_WAIT_MS = 500
"""How long the pump waits for records before it looks whether somebody came or went."""

SILENCE_MS = 5_000
"""A restore that got nothing for so long says so in its progress."""

STALL_TIMEOUT_MS = 5 * 60 * 1000
"""A restore that got nothing for so long fails, with the reason: a worker that hangs in silence helps nobody."""

ATTEMPTS_MAX = 5
"""Times a log may change under a restore before that is somebody's mistake."""


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """One table's restore at one moment, in offsets, which is what the log counts; compacted ones pass in no time."""

    table: str
    partition: int
    restored: int
    """Offsets done."""
    total: int
    """Offsets from where it began to the log's end."""
    rate: float
    """Offsets per second since it began."""
    eta_ms: int | None
    """None: not known yet."""
    blocked: str | None
    """Why nothing moves, when nothing has for a while."""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore of one task's tables did."""

    records: int
    """Records read."""
    rebuilt: dict[str, str]
    """Tables that began from nothing although they had rows or a position, and why."""
    elapsed_ms: int
    ends: dict[str, int]
    """Per table: the position it reached, exclusive."""


class _LogChanged(Exception):
    """The partition does not go on where we were."""


class _Lane:
    """One table's restore: what the pump puts here, and how far it is."""

    def __init__(self, table: RestoredTable, partition: int, now_ms: int) -> None:
        self.table = table
        self.partition = partition
        self.start_offset = 0  # of this attempt
        self.position = 0  # read so far, exclusive
        self.end_offset: int | None = None  # None: not known yet
        self.records = 0
        self.began_at_ms = now_ms  # of this attempt
        self.asked_at_ms = -1  # wall time, before the log was asked for its end
        self.kept_at_ms = -1  # the same of the rows that this attempt began with; -1: it began with none
        self.heard_at_ms = now_ms  # of the last batch
        self.blocked: str | None = None
        self.batches: deque[Records] = deque()
        self.news = asyncio.Event()
        self.failure: Exception | None = None
        self.paused = False
        self.rebuilt: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.table.topic, self.partition

    def progress(self, now_ms: int) -> RestoreProgress:
        done = self.position - self.start_offset
        total = (self.end_offset or self.position) - self.start_offset
        elapsed_ms = now_ms - self.began_at_ms
        rate = done * 1000 / elapsed_ms if elapsed_ms > 0 else 0.0
        eta_ms = int((total - done) * 1000 / rate) if rate > 0 else None
        return RestoreProgress(self.table.name, self.partition, done, total, rate, eta_ms, self.blocked)


class Restorer:
    """Restores tables of any number of tasks with one reader. One event loop's; call `close` at the end."""

    def __init__(
        self,
        reader: LogReader,
        env: Env,
        *,
        stall_timeout_ms: int = STALL_TIMEOUT_MS,
        silence_ms: int = SILENCE_MS,
        chunk_rows_max: int = CHUNK_ROWS_MAX,
    ) -> None:
        self._reader = reader
        self._env = env
        self._stall_timeout_ms = stall_timeout_ms
        self._silence_ms = silence_ms
        self._chunk_rows_max = chunk_rows_max
        self._lanes: dict[tuple[str, int], _Lane] = {}  # being fetched
        self._asked: dict[int, _Lane] = {}  # all that are not complete, for progress
        self._scope = Scope("restorer")
        self._pumping = False

    async def restore(self, store: Store, tables: Sequence[RestoredTable], partition: int) -> RestoreResult:
        """Bring `tables` of `store` to the end of partition `partition` of their topics.

        Start it only when no earlier owner can write any more: with transactions, when its producer is fenced.
        Cancelled, it leaves the store consistent at the position reached, and no thread at work on it.

        Raises: KafkaError: a topic does not exist or may not be read. EnvironmentFailure: nothing came for
                `stall_timeout_ms`, with what was waited for; or the disk. StoreCorrupt: close and open the store, and
                restore again.
        """
        now_ms = self._env.clock.mono_ms()
        lanes = [_Lane(table, partition, now_ms) for table in tables]
        for lane in lanes:
            self._asked[id(lane)] = lane
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(self._restore_table(store, lane), name=f"restore {lane.table.name}-{partition}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            for lane in lanes:
                del self._asked[id(lane)]
        return RestoreResult(
            sum(lane.records for lane in lanes),
            {lane.table.name: lane.rebuilt for lane in lanes if lane.rebuilt is not None},
            self._env.clock.mono_ms() - now_ms,
            {lane.table.name: lane.position for lane in lanes},
        )

    def progress(self) -> list[RestoreProgress]:
        """Every restore that is not complete, in the order they were asked for. For progress bars: poll it."""
        now_ms = self._env.clock.mono_ms()
        return [lane.progress(now_ms) for lane in self._asked.values()]

    async def close(self) -> None:
        """Stop fetching. Restores under way have to be cancelled by their callers."""
        await self._scope.close()

    # --- one table ------------------------------------------------------------------------------------------------

    async def _restore_table(self, store: Store, lane: _Lane) -> None:
        table, partition = lane.table, lane.partition
        reason: str | None = None  # why the attempt before was given up
        for _ in range(ATTEMPTS_MAX):
            position = store.positions().get(table.name)
            epoch = -1 if position is None else position.leader_epoch
            asked_at_ms = self._env.clock.wall_ms()
            log = await self._describe(lane, epoch)
            begin = plan(position, log, self._env.clock.wall_ms(), table.delete_retention_ms)
            rebuild = reason or begin.rebuild
            if rebuild is not None:
                await self._drop(store, lane, rebuild, had_rows=position is not None)
            lane.start_offset = lane.position = log.start_offset if rebuild is not None else begin.start_offset
            lane.end_offset = log.end_offset
            lane.began_at_ms = self._env.clock.mono_ms()
            kept = position if rebuild is None else None
            lane.asked_at_ms = asked_at_ms
            lane.kept_at_ms = -1 if kept is None else kept.at_ms
            try:
                await self._catch_up(store, lane, log, -1 if kept is None else kept.leader_epoch)
            except _LogChanged as changed:
                reason = str(changed)
                continue
            took_ms = self._env.clock.mono_ms() - lane.began_at_ms
            logger.info(
                "table=%s partition=%d state=restored from=%d to=%d records=%d ms=%d",
                *(table.name, partition, lane.start_offset, lane.position, lane.records, took_ms),
            )
            return
        raise EnvironmentFailure(
            f"{table.topic}-{partition} changed {ATTEMPTS_MAX} times while it was restored: {reason}"
        )

    async def _describe(self, lane: _Lane, leader_epoch: int) -> LogState:
        lane.blocked = f"asking for the end of {lane.table.topic}-{lane.partition}"
        try:
            return await self._reader.describe(lane.table.topic, lane.partition, leader_epoch)
        finally:
            lane.blocked = None

    async def _drop(self, store: Store, lane: _Lane, reason: str, *, had_rows: bool) -> None:
        name = lane.table.name
        if had_rows:
            lane.rebuilt = reason
            logger.warning("table=%s partition=%d state=rebuilding reason=%s", name, lane.partition, reason)

        def drop() -> None:
            for table in (name, index_name(name)):
                if table in store.tables() or table in store.positions():
                    store.drop_table(table)

        await in_thread(self._env, drop)

    async def _catch_up(self, store: Store, lane: _Lane, log: LogState, leader_epoch: int) -> None:
        """Read [position, end) into the store. `leader_epoch`: of the record before the position, -1 if unknown."""
        rows: dict[bytes | None, bytes | None] = {}
        size_bytes = 0
        writing: asyncio.Future[None] | None = None
        if lane.position < log.end_offset:
            self._follow(lane)
        try:
            while lane.position < log.end_offset:
                batch = await self._next(lane)
                if batch.start_offset != lane.position:
                    raise _LogChanged(f"offset {lane.position} is gone: the log goes on at {batch.start_offset}")
                if 0 <= lane.kept_at_ms < self._env.clock.wall_ms() - lane.table.delete_retention_ms:
                    raise _LogChanged(AWAY)
                columns = batch.columns
                rows.update(zip(columns.keys, columns.values, strict=True))
                size_bytes += sum(map(len, filter(None, columns.values)))
                lane.records += len(columns)
                lane.position = batch.next_offset
                leader_epoch = max(leader_epoch, batch.leader_epoch)
                if len(rows) >= self._chunk_rows_max or size_bytes >= CHUNK_BYTES_MAX:
                    if writing is not None:
                        await finish(writing)
                    writing = self._write(store, lane.table, rows, self._position(lane, log, leader_epoch))
                    rows, size_bytes = {}, 0
            if writing is not None:
                await finish(writing)
            writing = self._write(store, lane.table, rows, self._position(lane, log, leader_epoch))
            await finish(writing)
        finally:
            self._unfollow(lane)
            if writing is not None and not writing.done():
                await finish(writing)  # nobody may close the store under a thread that writes to it

    def _position(self, lane: _Lane, log: LogState, leader_epoch: int) -> Position:
        at_end = lane.position >= log.end_offset or lane.kept_at_ms < 0
        return Position(lane.position, log.topic_id, leader_epoch, lane.asked_at_ms if at_end else lane.kept_at_ms)

    def _write(
        self, store: Store, table: RestoredTable, rows: dict[bytes | None, bytes | None], position: Position
    ) -> asyncio.Future[None]:
        return begin(self._env, partial(write_rows, store, table, rows, position))

    # --- fetching -------------------------------------------------------------------------------------------------

    async def _next(self, lane: _Lane) -> Records:
        while not lane.batches:
            if lane.failure is not None:
                raise lane.failure
            lane.news.clear()
            try:
                async with asyncio.timeout(self._silence_ms / 1000):
                    await lane.news.wait()
            except TimeoutError:
                self._on_silence(lane)
        batch = lane.batches.popleft()
        lane.blocked = None
        if lane.paused:
            lane.paused = False
            self._reader.resume(*lane.key)
        return batch

    def _on_silence(self, lane: _Lane) -> None:
        silent_ms = self._env.clock.mono_ms() - lane.heard_at_ms
        topic, partition = lane.key
        lane.blocked = (
            f"no records of {topic}-{partition} for {silent_ms // 1000} s, "
            f"at offset {lane.position} of {lane.end_offset}"
        )
        if silent_ms >= self._stall_timeout_ms:
            raise EnvironmentFailure(
                f"restoring table {lane.table.name} got stuck: {lane.blocked}. Check that the partition has a leader "
                "and that no transaction on it was left open"
            )

    def _follow(self, lane: _Lane) -> None:
        assert lane.key not in self._lanes, f"{lane.key} is being restored already"
        lane.heard_at_ms = self._env.clock.mono_ms()
        self._lanes[lane.key] = lane
        self._reader.follow(*lane.key, lane.position)
        if not self._pumping:
            self._pumping = True
            self._scope.spawn("pump", self._pump())

    def _unfollow(self, lane: _Lane) -> None:
        if self._lanes.pop(lane.key, None) is not None:
            self._reader.unfollow(*lane.key)
        lane.batches.clear()
        lane.paused = False

    async def _pump(self) -> None:
        """Fetch as long as somebody restores. A failure of the reader is every restore's failure."""
        try:
            while self._lanes:
                for batch in await self._reader.fetch(FETCH_WAIT_MS):
                    lane = self._lanes.get((batch.topic, batch.partition))
                    if lane is not None:
                        self._hand_over(lane, batch)
        except Exception as failure:
            for lane in self._lanes.values():
                lane.failure = failure
                lane.news.set()
        finally:
            self._pumping = False

    def _hand_over(self, lane: _Lane, batch: Records) -> None:
        lane.batches.append(batch)
        lane.heard_at_ms = self._env.clock.mono_ms()
        lane.news.set()
        if len(lane.batches) >= QUEUED_BATCHES_MAX and not lane.paused:
            lane.paused = True
            self._reader.pause(*lane.key)


def write_rows(store: Store, table: RestoredTable, rows: dict[bytes | None, bytes | None], position: Position) -> None:
    """Put folded records into the store: index first, rows, then the position they reach. Runs in a thread."""
    rows.pop(None, None)  # a record without a key is no row; somebody else wrote it
    changes = cast(list[Change], list(rows.items()))
    if table.index_of is not None:
        entries = [entry for entry in map(table.index_of, changes) if entry is not None]
        store.ingest(index_name(table.name), entries, None)
    store.ingest(table.name, changes, position)
