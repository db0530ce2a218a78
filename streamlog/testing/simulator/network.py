"""A network of machines: addresses, listeners, connections, links that are slow or cut, and what TCP makes of it.

A connection is two kernel sockets (`Endpoint`) with a direction each way. What is sent arrives once and in order, or
not at all: a link that is cut holds back what is under way, acknowledgements too, and lets it go some time after it is
healed, as retransmission would. A receiver that does not read fills its window, and then the sender's buffer.

The kernel outlives its process: after kill -9 what was sent still arrives, then the end of the stream, or a reset where
data lay unread. After a power cut nothing arrives any more; the peer finds out when it sends to a machine that is up
again and has never heard of the connection.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from random import Random
from typing import TypeAlias, cast

from streamlog.testing.simulator.loop import SimLoop
from streamlog.testing.simulator.owner import OWNER, Owner
from streamlog.testing.simulator.transport import SimTransport

SYN_TIMEOUT_NS = 127_000_000_000
"""How long Linux tries to connect to a machine that does not answer."""

EPHEMERAL_PORT_FIRST = 32_768

RETRANSMIT_NS_MAX = 1_000_000_000
"""After a link is healed it takes up to this long until what it held back is sent again."""

Address: TypeAlias = tuple[str, int]


@dataclass(slots=True)
class NetworkKnobs:
    """How the network behaves when nothing is wrong with it."""

    latency_ns: int = 200_000
    jitter_ns: int = 200_000
    slow_one_in: int = 100
    """One segment in so many takes SLOW_FACTOR times as long."""
    window_bytes: int = 256 * 1024
    """What a connection holds between two programs, each way."""
    segment_bytes: int = 64 * 1024
    split_one_in: int = 8
    """One write in so many arrives in two pieces, cut anywhere."""


SLOW_FACTOR = 20


class Endpoint:
    """One end of a connection, as the kernel keeps it."""

    __slots__ = (
        "_arriving_ns",
        "error",
        "held",
        "is_gone",
        "is_open",
        "is_shut",
        "local",
        "name",
        "network",
        "on_change",
        "peer",
        "received",
        "received_end",
        "remote",
        "unconsumed_bytes",
    )

    def __init__(self, network: SimNetwork, name: str, local: Address, remote: Address) -> None:
        self.network = network
        self.name = name  # of the connection, for the trace
        self.local = local
        self.remote = remote
        self.peer: Endpoint | None = None
        self.received = bytearray()  # arrived and not read
        self.received_end = False  # the peer sends no more
        self.error: OSError | None = None  # the connection is broken
        self.is_open = True  # a process holds it
        self.is_gone = False  # its machine lost power: it answers nothing, and later "never heard of it"
        self.is_shut = False  # the end of our direction is sent
        self.unconsumed_bytes = 0  # sent, and not known to be read by the peer
        self.on_change: Callable[[], None] | None = None  # something to read, or room to write
        self.held: deque[Callable[[], None]] = deque()  # arrivals at the peer that a cut link holds back
        self._arriving_ns = 0  # when the last of what we sent arrives

    # -- the process's side

    @property
    def is_readable(self) -> bool:
        return bool(self.received) or self.received_end or self.error is not None

    @property
    def is_sending(self) -> bool:
        """Whether something is still under way to the peer."""
        return bool(self.held) or self._arriving_ns >= self.network.loop.now_ns

    @property
    def room(self) -> int:
        """Bytes `send` would take now."""
        return max(self.network.knobs.window_bytes - self.unconsumed_bytes, 0)

    def send(self, data: memoryview) -> int:
        """Take as much as the window has room for. Raises OSError when the connection is broken."""
        if self.error is not None:
            raise self.error
        if self.is_shut:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        taken = min(len(data), self.room)
        self.unconsumed_bytes += taken
        for start, end in self.network.cut_up(taken):
            segment = bytes(data[start:end])
            self._post(lambda segment=segment: self._deliver(segment))  # type: ignore[misc]
        return taken

    def consume(self, into: memoryview) -> int:
        """Read what has arrived."""
        count = min(len(into), len(self.received))
        into[:count] = self.received[:count]
        del self.received[:count]
        peer = self.peer
        if peer is not None and count:
            self.network.post(self, lambda: peer._on_consumed(count))
        return count

    def shut(self) -> None:
        """Send no more: the peer will read the end of the stream."""
        if not self.is_shut and self.error is None:
            self.is_shut = True
            self._post(self._deliver_end)

    def close(self) -> None:
        """The process lets go, or has ended. Unread data make it a reset."""
        if not self.is_open:
            return
        self.is_open = False
        self.on_change = None
        if self.received:
            self.reset_peer()
        else:
            self.shut()

    def vanish(self) -> None:
        """The machine has lost power: nobody is told."""
        self.is_open, self.is_gone, self.on_change = False, True, None

    def reset_peer(self) -> None:
        if self.error is None:
            self.is_shut = True
            self._post(self._deliver_reset)

    def break_off(self) -> None:
        """Something between the two ends says it is over."""
        self._break(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    # -- the wire

    def _post(self, arrive: Callable[[], None]) -> None:
        """Have `arrive` called when what is sent now arrives at the peer, in order."""
        at_ns = max(self._arriving_ns, self.network.arrival_ns())
        self._arriving_ns = at_ns
        self.network.loop.at_ns(at_ns, self._arrive, arrive)

    def _arrive(self, arrive: Callable[[], None]) -> None:
        source, target = self.local[0], self.remote[0]
        is_up = self.network.is_up(source, target)
        if not is_up:
            self.network.on_held_back(source, target)
        if self.held or not is_up:
            self.held.append(arrive)
        else:
            arrive()

    def release(self) -> None:
        """The link is healed: what was held back sets out again."""
        held, self.held = self.held, deque()
        if self.is_gone:
            return
        self._arriving_ns = self.network.retransmit_ns()
        for arrive in held:
            self._post(arrive)

    def _deliver(self, segment: bytes) -> None:
        peer = self.peer
        assert peer is not None, "data follow the handshake"
        if not peer.is_open:
            peer._refuse(self)
        elif peer.error is None:
            self.network.note(f"{self.name} {self.local[1]}>{self.remote[1]} {len(segment)} B", segment)
            peer.received += segment
            peer._changed()

    def _deliver_end(self) -> None:
        peer = self.peer
        if peer is not None and peer.is_open:
            peer.received_end = True
            peer._changed()

    def _deliver_reset(self) -> None:
        if self.peer is not None:
            self.peer.break_off()

    def _refuse(self, sender: Endpoint) -> None:
        """Data came for a connection that no process holds. A machine that is down says nothing."""
        if self.network.is_powered(self.local[0]):
            self.network.post(self, sender.break_off)

    def _on_consumed(self, count: int) -> None:
        self.unconsumed_bytes -= count
        self._changed()

    def _break(self, error: OSError) -> None:
        if self.error is None and self.is_open:
            self.error = error
            self.received.clear()
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


class SimServer(asyncio.Server):
    """A listening socket of one incarnation."""

    def __init__(self, network: SimNetwork, address: Address, accept: Callable[[Endpoint], None], owner: Owner) -> None:
        # asyncio.Server's own state is that of real sockets.
        self.address = address
        self.accept = accept
        self.owner = owner
        self._network = network
        self._sockets = (_BoundSocket(address),)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return cast("tuple[socket.socket, ...]", self._sockets)

    def is_serving(self) -> bool:
        return self._network.listeners.get(self.address) is self

    def close(self) -> None:
        if self.is_serving():
            del self._network.listeners[self.address]

    async def wait_closed(self) -> None:
        return None


class _BoundSocket:
    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class SimNetwork:
    """All machines' sockets, and the links between them."""

    def __init__(self, loop: SimLoop, random: Random, knobs: NetworkKnobs | None = None) -> None:
        self.loop = loop
        self.knobs = knobs or NetworkKnobs()
        self.listeners: dict[Address, SimServer] = {}
        self.note: Callable[[str, bytes], None] = lambda text, segment: None
        """Told about each segment that arrives."""
        self._random = random
        self._hosts: dict[Owner, str] = {}
        self._down: dict[str, None] = {}  # machines without power
        self._cut: dict[tuple[str, str], int] = {}  # (from, to) -> how many faults cut it
        self._slow: dict[tuple[str, str], int] = {}
        self._endpoints: dict[Owner, list[Endpoint]] = {}
        self._orphans: list[Endpoint] = []  # their process is dead, and the kernel still delivers what it has
        self._next_port: dict[str, int] = {}
        self._connection_count = 0
        self.on_held_back: Callable[[str, str], None] = lambda source, target: None
        """Told of everything that a cut link carries: (from, to)."""
        loop.network = self

    # -- machines ---------------------------------------------------------------------------------------------

    def place(self, owner: Owner, host: str) -> None:
        """This incarnation runs on the machine at address `host`, which has power."""
        self._hosts[owner] = host
        self._endpoints[owner] = []
        self._down.pop(host, None)

    def leave(self, owner: Owner, *, power: bool) -> None:
        """The incarnation is dead: killed, or (`power`) its machine went dark."""
        host = self._hosts.pop(owner)
        for address, server in list(self.listeners.items()):
            if server.owner is owner:
                del self.listeners[address]
        if power:
            self._down[host] = None
        for endpoint in self._endpoints.pop(owner):
            if power:
                endpoint.vanish()
            elif endpoint.is_open:
                endpoint.close()
                self._orphans.append(endpoint)

    def is_powered(self, host: str) -> bool:
        return host not in self._down

    # -- links ------------------------------------------------------------------------------------------------

    def is_up(self, source: str, target: str) -> bool:
        return (source, target) not in self._cut

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target` any more. As many `heal`s as `cut`s undo it."""
        self._cut[source, target] = self._cut.get((source, target), 0) + 1

    def heal(self, source: str, target: str) -> None:
        left = self._cut.pop((source, target)) - 1
        if left:
            self._cut[source, target] = left
            return
        for endpoint in self.connections():
            if endpoint.local[0] == source and endpoint.remote[0] == target:
                endpoint.release()

    def connections(self) -> list[Endpoint]:
        """Both ends of every connection that some process may still hold, in the order they were made."""
        found: list[Endpoint] = []
        for endpoints in self._endpoints.values():
            endpoints[:] = [one for one in endpoints if one.is_open or one.is_sending]
            found += endpoints
        self._orphans = [one for one in self._orphans if one.is_sending]
        return found + self._orphans

    def reset(self, endpoint: Endpoint) -> None:
        """Break a connection in the middle: both ends hear of it."""
        endpoint.break_off()
        if endpoint.peer is not None:
            endpoint.peer.break_off()

    # -- time -------------------------------------------------------------------------------------------------

    def arrival_ns(self) -> int:
        """When something sent now arrives."""
        knobs, random = self.knobs, self._random
        delay_ns = knobs.latency_ns + int(random.random() * knobs.jitter_ns)
        if random.random() * knobs.slow_one_in < 1:
            delay_ns *= SLOW_FACTOR
        return self.loop.now_ns + delay_ns

    def retransmit_ns(self) -> int:
        return self.loop.now_ns + int(self._random.random() * RETRANSMIT_NS_MAX)

    def cut_up(self, size_bytes: int) -> list[tuple[int, int]]:
        """The segments that a write of so many bytes becomes, as (start, end)."""
        knobs = self.knobs
        cuts = [*range(0, size_bytes, knobs.segment_bytes), size_bytes]
        if size_bytes > 1 and self._random.random() * knobs.split_one_in < 1:
            cuts = sorted({*cuts, 1 + int(self._random.random() * (size_bytes - 1))})
        return list(itertools.pairwise(cuts))

    def post(self, sender: Endpoint, arrive: Callable[[], None]) -> None:
        """Something of the kernel's own, from `sender` to its peer: it takes its time, and a cut link holds it back."""
        sender._post(arrive)

    # -- connecting -------------------------------------------------------------------------------------------

    def listen(
        self, loop: SimLoop, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> asyncio.Server:
        owner = _owner()
        mine = self._hosts[owner]
        if host not in ("", "0.0.0.0", "::", "localhost", "127.0.0.1", mine):
            raise OSError(errno.EADDRNOTAVAIL, f"Cannot assign requested address {host}")
        address = (mine, port or self._take_port(mine))
        if address in self.listeners:
            raise OSError(errno.EADDRINUSE, f"Address already in use: {address}")
        context = copy_context()

        def accept(endpoint: Endpoint) -> None:
            SimTransport(loop, endpoint, factory(), context)

        server = SimServer(self, address, lambda endpoint: self._accept(context, accept, endpoint), owner)
        self.listeners[address] = server
        return server

    def _accept(self, context: Context, accept: Callable[[Endpoint], None], endpoint: Endpoint) -> None:
        self.loop.call_soon(accept, endpoint, context=context)

    async def connect(
        self, loop: SimLoop, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        owner = _owner()
        mine = self._hosts[owner]
        target = (mine if host in ("localhost", "127.0.0.1") else host, port)
        self._connection_count += 1
        endpoint = Endpoint(self, f"c{self._connection_count}", (mine, self._take_port(mine)), target)
        self._endpoints[owner].append(endpoint)
        established: asyncio.Future[None] = loop.create_future()
        context = copy_context()

        def settle(error: OSError | None) -> None:
            """Comes from the wire; the process hears of it in a turn of its own."""
            loop.call_soon(_settle, established, error, context=context)

        endpoint._post(lambda: self._on_syn(endpoint, settle))
        give_up = loop.at_ns(loop.now_ns + SYN_TIMEOUT_NS, settle, TimeoutError(errno.ETIMEDOUT, "timed out"))
        try:
            await established
        except BaseException:
            endpoint.close()
            raise
        finally:
            give_up.cancel()
        protocol = factory()
        ready: asyncio.Future[None] = loop.create_future()
        transport = SimTransport(loop, endpoint, protocol, context, ready)
        try:
            await ready
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def _on_syn(self, client: Endpoint, settle: Callable[[OSError | None], None]) -> None:
        host, port = client.remote
        if not self.is_powered(host):
            return
        server = self.listeners.get((host, port))
        end = Endpoint(self, client.name, client.remote, client.local)
        if server is None:
            end._post(lambda: settle(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")))
            return
        self._endpoints[server.owner].append(end)
        end.peer, client.peer = client, end
        if not client.is_open:
            end.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        end._post(lambda: settle(None))
        server.accept(end)

    def _take_port(self, host: str) -> int:
        port = self._next_port.get(host, EPHEMERAL_PORT_FIRST)
        self._next_port[host] = port + 1
        return port


def _owner() -> Owner:
    owner = OWNER.get()
    assert owner is not None, "only nodes have sockets"
    return owner


def _settle(established: asyncio.Future[None], error: OSError | None) -> None:
    if established.done():
        return
    if error is None:
        established.set_result(None)
    else:
        established.set_exception(error)
