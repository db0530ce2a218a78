"""One TCP connection to one broker: requests out in one write each, responses in order, decoded where they were read.

A broker answers the requests of a connection in order, so the unanswered ones form a queue and the correlation id
only has to agree with its head. Answers go to callbacks: the producer pays for no future and no task per request;
`request` wraps a future around one for everybody else.

Bytes are read into a buffer of our own. A frame that does not fit gets a buffer of its own size, which fetched record
batches keep alive as views after the frame is decoded, so large fetches are never copied; small frames share one
buffer and what must outlive them is copied out. A buffer is grown as bytes arrive, not as a peer announces them.

Whatever is not the protocol closes the connection and fails what waits on it; nothing else suffers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Generic, Protocol, TypeVar, cast

from streamlog.client.config import (
    RESPONSE_BYTES_MAX,
    SOFTWARE_NAME,
    SOFTWARE_VERSION,
    Address,
    ConnectionSettings,
)
from streamlog.client.failures import BrokerUnreachable, one_line
from streamlog.client.silence import SILENT_MS, SilenceWatch
from streamlog.env import Clock, forget_unsent
from streamlog.errors import RemoteProtocolError, StreamlogError
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.frames import correlation_id_of, decode_response, encode_request_parts
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    FetchResponse,
    JoinGroupResponse,
    SyncGroupResponse,
)

R = TypeVar("R", bound=Response)

READ_BYTES = 64 << 10
"""Buffer of a quiet connection. Nearly all answers but fetches fit; larger frames get their own."""

GROW_BYTES = 8 << 20
"""A frame's buffer starts with at most this much and doubles as bytes arrive: a peer that announces more than
it sends costs us no memory."""

_WAIT_FOR_OTHERS = (JoinGroupResponse, SyncGroupResponse)
"""Answers that come when other members of a group have asked as well."""

_SIZE = Struct(">i")
_INT16 = Struct(">h")


class _Unanswered(Protocol):
    """A request without its answer, whatever the type of that is."""

    correlation_id: int
    deadline_ms: int
    silent_at_ms: int
    name: str
    keeps_frame: bool

    def answer(self, frame: memoryview) -> None: ...
    def fail(self, why: Exception) -> None: ...


class _Pending(Generic[R]):
    """One request without its answer."""

    __slots__ = (
        "correlation_id",
        "deadline_ms",
        "keeps_frame",
        "name",
        "on_done",
        "response",
        "silent_at_ms",
        "version",
    )

    def __init__(
        self,
        correlation_id: int,
        response: type[R],
        version: int,
        deadline_ms: int,
        silent_at_ms: int,
        on_done: Callable[[R | Exception], None],
    ) -> None:
        self.correlation_id = correlation_id
        self.deadline_ms = deadline_ms
        self.silent_at_ms = silent_at_ms  # when its missing answer is worth a word
        self.name = response.__name__
        self.keeps_frame = response is FetchResponse  # record batches stay views into the frame
        self.response = response
        self.version = version
        self.on_done = on_done

    def answer(self, frame: memoryview) -> None:
        """Decode and hand over. Raises RemoteProtocolError, and nothing was handed over."""
        version = self.version
        if self.response is ApiVersionsResponse and _INT16.unpack_from(frame, 4)[0] == ErrorCode.UNSUPPORTED_VERSION:
            version = 0  # who does not know the version answers in the oldest (KIP-511)
        _, message = decode_response(self.response, version, frame)
        self.on_done(message)

    def fail(self, why: Exception) -> None:
        self.on_done(why)


class Connection(asyncio.BufferedProtocol):
    """See the module's essay. Made by `connect`; closed by `close`, by the peer, or by what goes wrong."""

    def __init__(
        self,
        address: Address,
        settings: ConnectionSettings,
        clock: Clock,
        on_lost: Callable[[Connection], None],
        silence: SilenceWatch | None = None,
    ) -> None:
        self.address = address
        self.closed: Exception | None = None  # why no more requests are taken
        self.in_flight = 0  # unanswered requests; kept equal to len(_pending)
        self.features: dict[str, int] = {}  # finalized features of the cluster, by name
        self._settings = settings
        self._clock = clock
        self._on_lost = on_lost
        self._silence = silence
        self._is_silent = False  # and the watch knows
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._pending: deque[_Unanswered] = deque()
        self._correlation_id = 0
        self._versions: dict[int, tuple[int, int]] = {}  # API key -> lowest and highest version both sides speak
        self._shared = bytearray(READ_BYTES)
        self._buffer = self._shared  # what is read into; a larger one while a large frame arrives
        self._filled = 0  # bytes of _buffer that hold data
        self._frame_end = 0  # end of the large frame that _buffer is for; 0 while it is _shared
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms = 0  # valid with _timer
        self._last_used_ms = clock.mono_ms()

    # -- requests

    def version_of(self, api_key: int, at_most: int | None = None) -> int:
        """The highest version of an API that both sides speak. Raises KafkaError UNSUPPORTED_VERSION."""
        low, high = self._versions.get(api_key, (0, -1))
        if at_most is not None and at_most < high:
            high = at_most
        if high < low:
            name = API_TABLE[api_key].name
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"the broker at {self.address} speaks no {name} we know")
        return high

    def supports(self, api_key: int, version: int = 0) -> bool:
        """Whether both sides speak at least `version` of an API."""
        return self._versions.get(api_key, (0, -1))[1] >= version

    @property
    def unwritten_bytes(self) -> int:
        """What was sent and is still in this process: the socket has no room for it."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(
        self,
        message: Request,
        response: type[R],
        on_done: Callable[[R | Exception], None] | None,
        *,
        version: int,
        timeout_ms: int | None = None,
    ) -> None:
        """Write a request. `on_done` gets the response or why there is none, exactly once; None expects no answer.

        Raises: BrokerUnreachable when the connection is closed already; LocalProtocolError, and nothing is sent.
        """
        if self.closed is not None or self._transport is None:
            raise self._unreachable()
        self._correlation_id = correlation_id = (self._correlation_id + 1) & 0x7FFF_FFFF
        parts = encode_request_parts(message, version, correlation_id, self._settings.client_id)
        now_ms = self._last_used_ms = self._clock.mono_ms()
        if on_done is not None:
            usual_ms = self._settings.request_timeout_ms
            deadline_ms = now_ms + (usual_ms if timeout_ms is None else timeout_ms)
            silent_at_ms = deadline_ms  # never, where the broker may wait as long as it likes
            if response not in _WAIT_FOR_OTHERS:
                waits_ms = 0 if timeout_ms is None else max(timeout_ms - usual_ms, 0)  # a fetch, for data
                silent_at_ms = min(now_ms + waits_ms + SILENT_MS, deadline_ms)
            self._pending.append(_Pending(correlation_id, response, version, deadline_ms, silent_at_ms, on_done))
            self.in_flight += 1
            self._wake_before(silent_at_ms, now_ms)
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    async def request(
        self, message: Request, response: type[R], *, timeout_ms: int | None = None, version_max: int | None = None
    ) -> R:
        """Send and wait. A cancelled wait leaves the request under way and drops its answer.

        Raises: BrokerUnreachable, RemoteProtocolError; KafkaError UNSUPPORTED_VERSION.
        """
        done: asyncio.Future[R] = self._loop.create_future()

        def on_done(result: R | Exception) -> None:
            if done.done():
                return
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

        version = self.version_of(message.api_key, version_max)
        self.send(message, response, on_done, version=version, timeout_ms=timeout_ms)
        return await done

    async def handshake(self) -> None:
        """Learn which versions the broker speaks (KIP-35, KIP-511)."""
        api = API_TABLE[ApiKey.API_VERSIONS]
        self._versions = {ApiKey.API_VERSIONS: (0, api.max_version)}
        message = ApiVersionsRequest(client_software_name=SOFTWARE_NAME, client_software_version=SOFTWARE_VERSION)
        answer = await self.request(message, ApiVersionsResponse, timeout_ms=self._settings.connect_timeout_ms)
        if answer.error_code == ErrorCode.UNSUPPORTED_VERSION:
            highest = max((one.max_version for one in answer.api_keys if one.api_key == ApiKey.API_VERSIONS), default=0)
            answer = await self.request(message, ApiVersionsResponse, version_max=max(highest, 0))
        if answer.error_code:
            raise KafkaError(ErrorCode.of(answer.error_code), f"the broker at {self.address} refused ApiVersions")
        self.features = {one.name: one.max_version_level for one in answer.finalized_features}
        self._versions = {}
        for theirs in answer.api_keys:
            ours = API_TABLE.get(theirs.api_key)
            if ours is not None:
                low, high = max(ours.min_version, theirs.min_version), min(ours.stable_max_version, theirs.max_version)
                self._versions[theirs.api_key] = (low, high)

    def close(self, why: Exception | None = None) -> None:
        """Close now. What waits for answers gets `why`."""
        if self.closed is not None:
            return
        self.closed = why or BrokerUnreachable(f"the connection to {self.address} was closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            if why is None:
                self._transport.close()  # after what is written: a producer without acks has no other receipt
            else:
                self._transport.abort()
        pending, self._pending, self.in_flight = self._pending, deque(), 0
        for one in pending:
            one.fail(self.closed)
        self._on_lost(self)

    def break_off(self, why: Exception) -> None:
        """Close now, and have nothing of what was sent arrive later, as far as that is in our hands."""
        if self._transport is not None:
            forget_unsent(self._transport)
        self.close(why)

    def _unreachable(self) -> BrokerUnreachable:
        why = f"not connected to {self.address}" if self.closed is None else one_line(self.closed)
        return BrokerUnreachable(why)

    # -- time

    def _wake_before(self, deadline_ms: int, now_ms: int) -> None:
        if self._timer is None or deadline_ms < self._timer_at_ms:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at_ms = deadline_ms
            self._timer = self._loop.call_later(max(deadline_ms - now_ms, 0) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_ms = self._clock.mono_ms()
        if self._pending:
            deadline_ms = min(one.deadline_ms for one in self._pending)
            if deadline_ms <= now_ms:
                late = next(one for one in self._pending if one.deadline_ms == deadline_ms)
                self.break_off(BrokerUnreachable(f"the broker at {self.address} sent no {late.name} in time"))
                return
            oldest = self._pending[0]
            if not self._is_silent and oldest.silent_at_ms <= now_ms and self._silence is not None:
                self._is_silent = True
                waited_ms = SILENT_MS + now_ms - oldest.silent_at_ms
                self._silence.on_silent(self.address, oldest.name, waited_ms, oldest.deadline_ms - now_ms)
            if not self._is_silent:
                deadline_ms = min(
                    [deadline_ms, *(one.silent_at_ms for one in self._pending if one.silent_at_ms > now_ms)]
                )
        else:
            deadline_ms = self._last_used_ms + self._settings.connections_max_idle_ms
            if deadline_ms <= now_ms:
                self.close(BrokerUnreachable(f"the connection to {self.address} was idle for long and was closed"))
                return
        self._wake_before(deadline_ms, now_ms)

    # -- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        detail = f": {one_line(exc)}" if exc is not None else ""
        self.close(BrokerUnreachable(f"the broker at {self.address} closed the connection{detail}"))

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled : self._frame_end or None]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        try:
            if self._frame_end:
                self._on_large_frame()
            else:
                self._on_small_frames()
        except Exception as error:  # decoding or a callback: this connection is done for, the error names why
            self.close(error if isinstance(error, StreamlogError) else RemoteProtocolError(one_line(error)))
            if not isinstance(error, StreamlogError):
                raise

    def _on_small_frames(self) -> None:
        buffer, filled, position = self._buffer, self._filled, 0
        view = memoryview(buffer)
        while filled - position >= 4:
            (size,) = _SIZE.unpack_from(buffer, position)
            if not 4 <= size <= RESPONSE_BYTES_MAX:
                raise RemoteProtocolError(f"the peer at {self.address} sent a frame of {size} bytes: it is no broker")
            end = position + 4 + size
            if end > filled:
                if 4 + size > READ_BYTES:
                    self._begin_large_frame(view[position:filled], 4 + size)
                    return
                break
            self._on_frame(view[position + 4 : end], owned=False)
            if self.closed is not None:
                return
            position = end
        if position:
            rest = filled - position
            buffer[:rest] = buffer[position:filled]
            self._filled = rest

    def _begin_large_frame(self, start: memoryview, frame_end: int) -> None:
        self._frame_end = frame_end
        self._buffer = bytearray(min(frame_end, max(GROW_BYTES, len(start))))
        self._filled = len(start)
        self._buffer[: len(start)] = start

    def _on_large_frame(self) -> None:
        if self._filled == self._frame_end:
            frame = memoryview(self._buffer)[4:]
            self._buffer, self._filled, self._frame_end = self._shared, 0, 0
            self._on_frame(frame, owned=True)
        elif self._filled == len(self._buffer):
            grown = bytearray(min(self._frame_end, 2 * len(self._buffer)))
            grown[: self._filled] = self._buffer
            self._buffer = grown

    def _on_frame(self, frame: memoryview, *, owned: bool) -> None:
        """One response. `owned`: nobody else writes to the frame's memory."""
        if not self._pending:
            raise RemoteProtocolError(f"the broker at {self.address} sent a response that nobody asked for")
        pending = self._pending[0]
        correlation_id = correlation_id_of(frame)
        if correlation_id != pending.correlation_id:
            raise RemoteProtocolError(
                f"the broker at {self.address} answered request {correlation_id}, {pending.correlation_id} was next"
            )
        if pending.keeps_frame and not owned:
            frame = memoryview(bytes(frame))
        self._pending.popleft()
        self.in_flight -= 1
        if self._is_silent and self._silence is not None:
            self._is_silent = False
            self._silence.on_answer(self.address)
        try:
            pending.answer(frame)
        except RemoteProtocolError as error:
            pending.fail(error)
            raise


