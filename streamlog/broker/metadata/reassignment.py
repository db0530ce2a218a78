"""Replicas that move between brokers. Decides; changes nothing.

A reassignment is two changes. The first makes the partition's replicas the new ones and behind them those on their way
out, and notes which come (`adding_replicas`) and which go (`removing_replicas`). The new ones follow the leader like
any replica. The second lets go of the old ones; it happens with the change that makes all that stay in sync
(`partition_change`), mostly an AlterPartition. Where nobody has to catch up both are one.

Cancelling takes the new replicas out again and keeps the old ones.

Sources: KIP-455, KIP-860 (allow_replication_factor_change), and the controller of Kafka 4.3 for which error wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamlog.broker.metadata.changes import PartitionChanges
from streamlog.broker.metadata.decision import PARTITIONS_PER_REQUEST_MAX, ControllerSettings, Decision, refuse
from streamlog.broker.metadata.image import MetadataImage, PartitionRegistration, TopicImage
from streamlog.broker.metadata.partition_change import Election, Wanted
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from streamlog.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)


def is_reassigning(partition: PartitionRegistration) -> bool:
    return bool(partition.adding_replicas or partition.removing_replicas)


def alter_partition_reassignments(
    image: MetadataImage, settings: ControllerSettings, request: AlterPartitionReassignmentsRequest
) -> Decision[AlterPartitionReassignmentsResponse]:
    """Decide which reassignments begin and which are cancelled; each partition stands for itself."""
    changes = PartitionChanges(image, settings)
    topics: list[ReassignableTopicResponse] = []
    for asked in request.topics:
        results: list[ReassignablePartitionResponse] = []
        for wanted in asked.partitions:
            result = ReassignablePartitionResponse(partition_index=wanted.partition_index, error_message=None)
            try:
                _alter(changes, asked.name, wanted, may_change_factor=request.allow_replication_factor_change)
            except KafkaError as error:
                result.error_code, result.error_message = error.code, error.message
            results.append(result)
        topics.append(ReassignableTopicResponse(name=asked.name, partitions=results))
    if len(changes.records) > PARTITIONS_PER_REQUEST_MAX:
        raise refuse(
            ErrorCode.POLICY_VIOLATION,
            f"{len(changes.records)} partitions in one request; at most {PARTITIONS_PER_REQUEST_MAX} begin to move at "
            "a time",
        )
    response = AlterPartitionReassignmentsResponse(
        allow_replication_factor_change=request.allow_replication_factor_change, error_message=None, responses=topics
    )
    return Decision(tuple(changes.records), response)


def _alter(changes: PartitionChanges, name: str, asked: ReassignablePartition, *, may_change_factor: bool) -> None:
    topic = changes.image.topics.get(name)
    if topic is None or asked.partition_index not in topic.partitions:
        raise refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no partition {name}-{asked.partition_index}")
    partition = changes.partition(topic, asked.partition_index)
    if asked.replicas is None:
        _cancel(changes, topic, asked.partition_index, partition)
        return
    _check(changes.image, asked.replicas)
    if not may_change_factor and len(asked.replicas) != len(_original(partition)):
        raise refuse(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"the partition has {len(_original(partition))} replicas and would have {len(asked.replicas)}",
        )
    target = tuple(asked.replicas)
    # Who was being added by a reassignment that this one replaces goes on being added, or is dropped at once if nobody
    # relies on it yet.
    relied_on = {*partition.isr, *partition.eligible_leader_replicas}
    dropped = set(partition.adding_replicas).difference(target, relied_on)
    removing = tuple(sorted(set(partition.replicas).difference(target, dropped)))
    new = set(target).difference(partition.replicas)
    adding = tuple(sorted(new | set(partition.adding_replicas).intersection(target)))
    changes.change(
        topic, asked.partition_index, Wanted(replicas=(*target, *removing), removing=removing, adding=adding)
    )


def _check(image: MetadataImage, replicas: Sequence[int]) -> None:
    code = ErrorCode.INVALID_REPLICA_ASSIGNMENT
    if not replicas:
        raise refuse(code, "a partition has at least one replica")
    if len(set(replicas)) < len(replicas):
        raise refuse(code, f"the assignment {list(replicas)} names a broker more than once")
    for replica in replicas:
        if replica not in image.brokers:
            raise refuse(code, f"the assignment names broker {replica}, which is not registered")


def _original(partition: PartitionRegistration) -> tuple[int, ...]:
    """The replicas before the reassignment under way."""
    return tuple(replica for replica in partition.replicas if replica not in partition.adding_replicas)


def _cancel(changes: PartitionChanges, topic: TopicImage, index: int, partition: PartitionRegistration) -> None:
    if not is_reassigning(partition):
        raise refuse(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "no reassignment of the partition is under way")
    replicas = _original(partition)
    isr = tuple(replica for replica in partition.isr if replica in replicas)
    eligible = [replica for replica in partition.eligible_leader_replicas if replica in replicas]
    election = changes.election(topic.name)
    if not replicas:
        raise refuse(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "every replica of the partition is a new one")
    if not isr and not eligible:
        # Only new replicas have what was acknowledged.
        if election is not Election.UNCLEAN:
            raise refuse(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                "none of the old replicas is in sync: taking the new ones away needs an unclean election",
            )
        isr = ()
    changes.change(topic, index, Wanted(isr=isr, replicas=replicas, removing=(), adding=(), election=election))


def list_partition_reassignments(
    image: MetadataImage, request: ListPartitionReassignmentsRequest
) -> ListPartitionReassignmentsResponse:
    """What is moving, of all topics or of those named; what is not moving, or not there, is left out."""
    asked: list[tuple[TopicImage, list[int]]] = []
    if request.topics is None:
        asked = [(topic, list(topic.partitions)) for topic in image.topics.values()]
    else:
        for named in request.topics:
            found = image.topics.get(named.name)
            if found is not None:
                asked.append((found, list(dict.fromkeys(named.partition_indexes))))
    topics: list[OngoingTopicReassignment] = []
    for topic, indexes in asked:
        ongoing = [
            OngoingPartitionReassignment(
                partition_index=index,
                replicas=list(partition.replicas),
                adding_replicas=list(partition.adding_replicas),
                removing_replicas=list(partition.removing_replicas),
            )
            for index in indexes
            if (partition := topic.partitions.get(index)) is not None and is_reassigning(partition)
        ]
        if ongoing:
            topics.append(OngoingTopicReassignment(name=topic.name, partitions=ongoing))
    return ListPartitionReassignmentsResponse(error_message=None, topics=topics)
