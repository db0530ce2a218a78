"""CreateAcls (API 30): add ACLs (KIP-140).

Versions: 1 tells literal names from prefixes (KIP-290); 2 is flexible; 3 knows users as resources (KIP-373).
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct


class AclCreation(Struct):
    resource_type: Int8 = 0
    resource_name: str = ""
    resource_pattern_type: Int8 = 3
    principal: str = ""
    host: str = ""
    operation: Int8 = 0
    permission_type: Int8 = 0


class CreateAclsRequest(Request):
    """ACLs to add. `resource_pattern_type` 3 is literal, 4 a prefix."""

    api_key = 30
    min_version = 1
    max_version = 3
    flexible_since = 2

    creations: list[AclCreation] = []


class AclCreationResult(Struct):
    error_code: Int16 = 0
    error_message: str | None = ""


class CreateAclsResponse(Response):
    """One result per ACL, in order."""

    api_key = 30
    min_version = 1
    max_version = 3
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    results: list[AclCreationResult] = []
