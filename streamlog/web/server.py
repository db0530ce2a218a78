"""The worker's HTTP server: health, status, and the app's tables.

    GET  /health                         200 while every partition moves, else 503
    GET  /status                         what this worker does
    GET  /workers                        the app's workers and what each has
    GET  /tables                         the app's tables
    GET  /tables/TABLE/KEY               one row; of a windowed table its windows (at=, from=, to=)
    GET  /tables/TABLE                   rows by key (prefix=, limit=, cursor=, partition=, key=)
    GET  /tables/TABLE/watch             changes as they are committed, one JSON object a line (key=, prefix=)
    POST /tables/TABLE/rows              for clients: many keys of one partition, msgpack

Any worker answers for any key: what it does not own it asks the owner for. Keys in URLs are the record keys' own bytes,
percent-encoded: text as it is, numbers in decimal, everything else as JSON. Every answer says how stale it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from streamlog.client.admin import Admin
from streamlog.env import Env, all_of
from streamlog.errors import EnvironmentFailure, StreamlogError, UserError
from streamlog.serde import SerdeError
from streamlog.state.query import PAGE_ROWS, PAGE_ROWS_MAX
from streamlog.state.windows import TIME_MS_MAX, TIME_MS_MIN
from streamlog.streams.worker import Worker
from streamlog.web.answers import FORWARDED, MSGPACK, Found, GetMany, Row, Rows, TableInfo, Trouble
from streamlog.web.asking import Asker
from streamlog.web.elsewhere import get_anywhere
from streamlog.web.http import HttpClient
from streamlog.web.local import LocalTables, NotOwner, NotReady
from streamlog.web.paging import decode_cursor, encode_cursor, merge_pages
from streamlog.web.routing import NoWorkers, Routes
from streamlog.web.shown import builtins_of, parse_time_ms, shown_change, shown_row, shown_staleness
from streamlog.web.watch import watch_changelog

log = logging.getLogger(__name__)

PORT_PREFERRED = 6066
"""Faust's, so that dashboards and habits keep working."""

FORWARD_S = 5.0
"""How long a worker asks others for one answer; rebalances are over by then, or the caller should ask again."""

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")

BODY_BYTES_MAX = 16 << 20
CONNECTIONS_MAX = 1_000
KEEP_ALIVE_S = 75
"""How long an idle connection is kept: longer than clients pause between two looks."""

CLOSE_S = 2.0
"""For answers under way when the worker stops."""

STATUS_OF = {"not_owner": 421, "not_ready": 503, "no_table": 404, "no_key": 404, "no_worker": 503, "internal": 500}
"""HTTP status by trouble code; 400 for the rest."""

Endpoint = Callable[[Request], Awaitable[Response]]


