"""Live tables for programs without asyncio, and for notebooks, whose thread runs a loop already.

`connect` starts a thread with an event loop of its own and does there what `connect_async` does; every call here waits
for it. Threads may share one `Live`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from streamlog.env import Env, LoopThread
from streamlog.streams.app import App
from streamlog.web.answers import Staleness, TableInfo
from streamlog.web.live import TIMEOUT_S, AsyncLive, AsyncLiveTable, Change, Read, WindowValue, connect_async
from streamlog.web.routing import WorkerInfo

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")


class Live:
    """One app's live tables. Open until `close`; use it as a context manager."""

    def __init__(self, live: AsyncLive, loop: LoopThread) -> None:
        self._live, self._loop = live, loop

    def __repr__(self) -> str:
        return f"<live tables of {self._live.app_id}>"

    @overload
    def table(self, name: str) -> LiveTable[Any, Any]: ...
    @overload
    def table(self, name: str, *, key: type[K], value: type[V]) -> LiveTable[K, V]: ...
    @overload
    def table(self, name: str, *, key: Any = ..., value: Any = ...) -> LiveTable[Any, Any]: ...
    def table(self, name: str, *, key: Any = None, value: Any = None) -> LiveTable[Any, Any]:
        """A table of the app. Nothing is asked before the first read.

        Args: key, value: the declared types; default those of the App that was given to connect, else plain objects.
        """
        return LiveTable(self._live.table(name, key=key, value=value), self._loop)

    def tables(self) -> list[TableInfo]:
        """The app's tables, by name."""
        return self._loop.run(self._live.tables())

    def workers(self) -> tuple[WorkerInfo, ...]:
        """The app's workers, and which partitions each has."""
        return self._loop.run(self._live.workers())

    def close(self) -> None:
        """Disconnect. Idempotent."""
        if not self._loop.closed:
            self._loop.run(self._live.close())
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LiveTable(Generic[K, V]):
    """The rows of one table, wherever they are."""

    def __init__(self, table: AsyncLiveTable[K, V], loop: LoopThread) -> None:
        self._table, self._loop = table, loop

    def __repr__(self) -> str:
        return repr(self._table)

    @property
    def name(self) -> str:
        return self._table.name

    def __getitem__(self, key: K) -> V:
        """The value of `key`. Raises: KeyError: the table has no such key. NoOwner: its partition could not be read."""
        value = self.read(key).value
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: K) -> bool:
        return self.read(key).value is not None

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        value = self.read(key).value
        return default if value is None else value

    def read(self, key: K, *, committed: bool = False, stale: bool = False) -> Read[V]:
        """The value with how old it is.

        Args: committed: leave out what a crash could still take back.
              stale: do not wait for a partition that is being restored, but take what it has by now; the answer's
                     staleness says that its state is "restoring", and how much is missing.
        """
        return self._loop.run(self._table.read(key, committed=committed, stale=stale))

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those of `keys` that the table has: one request to each owner."""
        return self._loop.run(self._table.get_many(list(keys)))

    def pages(
        self, *, prefix: str = "", committed: bool = False, stale: bool = False
    ) -> Iterator[tuple[list[tuple[Any, V]], list[Staleness]]]:
        """Rows by key bytes, in pages with the staleness of each partition. `stale`: see `read`."""
        return self._each(self._table.pages(prefix=prefix, committed=committed, stale=stale))

    def items(self, *, prefix: str = "", limit: int | None = None) -> Iterator[tuple[Any, V]]:
        """Rows by key bytes, from all workers. In a windowed table the keys are (key, start of the window).

        Windows beyond the years that datetime has share the edge of them; `entries` tells them apart.
        """
        return self._each(self._table.items(prefix=prefix, limit=limit))

    def entries(self, *, prefix: str = "", limit: int | None = None) -> Iterator[tuple[Any, int | None, V]]:
        """The same as (key, start of the window in ms, value); the start is exact, None in a table without windows."""
        return self._each(self._table.entries(prefix=prefix, limit=limit))

    def keys(self) -> Iterator[Any]:
        return (row[0] for row in self.items())

    def values(self) -> Iterator[V]:
        return (row[1] for row in self.items())

    def __iter__(self) -> Iterator[Any]:
        return self.keys()

    def count(self) -> int:
        """How many rows there are, counted."""
        return self._loop.run(self._table.count())

    def window(self, key: K, at: datetime | float) -> V:
        """The newest window of `key` that contains the moment. Raises: KeyError: there is none."""
        return self._loop.run(self._table.window(key, at))

    def windows(
        self, key: K, *, since: datetime | float | None = None, until: datetime | float | None = None, limit: int = 100
    ) -> list[WindowValue[V]]:
        """The windows of `key` that start in [since, until), oldest first."""
        return self._loop.run(self._table.windows(key, since=since, until=until, limit=limit))

    def watch(self, key: K | None = None, *, prefix: str = "") -> Iterator[Change[K, V]]:
        """Changes from now on, as they are committed; for ever, or until the iterator is closed."""
        return self._each(self._table.watch(key, prefix=prefix))

    def _each(self, source: AsyncIterator[T]) -> Iterator[T]:
        """An async iterator, one item per wait."""

        async def following() -> tuple[bool, T | None]:
            try:
                return True, await anext(source)
            except StopAsyncIteration:
                return False, None

        async def stop() -> None:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

        try:
            while True:
                more, item = self._loop.run(following())
                if not more:
                    return
                yield item  # type: ignore[misc]  # there is one whenever `more`
        finally:
            if not self._loop.closed:
                self._loop.run(stop())


def connect(
    broker: str | None = None,
    *,
    app: str | App,
    data_dir: str | None = None,
    timeout_s: float = TIMEOUT_S,
    env: Env | None = None,
) -> Live:
    """The live tables of an app, from any Python process. With or without `with`, and in notebooks.

        with streamlog.connect("localhost:9092", app="flights") as live:
            live.table("delay_min")["UA"]

    Args:   broker: "host:port,host:port"; default the App's, then STREAMLOG_BROKER, then the embedded log that runs in
                    the data directory.
            app: the app's id, or the App itself, whose types then decode keys and values.
            timeout_s: how long one read may follow a partition that moves.
    Raises: UserError: no broker is named, or there is no such app. NoWorkers: nobody runs it now.
            EnvironmentFailure: no broker answers.
    """
    live_env = env
    loop = LoopThread("streamlog-connect")

    async def open_live() -> AsyncLive:
        live = connect_async(broker, app=app, data_dir=data_dir, timeout_s=timeout_s, env=live_env)
        await live.open()
        return live

    try:
        return Live(loop.run(open_live()), loop)
    except BaseException:
        loop.close()
        raise
