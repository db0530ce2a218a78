"""ApiVersions (API 18): which APIs and versions a broker serves; the first request on a connection.

A broker that does not know the version asked with answers version 0, code UNSUPPORTED_VERSION, so its response header
is always the old one (KIP-511).

Versions: 3 is flexible, names the client's software (KIP-511) and answers features (KIP-584); 4 lets a feature's
minimum be 0 (KIP-1022).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, Struct, since


class ApiVersionsRequest(Request):
    """Says which client asks."""

    api_key = 18
    min_version = 0
    max_version = 4
    flexible_since = 3

    client_software_name: Annotated[str, since(3, ignorable=True)] = ""
    client_software_version: Annotated[str, since(3, ignorable=True)] = ""


class ApiVersion(Struct):
    api_key: Int16 = 0
    min_version: Int16 = 0
    max_version: Int16 = 0


class SupportedFeatureKey(Struct):
    name: str = ""
    min_version: Int16 = 0
    max_version: Int16 = 0


class FinalizedFeatureKey(Struct):
    name: str = ""
    max_version_level: Int16 = 0
    min_version_level: Int16 = 0


class ApiVersionsResponse(Response):
    """Version ranges of the APIs, both ends inclusive, and of the features.

    `finalized_features_epoch` -1: unknown.
    """

    api_key = 18
    min_version = 0
    max_version = 4
    flexible_since = 3

    error_code: Int16 = 0
    api_keys: list[ApiVersion] = []
    throttle_time_ms: Annotated[Int32, since(1, ignorable=True)] = 0
    supported_features: Annotated[list[SupportedFeatureKey], since(3, tag=0, ignorable=True)] = []
    finalized_features_epoch: Annotated[Int64, since(3, tag=1, ignorable=True)] = -1
    finalized_features: Annotated[list[FinalizedFeatureKey], since(3, tag=2, ignorable=True)] = []
    zk_migration_ready: Annotated[bool, since(3, tag=3, ignorable=True)] = False
