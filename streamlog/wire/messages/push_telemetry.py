"""PushTelemetry (API 72): a client's metrics (KIP-714)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32


class PushTelemetryRequest(Request):
    """Metrics in OTLP, compressed as `compression_type` says.

    Their size unpacked is the sender's claim: bound it.
    """

    api_key = 72
    min_version = 0
    max_version = 0
    flexible_since = 0

    client_instance_id: UUID = ZERO_UUID
    subscription_id: Int32 = 0
    terminating: bool = False
    compression_type: Int8 = 0
    metrics: bytes = b""


class PushTelemetryResponse(Response):
    """Whether they were taken."""

    api_key = 72
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
