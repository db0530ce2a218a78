"""Global tables: every worker has all of them, read from all partitions of a topic, and follows it for ever.

    opened --> catching up --> live
                  ^             |
                  +-------------+  the log is not what it was, or has forgotten deletions that were not read: the table
                                   is dropped and read again, not ready meanwhile

Ready means: every partition has reached the end it had when the table was opened, so that a lookup misses only what is
newer than that. Reads are synchronous, from a cache over the store, like those of any table. There is no group: nothing
is assigned or revoked, and no rebalance stops the flow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar, overload

from streamlog.env import Env, Scope
from streamlog.errors import StreamlogError
from streamlog.serde import Serde, SerdeError, separator
from streamlog.state.changelog import DELETE_RETENTION_MS
from streamlog.state.freshness import Freshness
from streamlog.state.logs import LogReader, LogState, Records, plan
from streamlog.state.restore import CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, FETCH_WAIT_MS, RestoreProgress
from streamlog.state.store import Change, CommitBatch, Position, Store, StoreClosed
from streamlog.state.table import CACHE_BYTES_MAX, TableState
from streamlog.state.threads import in_thread

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

RETRY_MS = 1_000
"""Pause after a failure to read before the next attempt. The table stays readable, and says how far behind it is."""

PARTITIONS_POLL_MS = 30_000
"""How often to look whether the topic got more partitions."""

PASSED_OVER_MAX = 100
"""So many rows that cannot be read are named in the log, each once; further ones are passed over without a word."""

INLINE_ROWS_MAX = 200
"""Updates written on the event loop: up to half a millisecond, less than the trip to a thread and back."""


_NOTHING: Any = object()
"""A default that is nobody's value."""


