"""Requests to workers: HTTP/1.1 over kept connections. h11 does the protocol; this is the driver.

A client of our own, because all it has to do is GET and POST to a worker on the same network: no TLS, proxies, cookies
or redirects, and no second HTTP stack beside the server's, which brings h11 along.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h11

from streamlog.errors import EnvironmentFailure

READ_BYTES = 64 << 10

IDLE_CONNECTIONS_MAX = 8
"""Kept per worker."""

CONNECT_S_MAX = 3.0

Headers = Sequence[tuple[str, str]]


class WorkerUnreachable(EnvironmentFailure):
    """The worker did not answer: it is gone, or the network between is."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    body: bytes


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.CLIENT)

    async def send(self, method: str, host: str, target: str, headers: Headers, body: bytes) -> None:
        length = [("content-length", str(len(body)))] if body or method == "POST" else []
        request = h11.Request(method=method, target=target, headers=[("host", host), *length, *headers])
        data = self.http.send(request) or b""
        if body:
            data += self.http.send(h11.Data(data=body)) or b""
        self.writer.write(data + (self.http.send(h11.EndOfMessage()) or b""))
        await self.writer.drain()

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # h11's union has NEED_DATA in it
            self.http.receive_data(await self.reader.read(READ_BYTES))

    async def status(self) -> int:
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("closed before it answered")

    async def body(self) -> AsyncIterator[bytes]:
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("closed in the middle of its answer")

    def reusable(self) -> bool:
        """Ready for another request; makes it so."""
        if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE:
            return False
        self.http.start_next_cycle()
        return True

    def close(self) -> None:
        self.writer.close()


class HttpClient:
    """Asks workers. All of it on one event loop."""

    def __init__(self) -> None:
        self._idle: dict[str, list[_Connection]] = {}  # by endpoint, the most recently used last
        self._closed = False

    async def request(
        self,
        endpoint: str,
        method: str,
        target: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        timeout_s: float,
    ) -> HttpAnswer:
        """Ask and wait for the whole answer. Requests are reads: one that a kept connection lost is sent again.

        Raises: WorkerUnreachable.
        """
        try:
            async with asyncio.timeout(timeout_s):
                kept = self._idle.get(endpoint, [])
                while kept:
                    try:
                        return await self._ask(kept.pop(), endpoint, method, target, headers, body)
                    except (OSError, h11.ProtocolError):
                        continue  # the worker closed it meanwhile
                connection = await self._connect(endpoint)
                return await self._ask(connection, endpoint, method, target, headers, body)
        except TimeoutError:
            raise WorkerUnreachable(f"the worker at {endpoint} did not answer within {timeout_s:.3g} s") from None
        except (OSError, h11.ProtocolError) as error:
            raise WorkerUnreachable(f"the worker at {endpoint} cannot be reached: {error}") from error

    async def _ask(
        self, connection: _Connection, endpoint: str, method: str, target: str, headers: Headers, body: bytes
    ) -> HttpAnswer:
        done = False
        try:
            await connection.send(method, endpoint, target, headers, body)
            status = await connection.status()
            parts = [part async for part in connection.body()]
            done = True
        finally:
            if done and not self._closed and connection.reusable():
                kept = self._idle.setdefault(endpoint, [])
                kept.append(connection)
                if len(kept) > IDLE_CONNECTIONS_MAX:
                    kept.pop(0).close()
            else:
                connection.close()
        return HttpAnswer(status, b"".join(parts))

    @asynccontextmanager
    async def stream(
        self, endpoint: str, target: str, *, headers: Headers = ()
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """Status and parts of an answer that may never end. Raises: WorkerUnreachable; OSError while reading."""
        connection = await self._connect(endpoint)
        try:
            await connection.send("GET", endpoint, target, headers, b"")
            yield await connection.status(), connection.body()
        finally:
            connection.close()

    async def _connect(self, endpoint: str) -> _Connection:
        host, _, port = endpoint.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                return _Connection(*await asyncio.open_connection(host.strip("[]"), int(port)))
        except TimeoutError:
            raise WorkerUnreachable(f"the worker at {endpoint} did not accept within {CONNECT_S_MAX:g} s") from None
        except (OSError, ValueError) as error:
            raise WorkerUnreachable(f"the worker at {endpoint} cannot be reached: {error}") from error

    async def close(self) -> None:
        self._closed = True
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()
