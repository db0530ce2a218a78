"""UpdateFeatures (API 57): finalized feature levels change. Which can: metadata/feature_levels.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.feature_levels import refuse_update, update_features
from streamlog.wire.messages.update_features import UpdateFeaturesRequest, UpdateFeaturesResponse

refuse = refuse_update


async def handle(
    home: ControllerHome, request: UpdateFeaturesRequest, context: ControllerContext
) -> UpdateFeaturesResponse:
    version, kraft_version = context.version, home.quorum.core.kraft_version
    return await home.controller.write(
        lambda image: update_features(image, home.settings, request, version, kraft_version)
    )
