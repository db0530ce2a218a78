"""Heartbeats: brokers are unfenced, fenced, and let go. Decides; changes nothing.

What a broker is to the cluster, and what leads from one to the other:

    FENCED                registered, serves nobody. Unfenced once it has read the metadata up to its own registration.
    UNFENCED              leads and follows. Fenced when it asks for it, or its session runs out.
    CONTROLLED_SHUTDOWN   asked to shut down: its leaderships move and it leaves every ISR. It may go when it leads
                          nothing any more and every other active broker has read who leads instead.
    SHUTDOWN_NOW          may go at once. It is fenced with the same decision.

The broker asks again with each heartbeat, so no answer need be kept.

Sources: KIP-631, KIP-841 (a broker in controlled shutdown is in no ISR), KIP-858 (directories that fail).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from streamlog.broker.metadata.changes import PartitionChanges, leads_anything
from streamlog.broker.metadata.decision import ControllerSettings, Decision, refuse
from streamlog.broker.metadata.image import BrokerRegistration, KnownRecord, MetadataImage
from streamlog.broker.metadata.liveness import NOT_SHUTTING_DOWN, Liveness
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.metadata import BrokerRegistrationChangeRecord
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse

FENCE: Final = 1
UNFENCE: Final = -1
IN_CONTROLLED_SHUTDOWN: Final = 1


class BrokerState(Enum):
    FENCED = "fenced"
    UNFENCED = "unfenced"
    CONTROLLED_SHUTDOWN = "controlled shutdown"
    SHUTDOWN_NOW = "shutdown now"

    @property
    def is_fenced(self) -> bool:
        return self in (BrokerState.FENCED, BrokerState.SHUTDOWN_NOW)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a heartbeat led to: the answer, and what `Liveness` has to be told if the records are appended."""

    response: BrokerHeartbeatResponse
    begins_shutdown: bool
    is_gone: bool
    """Fenced by this: no session any more."""


def check_broker_epoch(image: MetadataImage, broker_id: int, broker_epoch: int) -> BrokerRegistration:
    """The broker that asks. Raises KafkaError STALE_BROKER_EPOCH: it was registered anew since, or is forgotten."""
    broker = image.brokers.get(broker_id)
    if broker is None:
        raise refuse(ErrorCode.STALE_BROKER_EPOCH, f"broker {broker_id} is not registered")
    if broker.epoch != broker_epoch:
        raise refuse(
            ErrorCode.STALE_BROKER_EPOCH, f"broker {broker_id} has epoch {broker.epoch} by now, not {broker_epoch}"
        )
    return broker


def broker_heartbeat(
    image: MetadataImage, settings: ControllerSettings, liveness: Liveness, request: BrokerHeartbeatRequest
) -> Decision[Heartbeat]:
    """Decide what becomes of a broker. Raises KafkaError STALE_BROKER_EPOCH."""
    broker = check_broker_epoch(image, request.broker_id, request.broker_epoch)
    before = _state(broker)
    after = _next_state(image, liveness, broker, before, request)
    changes = PartitionChanges(image, settings)
    if after is not before:
        _move(changes, broker, after)
    elif after is BrokerState.CONTROLLED_SHUTDOWN:
        changes.remove_broker(broker.id)  # what it was elected for or added to meanwhile
    offline = frozenset(request.offline_log_dirs).intersection(broker.directories)
    if offline:
        changes.lose_directories(broker.id, offline)
        online = [directory for directory in broker.directories if directory not in offline]
        changes.records.append(
            BrokerRegistrationChangeRecord(broker_id=broker.id, broker_epoch=broker.epoch, log_dirs=online)
        )
    response = BrokerHeartbeatResponse(
        is_caught_up=request.current_metadata_offset >= broker.epoch,
        is_fenced=after.is_fenced,
        should_shut_down=after is BrokerState.SHUTDOWN_NOW,
    )
    begins = after is BrokerState.CONTROLLED_SHUTDOWN and liveness.shutdown_offset(broker.id) == NOT_SHUTTING_DOWN
    is_gone = after.is_fenced and before is not BrokerState.FENCED
    return Decision(tuple(changes.records), Heartbeat(response, begins, is_gone))


def _state(broker: BrokerRegistration) -> BrokerState:
    if broker.fenced:
        return BrokerState.FENCED
    return BrokerState.CONTROLLED_SHUTDOWN if broker.in_controlled_shutdown else BrokerState.UNFENCED


def _next_state(
    image: MetadataImage,
    liveness: Liveness,
    broker: BrokerRegistration,
    state: BrokerState,
    request: BrokerHeartbeatRequest,
) -> BrokerState:
    match state:
        case BrokerState.FENCED:
            if request.want_shut_down:
                return BrokerState.SHUTDOWN_NOW
            # Who has begun to shut down leads nothing before it has registered anew: no record takes that back.
            is_wanted = not request.want_fence and not broker.in_controlled_shutdown
            if is_wanted and request.current_metadata_offset >= broker.epoch:
                return BrokerState.UNFENCED
            return BrokerState.FENCED
        case BrokerState.UNFENCED:
            if request.want_fence:
                return BrokerState.SHUTDOWN_NOW if request.want_shut_down else BrokerState.FENCED
            if not request.want_shut_down:
                return BrokerState.UNFENCED
            return BrokerState.CONTROLLED_SHUTDOWN if leads_anything(image, broker.id) else BrokerState.SHUTDOWN_NOW
        case BrokerState.CONTROLLED_SHUTDOWN:
            if leads_anything(image, broker.id):
                return BrokerState.CONTROLLED_SHUTDOWN
            read_by_all = liveness.lowest_active_offset(image)
            if read_by_all is None or liveness.shutdown_offset(broker.id) <= read_by_all:
                return BrokerState.SHUTDOWN_NOW
            return BrokerState.CONTROLLED_SHUTDOWN
        case BrokerState.SHUTDOWN_NOW:
            return state


def _move(changes: PartitionChanges, broker: BrokerRegistration, after: BrokerState) -> None:
    match after:
        case BrokerState.UNFENCED:
            changes.records.append(_change(broker, fenced=UNFENCE))
            changes.add_broker(broker.id)
        case BrokerState.CONTROLLED_SHUTDOWN:
            changes.records.append(_change(broker, shutdown=IN_CONTROLLED_SHUTDOWN))
            changes.remove_broker(broker.id)
        case BrokerState.FENCED | BrokerState.SHUTDOWN_NOW:
            if not broker.fenced:
                changes.remove_broker(broker.id)
                changes.records.append(_change(broker, fenced=FENCE))


def _change(broker: BrokerRegistration, *, fenced: int = 0, shutdown: int = 0) -> KnownRecord:
    return BrokerRegistrationChangeRecord(
        broker_id=broker.id, broker_epoch=broker.epoch, fenced=fenced, in_controlled_shutdown=shutdown
    )


def fence_broker(
    image: MetadataImage, settings: ControllerSettings, broker_id: int, broker_epoch: int
) -> Decision[bool]:
    """Decide to fence a broker that is not heard of any more. Answers whether it was not fenced already."""
    broker = image.brokers.get(broker_id)
    if broker is None or broker.epoch != broker_epoch or broker.fenced:
        return Decision((), False)
    changes = PartitionChanges(image, settings)
    changes.remove_broker(broker_id)
    return Decision((*changes.records, _change(broker, fenced=FENCE)), True)