class WebServer:
    """A worker's HTTP server: an `Extension` of the worker (streams/worker.py)."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT_PREFERRED,
        advertised: str | None = None,
        *,
        port_required: bool = False,
    ) -> None:
        """
        Args: port: the port wanted; 0 takes any.
              advertised: host:port at which others reach this worker; default where it listens.
              port_required: fail when the port is taken, rather than take another.
        """
        self._host, self._port, self._port_required = host, port, port_required
        self._advertised = advertised
        self._server: asyncio.Server | None = None
        self._state = ServerState()
        self._admin: Admin | None = None
        self._http = HttpClient()

    async def open(self, worker: Worker) -> str | None:
        """Raises UserError: the port is taken, or the address is none of this machine's."""
        app_id = worker.program.id
        admin = Admin(worker.broker, env=worker.env, client_id=f"streamlog-{app_id}-web")
        routes = Routes(admin, app_id, worker.env.clock)
        asker = Asker(self._http, routes, worker.env.clock, app_id)
        pages = Pages(worker, LocalTables(worker), asker, routes, worker.broker, worker.env)
        config = uvicorn.Config(
            pages.application(self._hosts()),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(CLOSE_S),
        )
        config.load()
        await self._listen(lambda: H11Protocol(config, self._state, {}))
        try:
            await admin.open()
        except BaseException:
            await self.close()
            raise
        self._admin = admin
        assert self._server is not None, "listening"
        port = self._server.sockets[0].getsockname()[1]
        shown_host = f"[{self._host}]" if ":" in self._host else self._host
        if self._advertised is None and self._host in ("0.0.0.0", "::"):
            log.warning(
                "web=%s:%d is told to others as it is, which they cannot reach from elsewhere: say --web-advertised",
                shown_host,
                port,
            )
        log.info("app=%s web=http://%s:%d", app_id, shown_host, port)
        return self._advertised or f"{shown_host}:{port}"

    def _hosts(self) -> list[str]:
        """Names for this server. On loopback a web page that somebody looks at could otherwise read the tables, by
        giving its own name the address 127.0.0.1 (DNS rebinding)."""
        if self._host not in LOOPBACK:
            return ["*"]
        advertised = [] if self._advertised is None else [self._advertised.rpartition(":")[0]]
        return [*LOOPBACK, *advertised]

    async def _listen(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(protocol, self._host, self._port)
        except OSError as error:
            if not self._port or self._port_required:
                why = error.strerror or str(error)
                raise UserError(
                    f"the web server cannot listen on {self._host}:{self._port} ({why}): choose another address with "
                    "--web, port 0 for any free one"
                ) from error
            self._server = await loop.create_server(protocol, self._host, 0)

    async def close(self) -> None:
        """Stop accepting, give answers under way a moment, disconnect."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            _, left = await asyncio.wait(list(self._state.tasks), timeout=CLOSE_S)
            for task in left:
                task.cancel()
        await self._http.close()
        if self._admin is not None:
            await self._admin.close()


class Pages:
    """What the server answers."""

    def __init__(
        self, worker: Worker, tables: LocalTables, asker: Asker, routes: Routes, bootstrap: str, env: Env
    ) -> None:
        self._worker, self._tables, self._asker, self._routes = worker, tables, asker, routes
        self._bootstrap, self._env = bootstrap, env

    def application(self, hosts: Sequence[str]) -> Starlette:
        """Args: hosts: names that requests may be addressed to."""
        routes = [
            ("/", self.index, "GET"),
            ("/health", self.health, "GET"),
            ("/status", self.status, "GET"),
            ("/workers", self.workers, "GET"),
            ("/tables", self.tables, "GET"),
            ("/tables/{table}", self.scan, "GET"),
            ("/tables/{table}/watch", self.watch, "GET"),
            ("/tables/{table}/rows", self.rows, "POST"),
            ("/tables/{table}/{key:path}", self.row, "GET"),
        ]
        return Starlette(
            routes=[Route(path, _guarded(page), methods=[method]) for path, page, method in routes],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
        )

    # --- this worker ----------------------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        pages = [
            "/health",
            "/status",
            "/workers",
            "/tables",
            *(f"/tables/{info.name}" for info in self._tables.infos()),
        ]
        return JSONResponse({"app": self._worker.program.id, "pages": pages})

    async def health(self, request: Request) -> Response:
        status = self._worker.status()
        body = {"healthy": status.healthy, "state": status.state, "error": status.error}
        return JSONResponse(body, status_code=200 if status.healthy else 503)

    async def status(self, request: Request) -> Response:
        status = self._worker.status()
        shown = builtins_of(status)
        shown["healthy"] = status.healthy
        for task, of in zip(shown["tasks"], status.tasks, strict=True):
            for partition, source in zip(task["partitions"], of.partitions, strict=True):
                partition["lag"] = source.lag
        return JSONResponse(shown)

    async def workers(self, request: Request) -> Response:
        await self._routes.refresh()
        return JSONResponse([builtins_of(one) for one in self._routes.workers])

    # --- tables ---------------------------------------------------------------------------------------------------

    async def tables(self, request: Request) -> Response:
        infos = self._tables.infos()
        return _packed(infos) if _wants_msgpack(request) else JSONResponse([builtins_of(one) for one in infos])

    async def row(self, request: Request) -> Response:
        raw_path: bytes = request.scope["raw_path"]
        info = self._info(request)
        key = unquote_to_bytes(raw_path.split(b"/", 3)[3])
        return await self._row(request, info, key)

    async def _row(self, request: Request, info: TableInfo, key: bytes) -> Response:
        serde = self._tables.table(info.name).key_serde
        key = serde.encode(serde.decode(key))  # JSON may be written in several ways
        partition = 0 if info.kind == "global" else self._tables.partition_of(info.name, key)
        query = request.query_params
        if info.window_step_ms is not None and "at" not in query:
            return await self._windows_of(request, info, key, partition)
        start_ms = None
        if info.window_step_ms is not None:
            at_ms = parse_time_ms(query["at"], "at")
            start_ms = at_ms - at_ms % info.window_step_ms
        wanted = GetMany(
            partition=partition,
            keys=[key],
            start_ms=start_ms,
            committed=_flag(request, "committed"),
            stale=_flag(request, "stale"),
        )
        found = await get_anywhere(partial(self._get_many, request, info), wanted, info.partitions)
        if found.values[0] is None:
            shown = serde.decode(key)
            where = "" if start_ms is None else f" in the window at {query['at']}"
            body = {"error": f"table {info.name} has no key {shown!r}{where}", "code": "no_key"}
            return JSONResponse(body | {"staleness": shown_staleness(found.staleness)}, status_code=404)
        row = shown_row(self._tables, info, Row(key, found.values[0], start_ms))
        return JSONResponse(row | {"staleness": shown_staleness(found.staleness)})

    async def _windows_of(self, request: Request, info: TableInfo, key: bytes, partition: int) -> Response:
        parameters = {"windows_of": encode_cursor(key), **_passed_on(request)}
        rows = await self._rows_of(request, info, partition, parameters)
        shown = [shown_row(self._tables, info, row) for row in rows.rows]
        return JSONResponse({"rows": shown, "staleness": shown_staleness(rows.staleness[0])})

    async def scan(self, request: Request) -> Response:
        info = self._info(request)
        query = request.query_params
        if "key" in query:
            return await self._row(request, info, query["key"].encode())
        parameters = _passed_on(request)
        if "windows_of" in query:
            parameters["windows_of"] = query["windows_of"]
        if "partition" in query:
            partition = _number(request, "partition", 0, info.partitions - 1, 0)
            rows = await self._rows_of(request, info, partition, parameters)
        else:
            asked = (self._rows_of(request, info, partition, parameters) for partition in range(info.partitions))
            rows = merge_pages(await all_of(asked), _limit(request))
        if _wants_msgpack(request):
            return _packed(rows)
        return JSONResponse(
            {
                "rows": [shown_row(self._tables, info, row) for row in rows.rows],
                "cursor": None if rows.cursor is None else encode_cursor(rows.cursor),
                "staleness": [shown_staleness(one) for one in rows.staleness],
            }
        )

    async def rows(self, request: Request) -> Response:
        info = self._info(request)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                raise UserError(f"a request has {BODY_BYTES_MAX} bytes at most")
        try:
            wanted = msgspec.msgpack.decode(body, type=GetMany)
        except msgspec.MsgspecError as error:
            raise UserError(f"not a request for rows: {error}") from None
        return _packed(await self._get_many(request, info, wanted))

    async def watch(self, request: Request) -> Response:
        info = self._info(request)
        key = request.query_params.get("key")
        prefix = request.query_params.get("prefix", "").encode()
        as_events = "text/event-stream" in request.headers.get("accept", "")

        async def lines() -> AsyncIterator[bytes]:
            changes = watch_changelog(
                self._bootstrap, self._env, info, key=None if key is None else key.encode(), prefix=prefix
            )
            async for some in changes:
                for change in some:
                    line = json.dumps(shown_change(self._tables, info, change))
                    yield (f"data: {line}\n\n" if as_events else f"{line}\n").encode()

        return StreamingResponse(lines(), media_type="text/event-stream" if as_events else "application/x-ndjson")

    # --- here or elsewhere ----------------------------------------------------------------------------------------

    async def _get_many(self, request: Request, info: TableInfo, wanted: GetMany) -> Found:
        try:
            return self._tables.get_many(
                info.name,
                wanted.partition,
                wanted.keys,
                wanted.start_ms,
                committed=wanted.committed,
                stale=wanted.stale,
            )
        except (NotOwner, NotReady):
            if _is_forwarded(request):
                raise
            return await self._asker.get_many(info.name, wanted, FORWARD_S)

    async def _rows_of(self, request: Request, info: TableInfo, partition: int, parameters: dict[str, str]) -> Rows:
        try:
            return self._local_rows(info, partition, parameters)
        except (NotOwner, NotReady):
            if _is_forwarded(request):
                raise
            return await self._asker.rows(info.name, partition, parameters, FORWARD_S)

    def _local_rows(self, info: TableInfo, partition: int, parameters: dict[str, str]) -> Rows:
        from_ms = parse_time_ms(parameters["from"], "from") if "from" in parameters else TIME_MS_MIN
        to_ms = parse_time_ms(parameters["to"], "to") if "to" in parameters else TIME_MS_MAX
        limit = int(parameters["limit"])
        committed, stale = (parameters.get(name) == "true" for name in ("committed", "stale"))
        if "windows_of" in parameters:
            key = decode_cursor(parameters["windows_of"], "windows_of")
            return self._tables.windows(
                info.name, partition, key, from_ms, to_ms, limit, committed=committed, stale=stale
            )
        return self._tables.scan(
            info.name,
            partition,
            prefix=parameters.get("prefix", "").encode(),
            from_ms=from_ms,
            to_ms=to_ms,
            cursor=decode_cursor(parameters["cursor"], "cursor") if "cursor" in parameters else None,
            limit=limit,
            committed=committed,
            stale=stale,
        )

    def _info(self, request: Request) -> TableInfo:
        try:
            return self._tables.info(request.path_params["table"])
        except UserError as error:
            raise _NoTable(str(error)) from None


class _NoTable(UserError):
    pass


def _guarded(page: Endpoint) -> Endpoint:
    """`page`, with what can go wrong turned into an answer."""

    async def answer(request: Request) -> Response:
        try:
            return await page(request)
        except NotOwner as error:
            trouble = Trouble(error=str(error), code="not_owner")
        except NotReady as error:
            trouble = Trouble(error=str(error), code="not_ready")
        except _NoTable as error:
            trouble = Trouble(error=str(error), code="no_table")
        except SerdeError as error:
            trouble = Trouble(error=str(error), code="bad_request")
        except NoWorkers as error:
            trouble = Trouble(error=str(error), code="no_worker")
        except UserError as error:
            trouble = Trouble(error=str(error), code="bad_request")
        except EnvironmentFailure as error:
            trouble = Trouble(error=str(error), code="not_ready")
        except StreamlogError as error:
            trouble = Trouble(error=str(error), code="internal")
        status = STATUS_OF.get(trouble.code, 400)
        if _wants_msgpack(request):
            return Response(msgspec.msgpack.encode(trouble), status, media_type=MSGPACK)
        return JSONResponse({"error": trouble.error, "code": trouble.code}, status)

    return answer


def _packed(value: Any) -> Response:
    return Response(msgspec.msgpack.encode(value), media_type=MSGPACK)


def _wants_msgpack(request: Request) -> bool:
    return request.headers.get("accept") == MSGPACK


def _is_forwarded(request: Request) -> bool:
    return FORWARDED in request.headers


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "false").lower() in ("true", "1", "yes")


def _limit(request: Request) -> int:
    return _number(request, "limit", 1, PAGE_ROWS_MAX, PAGE_ROWS)


def _number(request: Request, name: str, low: int, high: int, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdigit() or not low <= int(text) <= high:
        raise UserError(f"{name}={text!r}: expected a number from {low} to {high}")
    return int(text)


def _passed_on(request: Request) -> dict[str, str]:
    """The parameters of a scan, checked."""
    query = request.query_params
    parameters = {name: query[name] for name in ("prefix", "from", "to", "cursor") if name in query}
    parameters["limit"] = str(_limit(request))
    parameters |= {name: "true" for name in ("committed", "stale") if _flag(request, name)}
    return parameters
