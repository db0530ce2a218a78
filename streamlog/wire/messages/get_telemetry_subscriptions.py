"""GetTelemetrySubscriptions (API 71): which metrics a broker wants of a client (KIP-714)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32


class GetTelemetrySubscriptionsRequest(Request):
    """`client_instance_id` zero asks for one."""

    api_key = 71
    min_version = 0
    max_version = 0
    flexible_since = 0

    client_instance_id: UUID = ZERO_UUID


class GetTelemetrySubscriptionsResponse(Response):
    """Names by prefix, how often, and in which compressions."""

    api_key = 71
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    client_instance_id: UUID = ZERO_UUID
    subscription_id: Int32 = 0
    accepted_compression_types: list[Int8] = []
    push_interval_ms: Int32 = 0
    telemetry_max_bytes: Int32 = 0
    delta_temporality: bool = False
    requested_metrics: list[str] = []
