"""SaslAuthenticate (API 36): one step of a SASL exchange (KIP-152).

Versions: 1 answers how long the session lives (KIP-368); 2 is flexible.
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int64, since


class SaslAuthenticateRequest(Request):
    """The client's token."""

    api_key = 36
    min_version = 0
    max_version = 2
    flexible_since = 2

    auth_bytes: bytes = b""


class SaslAuthenticateResponse(Response):
    """The broker's token. `session_lifetime_ms` 0: no limit."""

    api_key = 36
    min_version = 0
    max_version = 2
    flexible_since = 2

    error_code: Int16 = 0
    error_message: str | None = ""
    auth_bytes: bytes = b""
    session_lifetime_ms: Annotated[Int64, since(1, ignorable=True)] = 0
