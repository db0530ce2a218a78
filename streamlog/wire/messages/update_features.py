"""UpdateFeatures (API 57): change finalized feature levels (KIP-584).

Versions: 1 can only check, and tells kinds of downgrade apart (KIP-778); 2 answers one code for all (KIP-1022).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct, since, until


class FeatureUpdateKey(Struct):
    feature: str = ""
    max_version_level: Int16 = 0
    allow_downgrade: Annotated[bool, until(0)] = False
    upgrade_type: Annotated[Int8, since(1)] = 1


class UpdateFeaturesRequest(Request):
    """`upgrade_type`: 1 upgrade, 2 safe downgrade, 3 unsafe downgrade. Level 0 removes a feature."""

    api_key = 57
    min_version = 0
    max_version = 2
    flexible_since = 0

    timeout_ms: Int32 = 60000
    feature_updates: list[FeatureUpdateKey] = []
    validate_only: Annotated[bool, since(1)] = False


class UpdatableFeatureResult(Struct):
    feature: str = ""
    error_code: Int16 = 0
    error_message: str | None = ""


class UpdateFeaturesResponse(Response):
    """Up to version 1, one result per feature."""

    api_key = 57
    min_version = 0
    max_version = 2
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
    results: Annotated[list[UpdatableFeatureResult], until(1, ignorable=True)] = []
