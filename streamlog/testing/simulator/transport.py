"""The transport of a simulated connection: what asyncio's selector transport does, callback for callback.

`tests/sim/test_loop_conformance.py` runs the same programs on both and compares what they see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Protocol

READ_BYTES_MAX = 256 * 1024
"""What asyncio asks a socket for at a time."""

WRITE_BUFFER_HIGH_BYTES = 64 * 1024
"""asyncio's default."""


class Socket(Protocol):
    """A connected socket that never blocks (`network.Endpoint`)."""

    local: tuple[str, int]
    remote: tuple[str, int]
    received: bytearray
    received_end: bool
    error: OSError | None
    on_change: Callable[[], None] | None

    @property
    def is_readable(self) -> bool: ...

    @property
    def room(self) -> int: ...

    def send(self, data: memoryview) -> int: ...

    def consume(self, into: memoryview) -> int: ...

    def shut(self) -> None: ...

    def close(self) -> None: ...


class SimTransport(asyncio.Transport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Socket,
        protocol: asyncio.BaseProtocol,
        context: Context,
        ready: asyncio.Future[None] | None = None,
    ) -> None:
        """`context`: whose callbacks these are. `ready` is done once `connection_made` was called."""
        super().__init__({"peername": socket.remote, "sockname": socket.local})
        self._loop = loop
        self._socket = socket
        self._protocol = protocol
        self._context = context
        self._unsent = bytearray()
        self._closing = False
        self._lost = False  # connection_lost is called, or about to be
        self._connected = True  # the protocol is to be told about the end
        self._eof = False  # send no more once `_unsent` is sent
        self._paused = False  # by us
        self._reading = False  # between connection_made and the end of reading
        self._turn_taken = False  # a read or a write is scheduled
        self._protocol_paused = False
        self.set_write_buffer_limits()
        loop.call_soon(protocol.connection_made, self, context=context)
        loop.call_soon(self._begin, context=context)
        if ready is not None:
            loop.call_soon(_set_ready, ready, context=context)

    def _begin(self) -> None:
        self._socket.on_change = self._on_change
        if not self._closing:
            self._reading = True
        self._on_change()

    # -- events of the socket ---------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """May be called by anybody; the work is done in a turn of ours."""
        if not self._turn_taken and (self._can_read() or self._can_write()):
            self._turn_taken = True
            self._loop.call_soon(self._turn, context=self._context)

    def _can_read(self) -> bool:
        return self._reading and not self._paused and not self._lost and self._socket.is_readable

    def _can_write(self) -> bool:
        return bool(self._unsent) and not self._lost and (self._socket.room > 0 or self._socket.error is not None)

    def _turn(self) -> None:
        self._turn_taken = False
        if self._can_read():
            self._read()
        if self._can_write():
            self._write()
        self._on_change()

    def _read(self) -> None:
        socket = self._socket
        if socket.error is not None:
            self._fail(socket.error)
        elif socket.received:
            self._read_bytes()
        else:
            self._read_end()

    def _read_bytes(self) -> None:
        protocol = self._protocol
        try:
            if isinstance(protocol, asyncio.BufferedProtocol):
                buffer = memoryview(protocol.get_buffer(-1))
                if not buffer:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                count = self._socket.consume(buffer)
                protocol.buffer_updated(count)
            else:
                assert isinstance(protocol, asyncio.Protocol), "a stream has a stream's protocol"
                data = bytearray(min(len(self._socket.received), READ_BYTES_MAX))
                self._socket.consume(memoryview(data))
                protocol.data_received(bytes(data))
        except Exception as error:
            self._fail(error)

    def _read_end(self) -> None:
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol), "a stream has a stream's protocol"
        try:
            keep_open = protocol.eof_received()
        except Exception as error:
            self._fail(error)
            return
        if keep_open:
            self._reading = False
        else:
            self.close()

    def _write(self) -> None:
        try:
            sent = self._socket.send(memoryview(self._unsent))
        except OSError as error:
            self._fail(error)
            return
        del self._unsent[:sent]
        self._maybe_resume_protocol()
        if not self._unsent:
            if self._closing:
                self._end(None)
            elif self._eof:
                self._socket.shut()

    # -- the protocol's side ----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._lost:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(memoryview(data))
            except OSError as error:
                self._fail(error)
                return
            if sent == len(data):
                return
        self._unsent += memoryview(data)[sent:]
        self._maybe_pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._unsent:
            self._socket.shut()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._reading = False
        if not self._unsent and not self._lost:
            self._lost = True
            self._loop.call_soon(self._end, None, context=self._context)

    def abort(self) -> None:
        self._force_close(None)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        if not self._closing and self._paused:
            self._paused = False
            self._on_change()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    # -- flow control -----------------------------------------------------------------------------------------

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = WRITE_BUFFER_HIGH_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high_bytes, self._low_bytes = high, low

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low_bytes, self._high_bytes

    def _maybe_pause_protocol(self) -> None:
        if len(self._unsent) > self._high_bytes and not self._protocol_paused:
            self._protocol_paused = True
            self._tell(self._protocol.pause_writing, "protocol.pause_writing() failed")

    def _maybe_resume_protocol(self) -> None:
        if self._protocol_paused and len(self._unsent) <= self._low_bytes:
            self._protocol_paused = False
            self._tell(self._protocol.resume_writing, "protocol.resume_writing() failed")

    def _tell(self, callback: Callable[[], None], message: str) -> None:
        try:
            callback()
        except Exception as error:
            self._complain(error, message)

    # -- the end ----------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, OSError):
            self._complain(error, "Fatal error on transport")
        self._force_close(error)

    def _complain(self, error: Exception, message: str) -> None:
        context: dict[str, Any] = {"message": message, "exception": error, "transport": self}
        self._loop.call_exception_handler(context)

    def _force_close(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._unsent = bytearray()  # the error's traceback may still hold a view of the other one
        self._closing = self._lost = True
        self._reading = False
        self._loop.call_soon(self._end, error, context=self._context)

    def _end(self, error: Exception | None) -> None:
        self._lost = True
        if not self._connected:
            return
        self._connected = False
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()


def _set_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
