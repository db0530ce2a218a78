"""RenewDelegationToken (API 39): let a token live longer (KIP-48).

Versions: 2 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64


class RenewDelegationTokenRequest(Request):
    """The token's secret and for how long."""

    api_key = 39
    min_version = 1
    max_version = 2
    flexible_since = 2

    hmac: bytes = b""
    renew_period_ms: Int64 = 0


class RenewDelegationTokenResponse(Response):
    """Until when."""

    api_key = 39
    min_version = 1
    max_version = 2
    flexible_since = 2

    error_code: Int16 = 0
    expiry_timestamp_ms: Int64 = 0
    throttle_time_ms: Int32 = 0
