"""ApiVersions (API 18): the first request of every client.

It alone is answered in any version, so that a newer client can step down (KIP-511).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.features import KRAFT_VERSION, SUPPORTED_FEATURES
from streamlog.broker.metadata.image import MetadataImage
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

SOFTWARE_NAME: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
"""KIP-511. Names end up in logs and metrics, so what is not one is refused."""

PRODUCE_ADVERTISED_MIN: Final = 0
"""librdkafka before 2.7 takes a minimum above 2 for a broker that cannot compress, so Kafka advertises versions
of Produce that it refuses to serve (KAFKA-18659), and so do we."""


def handle(broker: Broker, context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    if context.version >= 3:
        names = (request.client_software_name, request.client_software_version)
        if not all(SOFTWARE_NAME.fullmatch(name) for name in names):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        context.connection.software_name, context.connection.software_version = names
    return describe(broker.served_apis, broker.image, broker.quorum.core.kraft_version, context.version)


def describe(apis: list[ApiVersion], image: MetadataImage, kraft_version: int, version: int) -> ApiVersionsResponse:
    """What a node serves, and the features of its cluster: those of the metadata, and the one that the quorum keeps."""
    levels = {**image.features, KRAFT_VERSION: kraft_version}
    return ApiVersionsResponse(
        api_keys=apis,
        supported_features=[
            SupportedFeatureKey(name=name, min_version=known.low, max_version=known.high)
            for name, known in SUPPORTED_FEATURES.items()
            # KAFKA-17492: clients that speak the older versions cannot read a minimum of 0.
            if known.low > 0 or version >= 4
        ],
        finalized_features_epoch=image.applied_offset,
        finalized_features=[
            FinalizedFeatureKey(name=name, min_version_level=level, max_version_level=level)
            for name, level in levels.items()
            if level > 0
        ],
    )


def refuse_version() -> ApiVersionsResponse:
    """The answer, in version 0, to a version of ApiVersions that is not served: which ones are."""
    api = API_TABLE[ApiKey.API_VERSIONS]
    return ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION,
        api_keys=[ApiVersion(api_key=api.key, min_version=api.min_version, max_version=api.stable_max_version)],
    )


def advertise(keys: Iterable[ApiKey]) -> list[ApiVersion]:
    """What ApiVersions lists, given the keys of the APIs that are served."""
    return [
        ApiVersion(
            api_key=key,
            min_version=PRODUCE_ADVERTISED_MIN if key is ApiKey.PRODUCE else API_TABLE[key].min_version,
            max_version=API_TABLE[key].stable_max_version,
        )
        for key in sorted(keys)
    ]
