"""AlterClientQuotas (API 49): change quotas (KIP-546).

Versions: 1 is flexible.
"""

from __future__ import annotations

from streamlog.wire.message import Request
from streamlog.wire.schema import Struct


class EntityData(Struct):
    entity_type: str = ""
    entity_name: str | None = ""


class OpData(Struct):
    key: str = ""
    value: float = 0.0
    remove: bool = False


class EntryData(Struct):
    entity: list[EntityData] = []
    ops: list[OpData] = []


class AlterClientQuotasRequest(Request):
    """An entity whose name is None is the default of its type."""

    api_key = 49
    min_version = 0
    max_version = 1
    flexible_since = 1

    entries: list[EntryData] = []
    validate_only: bool = False
