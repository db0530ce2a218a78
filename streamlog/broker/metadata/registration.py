"""Brokers joining the cluster, and the blocks of producer ids they are given. Decides; changes nothing.

A broker registers with each start, as a new incarnation with a new epoch, and is fenced until it has caught up with
the metadata log. After an unclean stop, everything it leads gets a new leader epoch: its logs may have lost
what was written and not flushed, and a reader that compares epochs (KIP-320) must be able to tell.

Sources: KIP-631 (registration, fencing), KIP-730 (producer ids), KIP-966 (clean and unclean stops).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamlog.broker.metadata.decision import Decision, refuse
from streamlog.broker.metadata.image import (
    BrokerRegistration,
    KnownRecord,
    MetadataImage,
    new_register_broker_record,
)
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.metadata import (
    BrokerRegistrationChangeRecord,
    PartitionChangeRecord,
    ProducerIdsRecord,
)

UNFENCE: Final = -1

PRODUCER_ID_BLOCK_SIZE: Final = 1000
"""Ids a broker gets at a time (KIP-730). A crash wastes the rest of a block: ids are never reused."""

PRODUCER_ID_MAX: Final = 2**63 - 1


def register_broker(image: MetadataImage, broker: BrokerRegistration, next_offset: int) -> Decision[int]:
    """Decide a registration; answers the broker's epoch, the offset at which its record will stand."""
    records: tuple[KnownRecord, ...] = (
        new_register_broker_record(replace(broker, epoch=next_offset, fenced=True, in_controlled_shutdown=False)),
    )
    return Decision(records, next_offset)


def unfence_broker(image: MetadataImage, broker_id: int, *, stopped_cleanly: bool) -> Decision[None]:
    """Decide that a registered broker has caught up and may lead what it led before."""
    broker = image.brokers[broker_id]
    records: list[KnownRecord] = [
        BrokerRegistrationChangeRecord(broker_id=broker_id, broker_epoch=broker.epoch, fenced=UNFENCE)
    ]
    if not stopped_cleanly:
        records += [
            PartitionChangeRecord(partition_id=index, topic_id=topic.id, leader=broker_id)
            for topic in image.topics.values()
            for index, partition in topic.partitions.items()
            if partition.leader == broker_id
        ]
    return Decision(tuple(records), None)


def allocate_producer_ids(image: MetadataImage, broker_id: int, broker_epoch: int) -> Decision[range]:
    """Decide a block of producer ids for a broker."""
    first = image.producer_ids.next_producer_id
    end = first + PRODUCER_ID_BLOCK_SIZE
    if end > PRODUCER_ID_MAX:
        raise refuse(ErrorCode.UNKNOWN_SERVER_ERROR, "all producer ids are used up")
    record = ProducerIdsRecord(broker_id=broker_id, broker_epoch=broker_epoch, next_producer_id=end)
    return Decision((record,), range(first, end))