async def connect(
    address: Address,
    settings: ConnectionSettings,
    clock: Clock,
    on_lost: Callable[[Connection], None],
    silence: SilenceWatch | None = None,
) -> Connection:
    """Connect and shake hands. `on_lost` is called once, when the connection is no longer of use.

    Raises: BrokerUnreachable, RemoteProtocolError, KafkaError. Cancelled, it closes what it opened.
    """
    loop = asyncio.get_running_loop()
    connection = Connection(address, settings, clock, on_lost, silence)
    try:
        async with asyncio.timeout(settings.connect_timeout_ms / 1000):
            host = settings.ssl and address.host
            await loop.create_connection(
                lambda: connection, address.host, address.port, ssl=settings.ssl, server_hostname=host or None
            )
            await connection.handshake()
    except TimeoutError:
        seconds = settings.connect_timeout_ms / 1000
        error = BrokerUnreachable(f"no broker answered at {address} within {seconds:g} s")
        connection.close(error)
        raise error from None
    except OSError as failure:
        error = BrokerUnreachable(f"cannot connect to {address}: {failure.strerror or one_line(failure)}")
        connection.close(error)
        raise error from None
    except BaseException as failure:
        connection.close(BrokerUnreachable(f"connecting to {address} ended early: {one_line(failure)}"))
        raise
    return connection
