"""Live tables from outside: `connect_async` gives any asyncio program the rows that an app's workers have right now.

No worker runs here. The app's consumer group says where its workers are and which partitions each has; a key is hashed
as producers hash it, and asked for where it lives. When partitions move, reads follow them, within the timeout.
`connect` (web/blocking.py) is the same for programs without asyncio.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from streamlog import embedded
from streamlog.client.admin import Admin
from streamlog.client.config import ConnectionSettings
from streamlog.client.partitioner import partition_for_key
from streamlog.env import Env, all_of, real_env
from streamlog.errors import UserError
from streamlog.serde import Format, Serde, key_serde_for, serde_for, table_value_serde_for
from streamlog.state.query import PAGE_ROWS
from streamlog.streams.app import App
from streamlog.streams.record import to_moment, to_timestamp_ms
from streamlog.streams.settings import DATA_DIR_DEFAULT
from streamlog.web.answers import Found, GetMany, Rows, Staleness, TableInfo
from streamlog.web.asking import Asker
from streamlog.web.elsewhere import get_anywhere
from streamlog.web.http import HttpClient
from streamlog.web.paging import encode_cursor, merge_pages
from streamlog.web.routing import Routes, WorkerInfo
from streamlog.web.watch import watch_changelog

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

TIMEOUT_S = 10.0
"""How long a read follows a partition that moves. Cooperative rebalances take a second or two; a worker that was killed
is missed after its session timeout, which is longer: such reads fail, and say so."""

BROKER_TIMEOUT_MS = 10_000
SCAN_PAGE_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Read(Generic[V]):
    """One looked-up key, and how old the answer is."""

    value: V | None
    """None: the table has no such key."""
    staleness: Staleness


@dataclass(frozen=True, slots=True)
class WindowValue(Generic[V]):
    """The value of one window of one key."""

    start: datetime
    """Windows beyond the years 1 to 9999, which datetime has, start and end at the edge of them."""
    end: datetime
    value: V
    start_ms: int
    """Exact, of any window; so is `end_ms`."""
    end_ms: int


@dataclass(frozen=True, slots=True)
class Change(Generic[K, V]):
    """One committed change of a row."""

    key: K
    value: V | None
    """None: the row was deleted."""
    window: tuple[datetime, datetime] | None
    """Start and end, in tables with windows; as in `WindowValue`."""
    timestamp_ms: int
    partition: int
    offset: int
    """In the table's changelog."""
    window_ms: tuple[int, int] | None = None
    """Exact, of any window."""


class AsyncLive:
    """One app's live tables. Use it as an async context manager; all of it on one event loop."""

    def __init__(self, bootstrap: str, app_id: str, app: App | None, *, env: Env, timeout_s: float) -> None:
        self.app_id = app_id
        self.timeout_s = timeout_s
        self._bootstrap, self._env, self._app = bootstrap, env, app
        connection = ConnectionSettings(client_id="streamlog-connect")
        self._admin = Admin(bootstrap, env=env, timeout_ms=BROKER_TIMEOUT_MS, connection=connection)
        self._http = HttpClient()
        self._routes = Routes(self._admin, app_id, env.clock)
        self._asker = Asker(self._http, self._routes, env.clock, app_id)
        self._infos: dict[str, TableInfo] | None = None

    async def open(self) -> None:
        """Raises: EnvironmentFailure: no broker answers. UserError: there is no such app. NoWorkers: nobody runs it."""
        await self._admin.open()
        try:
            await self._routes.refresh()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._http.close()
        await self._admin.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @overload
    def table(self, name: str) -> AsyncLiveTable[Any, Any]: ...
    @overload
    def table(self, name: str, *, key: type[K], value: type[V]) -> AsyncLiveTable[K, V]: ...
    @overload
    def table(self, name: str, *, key: Any = ..., value: Any = ...) -> AsyncLiveTable[Any, Any]: ...
    def table(self, name: str, *, key: Any = None, value: Any = None) -> AsyncLiveTable[Any, Any]:
        """A table of the app. Nothing is asked before the first read.

        Args: key, value: the declared types; default those of the App that was given to connect, else plain objects:
                          numbers, text, lists, dicts.
        """
        declared = None if self._app is None else self._app.tables.get(name)
        if declared is not None:
            key = declared.key_serde.type if key is None else key
            value = declared.value_type if value is None else value
        return AsyncLiveTable(self, name, key, value)

    async def tables(self) -> list[TableInfo]:
        """The app's tables, by name."""
        return [info for _, info in sorted((await self._known()).items())]

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """The app's workers, and which partitions each has."""
        await self._routes.refresh()
        return self._routes.workers

    async def _known(self) -> dict[str, TableInfo]:
        if self._infos is None:
            self._infos = {info.name: info for info in await self._asker.tables(self.timeout_s)}
        return self._infos

    async def info(self, name: str) -> TableInfo:
        """Raises: UserError: the app has no such table; lists those it has."""
        infos = await self._known()
        if name not in infos:
            self._infos = None  # workers of a newer version may have it
            infos = await self._known()
        if name not in infos:
            known = ", ".join(sorted(infos)) or "none"
            raise UserError(f"app {self.app_id} has no table {name!r}; its tables: {known}")
        return infos[name]


