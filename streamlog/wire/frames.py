"""Frames: a 4-byte size, a header, a message.

Frames that are read come without their size, which the connection has already used. Frames that are written
begin with it. Record batches are never copied into a frame: they stay buffers of their own between the parts around
them.
"""

from __future__ import annotations

import struct as fixed
from typing import Annotated, TypeVar

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.apis import API_TABLE, ApiKey, response_header_version
from streamlog.wire.compiler import Buffer, Malformed, read_uvarint, skip_tagged_fields
from streamlog.wire.message import Message, Request, Response
from streamlog.wire.schema import STRING_BYTES_MAX, Int16, Int32, since

R = TypeVar("R", bound=Response)

HEADER_TAGS_MAX = 64
"""Tagged fields in a header. None are defined; what is more than this is no client from the future."""

SIZE_MAX = 0x7FFF_FFFF

_REQUEST_START = fixed.Struct(">hhih")
_FRAME_START = fixed.Struct(">ihhi")
_INT16 = fixed.Struct(">h")
_INT32 = fixed.Struct(">i")
_TWO_INT32 = fixed.Struct(">ii")
_TWO_INT32_NO_TAGS = fixed.Struct(">iix")


class RequestHeader(Message):
    """Version 2 is flexible, but `client_id` keeps the old encoding: a broker must be able to read it before it knows
    whether it knows the API's version."""

    min_version = 1
    max_version = 2
    flexible_since = 2

    request_api_key: Int16 = 0
    request_api_version: Int16 = 0
    correlation_id: Int32 = 0
    client_id: Annotated[str | None, since(1, compact=False)] = ""


class ResponseHeader(Message):
    """Version 1 is flexible."""

    min_version = 0
    max_version = 1
    flexible_since = 1

    correlation_id: Int32 = 0


def decode_request_header(frame: Buffer) -> tuple[RequestHeader, int]:
    """Read a request's header. Returns it and the position of the body.

    The API is one of the table's, the version may be any that is not negative, and any at all for ApiVersions: whether
    it is served is for the caller to say, because ApiVersions is answered even then.
    Raises: RemoteProtocolError. The connection cannot go on.
    """
    try:
        api_key, version, correlation_id, length = _REQUEST_START.unpack_from(frame)
        api = API_TABLE.get(api_key)
        if api is None or (version < 0 and api_key != ApiKey.API_VERSIONS):
            raise RemoteProtocolError(f"request with API key {api_key}, version {version}: there is no such API")
        position = 10
        client_id: str | None = None
        if length >= 0:
            position += length
            client_id = str(frame[10:position], "utf-8")
        elif length != -1:
            raise Malformed
        if version >= api.flexible_since:
            position = _skip_tags(frame, position)
        if position > len(frame):
            raise Malformed
    except (fixed.error, IndexError, UnicodeDecodeError, Malformed) as error:
        raise RemoteProtocolError(f"malformed request header in a frame of {len(frame)} bytes") from error
    header = RequestHeader(
        request_api_key=api_key, request_api_version=version, correlation_id=correlation_id, client_id=client_id
    )
    return header, position


def _skip_tags(frame: Buffer, position: int) -> int:
    """Returns the position behind a header's tagged fields, which may lie behind the end of the frame."""
    count = frame[position]
    position += 1
    if count > 0x7F:
        count, position = read_uvarint(frame, position, count)
    if count > HEADER_TAGS_MAX:
        raise Malformed
    return skip_tagged_fields(frame, position, count) if count else position


def encode_request_parts(message: Request, version: int, correlation_id: int, client_id: str | None) -> list[Buffer]:
    """A request as a frame in buffers that leave in one write; record batches are the message's own buffers."""
    out = bytearray(_FRAME_START.pack(0, message.api_key, version, correlation_id))
    if client_id is None:
        out += b"\xff\xff"
    else:
        encoded = client_id.encode()
        if len(encoded) > STRING_BYTES_MAX:
            raise LocalProtocolError(f"client id of {len(encoded)} bytes; at most {STRING_BYTES_MAX} fit")
        out += _INT16.pack(len(encoded))
        out += encoded
    if version >= message.flexible_since:
        out.append(0)
    return _finish(message, version, out)


def encode_request(message: Request, version: int, correlation_id: int, client_id: str | None) -> bytes:
    """A request as one frame."""
    return b"".join(encode_request_parts(message, version, correlation_id, client_id))


def encode_response_parts(api_key: int, version: int, correlation_id: int, message: Response) -> list[Buffer]:
    """A response as a frame in buffers that leave in one write; record batches are the message's own buffers."""
    start = _TWO_INT32_NO_TAGS if response_header_version(api_key, version) else _TWO_INT32
    return _finish(message, version, bytearray(start.pack(0, correlation_id)))


def _finish(message: Message, version: int, first: bytearray) -> list[Buffer]:
    """Add the body to `first` and write the size into its start."""
    parts: list[Buffer] = []
    rest = message.encoders[version](message, first, parts)
    if not parts:
        # Nothing but what was written behind `first`: every response that carries no records.
        parts.append(rest)
        size = len(rest) - 4
    else:
        if rest:
            parts.append(rest)
        size = sum(map(len, parts)) - 4
    if size > SIZE_MAX:
        raise LocalProtocolError(f"{type(message).__name__} of {size} bytes does not fit a frame")
    _INT32.pack_into(first, 0, size)
    return parts


def decode_response(response: type[R], version: int, frame: Buffer) -> tuple[int, R]:
    """Read a response to a request of `version`. Returns its correlation id and the message."""
    try:
        (correlation_id,) = _INT32.unpack_from(frame)
        position = 4
        if response_header_version(response.api_key, version):
            position = _skip_tags(frame, position)
    except (fixed.error, IndexError, Malformed) as error:
        raise RemoteProtocolError(f"malformed response header in a frame of {len(frame)} bytes") from error
    return correlation_id, response.decode(frame, version, position)


def correlation_id_of(frame: Buffer) -> int:
    """The correlation id of a response, which tells a client what the rest of the frame is."""
    if len(frame) < 4:
        raise RemoteProtocolError(f"a response of {len(frame)} bytes has no header")
    correlation_id: int = _INT32.unpack_from(frame)[0]
    return correlation_id
