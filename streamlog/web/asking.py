"""Asking owners: one request about one partition, sent to whoever has it, again after a move, until a deadline.

Workers use it to pass on what is not theirs, and clients for everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from streamlog.env import Clock
from streamlog.errors import EnvironmentFailure, RemoteProtocolError, StreamlogError, UserError
from streamlog.streams.settings import SESSION_TIMEOUT_MS
from streamlog.web.answers import FORWARDED, MSGPACK, Found, GetMany, Rows, TableInfo, Trouble
from streamlog.web.http import HttpAnswer, HttpClient, WorkerUnreachable
from streamlog.web.routing import NoWorkers, Routes

T = TypeVar("T")

PAUSE_S_FIRST, PAUSE_S_MAX = 0.05, 0.5
"""Between attempts while a partition moves."""

ATTEMPT_PART = 4
"""The first attempt gets so small a part of the time for the whole, and each one after a worker that did not answer
twice as much as that one had: a frozen worker leaves time to ask another one, a slow one gets time to answer."""

OVERLOADED = 503
MAP_OF_TWO = b"\x82"
"""How a packed `Trouble` begins; the HTTP layer's own refusal is plain text."""

HAVE_ONE = (
    "Start workers with `streamlog worker` and without --no-web, or, where a program runs one, write "
    "app.running(extensions=[WebServer()]) with WebServer from streamlog.web.server"
)

TAKES_OVER = (
    "If it was killed, others take over its partitions when the group has missed it for its session timeout "
    f"({SESSION_TIMEOUT_MS // 1000} s), or when it is started again on its data directory"
)

HEADERS = (("accept", MSGPACK), ("content-type", MSGPACK), (FORWARDED, "1"))


class NoOwner(EnvironmentFailure):
    """A partition could not be read in time: it is on its way, or its worker is gone."""


class Asker:
    """Reads tables of one app from the workers that have them."""

    def __init__(self, http: HttpClient, routes: Routes, clock: Clock, app_id: str) -> None:
        self._http, self._routes, self._clock, self._app_id = http, routes, clock, app_id

    async def tables(self, timeout_s: float) -> list[TableInfo]:
        """Every worker knows the tables."""

        async def ask(endpoint: str, left_s: float) -> HttpAnswer:
            return await self._http.request(endpoint, "GET", "/tables", headers=HEADERS, timeout_s=left_s)

        answer = await self._until_answered("the app's tables", self._routes.any_worker, ask, timeout_s)
        return _decode(answer.body, list[TableInfo])

    async def get_many(self, table: str, request: GetMany, timeout_s: float) -> Found:
        body = msgspec.msgpack.encode(request)
        target = f"/tables/{quote(table, safe='')}/rows"

        async def ask(endpoint: str, left_s: float) -> HttpAnswer:
            return await self._http.request(endpoint, "POST", target, headers=HEADERS, body=body, timeout_s=left_s)

        return _decode((await self._of_owner(table, request.partition, ask, timeout_s)).body, Found)

    async def rows(self, table: str, partition: int, parameters: dict[str, str], timeout_s: float) -> Rows:
        """A page of one partition; `parameters` as in the URL of a scan."""
        target = f"/tables/{quote(table, safe='')}?{urlencode({**parameters, 'partition': partition})}"

        async def ask(endpoint: str, left_s: float) -> HttpAnswer:
            return await self._http.request(endpoint, "GET", target, headers=HEADERS, timeout_s=left_s)

        return _decode((await self._of_owner(table, partition, ask, timeout_s)).body, Rows)

    async def _of_owner(
        self, table: str, partition: int, ask: Callable[[str, float], Awaitable[HttpAnswer]], timeout_s: float
    ) -> HttpAnswer:
        what = f"table {table}, partition {partition}"

        def choose() -> str | None:
            """When the workers have settled and nobody has it, each of them knows why."""
            owner = self._routes.owner(partition)
            return self._routes.any_worker() if owner is None and self._routes.state == "Stable" else owner

        def hopeless() -> str | None:
            silent = self._routes.silent_owner(partition)
            if silent is None:
                return None
            return f"the worker that has it, on {silent.host or 'an unknown host'}, has no web server. {HAVE_ONE}"

        return await self._until_answered(what, choose, ask, timeout_s, hopeless)

    async def _until_answered(
        self,
        what: str,
        choose: Callable[[], str | None],
        ask: Callable[[str, float], Awaitable[HttpAnswer]],
        timeout_s: float,
        hopeless: Callable[[], str | None] = lambda: None,
    ) -> HttpAnswer:
        """Args:   hopeless: asked when a worker said that it does not have it: why no other one could answer either.
        Raises: UserError: the question is wrong. NoOwner: nobody could answer, or not in time, and why.
        """
        deadline_ms = self._clock.mono_ms() + int(timeout_s * 1000)
        why: str = "nobody has it"
        pause_s = 0.0
        attempt_s = timeout_s / ATTEMPT_PART
        was_silent = False  # why is that a worker did not answer
        while (left_ms := deadline_ms - self._clock.mono_ms()) > 0:
            if pause_s:
                await asyncio.sleep(min(pause_s, left_ms / 1000))
            endpoint = None if pause_s else choose()
            is_fresh = endpoint is None  # what is known of the workers, in this attempt
            if endpoint is None:
                try:
                    await self._routes.refresh()
                except NoWorkers as error:
                    if not pause_s:
                        raise  # nobody had it a moment ago either: this is no rebalance
                    why = str(error)
                endpoint = choose()
            pause_s = min(2 * pause_s or PAUSE_S_FIRST, PAUSE_S_MAX)
            if endpoint is None:
                if self._routes.nobody_listens():
                    listens = f"its workers run without a web server. {HAVE_ONE}"
                    raise NoOwner(f"{what} of app {self._app_id} cannot be read: {listens}")
                why, was_silent = self._why_nobody(), False
                continue
            left_s = (deadline_ms - self._clock.mono_ms()) / 1000
            if left_s <= 0:
                break
            try:
                answer = await ask(endpoint, min(left_s, attempt_s))
            except WorkerUnreachable as error:
                if left_s >= attempt_s or not was_silent:  # a last sliver of time is no reason beside a longer one
                    why = f"{error}. {TAKES_OVER}"
                was_silent = True
                attempt_s *= 2
                continue
            if answer.status == 200:
                return answer
            was_silent = False
            if answer.status == OVERLOADED and not answer.body.startswith(MAP_OF_TWO):
                why = f"the worker at {endpoint} has too many requests to answer"
                continue
            trouble = _decode(answer.body, Trouble)
            if trouble.code not in ("not_owner", "not_ready"):
                raise _error_of(trouble)
            if trouble.code == "not_owner" and is_fresh and (reason := hopeless()) is not None:
                raise NoOwner(f"{what} of app {self._app_id} cannot be read: {reason}")
            why = f"the worker at {endpoint} says: {trouble.error}"
        raise NoOwner(f"{what} of app {self._app_id} could not be read within {timeout_s:g} s: {why}")

    def _why_nobody(self) -> str:
        if self._routes.state != "Stable":
            return f"its workers are rebalancing ({self._routes.state})"
        return "no worker has it"


def _error_of(trouble: Trouble) -> StreamlogError:
    return UserError(trouble.error) if trouble.code != "internal" else EnvironmentFailure(trouble.error)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a worker's answer is not what a streamlog worker says: {error}") from error
