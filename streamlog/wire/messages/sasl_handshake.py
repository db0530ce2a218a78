"""SaslHandshake (API 17): choose a SASL mechanism. Never became flexible.

Versions: 1 goes on with SaslAuthenticate instead of bare tokens (KIP-152).
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16


class SaslHandshakeRequest(Request):
    """The mechanism that the client wants."""

    api_key = 17
    min_version = 0
    max_version = 1

    mechanism: str = ""


class SaslHandshakeResponse(Response):
    """The mechanisms that the broker has."""

    api_key = 17
    min_version = 0
    max_version = 1

    error_code: Int16 = 0
    mechanisms: list[str] = []
