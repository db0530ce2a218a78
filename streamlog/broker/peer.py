"""A connection to another node of the cluster: one request, one answer, and again.

What a broker asks of other nodes it asks seldom or in a loop of its own, so a request waits for the answer before it,
and a connection is a value that whoever asks holds. Whatever goes wrong closes it; the next request makes another.
"""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Final, cast

from streamlog.env import Env
from streamlog.errors import RemoteProtocolError, StreamlogError
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.frames import decode_response, encode_request_parts
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse

FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
"""Largest answer. Fetches ask for 8 MiB, and may get one batch of 8 MiB more."""

SOFTWARE_NAME: Final = "streamlog"

_SIZE = Struct(">i")


class PeerGone(StreamlogError):
    """Nobody listens there, or the connection broke: the peer, or the way to it, is not what it was."""


class NotOffered(StreamlogError):
    """The peer does not serve this request, or not in a version that both know."""


class PeerConnection(asyncio.Protocol):
    """Made by `connect`. `request` is called again only when it has returned."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: asyncio.Future[bytes] | None = None
        self._correlation_id = 0
        self._versions: dict[int, tuple[int, int]] = {}
        self.closed: Exception | None = None

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if len(received) < _SIZE.size:
            return
        (size,) = _SIZE.unpack_from(received)
        if not 4 <= size <= FRAME_BYTES_MAX or len(received) > _SIZE.size + size:
            self._close(RemoteProtocolError(f"a peer sent a frame of {size} bytes, or more than was asked for"))
        elif len(received) == _SIZE.size + size:
            self._received = bytearray()
            waiting, self._waiting = self._waiting, None
            if waiting is None:
                self._close(RemoteProtocolError("a peer answered what nobody asked"))
            elif not waiting.done():
                waiting.set_result(bytes(memoryview(received)[_SIZE.size :]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._close(PeerGone(f"the connection broke: {exc or 'the peer closed it'}"))

    # -- requests ---------------------------------------------------------------------------------------------

    async def request(self, message: Request) -> Response:
        """Send `message` in the newest version that both know, and return the answer.

        Raises PeerGone, NotOffered, RemoteProtocolError, and LocalProtocolError when that version cannot say it.
        Cancelling closes the connection: the answer would be taken for that of the next request.
        """
        key = message.api_key
        offered = self._versions.get(key)
        api = API_TABLE[key]
        if key == ApiKey.API_VERSIONS:
            version = api.stable_max_version
        elif offered is None or min(offered[1], api.stable_max_version) < max(offered[0], api.min_version):
            raise NotOffered(f"{api.name} is not offered by the peer")
        else:
            version = min(offered[1], api.stable_max_version)
        frame = await self._exchange(encode_request_parts(message, version, self._next_id(), self._client_id))
        if key == ApiKey.API_VERSIONS and frame[4:6] == ErrorCode.UNSUPPORTED_VERSION.to_bytes(2, "big"):
            version = 0  # who does not know the version answers in the oldest (KIP-511)
        correlation_id, response = decode_response(api.response, version, frame)
        if correlation_id != self._correlation_id:
            self._close(RemoteProtocolError("a peer answered another request"))
            raise RemoteProtocolError("a peer answered another request")
        return response

    def _next_id(self) -> int:
        self._correlation_id = (self._correlation_id + 1) & 0x7FFF_FFFF
        return self._correlation_id

    async def _exchange(self, parts: list[bytes | bytearray | memoryview]) -> bytes:
        if self.closed is not None:
            raise self.closed
        assert self._waiting is None, "one request at a time"
        assert self._transport is not None, "a connection is made before it is used"
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.writelines(parts)
        try:
            return await self._waiting
        except asyncio.CancelledError:
            self._close(PeerGone("nobody waits for the answer any more"))
            raise

    async def learn_versions(self) -> None:
        """Ask what the peer serves. Before every other request."""
        response = await self.request(
            ApiVersionsRequest(client_software_name=SOFTWARE_NAME, client_software_version="0")
        )
        assert isinstance(response, ApiVersionsResponse), "the answer is of the request's API"
        self._versions = {api.api_key: (api.min_version, api.max_version) for api in response.api_keys}

    def close(self) -> None:
        self._close(PeerGone("closed"))

    def _close(self, why: Exception) -> None:
        if self.closed is None:
            self.closed = why
            waiting, self._waiting = self._waiting, None
            if waiting is not None and not waiting.done():
                waiting.set_exception(why)
        if self._transport is not None:
            self._transport.abort()


async def connect(env: Env, host: str, port: int, client_id: str) -> PeerConnection:
    """Reach a peer and learn what it serves. Raises PeerGone or RemoteProtocolError. Cancelling leaves nothing open."""
    loop = asyncio.get_running_loop()
    connection = PeerConnection(client_id)
    try:
        await loop.create_connection(lambda: connection, host, port)
    except OSError as error:
        raise PeerGone(f"{host}:{port} cannot be reached: {error}") from error
    try:
        await connection.learn_versions()
    except BaseException:
        connection.close()
        raise
    return connection
