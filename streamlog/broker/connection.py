"""One client connection: bytes in, frames, answers in order, bytes out.

A frame is `size i32 | request`. The connection slices frames out of the buffer they were received into, hands each
to the dispatcher and writes the answers in the order of the requests. What makes it fast: every request in one socket
read is answered in one go and leaves in one write; record batches are never copied on the way out; no task, queue
or future exists unless a handler has to wait.

Memory. Connections without a half-received frame share the server's scratch buffer. What is left over after the last
whole frame moves to a buffer of the connection's own, which grows by doubling as bytes arrive and never because a peer
announced a size. All of them together stay under a budget (`ReadMemory`): past it a frame waits for room.

Order. Kafka handles one request of a connection at a time, and so do we, with one exception: while Produce requests
wait for the disk, further Produce requests are appended behind them, in order, so that one fdatasync
acknowledges all of them. Any other request waits until those before it are answered. Answers always leave in order.

While a request waits, or the peer does not read its answers, bytes pile up in the connection's buffer until
it is full; then the socket is not read any more, and TCP tells the peer.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias, cast

from streamlog.broker import limits
from streamlog.env import Buffer
from streamlog.errors import RemoteProtocolError

log = logging.getLogger(__name__)

_FRAME_SIZE = struct.Struct(">i")

GATHERS_SINCE = sys.version_info >= (3, 12)
"""asyncio's own transports join the parts of `writelines` before this; uvloop's never do."""

Parts: TypeAlias = list[Buffer]


class Completion(Protocol):
    """What a connection needs of a future, whatever its result is."""

    def cancel(self) -> bool: ...

    def cancelled(self) -> bool: ...

    def add_done_callback(self, callback: Callable[[object], object], /) -> None: ...


@dataclass(slots=True)
class Waiting:
    """An answer that is not there yet. Not changed after, and not frozen: that would triple what making one costs."""

    done: Completion
    """Completes when the answer can be given. Cancelled when the peer goes away."""
    finish: Callable[[], Parts | None]
    """Called once after that. Raises RemoteProtocolError when the connection is to be closed instead."""
    exclusive: bool = False
    """Not even a Produce may be handled before it is there."""


Answer: TypeAlias = Parts | Waiting | None
"""What a request gets: the response's parts, those parts later, or nothing at all (acks=0)."""


class Dispatcher(Protocol):
    def serve(self, connection: Connection, frame: memoryview) -> Answer:
        """Answer one request. `frame` is the caller's buffer: valid, and writable, until this returns.

        Raises RemoteProtocolError when the bytes are not a request.
        """
        ...


@dataclass(slots=True)
class Shared:
    """What all connections of one server share."""

    dispatcher: Dispatcher
    request_bytes_max: int
    admit: Callable[[Connection], str | None]
    """Called with each new connection: None, or why it may not stay."""
    forget: Callable[[Connection], None]
    tick_ms: int
    """Monotonic time of the last sweep."""
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(limits.READ_SCRATCH_BYTES)))
    held_bytes: int = 0
    """Bytes in buffers of half-received frames, of all connections together."""
    starved: dict[int, Connection] = field(default_factory=dict)
    """Connections whose frame finds no memory to grow, by number, longest waiting first. None of them is reading."""
    rejected: int = 0
    """Connections closed because their bytes were not the protocol."""


class _Slot:
    """The place of one answer that is not there yet, in the order of requests."""

    __slots__ = ("done", "parts", "waiting")

    def __init__(self, waiting: Waiting | None, parts: Parts | None) -> None:
        self.waiting = waiting
        self.done = waiting is None
        self.parts = parts