class GlobalTableState(Generic[K, V]):
    """One global table of one worker. Its reader must be its own: `fetch` has one caller."""

    def __init__(
        self,
        name: str,
        topic: str,
        store: Store,
        key: Serde[K],
        value: Serde[V],
        reader: LogReader,
        env: Env,
        *,
        delete_retention_ms: int = DELETE_RETENTION_MS,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        retry_ms: int = RETRY_MS,
        partitions_poll_ms: int = PARTITIONS_POLL_MS,
    ) -> None:
        """Follow `topic` into table `name` of `store`. `key` and `value` read the topic's records."""
        self.name = name
        self.topic = topic
        self.failure: StreamlogError | None = None
        """Why the last attempt to read failed; None while reading works."""
        self._store = store
        self._table: TableState[K, V] = TableState(name, store, key, value, cache_bytes_max=cache_bytes_max)
        self._table.on_unreadable = self.pass_over
        self._separate = separator(value)  # rows are everybody's: who changes one in place changes their own
        self._passed_over: dict[bytes, None] = {}  # keys of rows that were named
        self._reader = reader
        self._env = env
        self._delete_retention_ms = delete_retention_ms
        self._retry_ms, self._partitions_poll_ms = retry_ms, partitions_poll_ms
        self._scope = Scope(f"global table {name}")
        self._ready = asyncio.Event()
        self._logs: dict[int, LogState] = {}  # as of the last beginning, per partition
        self._begun: dict[int, int] = {}  # where each partition began then
        self._positions: dict[int, Position] = {}  # read and written
        self._fresh: dict[int, Freshness] = {}  # of the same rows
        self._began_at_ms = 0
        self._looked_at_ms = 0  # how many partitions there are

    async def open(self) -> None:
        """Begin to follow. Await `ready` before the first read that has to be complete."""
        self._scope.spawn("follow", self._follow_forever())

    async def ready(self) -> None:
        """Wait until the table is complete up to the end that its topic had at the beginning.

        Raises: what made following impossible, should it end.
        """
        waiting = self._scope.spawn("ready", self._wait_ready())
        try:
            await asyncio.wait([waiting])
        finally:
            waiting.cancel()
        if not self._ready.is_set():
            raise self._scope.failure or StoreClosed(f"global table {self.name} was closed before it was complete")

    async def _wait_ready(self) -> None:
        await self._ready.wait()

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    async def close(self) -> None:
        """Stop following. The store stays open; its owner closes it after this."""
        await self._scope.close()

    # --- reads ----------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of `key` as far as the topic has been read."""
        if self._separate is None:
            return self._table.get(key, default)
        value: Any = self._table.get(key, _NOTHING)
        return default if value is _NOTHING else self._separate(value)

    def contains(self, key: K) -> bool:
        return self._table.contains(key)

    def items(self) -> Iterator[tuple[K, V]]:
        return self._table.items()

    def keys(self) -> Iterator[K]:
        return self._table.keys()

    def values(self) -> Iterator[V]:
        return self._table.values()

    def positions(self) -> dict[int, int]:
        """How far each partition has been read, exclusive."""
        return {partition: position.offset for partition, position in sorted(self._positions.items())}

    def progress(self) -> list[RestoreProgress]:
        """Partitions that have not reached the end they had at the beginning."""
        elapsed_ms = self._env.clock.mono_ms() - self._began_at_ms
        behind = []
        for number, log in sorted(self._logs.items()):
            begun, position = self._begun[number], self._positions[number].offset
            if position < log.end_offset:
                rate = (position - begun) * 1000 / elapsed_ms if elapsed_ms > 0 else 0.0
                eta_ms = int((log.end_offset - position) * 1000 / rate) if rate > 0 else None
                blocked = None if self.failure is None else str(self.failure)
                behind.append(
                    RestoreProgress(self.name, number, position - begun, log.end_offset - begun, rate, eta_ms, blocked)
                )
        return behind

    def pass_over(self, key: bytes, error: SerdeError) -> None:
        """A scan has met a row that cannot be read. Anybody may write to the topic: it must not hide the others."""
        if key not in self._passed_over and len(self._passed_over) < PASSED_OVER_MAX:
            self._passed_over[key] = None
            logger.error("global_table=%s topic=%s row passed over: %s", self.name, self.topic, error)

    # --- following ------------------------------------------------------------------------------------------------

    async def _follow_forever(self) -> None:
        while True:
            try:
                await self._begin()
                self.failure = None
                await self._follow()
            except StoreClosed:
                raise
            except StreamlogError as failure:
                self.failure = failure
                logger.warning("global_table=%s topic=%s state=interrupted reason=%s", self.name, self.topic, failure)
            finally:
                self._unfollow()
            await asyncio.sleep(self._retry_ms / 1000)

    async def _begin(self) -> None:
        """Find where to read on in every partition; if one of them is another log now, all begin again."""
        stored = dict(self._store.positions())
        if self.name not in stored:
            await in_thread(self._env, partial(self._drop, list(stored)))
            stored = {}
        logs: dict[int, LogState] = {}
        starts: dict[int, Position] = {}
        asked: dict[int, int] = {}  # wall time, before
        fresh: dict[int, Freshness] = {}
        rebuild: str | None = None
        for number in range(await self._reader.partition_count(self.topic)):
            position = stored.get(self._position_name(number))
            epoch = -1 if position is None else position.leader_epoch
            asked_at_ms = asked[number] = self._env.clock.wall_ms()
            log = logs[number] = await self._reader.describe(self.topic, number, epoch)
            begin = plan(position, log, self._env.clock.wall_ms(), self._delete_retention_ms)
            starts[number] = position or Position(begin.start_offset, log.topic_id, -1, asked_at_ms)
            known = position is not None and position.at_ms >= 0
            fresh[number] = Freshness(starts[number].at_ms if known else asked_at_ms, filling=position is None)
            fresh[number].saw_end(log.end_offset, asked_at_ms, starts[number].offset)
            if position is not None and begin.rebuild is not None:
                rebuild = f"partition {number}: {begin.rebuild}"
        if rebuild is not None:
            self._ready.clear()
            logger.warning("global_table=%s topic=%s state=rebuilding reason=%s", self.name, self.topic, rebuild)
            for number, log in logs.items():
                starts[number] = Position(log.start_offset, log.topic_id, -1, asked[number])
                fresh[number] = Freshness(asked[number], filling=True)
                fresh[number].saw_end(log.end_offset, asked[number], log.start_offset)
            await in_thread(self._env, partial(self._drop, list(stored)))
            self._table.forget()
        self._logs, self._positions, self._fresh = logs, starts, fresh
        self._begun = {number: position.offset for number, position in starts.items()}
        self._began_at_ms = self._looked_at_ms = self._env.clock.mono_ms()
        for number, position in starts.items():
            self._reader.follow(self.topic, number, position.offset)
        self._check_ready()

    def _drop(self, positions: Sequence[str]) -> None:
        """Forget all. The table's own position says that those of its partitions are valid, so it goes first."""
        if self.name in positions or self.name in self._store.tables():
            self._store.drop_table(self.name)
        for name in positions:
            if name.startswith(f"{self.name}/"):
                self._store.drop_table(name)

    async def _follow(self) -> None:
        """Read until the log changes, a deletion may be missing, or the topic grows."""
        rows: dict[bytes | None, bytes | None] = {}
        reached: dict[int, Position] = {}
        size_bytes = 0
        while True:
            batches = await self._reader.fetch(FETCH_WAIT_MS)
            for batch in batches:
                if not self._continues(batch, reached) or self._missed(batch.partition):
                    return
                rows.update(zip(batch.columns.keys, batch.columns.values, strict=True))
                size_bytes += sum(map(len, filter(None, batch.columns.values)))
                reached[batch.partition] = self._position_of(batch)
            behind = not self._ready.is_set() and bool(batches)
            if reached and (not behind or self._caught_up(reached) or self._full(rows, size_bytes)):
                await self._apply(rows, reached)
                rows, reached, size_bytes = {}, {}, 0
            self._check_ready()
            await self._look_at_ends()
            if await self._has_grown():
                return

    def _full(self, rows: dict[bytes | None, bytes | None], size_bytes: int) -> bool:
        return len(rows) >= CHUNK_ROWS_MAX or size_bytes >= CHUNK_BYTES_MAX

    def _continues(self, batch: Records, reached: dict[int, Position]) -> bool:
        position = reached.get(batch.partition) or self._positions[batch.partition]
        return batch.start_offset == position.offset

    def _missed(self, partition: int) -> bool:
        return self._fresh[partition].missed(self._env.clock.wall_ms(), self._delete_retention_ms)

    def _position_of(self, batch: Records) -> Position:
        return Position(batch.next_offset, self._logs[batch.partition].topic_id, batch.leader_epoch)

    async def _apply(self, rows: dict[bytes | None, bytes | None], reached: dict[int, Position]) -> None:
        rows.pop(None, None)
        changes: list[Change] = [(key, value) for key, value in rows.items() if key is not None]
        reached = {
            number: replace(position, at_ms=self._fresh[number].reached(position.offset))
            for number, position in reached.items()
        }
        positions = {self._position_name(number): position for number, position in reached.items()}
        positions[self.name] = Position(0)
        batch = CommitBatch({self.name: changes}, positions)
        if len(changes) <= INLINE_ROWS_MAX:
            self._store.commit(batch)
        else:
            await in_thread(self._env, partial(self._store.commit, batch))
        self._table.forget(changes)
        self._positions.update(reached)

    def _caught_up(self, reached: dict[int, Position]) -> bool:
        positions = {**self._positions, **reached}
        return all(positions[number].offset >= log.end_offset for number, log in self._logs.items())

    def _check_ready(self) -> None:
        if not self._ready.is_set() and self._caught_up({}):
            self._ready.set()
            logger.info("global_table=%s topic=%s state=live", self.name, self.topic)

    async def _look_at_ends(self) -> None:
        """Find out whether all that the topic has is here, and write down when that was so: a worker that is killed
        goes on from there, if it is not too long ago then."""
        asked_at_ms = self._env.clock.wall_ms()
        if not any(fresh.due(asked_at_ms, self._delete_retention_ms) for fresh in self._fresh.values()):
            return
        ends = await self._reader.ends(self.topic, list(self._logs))
        for number, end in ends.items():
            self._fresh[number].saw_end(end, asked_at_ms, self._positions[number].offset)
        positions = self._positions
        older = {number: positions[number] for number in ends if self._fresh[number].at_ms != positions[number].at_ms}
        if older:
            await self._apply({}, older)

    async def _has_grown(self) -> bool:
        now_ms = self._env.clock.mono_ms()
        if now_ms - self._looked_at_ms < self._partitions_poll_ms:
            return False
        self._looked_at_ms = now_ms
        return await self._reader.partition_count(self.topic) != len(self._logs)

    def _unfollow(self) -> None:
        for number in self._logs:
            self._reader.unfollow(self.topic, number)
        self._logs = {}

    def _position_name(self, partition: int) -> str:
        return f"{self.name}/{partition}"