class AsyncLiveTable(Generic[K, V]):
    """The rows of one table, wherever they are. Reads are of the moment; see `Staleness` for how old that is."""

    def __init__(self, live: AsyncLive, name: str, key: Any, value: Any) -> None:
        self.name = name
        self._live = live
        self._key_type, self._value_type = key, value
        self._serdes: tuple[Serde[Any], Serde[Any], Serde[Any]] | None = None  # keys, rows, changelog

    def __repr__(self) -> str:
        return f"<live table {self.name} of {self._live.app_id}>"

    # --- rows -----------------------------------------------------------------------------------------------------

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: Any = None) -> Any:
        """The value of `key`, or `default`. Raises: NoOwner: its partition could not be read within the timeout."""
        value = (await self.read(key)).value
        return default if value is None else value

    async def read(self, key: K, *, committed: bool = False, stale: bool = False) -> Read[V]:
        """The same with how old the answer is.

        Args: committed: leave out what a crash could still take back.
              stale: do not wait for a partition that is being restored, but take what it has by now; the answer's
                     staleness says that its state is "restoring", and how much is missing.
        """
        info = await self._info()
        key_bytes = self._encode_key(key)
        wanted = GetMany(partition=_partition(info, key_bytes), keys=[key_bytes], committed=committed, stale=stale)
        found = await get_anywhere(self._ask, wanted, info.partitions)
        value = found.values[0]
        return Read(None if value is None else self._row_value.decode(value), found.staleness)

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those of `keys` that the table has: one request to each owner.

        More where a table follows a topic whose producers place keys in another way than Java's (`elsewhere.py`).
        """
        info = await self._info()
        by_partition: dict[int, dict[bytes, K]] = {}
        for key in keys:
            key_bytes = self._encode_key(key)
            by_partition.setdefault(_partition(info, key_bytes), {})[key_bytes] = key
        wanted = [GetMany(partition=partition, keys=list(mine)) for partition, mine in sorted(by_partition.items())]
        answers = await all_of(get_anywhere(self._ask, one, info.partitions) for one in wanted)
        found: dict[K, V] = {}
        for one, answer in zip(wanted, answers, strict=True):
            for key_bytes, value in zip(one.keys, answer.values, strict=True):
                if value is not None:
                    found[by_partition[one.partition][key_bytes]] = self._row_value.decode(value)
        return found

    async def pages(
        self, *, prefix: str = "", page_rows: int = SCAN_PAGE_ROWS, committed: bool = False, stale: bool = False
    ) -> AsyncIterator[tuple[list[tuple[Any, V]], list[Staleness]]]:
        """All rows whose key begins with `prefix`, by key bytes, in pages with the staleness of each partition.

        In a windowed table the keys are (key, start of the window). `stale`: see `read`.
        """
        async for page in self._pages(prefix, page_rows, committed=committed, stale=stale):
            yield (
                [(self._row_key(row.key, row.start_ms), self._row_value.decode(row.value)) for row in page.rows],
                (page.staleness),
            )

    async def _pages(self, prefix: str, page_rows: int, *, committed: bool, stale: bool) -> AsyncIterator[Rows]:
        info = await self._info()
        parameters = {"limit": str(page_rows)} | ({"prefix": prefix} if prefix else {})
        parameters |= ({"committed": "true"} if committed else {}) | ({"stale": "true"} if stale else {})
        while True:
            page = await self._page(info, parameters, page_rows)
            yield page
            if page.cursor is None:
                return
            parameters["cursor"] = encode_cursor(page.cursor)

    async def _page(self, info: TableInfo, parameters: dict[str, str], page_rows: int) -> Rows:
        asker, timeout_s = self._live._asker, self._live.timeout_s
        asked = (asker.rows(self.name, partition, parameters, timeout_s) for partition in range(info.partitions))
        return merge_pages(await all_of(asked), page_rows)

    async def items(self, *, prefix: str = "", limit: int | None = None) -> AsyncIterator[tuple[Any, V]]:
        """Rows by key bytes, from all workers. In a windowed table the keys are (key, start of the window).

        Windows beyond the years that datetime has share the edge of them; `entries` tells them apart.
        """
        async for key, start_ms, value in self.entries(prefix=prefix, limit=limit):
            yield (key if start_ms is None else (key, to_moment(start_ms))), value

    async def entries(self, *, prefix: str = "", limit: int | None = None) -> AsyncIterator[tuple[Any, int | None, V]]:
        """The same as (key, start of the window in ms, value); the start is exact, None in a table without windows."""
        left = limit
        page_rows = SCAN_PAGE_ROWS if limit is None else max(1, min(limit, SCAN_PAGE_ROWS))
        async for page in self._pages(prefix, page_rows, committed=False, stale=False):
            for row in page.rows:
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield self._key_serde.decode(row.key), row.start_ms, self._row_value.decode(row.value)

    async def count(self) -> int:
        """How many rows there are, counted."""
        total = 0
        async for rows, _ in self.pages():
            total += len(rows)
        return total

    # --- windows --------------------------------------------------------------------------------------------------

    async def window(self, key: K, at: datetime | float) -> V:
        """The value of the newest window of `key` that contains the moment: a datetime, ms as int, seconds as float.

        Raises: KeyError: there is none.
        """
        info = await self._windowed_info()
        at_ms = to_timestamp_ms(at)
        key_bytes = self._encode_key(key)
        start_ms = at_ms - at_ms % (info.window_step_ms or 1)
        wanted = GetMany(partition=_partition(info, key_bytes), keys=[key_bytes], start_ms=start_ms)
        found = await self._live._asker.get_many(self.name, wanted, self._live.timeout_s)
        if found.values[0] is None:
            raise KeyError((key, to_moment(start_ms)))
        return self._row_value.decode(found.values[0])

    async def windows(
        self,
        key: K,
        *,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        limit: int = PAGE_ROWS,
    ) -> list[WindowValue[V]]:
        """The windows of `key` that start in [since, until), oldest first."""
        info = await self._windowed_info()
        key_bytes = self._encode_key(key)
        parameters = {"windows_of": encode_cursor(key_bytes), "limit": str(limit)}
        parameters |= {} if since is None else {"from": str(to_timestamp_ms(since))}
        parameters |= {} if until is None else {"to": str(to_timestamp_ms(until))}
        rows = await self._live._asker.rows(self.name, _partition(info, key_bytes), parameters, self._live.timeout_s)
        found = []
        for row in rows.rows:
            start_ms, end_ms = _window_ms(info, row.start_ms or 0)
            value = self._row_value.decode(row.value)
            found.append(WindowValue(to_moment(start_ms), to_moment(end_ms), value, start_ms, end_ms))
        return found

    # --- changes --------------------------------------------------------------------------------------------------

    async def watch(
        self, key: K | None = None, *, prefix: str = "", ready: asyncio.Event | None = None
    ) -> AsyncIterator[Change[K, V]]:
        """Changes from now on, as they are committed; of one key, of keys with a prefix, or of all.

        They come from the table's changelog, so watching goes on while partitions move. Set `ready` is when every later
        change will be seen.
        """
        info = await self._info()
        wanted = None if key is None else self._encode_key(key)
        live = self._live
        changes = watch_changelog(live._bootstrap, live._env, info, key=wanted, prefix=prefix.encode(), ready=ready)
        async for some in changes:
            for one in some:
                window_ms = None if one.start_ms is None else _window_ms(info, one.start_ms)
                yield Change(
                    key=self._key_serde.decode(one.key),
                    value=None if one.value is None else self._log_value.decode(one.value),
                    window=None if window_ms is None else (to_moment(window_ms[0]), to_moment(window_ms[1])),
                    timestamp_ms=one.timestamp_ms,
                    partition=one.partition,
                    offset=one.offset,
                    window_ms=window_ms,
                )

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _ask(self, wanted: GetMany) -> Found:
        return await self._live._asker.get_many(self.name, wanted, self._live.timeout_s)

    async def _info(self) -> TableInfo:
        info = await self._live.info(self.name)
        if self._serdes is None:
            self._serdes = (
                _key_serde(info, self._key_type),
                table_value_serde_for(Any if self._value_type is None else self._value_type),
                _changelog_serde(info, self._value_type),
            )
        return info

    async def _windowed_info(self) -> TableInfo:
        info = await self._info()
        if info.window_step_ms is None:
            raise UserError(f"table {self.name} has no windows: read it with get() or items()")
        return info

    @property
    def _key_serde(self) -> Serde[K]:
        assert self._serdes is not None, "made by _info, which every read awaits first"
        return self._serdes[0]

    @property
    def _row_value(self) -> Serde[V]:
        assert self._serdes is not None, "made by _info, which every read awaits first"
        return self._serdes[1]

    @property
    def _log_value(self) -> Serde[V]:
        assert self._serdes is not None, "made by _info, which every read awaits first"
        return self._serdes[2]

    def _encode_key(self, key: K) -> bytes:
        return self._key_serde.encode(key)

    def _row_key(self, key: bytes, start_ms: int | None) -> Any:
        decoded = self._key_serde.decode(key)
        return decoded if start_ms is None else (decoded, to_moment(start_ms))


def connect_async(
    broker: str | None = None,
    *,
    app: str | App,
    data_dir: str | None = None,
    timeout_s: float = TIMEOUT_S,
    env: Env | None = None,
) -> AsyncLive:
    """The live tables of an app: `async with streamlog.connect_async("localhost:9092", app="flights") as live: ...`

    Args:   broker: "host:port,host:port"; default the App's, then STREAMLOG_BROKER, then the embedded log that runs in
                    the data directory.
            app: the app's id, or the App itself, whose types then decode keys and values.
            timeout_s: how long one read may follow a partition that moves.
    Raises: UserError: no broker is named and no embedded log runs.
    """
    env = env or real_env()
    if isinstance(app, str):
        return AsyncLive(find_broker(env, broker, None, data_dir), app, None, env=env, timeout_s=timeout_s)
    bootstrap = find_broker(env, broker, app, data_dir or app.settings.data_dir)
    return AsyncLive(bootstrap, app.id, app, env=env, timeout_s=timeout_s)


def find_broker(env: Env, broker: str | None, app: App | None, data_dir: str | None) -> str:
    """Addresses as `connect` looks for them. Raises UserError."""
    found = broker or (None if app is None else app.settings.broker) or os.environ.get("STREAMLOG_BROKER")
    if found:
        return found
    directory = data_dir or os.environ.get("STREAMLOG_DATA_DIR") or DATA_DIR_DEFAULT
    running = embedded.running(env, directory)
    if running is None:
        raise UserError(
            f'which broker? Write connect("localhost:9092", app=...) or set STREAMLOG_BROKER; no embedded log runs in '
            f"{directory} either"
        )
    return running


def _partition(info: TableInfo, key: bytes) -> int:
    return 0 if info.kind == "global" else partition_for_key(key, info.partitions)


def _window_ms(info: TableInfo, start_ms: int) -> tuple[int, int]:
    return start_ms, start_ms + (info.window_size_ms or 0)


def _key_serde(info: TableInfo, declared: Any) -> Serde[Any]:
    """With the declared type, or for plain objects by what the worker says: raw str, raw int, raw bytes, json X."""
    if declared is not None:
        return key_serde_for(declared)
    encoding, _, name = info.key.partition(" ")
    if encoding == "raw":
        return key_serde_for({"str": str, "int": int, "bytes": bytes}[name])
    return serde_for(Any, "msgpack" if encoding == "msgpack" else "json")


def _changelog_serde(info: TableInfo, declared: Any) -> Serde[Any]:
    """Of values in the changelog; a table that follows a topic has that topic's format there."""
    kind = Any if declared is None else declared
    encoding, _, name = info.value.partition(" ")
    if encoding == "row":
        return table_value_serde_for(kind)
    formats: Mapping[str, Format] = {"json": "json", "msgpack": "msgpack", "raw": "raw"}
    if encoding == "raw" and declared is None:
        kind = {"str": str, "int": int, "bytes": bytes}[name]
    return serde_for(kind, formats.get(encoding, "json"))


__all__: Sequence[str] = ("AsyncLive", "AsyncLiveTable", "Change", "Read", "WindowValue", "connect_async")
