"""UnregisterBroker (API 64): forget a broker that will not come back (KIP-631)."""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32


class UnregisterBrokerRequest(Request):
    """The broker."""

    api_key = 64
    min_version = 0
    max_version = 0
    flexible_since = 0

    broker_id: Int32 = 0


class UnregisterBrokerResponse(Response):
    """Whether it is gone."""

    api_key = 64
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
