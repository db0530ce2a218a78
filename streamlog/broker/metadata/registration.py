"""Brokers joining the cluster and leaving it for good, and the blocks of producer ids they are given. Decides; changes
nothing.

A broker registers with each start, as a new incarnation with a new epoch, and is fenced until it has caught up with
the metadata log. While an older incarnation of it is alive the number is taken; a request that comes twice from one
incarnation amends its registration and keeps the epoch.

The epoch that the broker had when it last stopped tells whether it stopped in order: it writes it down when everything
is on disk. If it did not, its logs may lack what it had acknowledged: it leaves every ISR, is eligible nowhere, and
whatever it leads again gets a new leader epoch, so that a reader that compares epochs (KIP-320) can tell. If it comes
with other directories, it has nothing: its replicas are filled by others, and lead when they have been in sync.

Sources: KIP-631 (registration), KIP-730 (producer ids), KIP-858 (directories), KIP-966 (clean and unclean stops).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from streamlog.broker.features import KRAFT_VERSION, METADATA_VERSION
from streamlog.broker.metadata.changes import DIRECTORY_LOST, PartitionChanges, has_elr
from streamlog.broker.metadata.decision import ControllerSettings, Decision, refuse
from streamlog.broker.metadata.heartbeats import check_broker_epoch
from streamlog.broker.metadata.image import (
    BrokerRegistration,
    Endpoint,
    KnownRecord,
    MetadataImage,
    new_register_broker_record,
)
from streamlog.broker.metadata.liveness import Liveness
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.metadata import ProducerIdsRecord, UnregisterBrokerRecord
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, Feature

PRODUCER_ID_BLOCK_SIZE: Final = 1000
"""Ids a broker gets at a time (KIP-730). A crash wastes the rest of a block: ids are never reused."""

PRODUCER_ID_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Registered:
    epoch: int
    is_new: bool
    """A new incarnation, and not an amendment."""


def register_broker(
    image: MetadataImage,
    settings: ControllerSettings,
    liveness: Liveness,
    request: BrokerRegistrationRequest,
    next_offset: int,
    now_ms: int,
) -> Decision[Registered]:
    """Decide a registration. A new incarnation's epoch is the offset of its registration record.

    Raises KafkaError: INCONSISTENT_CLUSTER_ID, DUPLICATE_BROKER_REGISTRATION, INVALID_REGISTRATION (directories,
    features), UNSUPPORTED_VERSION (a feature's level is not supported).
    """
    if request.cluster_id != settings.cluster_id:
        raise refuse(
            ErrorCode.INCONSISTENT_CLUSTER_ID,
            f"this cluster is {settings.cluster_id}; broker {request.broker_id} belongs to {request.cluster_id}",
        )
    existing = image.brokers.get(request.broker_id)
    is_new = existing is None or existing.incarnation_id != request.incarnation_id
    if existing is not None and is_new and not _is_over(image, liveness, existing, request, now_ms):
        raise refuse(
            ErrorCode.DUPLICATE_BROKER_REGISTRATION,
            f"broker {request.broker_id} is registered by another process; if that was stopped just now, the number "
            "is free when its session has run out",
        )
    _check_directories(image, request)
    _check_features(image, request)
    broker = BrokerRegistration(
        id=request.broker_id,
        epoch=next_offset if existing is None or is_new else existing.epoch,
        incarnation_id=request.incarnation_id,
        endpoints=tuple(Endpoint(e.name, e.host, e.port, e.security_protocol) for e in request.listeners),
        features=tuple((f.name, f.min_supported_version, f.max_supported_version) for f in request.features),
        rack=request.rack,
        fenced=existing is None or is_new or existing.fenced,
        in_controlled_shutdown=existing is not None and not is_new and existing.in_controlled_shutdown,
        directories=tuple(request.log_dirs),
    )
    records: list[KnownRecord] = [new_register_broker_record(broker)]
    if is_new:
        changes = PartitionChanges(image, settings)
        stopped_cleanly = existing is not None and existing.epoch == request.previous_broker_epoch
        if stopped_cleanly:
            changes.restart_broker(broker.id)
        elif has_elr(image):
            changes.lose_data_of(broker.id, _gone(existing, broker))
        else:
            changes.remove_broker(broker.id)
        records += changes.records
    return Decision(tuple(records), Registered(broker.epoch, is_new))


def _gone(existing: BrokerRegistration | None, broker: BrokerRegistration) -> frozenset[UUID]:
    """Directories that the broker has no more: its disk was replaced, or has failed."""
    return frozenset() if existing is None else frozenset(existing.directories) - frozenset(broker.directories)


def _is_over(
    image: MetadataImage,
    liveness: Liveness,
    existing: BrokerRegistration,
    request: BrokerRegistrationRequest,
    now_ms: int,
) -> bool:
    """Whether the older incarnation is dead, or will be treated as such.

    Its session has run out; or its connection is gone, and the new process has its directories, which it could not
    have locked while the older one lived.
    """
    if not liveness.is_alive(image, existing.id, now_ms):
        return True
    return liveness.is_lost(existing.id) and set(existing.directories) == set(request.log_dirs)


def _check_directories(image: MetadataImage, request: BrokerRegistrationRequest) -> None:
    code = ErrorCode.INVALID_REGISTRATION
    if not request.log_dirs:
        raise refuse(code, "the registration names no directories")
    if any(directory <= DIRECTORY_LOST for directory in request.log_dirs):
        raise refuse(code, "the registration has a directory id that is reserved")
    if len(set(request.log_dirs)) < len(request.log_dirs):
        raise refuse(code, "the registration names a directory twice")
    for other in image.brokers.values():
        if other.id != request.broker_id and (taken := set(other.directories).intersection(request.log_dirs)):
            raise refuse(code, f"directory {min(taken)} belongs to broker {other.id}")


def _check_features(image: MetadataImage, request: BrokerRegistrationRequest) -> None:
    known = {feature.name: feature for feature in request.features}
    if METADATA_VERSION not in known:
        raise refuse(ErrorCode.INVALID_REGISTRATION, f"the registration has no range of {METADATA_VERSION}")
    for name in sorted({*known, *image.features}):
        if name == KRAFT_VERSION:
            continue  # the quorum's own: who votes and who observes is none of the metadata's business
        level = image.features.get(name, 0)
        feature = known.get(name, Feature(name=name))
        if not feature.min_supported_version <= level <= feature.max_supported_version:
            raise refuse(
                ErrorCode.UNSUPPORTED_VERSION,
                f"the cluster has {name} at level {level}; broker {request.broker_id} supports "
                f"{feature.min_supported_version} to {feature.max_supported_version}",
            )


def unregister_broker(image: MetadataImage, settings: ControllerSettings, broker_id: int) -> Decision[None]:
    """Decide to forget a broker that will not come back. Raises KafkaError BROKER_ID_NOT_REGISTERED."""
    broker = image.brokers.get(broker_id)
    if broker is None:
        raise refuse(ErrorCode.BROKER_ID_NOT_REGISTERED, f"broker {broker_id} is not registered")
    changes = PartitionChanges(image, settings)
    changes.lose_data_of(broker_id)
    return Decision((*changes.records, UnregisterBrokerRecord(broker_id=broker_id, broker_epoch=broker.epoch)), None)


def allocate_producer_ids(image: MetadataImage, broker_id: int, broker_epoch: int) -> Decision[range]:
    """Decide a block of producer ids for a broker. Raises KafkaError STALE_BROKER_EPOCH."""
    check_broker_epoch(image, broker_id, broker_epoch)
    first = image.producer_ids.next_producer_id
    end = first + PRODUCER_ID_BLOCK_SIZE
    if end > PRODUCER_ID_MAX:
        raise refuse(ErrorCode.UNKNOWN_SERVER_ERROR, "all producer ids are used up")
    record = ProducerIdsRecord(broker_id=broker_id, broker_epoch=broker_epoch, next_producer_id=end)
    return Decision((record,), range(first, end))
