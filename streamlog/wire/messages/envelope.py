"""Envelope (API 58): a broker forwards a client's request to the controller (KIP-590)."""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16


class EnvelopeRequest(Request):
    """The request with its header, the client's principal and address."""

    api_key = 58
    min_version = 0
    max_version = 0
    flexible_since = 0

    request_data: bytes = b""
    request_principal: bytes | None = b""
    client_host_address: bytes = b""


class EnvelopeResponse(Response):
    """The response with its header."""

    api_key = 58
    min_version = 0
    max_version = 0
    flexible_since = 0

    response_data: bytes | None = None
    error_code: Int16 = 0
