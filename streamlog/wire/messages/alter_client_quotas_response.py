"""The response of AlterClientQuotas (API 49); its structs have the request's names and other fields."""

from __future__ import annotations

from streamlog.wire.message import Response
from streamlog.wire.schema import Int16, Int32, Struct


class EntityData(Struct):
    entity_type: str = ""
    entity_name: str | None = ""


class EntryData(Struct):
    error_code: Int16 = 0
    error_message: str | None = ""
    entity: list[EntityData] = []


class AlterClientQuotasResponse(Response):
    """One result per entity."""

    api_key = 49
    min_version = 0
    max_version = 1
    flexible_since = 1

    throttle_time_ms: Int32 = 0
    entries: list[EntryData] = []
