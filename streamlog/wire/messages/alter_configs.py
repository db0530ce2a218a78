"""AlterConfigs (API 33): replace all configs of a resource. IncrementalAlterConfigs is the better one (KIP-339).

Versions: 2 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct


class AlterableConfig(Struct):
    name: str = ""
    value: str | None = ""


class AlterConfigsResource(Struct):
    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[AlterableConfig] = []


class AlterConfigsRequest(Request):
    """What is not named goes back to its default."""

    api_key = 33
    min_version = 0
    max_version = 2
    flexible_since = 2

    resources: list[AlterConfigsResource] = []
    validate_only: bool = False


class AlterConfigsResourceResponse(Struct):
    error_code: Int16 = 0
    error_message: str | None = ""
    resource_type: Int8 = 0
    resource_name: str = ""


class AlterConfigsResponse(Response):
    """One result per resource."""

    api_key = 33
    min_version = 0
    max_version = 2
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    responses: list[AlterConfigsResourceResponse] = []
