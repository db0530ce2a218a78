"""ControllerRegistration (API 70): a controller tells the leader its endpoints and features (KIP-919)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct, UInt16


class Listener(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0
    security_protocol: Int16 = 0


class Feature(Struct):
    name: str = ""
    min_supported_version: Int16 = 0
    max_supported_version: Int16 = 0


class ControllerRegistrationRequest(Request):
    """The controller."""

    api_key = 70
    min_version = 0
    max_version = 0
    flexible_since = 0

    controller_id: Int32 = 0
    incarnation_id: UUID = ZERO_UUID
    zk_migration_ready: bool = False
    listeners: list[Listener] = []
    features: list[Feature] = []


class ControllerRegistrationResponse(Response):
    """Whether it is registered."""

    api_key = 70
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
