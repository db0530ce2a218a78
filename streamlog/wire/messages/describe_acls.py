"""DescribeAcls (API 29): list ACLs (KIP-140).

Versions: 1 tells literal names from prefixes (KIP-290); 2 is flexible; 3 knows users as resources (KIP-373).
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct


class DescribeAclsRequest(Request):
    """A filter; None matches everything. Enumerations count from 1 for ANY, 0 is unknown."""

    api_key = 29
    min_version = 1
    max_version = 3
    flexible_since = 2

    resource_type_filter: Int8 = 0
    resource_name_filter: str | None = ""
    pattern_type_filter: Int8 = 3
    principal_filter: str | None = ""
    host_filter: str | None = ""
    operation: Int8 = 0
    permission_type: Int8 = 0


class AclDescription(Struct):
    principal: str = ""
    host: str = ""
    operation: Int8 = 0
    permission_type: Int8 = 0


class DescribeAclsResource(Struct):
    resource_type: Int8 = 0
    resource_name: str = ""
    pattern_type: Int8 = 3
    acls: list[AclDescription] = []


class DescribeAclsResponse(Response):
    """ACLs by resource."""

    api_key = 29
    min_version = 1
    max_version = 3
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
    resources: list[DescribeAclsResource] = []
