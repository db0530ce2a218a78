"""AssignReplicasToDirs: a broker tells in which of its directories replicas are. Decides; changes nothing.

A directory that the broker has not registered is one that has failed: its replicas leave their ISR.

Source: KIP-858.
"""

from __future__ import annotations

from streamlog.broker.metadata.changes import PartitionChanges
from streamlog.broker.metadata.decision import ControllerSettings, Decision
from streamlog.broker.metadata.heartbeats import check_broker_epoch
from streamlog.broker.metadata.image import MetadataImage, TopicImage
from streamlog.broker.metadata.partition_change import Wanted
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.assign_replicas_to_dirs import AssignReplicasToDirsRequest, DirectoryData
from streamlog.wire.messages.assign_replicas_to_dirs_response import (
    AssignReplicasToDirsResponse,
    PartitionData,
    TopicData,
)
from streamlog.wire.messages.assign_replicas_to_dirs_response import DirectoryData as DirectoryResult


def assign_replicas_to_dirs(
    image: MetadataImage, settings: ControllerSettings, request: AssignReplicasToDirsRequest
) -> Decision[AssignReplicasToDirsResponse]:
    """Decide where a broker's replicas are. Raises KafkaError STALE_BROKER_EPOCH."""
    broker = check_broker_epoch(image, request.broker_id, request.broker_epoch)
    changes = PartitionChanges(image, settings)
    results: list[DirectoryResult] = []
    for directory in request.directories:
        is_offline = directory.id not in broker.directories
        topics = [
            TopicData(
                topic_id=asked.topic_id,
                partitions=[
                    PartitionData(
                        partition_index=row.partition_index,
                        error_code=_assign(
                            changes, broker.id, directory, image.topics_by_id.get(asked.topic_id), row.partition_index
                        ),
                    )
                    for row in asked.partitions
                ],
            )
            for asked in directory.topics
        ]
        if is_offline:
            changes.lose_directories(broker.id, frozenset({directory.id}))
        results.append(DirectoryResult(id=directory.id, topics=topics))
    return Decision(tuple(changes.records), AssignReplicasToDirsResponse(directories=results))


def _assign(
    changes: PartitionChanges, broker_id: int, directory: DirectoryData, topic: TopicImage | None, index: int
) -> ErrorCode:
    if topic is None:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if index not in topic.partitions:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if broker_id not in changes.partition(topic, index).replicas:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    partition = changes.partition(topic, index)
    is_empty = broker_id not in partition.isr and bool(changes.directories_of(partition, (broker_id,)))
    changes.change(
        topic, index, Wanted(directories={broker_id: directory.id}, emptied=(broker_id,) if is_empty else ())
    )
    return ErrorCode.NONE
