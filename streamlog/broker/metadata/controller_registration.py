"""Controllers make themselves known: where they listen and what they support (KIP-919). Decides; changes nothing."""

from __future__ import annotations

from streamlog.broker.features import KRAFT_VERSION
from streamlog.broker.metadata.decision import Decision, refuse
from streamlog.broker.metadata.image import MetadataImage
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.metadata import ControllerEndpoint, ControllerFeature, RegisterControllerRecord
from streamlog.wire.messages.controller_registration import ControllerRegistrationRequest, Feature


def register_controller(image: MetadataImage, request: ControllerRegistrationRequest) -> Decision[None]:
    """Decide a registration, which replaces the controller's last one.

    Raises KafkaError UNSUPPORTED_VERSION: the cluster's features are beyond what this controller knows.
    """
    known = {feature.name: feature for feature in request.features}
    for name, level in image.features.items():
        feature = known.get(name, Feature(name=name))
        if name != KRAFT_VERSION and not feature.min_supported_version <= level <= feature.max_supported_version:
            raise refuse(
                ErrorCode.UNSUPPORTED_VERSION,
                f"the cluster has {name} at level {level}; controller {request.controller_id} supports "
                f"{feature.min_supported_version} to {feature.max_supported_version}",
            )
    record = RegisterControllerRecord(
        controller_id=request.controller_id,
        incarnation_id=request.incarnation_id,
        zk_migration_ready=request.zk_migration_ready,
        end_points=[
            ControllerEndpoint(name=e.name, host=e.host, port=e.port, security_protocol=e.security_protocol)
            for e in request.listeners
        ],
        features=[
            ControllerFeature(
                name=f.name,
                min_supported_version=f.min_supported_version,
                max_supported_version=f.max_supported_version,
            )
            for f in request.features
        ],
    )
    return Decision((record,), None)
