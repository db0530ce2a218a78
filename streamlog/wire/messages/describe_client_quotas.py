"""DescribeClientQuotas (API 48): list quotas (KIP-546).

Versions: 1 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct


class ComponentData(Struct):
    entity_type: str = ""
    match_type: Int8 = 0
    match: str | None = ""


class DescribeClientQuotasRequest(Request):
    """Filters by entity. `match_type`: 0 exact, 1 default, 2 any."""

    api_key = 48
    min_version = 0
    max_version = 1
    flexible_since = 1

    components: list[ComponentData] = []
    strict: bool = False


class EntityData(Struct):
    entity_type: str = ""
    entity_name: str | None = ""


class ValueData(Struct):
    key: str = ""
    value: float = 0.0


class EntryData(Struct):
    entity: list[EntityData] = []
    values: list[ValueData] = []


class DescribeClientQuotasResponse(Response):
    """`entries` None: an error."""

    api_key = 48
    min_version = 0
    max_version = 1
    flexible_since = 1

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
    entries: list[EntryData] | None = []