class Connection(asyncio.BufferedProtocol):
    """See the module's essay. `number` is unique within the server and grows with time."""

    def __init__(self, shared: Shared, number: int, listener: str) -> None:
        self.shared = shared
        self.number = number
        self.listener = listener
        self.peer_host = ""
        self.closed = False
        self.software_name = self.software_version = ""  # what the client says it is (KIP-511)
        self.transactions_refused = False  # said so in the log once
        self.when_lost: dict[str, Callable[[], None]] = {}
        """Called once when the connection has ended, whoever ended it. The key is for who wants to take one back."""
        self.active_at_ms = shared.tick_ms
        """Tick of the last bytes in or the last answer out: what idleness is counted from."""
        self._transport: asyncio.Transport | None = None
        # Bytes start:end of `_view` are received and not handled yet. `_view` is `_own` whenever control is with
        # the event loop, and may be the scratch buffer only while buffer_updated runs.
        self._own: bytearray | None = None
        self._view = shared.scratch
        self._start = 0
        self._end = 0
        self._scratch_prefix = 0  # bytes of our rest lying in front of the read that is under way; -1: it goes to _own
        self._need = 4  # size of the frame at `start` with its length field; 4 while that is unknown
        self._frame_started_ms: int | None = None  # when the half frame at `start` began; None without one
        self._slots: deque[_Slot] = deque()  # answers under way, in order; the first is never done
        self._produce_only = True  # every request in `_slots` is a Produce
        self._exclusive = False  # the last of them lets none overlap
        self._blocked = False  # a whole frame waits for the slots before it, or for the peer to read
        self._writes_gather = False  # the transport's writelines is one writev, and not a join
        self._out: Parts = []
        self._out_bytes = 0
        self._flush_scheduled = False
        self._reading = True
        self._write_paused = False
        self._unwritten_seen = 0  # what the write buffer held at the last look, and since when it holds that
        self._unwritten_at_ms = shared.tick_ms
        self._closing = False  # no further request is handled

    # -- transport callbacks ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but their base class.
        self._transport = cast(asyncio.Transport, transport)
        self._writes_gather = GATHERS_SINCE or type(transport).__module__.startswith("uvloop")
        peer = transport.get_extra_info("peername")
        self.peer_host = str(peer[0]) if isinstance(peer, tuple) else ""
        self._transport.set_write_buffer_limits(limits.WRITE_BUFFER_HIGH_BYTES, limits.WRITE_BUFFER_LOW_BYTES)
        refusal = self.shared.admit(self)
        if refusal is not None:
            log.warning("connection refused peer=%s: %s", self.peer_host, refusal)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self._closing = True
        for callback in self.when_lost.values():
            callback()
        self.when_lost.clear()
        self.shared.forget(self)
        self.shared.starved.pop(self.number, None)
        self._hold(None)
        self._forget_slots()
        self._out.clear()

    def eof_received(self) -> bool:
        return False  # a peer that stopped writing has left; Kafka closes here too

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._blocked:
            self._process()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._reads_into_scratch():
            # Nothing runs between this call and buffer_updated: the loop only receives.
            rest = self._end - self._start
            scratch = self.shared.scratch
            scratch[:rest] = self._view[self._start : self._end]
            self._scratch_prefix = rest
            return scratch[rest:]
        self._scratch_prefix = -1
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._scratch_prefix >= 0:
            self._view, self._start, self._end = self.shared.scratch, 0, self._scratch_prefix + nbytes
        else:
            self._end += nbytes
        self.active_at_ms = self.shared.tick_ms
        if self._closing:
            self._start = self._end
        else:
            self._process()

    # -- frames -----------------------------------------------------------------------------------------------

    def _process(self) -> None:
        """Answer every whole frame that may be answered now, then write once."""
        view, start, end = self._view, self._start, self._end
        serve, size_max = self.shared.dispatcher.serve, self.shared.request_bytes_max
        blocked = False
        need = 4
        try:
            while end - start >= 4 and not self._closing:
                (size,) = _FRAME_SIZE.unpack_from(view, start)
                if not 0 <= size <= size_max:
                    raise RemoteProtocolError(_refuse_size(size, size_max))
                need = 4 + size
                if end - start < need:
                    break
                body = start + 4
                # The first two bytes are the API key, and Produce is 0.
                is_produce = size >= 2 and view[body] == 0 == view[body + 1]
                if self._write_paused or (self._slots and not self._may_overlap(is_produce)):
                    blocked = True
                    break
                start += need
                need = 4
                self._frame_started_ms = None
                self._accept(serve(self, view[body:start]), is_produce)
                if self._out_bytes >= limits.WRITE_BUFFER_HIGH_BYTES:
                    self.flush()
        except RemoteProtocolError as error:
            self._start = start
            self.reject(error)
            return
        self._start, self._need, self._blocked = start, need, blocked
        if self._out:
            self.flush()
        if not self._closing:
            self._keep_rest()

    def _may_overlap(self, is_produce: bool) -> bool:
        return (
            is_produce
            and self._produce_only
            and not self._exclusive
            and len(self._slots) < limits.OVERLAPPED_REQUESTS_MAX
        )

    def _accept(self, answer: Answer, is_produce: bool) -> None:
        if isinstance(answer, list):
            if self._slots:
                self._slots.append(_Slot(None, answer))
            else:
                self._send(answer)
        elif answer is not None:
            self._produce_only, self._exclusive = is_produce, answer.exclusive
            slot = _Slot(answer, None)
            self._slots.append(slot)
            answer.done.add_done_callback(partial(self._on_done, slot, answer))

    def _on_done(self, slot: _Slot, waiting: Waiting, done: object) -> None:
        if slot.done:
            return  # forgotten meanwhile
        if waiting.done.cancelled():
            self.abort()  # whoever was to answer has stopped
            return
        try:
            slot.parts = waiting.finish()
        except RemoteProtocolError as error:
            self.reject(error)
        slot.done = True
        slots = self._slots
        while slots and slots[0].done:
            parts = slots.popleft().parts
            if parts is not None:
                self._send(parts)
        if not self._flush_scheduled:
            # Answers that one fdatasync made ready arrive as callbacks in a row: they leave together after the last.
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._on_answers)

    def _forget_slots(self) -> None:
        slots = list(self._slots)
        self._slots.clear()
        for slot in slots:
            slot.done = True
            if slot.waiting is not None:
                slot.waiting.done.cancel()

    def _on_answers(self) -> None:
        self._flush_scheduled = False
        if self.closed:
            return
        self.active_at_ms = self.shared.tick_ms
        self.flush()
        if self._closing:
            self.close()
        elif self._blocked:
            self._process()

    # -- the read buffer --------------------------------------------------------------------------------------

    def _reads_into_scratch(self) -> bool:
        """Whether the next read goes to the scratch buffer, behind a copy of our rest."""
        own = self._own
        return own is None or (
            len(own) <= limits.READ_BUFFER_BYTES_MIN
            and self._end - self._start <= limits.READ_REST_BYTES_MAX
            and self._need <= limits.READ_SCRATCH_BYTES
        )

    def _keep_rest(self) -> None:
        """Keep the bytes that no handled frame covers, and see to it that the next read has room."""
        rest = self._end - self._start
        if rest == 0:
            self._start = self._end = 0
            own_bytes = self.held_bytes
            if 0 < own_bytes <= limits.READ_BUFFER_BYTES_MIN or own_bytes > limits.READ_BUFFER_RETAINED_BYTES_MAX:
                self._hold(None)
            self._set_reading(True)
            return
        if self._frame_started_ms is None:
            self._frame_started_ms = self.shared.tick_ms
        if self._view is self.shared.scratch:
            small = rest <= limits.READ_REST_BYTES_MAX and self._need <= limits.READ_SCRATCH_BYTES
            self._hold(rest if small else max(rest, limits.READ_BUFFER_BYTES_MIN))
        self._make_room()

    def _make_room(self) -> None:
        """Slide or grow until the next read has room, or stop reading."""
        rest, capacity = self._end - self._start, self.held_bytes
        if self._blocked:
            wanted = max(capacity, limits.READ_BUFFER_BYTES_MIN)
            if rest == wanted:
                self._set_reading(False)  # read far enough ahead
                return
        elif rest < capacity:
            wanted = capacity
        else:
            wanted = max(limits.READ_BUFFER_BYTES_MIN, min(self._need, 2 * capacity))
        if self._end == capacity and not self._reads_into_scratch():
            if wanted > capacity and self.shared.held_bytes + wanted - capacity > limits.READ_MEMORY_BYTES_MAX:
                self.shared.starved.setdefault(self.number, self)
                self._set_reading(False)
                return
            self._hold(wanted)
        self._set_reading(True)

    def feed(self) -> bool:
        """Called on a starved connection when memory may be free again. False: still not enough for it."""
        self._frame_started_ms = self.shared.tick_ms  # the wait was ours, not the peer's
        self._make_room()
        return self._reading

    def _hold(self, capacity: int | None) -> None:
        """Move the rest to the front of a buffer of `capacity` bytes, or give the buffer back."""
        before = self.held_bytes
        if capacity is None:
            self._own, self._view, self._start, self._end = None, self.shared.scratch, 0, 0
        else:
            own = self._own if self._own is not None and capacity == before else bytearray(capacity)
            rest = self._view[self._start : self._end]
            view = memoryview(own)
            view[: len(rest)] = rest  # a memoryview may be assigned to what it overlaps
            self._own, self._view, self._start, self._end = own, view, 0, len(rest)
        self.shared.held_bytes += (capacity or 0) - before

    def _set_reading(self, reading: bool) -> None:
        if reading and self.shared.starved:
            self.shared.starved.pop(self.number, None)
        if reading != self._reading and self._transport is not None and not self._closing:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # -- writing ----------------------------------------------------------------------------------------------

    def _send(self, parts: Parts) -> None:
        self._out += parts
        for part in parts:
            self._out_bytes += len(part)

    def flush(self) -> None:
        """Hand all answers that are ready to the transport, small parts joined, large ones as they are."""
        out, transport = self._out, self._transport
        if not out or transport is None:
            return
        self._out, out_bytes, self._out_bytes = [], self._out_bytes, 0
        if len(out) == 1:
            transport.write(out[0])
            return
        if out_bytes <= limits.WRITE_JOIN_BYTES_MAX:
            transport.write(b"".join(out))
            return
        gathered: Parts = []
        small: Parts = []
        for part in out:
            if len(part) <= limits.WRITE_JOIN_BYTES_MAX:
                small.append(part)
                continue
            if small:
                gathered.append(b"".join(small))
                small = []
            gathered.append(part)
        if small:
            gathered.append(b"".join(small))
        if self._writes_gather:
            transport.writelines(gathered)
        else:
            for part in gathered:
                transport.write(part)

    # -- what the server's sweep and shutdown ask -------------------------------------------------------------

    def reject(self, error: RemoteProtocolError) -> None:
        """Close because of what the peer sent. The requests before it are answered first."""
        self.shared.rejected += 1
        log.info("connection closed peer=%s: %s", self.peer_host, error)
        self.close()

    def close(self) -> None:
        """Handle no further request, answer those under way, then close. Idempotent."""
        self._set_reading(False)
        self._closing = True
        if not self._slots and self._transport is not None:
            self.flush()
            self._transport.close()

    def abandon(self) -> None:
        """Write what is ready, forget the requests that wait, then close."""
        self._forget_slots()
        self.close()

    def abort(self) -> None:
        """Close at once; what is not written is lost."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_producing(self) -> bool:
        """Whether appended records wait to be acknowledged."""
        return bool(self._slots) and self._produce_only

    @property
    def unwritten_bytes(self) -> int:
        """Response bytes the peer has not read. Looking also notes whether it read since the last look."""
        if self._transport is None or self.closed:
            return 0
        unwritten = self._transport.get_write_buffer_size()
        if unwritten != self._unwritten_seen:
            self._unwritten_seen = unwritten
            self._unwritten_at_ms = self.shared.tick_ms
        return unwritten

    def write_stalled_ms(self, now_ms: int) -> int:
        """How long the peer has read nothing of what lies ready for it."""
        return now_ms - self._unwritten_at_ms if self.unwritten_bytes else 0

    @property
    def held_bytes(self) -> int:
        return 0 if self._own is None else len(self._own)

    def is_too_slow(self, now_ms: int) -> bool:
        """Whether the peer began a frame and does not get on with it."""
        if self._frame_started_ms is None or self._blocked or not self._reading:
            return False
        over_ms = now_ms - self._frame_started_ms - limits.FRAME_START_MS_MAX
        return over_ms > 0 and (self._end - self._start) * 1000 < over_ms * limits.FRAME_BYTES_PER_SECOND_MIN

    def is_stalled(self, now_ms: int) -> bool:
        """Whether the peer began a frame of some size and has sent nothing lately, through no fault of ours."""
        return (
            self._frame_started_ms is not None
            and self._reading
            and not self._blocked
            and now_ms - self.active_at_ms > limits.SWEEP_MS
        )

    def is_idle(self, now_ms: int, idle_ms_max: int) -> bool:
        return now_ms - self.active_at_ms > idle_ms_max and not self._slots

    def release(self) -> None:
        """Give the read buffer back ahead of `connection_lost`, which comes with the loop's next turn."""
        self.shared.starved.pop(self.number, None)
        self._hold(None)

    def release_idle_buffer(self, now_ms: int) -> None:
        """Give the retained buffer back when nothing came for a while."""
        if self._own is not None and self._start == self._end and now_ms - self.active_at_ms > limits.SWEEP_MS:
            self._hold(None)


def _refuse_size(size: int, size_max: int) -> str:
    """Say what a frame size that cannot be a request's more probably is."""
    head = size.to_bytes(4, "big", signed=True)
    if head in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI"):
        return "this is an HTTP request; the port speaks the Kafka protocol"
    if head[:2] == b"\x16\x03":
        return "this is a TLS handshake; the listener is PLAINTEXT (check security.protocol of the client)"
    if size < 0:
        return f"negative frame size {size}"
    return f"frame of {size} bytes; socket.request.max.bytes is {size_max}"
