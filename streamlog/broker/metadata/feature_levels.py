"""UpdateFeatures: finalized feature levels change. Decides; changes nothing.

A level counts for the whole cluster, so every registered broker and controller has to support it. Updates of one
request stand or fall together.

Going back from eligible leader replicas: a partition whose ISR is empty gets those who were eligible as its ISR, for
they have everything that is committed, and without the feature only an ISR can say so. Where nobody was eligible, who
led last is the ISR, for it would have led again, and an empty ISR has nobody who ever could. It may have lost records,
so the partition is marked as recovering. Beginning with the feature settles min.insync.replicas for the cluster
(cluster_min_isr.py).

Sources: KIP-584, KIP-778 (kinds of downgrade), KIP-1022, KIP-966.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import IntEnum

from streamlog.broker.features import ELIGIBLE_LEADER_REPLICAS, KRAFT_VERSION, KRAFT_VERSION_LEVEL, SUPPORTED_FEATURES
from streamlog.broker.metadata.changes import PartitionChanges
from streamlog.broker.metadata.cluster_min_isr import settle_min_isr
from streamlog.broker.metadata.decision import ControllerSettings, Decision, refuse
from streamlog.broker.metadata.image import KnownRecord, MetadataImage
from streamlog.broker.metadata.partition_change import RECOVERING, Wanted
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.metadata import FeatureLevelRecord, PartitionChangeRecord
from streamlog.wire.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)


class UpgradeType(IntEnum):
    UPGRADE = 1
    SAFE_DOWNGRADE = 2
    UNSAFE_DOWNGRADE = 3


def update_features(
    image: MetadataImage,
    settings: ControllerSettings,
    request: UpdateFeaturesRequest,
    version: int,
    kraft_version: int = KRAFT_VERSION_LEVEL,
) -> Decision[UpdateFeaturesResponse]:
    """Decide an UpdateFeatures request. `version`: of the request; up to 1 each feature has a result of its own.
    `kraft_version`: what the quorum has, which nobody can change here."""
    records: list[KnownRecord] = []
    counts = Counter(update.feature for update in request.feature_updates)
    try:
        for update in request.feature_updates:
            if counts[update.feature] > 1:
                raise refuse(ErrorCode.INVALID_REQUEST, f"{update.feature} is named twice in one request")
            records += _update(image, settings, update, version, kraft_version)
    except KafkaError as error:
        return Decision((), refuse_update(request, error, version))
    results = [UpdatableFeatureResult(feature=u.feature, error_message=None) for u in request.feature_updates]
    response = UpdateFeaturesResponse(error_message=None, results=results if version <= 1 else [])
    return Decision(() if request.validate_only else tuple(records), response)


def refuse_update(request: UpdateFeaturesRequest, error: KafkaError, version: int) -> UpdateFeaturesResponse:
    """The response that says why nothing was changed."""
    if version > 1:
        return UpdateFeaturesResponse(error_code=error.code, error_message=error.message)
    return UpdateFeaturesResponse(
        error_message=None,
        results=[
            UpdatableFeatureResult(feature=update.feature, error_code=error.code, error_message=error.message)
            for update in request.feature_updates
        ],
    )


def _update(
    image: MetadataImage, settings: ControllerSettings, update: FeatureUpdateKey, version: int, kraft_version: int
) -> Iterator[KnownRecord]:
    name, level = update.feature, update.max_version_level
    kind = _kind(update, version)
    supported = SUPPORTED_FEATURES.get(name)
    if supported is None:
        raise _refuse(name, level, "this controller has no such feature")
    if name == KRAFT_VERSION:
        if level != kraft_version:
            raise _refuse(name, level, f"the quorum was formatted with {kraft_version}, and keeps it")
        return
    current = image.features.get(name, 0)
    if not supported.low <= level <= supported.high:
        raise _refuse(name, level, f"this controller supports {supported.low} to {supported.high}")
    if level < current and kind is UpgradeType.UPGRADE:
        raise _refuse(name, level, f"it is at {current}, and a downgrade has to be asked for as one")
    if level > current and kind is not UpgradeType.UPGRADE:
        raise _refuse(name, level, f"it is at {current}, which is lower")
    for what, low, high in _ranges(image, name):
        if not low <= level <= high:
            raise _refuse(name, level, f"{what} supports {low} to {high}")
    if level == current:
        return
    yield FeatureLevelRecord(name=name, feature_level=level)
    if name == ELIGIBLE_LEADER_REPLICAS:
        yield from _give_up_elr(image, settings) if level == 0 else settle_min_isr(image, settings.topic_defaults)


def _kind(update: FeatureUpdateKey, version: int) -> UpgradeType:
    if version == 0:
        return UpgradeType.SAFE_DOWNGRADE if update.allow_downgrade else UpgradeType.UPGRADE
    try:
        return UpgradeType(update.upgrade_type)
    except ValueError:
        raise _refuse(
            update.feature, update.max_version_level, f"there is no upgrade type {update.upgrade_type}"
        ) from None


def _refuse(name: str, level: int, reason: str) -> KafkaError:
    return refuse(ErrorCode.INVALID_UPDATE_VERSION, f"{name} cannot be set to {level}: {reason}")


def _ranges(image: MetadataImage, name: str) -> Iterator[tuple[str, int, int]]:
    """What everybody supports. Who does not name a feature has it at level 0 only."""
    for broker in image.brokers.values():
        low, high = next(((low, high) for feature, low, high in broker.features if feature == name), (0, 0))
        yield f"broker {broker.id}", low, high
    for controller in image.controllers.values():
        told = ((f.min_supported_version, f.max_supported_version) for f in controller.features if f.name == name)
        low, high = next(told, (0, 0))
        yield f"controller {controller.controller_id}", low, high


def _give_up_elr(image: MetadataImage, settings: ControllerSettings) -> Iterator[KnownRecord]:
    changes = PartitionChanges(image, settings)
    for topic, index, partition in changes.partitions():
        eligible, last_known = partition.eligible_leader_replicas, partition.last_known_elr
        if not eligible and not last_known:
            continue
        record = PartitionChangeRecord(partition_id=index, topic_id=topic.id)
        if eligible:
            record.eligible_leader_replicas = []
        if last_known:
            record.last_known_elr = []
        if not partition.isr and eligible:
            record.isr = list(eligible)
        elif not partition.isr:
            has_disk = changes.terms(topic, partition, Wanted()).has_disk
            record.isr = [next(filter(has_disk, last_known), last_known[0])]
            record.leader_recovery_state = RECOVERING
        yield record
