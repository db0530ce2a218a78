"""ListConfigResources (API 74): names of resources that have configs.

Versions: 0 lists client metrics only (KIP-714); 1 lists types of choice, all when empty (KIP-1142).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct, since


class ListConfigResourcesRequest(Request):
    """Types of resources."""

    api_key = 74
    min_version = 0
    max_version = 1
    flexible_since = 0

    resource_types: Annotated[list[Int8], since(1)] = []


class ConfigResource(Struct):
    resource_name: str = ""
    resource_type: Annotated[Int8, since(1, ignorable=True)] = 16


class ListConfigResourcesResponse(Response):
    """Their names."""

    api_key = 74
    min_version = 0
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    config_resources: list[ConfigResource] = []
