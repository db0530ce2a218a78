"""The simulated loop and transport call back as asyncio's own do, program by program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from streamlog.env import Env
from streamlog.testing.simulator.network import NetworkKnobs
from streamlog.testing.simulator.world import World

Log: TypeAlias = dict[str, list[str]]
"""What each side saw, in order. The sides are compared one by one: nothing orders them against each other."""

Program: TypeAlias = Callable[[Log], Awaitable[None]]

MEGABYTE = 1 << 20


class Recorder(asyncio.Protocol):
    """Writes down its callbacks; bytes that arrive in a row count as one event."""

    def __init__(self, log: Log, side: str) -> None:
        self.events = log.setdefault(side, [])
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0
        self.keeps_open = False
        self.transport: asyncio.Transport = NO_TRANSPORT
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_made: Callable[[], None] = lambda: None
        self.on_eof: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.events.append("made")
        self.made.set_result(None)
        self.on_made()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.events[-1].startswith("data"):
            self.events.pop()
        self.events.append(f"data {self.received}")
        self.on_data(data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.on_eof()
        return self.keeps_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        kind = "OSError" if isinstance(exc, OSError) else type(exc).__name__
        self.events.append(f"lost {kind}")
        self.lost.set_result(None)


NO_TRANSPORT = asyncio.Transport()


async def connected(
    log: Log, prepare: Callable[[Recorder, Recorder], None] = lambda client, server: None
) -> tuple[Recorder, Recorder, asyncio.Server]:
    """A client and a server that are connected."""
    loop = asyncio.get_running_loop()
    client, server = Recorder(log, "client"), Recorder(log, "server")
    prepare(client, server)
    listener = await loop.create_server(lambda: server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    await loop.create_connection(lambda: client, "127.0.0.1", port)
    await server.made
    return client, server, listener


async def echo(log: Log) -> None:
    client, server, listener = await connected(log)
    enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    server.on_data = server.transport.write
    client.on_data = lambda data: enough.set_result(None) if client.received == 5 else None
    client.transport.write(b"hello")
    await enough
    client.transport.close()
    await client.lost
    await server.lost
    listener.close()


async def half_close(log: Log) -> None:
    def prepare(client: Recorder, server: Recorder) -> None:
        server.keeps_open = True
        server.on_eof = lambda: answer(server)

    def answer(server: Recorder) -> None:
        server.transport.write(b"all of it")
        server.transport.close()

    client, server, listener = await connected(log, prepare)
    client.transport.write(b"question")
    client.transport.write_eof()
    await client.lost
    await server.lost
    listener.close()


async def abort(log: Log) -> None:
    client, server, listener = await connected(log)
    client.transport.abort()
    log["client"].append(f"closing {client.transport.is_closing()}")
    await client.lost
    await server.lost
    listener.close()


async def close_sends_what_is_buffered(log: Log) -> None:
    client, server, listener = await connected(log)
    client.transport.write(bytes(8 * MEGABYTE))
    client.transport.close()
    log["client"].append("closed")
    await client.lost
    await server.lost
    listener.close()


async def data_before_the_end(log: Log) -> None:
    client, server, listener = await connected(log)
    server.transport.write(b"last words")
    server.transport.close()
    await client.lost
    await server.lost
    listener.close()


async def back_pressure(log: Log) -> None:
    client, server, listener = await connected(log)
    enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    server.on_data = lambda data: enough.set_result(None) if server.received == 32 * MEGABYTE else None
    server.transport.pause_reading()
    log["server"].append(f"reading {server.transport.is_reading()}")
    client.transport.set_write_buffer_limits(high=MEGABYTE, low=1000)
    client.transport.write(bytes(32 * MEGABYTE))
    await asyncio.sleep(0.05)
    server.transport.resume_reading()
    await enough
    log["client"].append(f"buffered {client.transport.get_write_buffer_size()}")
    client.transport.close()
    await client.lost
    await server.lost
    listener.close()


async def refused(log: Log) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Recorder(log, "server"), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    try:
        await loop.create_connection(lambda: Recorder(log, "client"), "127.0.0.1", port)
    except ConnectionRefusedError:
        log["result"] = ["refused"]


async def port_taken(log: Log) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Recorder(log, "server"), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        await loop.create_server(lambda: Recorder(log, "server"), "127.0.0.1", port)
    except OSError as error:
        log["result"] = [f"errno {error.errno}"]
    listener.close()


async def protocol_raises(log: Log) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: log.setdefault("loop", []).append(repr(context["exception"])))
    client, server, listener = await connected(log)

    def stumble(data: bytes) -> None:
        raise ValueError("no")

    server.on_data = stumble
    client.transport.write(b"x")
    await server.lost
    await client.lost
    listener.close()


async def close_in_connection_made(log: Log) -> None:
    def prepare(client: Recorder, server: Recorder) -> None:
        server.on_made = lambda: close(server)

    def close(server: Recorder) -> None:
        server.transport.write(b"go away")
        server.transport.close()
        server.events.append("closed")

    client, server, listener = await connected(log, prepare)
    await client.lost
    await server.lost
    listener.close()


async def close_in_data_received(log: Log) -> None:
    client, server, listener = await connected(log)

    def answer(data: bytes) -> None:
        server.transport.write(b"enough")
        server.transport.close()
        server.transport.write(b" and more")  # still goes out: closing sends what is written
        server.events.append("closed")

    server.on_data = answer
    client.transport.write(b"x")
    await client.lost
    await server.lost
    listener.close()


async def write_to_who_left(log: Log) -> None:
    client, server, listener = await connected(log)
    client.keeps_open = True
    server.transport.abort()
    await server.lost
    while "eof" not in client.events:
        await asyncio.sleep(0.001)
    client.transport.write(b"hello?")
    await asyncio.sleep(0.02)
    client.transport.write(b"hello?")
    await client.lost
    listener.close()


async def unread_bytes_make_a_reset(log: Log) -> None:
    client, server, listener = await connected(log)
    server.transport.pause_reading()
    client.transport.write(b"never read")
    await asyncio.sleep(0.02)
    server.transport.abort()
    await server.lost
    await client.lost
    listener.close()


class Buffered(asyncio.BufferedProtocol):
    """Receives into five bytes at a time."""

    def __init__(self, log: Log) -> None:
        self.events = log.setdefault("buffered", [])
        self.buffer = bytearray(5)
        self.received = b""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += bytes(self.buffer[:nbytes])

    def eof_received(self) -> bool:
        self.events.append(f"eof after {self.received.decode()}")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {type(exc).__name__}")
        self.lost.set_result(None)


async def buffered_protocol(log: Log) -> None:
    loop = asyncio.get_running_loop()
    buffered = Buffered(log)
    listener = await loop.create_server(lambda: buffered, "127.0.0.1", 0)
    client = Recorder(log, "client")
    await loop.create_connection(lambda: client, "127.0.0.1", listener.sockets[0].getsockname()[1])
    client.transport.write(b"twelve bytes")
    client.transport.close()
    await buffered.lost
    await client.lost
    listener.close()


async def streams(log: Log) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(line.upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        done.set_result(None)

    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.sockets[0].getsockname()[1])
    writer.write(b"hello\n")
    log["client"] = [repr(await reader.read())]
    writer.close()
    await writer.wait_closed()
    await done
    listener.close()


async def order_of_callbacks(log: Log) -> None:
    loop = asyncio.get_running_loop()
    seen = log.setdefault("order", [])
    now = loop.time()
    loop.call_at(now + 0.01, seen.append, "a")
    loop.call_at(now + 0.005, seen.append, "earlier")
    loop.call_at(now + 0.008, seen.append, "cancelled").cancel()
    loop.call_soon(seen.append, "soon 1")
    loop.call_soon(loop.call_soon, seen.append, "soon 3")
    loop.call_soon(seen.append, "soon 2")
    loop.call_soon(seen.append, "never").cancel()
    await asyncio.sleep(0.02)


async def tasks_and_timeouts(log: Log) -> None:
    seen = log.setdefault("order", [])

    async def work(name: str, turns: int) -> None:
        try:
            for turn in range(turns):
                seen.append(f"{name} {turn}")
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append(f"{name} cancelled")
            raise

    async with asyncio.TaskGroup() as group:
        group.create_task(work("a", 2))
        group.create_task(work("b", 3))
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        seen.append("timeout")
    task = asyncio.get_running_loop().create_task(work("c", 1000))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


PROGRAMS: list[Program] = [
    echo,
    half_close,
    abort,
    close_sends_what_is_buffered,
    data_before_the_end,
    back_pressure,
    refused,
    port_taken,
    protocol_raises,
    close_in_connection_made,
    close_in_data_received,
    write_to_who_left,
    unread_bytes_make_a_reset,
    buffered_protocol,
    streams,
    order_of_callbacks,
    tasks_and_timeouts,
]


def on_the_stock_loop(program: Program) -> Log:
    log: Log = {}

    async def main() -> None:
        await program(log)

    asyncio.run(main())
    return log


def on_the_simulated_loop(program: Program, seed: int) -> Log:
    log: Log = {}
    world = World(seed, network=NetworkKnobs(window_bytes=4 * MEGABYTE))
    machine = world.machine("one")

    async def main(env: Env) -> None:
        if "raises" in program.__name__:
            world.loop.on_error = lambda owner, context: log.setdefault("loop", []).append(repr(context["exception"]))
        await program(log)

    async def scenario() -> None:
        process = machine.start(main)
        await process.ended
        if process.error is not None:
            raise process.error

    world.run(scenario())
    return log


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.__name__))
def test_simulated_loop_calls_back_as_the_stock_loop_does(program: Program) -> None:
    """Each side of each program sees the same callbacks in the same order, whatever the seed."""
    expected = on_the_stock_loop(program)
    for seed in range(5):
        assert on_the_simulated_loop(program, seed) == expected
