"""DescribeConfigs (API 32): configs of topics, brokers, groups.

Versions: 1 answers sources and synonyms (KIP-226); 3 types and documentation (KIP-569); 4 is flexible.
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct, since


class DescribeConfigsResource(Struct):
    resource_type: Int8 = 0
    resource_name: str = ""
    configuration_keys: list[str] | None = []


class DescribeConfigsRequest(Request):
    """Resources by type (2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group).

    `configuration_keys` None means all.
    """

    api_key = 32
    min_version = 1
    max_version = 4
    flexible_since = 4

    resources: list[DescribeConfigsResource] = []
    include_synonyms: bool = False
    include_documentation: Annotated[bool, since(3)] = False


class DescribeConfigsSynonym(Struct):
    name: str = ""
    value: str | None = ""
    source: Int8 = 0


class DescribeConfigsResourceResult(Struct):
    name: str = ""
    value: str | None = ""
    read_only: bool = False
    config_source: Int8 = -1
    is_sensitive: bool = False
    synonyms: list[DescribeConfigsSynonym] = []
    config_type: Annotated[Int8, since(3, ignorable=True)] = 0
    documentation: Annotated[str | None, since(3, ignorable=True)] = ""


class DescribeConfigsResult(Struct):
    error_code: Int16 = 0
    error_message: str | None = ""
    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[DescribeConfigsResourceResult] = []


class DescribeConfigsResponse(Response):
    """Values with their sources. Sensitive values are null."""

    api_key = 32
    min_version = 1
    max_version = 4
    flexible_since = 4

    throttle_time_ms: Int32 = 0
    results: list[DescribeConfigsResult] = []
