"""DeleteGroups (API 42): remove empty groups and their offsets (KIP-229).

Versions: 2 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct


class DeleteGroupsRequest(Request):
    """Group ids. (The odd name of the field is Kafka's.)"""

    api_key = 42
    min_version = 0
    max_version = 2
    flexible_since = 2

    groups_names: list[str] = []


class DeletableGroupResult(Struct):
    group_id: str = ""
    error_code: Int16 = 0


class DeleteGroupsResponse(Response):
    """One result per group."""

    api_key = 42
    min_version = 0
    max_version = 2
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    results: list[DeletableGroupResult] = []
