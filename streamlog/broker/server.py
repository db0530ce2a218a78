"""The listening sockets and everybody connected to them.

One sweep a second looks at all connections: who began a frame and does not finish it, who has been idle too long,
who waits for memory, who lets responses pile up. Reads and writes themselves touch no clock and no timer.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import Final

from streamlog.broker import limits
from streamlog.broker.connection import Connection, Dispatcher, Shared
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure, RemoteProtocolError

log = logging.getLogger(__name__)


ACCEPT_GRACE_S: Final = 0.001
"""Before the listeners are closed, asyncio may have connections in hand that it took from them: they get their turn,
and are refused, instead of being left open."""


class Server:
    """Accepts connections on any number of listeners and keeps each within its limits."""

    def __init__(
        self,
        env: Env,
        dispatcher: Dispatcher,
        *,
        request_bytes_max: int,
        connections_max: int,
        connections_per_ip_max: int,
        connection_idle_ms_max: int,
    ) -> None:
        self._env = env
        self._connections_max = connections_max
        self._connections_per_ip_max = connections_per_ip_max
        self._connection_idle_ms_max = connection_idle_ms_max
        self.connections: dict[int, Connection] = {}
        self.idle_since_ms = env.clock.mono_ms()
        """When the last connection left, or when the server was made; means nothing while there are connections."""
        self._per_ip: dict[str, int] = {}
        self._accepted = 0
        self._listeners: list[asyncio.Server] = []
        self._started = False
        self._scope = Scope("server")
        self._drained = asyncio.Event()
        self.shared = Shared(dispatcher, request_bytes_max, self._admit, self._forget, env.clock.mono_ms())

    async def listen(self, listener: str, host: str, port: int) -> int:
        """Bind one listener; port 0 picks a free one. Returns the port. Who connects before `start` is disconnected.

        It listens from here on: a port that is only bound can be bound by another process as well, and uvloop does not
        tell who of the two then listens in vain.
        Raises EnvironmentFailure when the address cannot be had, saying what to do about it.
        """
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: self._connect(listener),
                host,
                port,
                backlog=limits.LISTEN_BACKLOG,
                reuse_address=True,
            )
        except OSError as error:
            raise EnvironmentFailure(_explain_listen(host, port, error)) from error
        self._listeners.append(server)
        bound = server.sockets[0].getsockname()[1]
        assert isinstance(bound, int), "listeners are TCP sockets"
        return bound

    async def start(self) -> None:
        """Begin to accept."""
        self._started = True
        self._scope.spawn("sweep", self._sweep_forever())

    async def close(self) -> None:
        """Stop accepting; let appends under way be acknowledged, for SHUTDOWN_GRACE_MS at most; then disconnect."""
        self._started = False  # who is being accepted just now finds nobody
        self._stop_accepting()
        await asyncio.sleep(ACCEPT_GRACE_S)
        for listener in self._listeners:
            listener.close()
        await self._scope.close()
        for connection in list(self.connections.values()):
            connection.close() if connection.is_producing else connection.abandon()
        if self.connections:
            try:
                async with asyncio.timeout(limits.SHUTDOWN_GRACE_MS / 1000):
                    await self._drained.wait()
            except TimeoutError:
                for connection in list(self.connections.values()):
                    connection.abort()

    def _stop_accepting(self) -> None:
        """Leave asyncio's own loop time to finish what it is accepting: when a listener is closed between accepting and
        making the transport, it drops both without closing them, and the peer waits."""
        loop = asyncio.get_running_loop()
        if type(loop).__module__.startswith("asyncio."):
            for listener in self._listeners:
                for socket in listener.sockets:
                    loop.remove_reader(socket.fileno())

    # -- coming and going -------------------------------------------------------------------------------------

    def _connect(self, listener: str) -> asyncio.BaseProtocol:
        if not self._started:
            return _TooEarly()
        self._accepted += 1
        return Connection(self.shared, self._accepted, listener)

    def _admit(self, connection: Connection) -> str | None:
        host = connection.peer_host
        mine = self._per_ip.get(host, 0)
        self._per_ip[host] = mine + 1
        self.connections[connection.number] = connection
        if not self._started:
            return "this node is being stopped"
        if len(self.connections) > self._connections_max:
            return f"max.connections is {self._connections_max}"
        if mine >= self._connections_per_ip_max:
            return f"max.connections.per.ip is {self._connections_per_ip_max}"
        return None

    def _forget(self, connection: Connection) -> None:
        if self.connections.pop(connection.number, None) is None:
            return
        left = self._per_ip[connection.peer_host] - 1
        if left:
            self._per_ip[connection.peer_host] = left
        else:
            del self._per_ip[connection.peer_host]
        if not self.connections:
            self.idle_since_ms = self._env.clock.mono_ms()
            self._drained.set()

    # -- the sweep --------------------------------------------------------------------------------------------

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(limits.SWEEP_MS / 1000)
            self.sweep(self._env.clock.mono_ms())

    def sweep(self, now_ms: int) -> None:
        """Hold every connection to its deadlines, as of `now_ms`."""
        self.shared.tick_ms = now_ms
        unwritten_bytes = 0
        for connection in list(self.connections.values()):
            unwritten_bytes += connection.unwritten_bytes
            if connection.is_too_slow(now_ms):
                connection.reject(RemoteProtocolError("a frame was begun and not continued in time"))
            elif connection.is_idle(now_ms, self._connection_idle_ms_max):
                log.debug("idle connection closed peer=%s", connection.peer_host)
                connection.close()
            else:
                connection.release_idle_buffer(now_ms)
        if self.shared.starved:
            self._feed(now_ms)
        if unwritten_bytes > limits.WRITE_MEMORY_BYTES_MAX:
            self._drop_non_readers(now_ms, unwritten_bytes)

    def _feed(self, now_ms: int) -> None:
        """Give free memory to the connection that waits longest, and see to it that one of them gets on.

        When peers hold all memory, first those go that stopped sending, then those that came to wait last.
        """
        stalled = [c for c in self.connections.values() if c.is_stalled(now_ms)]
        stalled.sort(key=lambda c: c.held_bytes)
        while self.shared.starved:
            first = next(iter(self.shared.starved.values()))
            if first.feed():
                continue
            victim = stalled.pop() if stalled else next(reversed(self.shared.starved.values()))
            if victim is first and len(self.shared.starved) == 1 and not stalled:
                return  # those that hold the memory are sending: wait for them
            log.warning("connection closed peer=%s: no memory for the frame it began", victim.peer_host)
            victim.abort()
            victim.release()

    def _drop_non_readers(self, now_ms: int, unwritten_bytes: int) -> None:
        waiting = [c for c in self.connections.values() if c.write_stalled_ms(now_ms) >= limits.WRITE_STALL_MS_MAX]
        waiting.sort(key=lambda c: c.unwritten_bytes)
        while waiting and unwritten_bytes > limits.WRITE_MEMORY_BYTES_MAX:
            victim = waiting.pop()
            unwritten_bytes -= victim.unwritten_bytes
            log.warning("connection closed peer=%s: it does not read its responses", victim.peer_host)
            victim.abort()


class _TooEarly(asyncio.Protocol):
    """A connection to a broker that is not ready: as if nobody listened."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _explain_listen(host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use by another process; stop it, or choose another port with --listen"
    if error.errno == errno.EACCES:
        return f"{where}: permission denied; ports below 1024 need privileges, choose another with --listen"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: this machine has no such address; --listen takes one of its own, or 0.0.0.0 for all"
    return f"cannot listen on {where}: {error.strerror or error}"
