"""IncrementalAlterConfigs (API 44): change single configs of a resource (KIP-339).

Versions: 1 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct


class AlterableConfig(Struct):
    name: str = ""
    config_operation: Int8 = 0
    value: str | None = ""


class AlterConfigsResource(Struct):
    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[AlterableConfig] = []


class IncrementalAlterConfigsRequest(Request):
    """Operations: 0 set, 1 delete, 2 append to a list, 3 subtract from a list."""

    api_key = 44
    min_version = 0
    max_version = 1
    flexible_since = 1

    resources: list[AlterConfigsResource] = []
    validate_only: bool = False


class AlterConfigsResourceResponse(Struct):
    error_code: Int16 = 0
    error_message: str | None = ""
    resource_type: Int8 = 0
    resource_name: str = ""


class IncrementalAlterConfigsResponse(Response):
    """One result per resource."""

    api_key = 44
    min_version = 0
    max_version = 1
    flexible_since = 1

    throttle_time_ms: Int32 = 0
    responses: list[AlterConfigsResourceResponse] = []
