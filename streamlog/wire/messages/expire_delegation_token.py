"""ExpireDelegationToken (API 40): let a token end earlier (KIP-48).

Versions: 2 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64


class ExpireDelegationTokenRequest(Request):
    """A negative period ends it now."""

    api_key = 40
    min_version = 1
    max_version = 2
    flexible_since = 2

    hmac: bytes = b""
    expiry_time_period_ms: Int64 = 0


class ExpireDelegationTokenResponse(Response):
    """When it ends."""

    api_key = 40
    min_version = 1
    max_version = 2
    flexible_since = 2

    error_code: Int16 = 0
    expiry_timestamp_ms: Int64 = 0
    throttle_time_ms: Int32 = 0
