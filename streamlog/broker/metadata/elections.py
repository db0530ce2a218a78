"""Elections that are asked for, and those the controller holds by itself. Decides; changes nothing.

A leader that fails is replaced with the decision that fences its broker, a partition without one gets one with the
decision that unfences a broker or allows unclean elections (`changes.py`): nothing has to be looked for by the clock.
Here is the rest: ElectLeaders of an operator, and leaderships that go back to preferred replicas that are well again.

Sources: KIP-183, KIP-460 (ElectLeaders), Kafka's auto.leader.rebalance.enable, and its controller for which error wins.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from streamlog.broker.metadata.changes import PartitionChanges
from streamlog.broker.metadata.decision import PARTITIONS_PER_REQUEST_MAX, ControllerSettings, Decision, refuse
from streamlog.broker.metadata.image import NO_LEADER, MetadataImage, TopicImage
from streamlog.broker.metadata.partition_change import Election, Wanted
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

ELECTIONS_AT_ONCE: Final = 1_000
"""Of those nobody asked for: one batch of the metadata log stays small, and requests get their turn in between."""


class ElectionType(IntEnum):
    PREFERRED = 0
    UNCLEAN = 1


def elect_leaders(
    image: MetadataImage, settings: ControllerSettings, request: ElectLeadersRequest
) -> Decision[ElectLeadersResponse]:
    """Decide ElectLeaders. Asked for all partitions, those that need no election are left out of the answer.

    Raises KafkaError INVALID_REQUEST: there is no such type.
    """
    try:
        kind = ElectionType(request.election_type)
    except ValueError:
        raise refuse(ErrorCode.INVALID_REQUEST, f"there is no election type {request.election_type}") from None
    changes = PartitionChanges(image, settings)
    results: list[ReplicaElectionResult] = []
    if request.topic_partitions is None:
        for topic in image.topics.values():
            found = [_elect(changes, topic, index, kind) for index in topic.partitions]
            needed = [result for result in found if result.error_code != ErrorCode.ELECTION_NOT_NEEDED]
            if needed:
                results.append(ReplicaElectionResult(topic=topic.name, partition_result=needed))
    else:
        for asked in request.topic_partitions:
            named = image.topics.get(asked.topic)
            elected = [_elect(changes, named, index, kind) for index in dict.fromkeys(asked.partitions)]
            results.append(ReplicaElectionResult(topic=asked.topic, partition_result=elected))
    if len(changes.records) > PARTITIONS_PER_REQUEST_MAX:
        raise refuse(
            ErrorCode.POLICY_VIOLATION,
            f"{len(changes.records)} elections in one request; at most {PARTITIONS_PER_REQUEST_MAX} are held at a time",
        )
    return Decision(tuple(changes.records), ElectLeadersResponse(replica_election_results=results))


def _elect(changes: PartitionChanges, topic: TopicImage | None, index: int, kind: ElectionType) -> PartitionResult:
    try:
        _elect_one(changes, topic, index, kind)
    except KafkaError as error:
        return PartitionResult(partition_id=index, error_code=error.code, error_message=error.message)
    return PartitionResult(partition_id=index, error_message=None)


def _elect_one(changes: PartitionChanges, topic: TopicImage | None, index: int, kind: ElectionType) -> None:
    if topic is None or index not in topic.partitions:
        raise refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no such partition")
    partition = changes.partition(topic, index)
    if kind is ElectionType.PREFERRED:
        if partition.leader == partition.replicas[0]:
            raise refuse(ErrorCode.ELECTION_NOT_NEEDED, "the preferred replica leads already")
        # The election itself would take any leader rather than none; who asks for the preferred one is told about it.
        after = changes.change(topic, index, Wanted(election=Election.PREFERRED))
        if after is None or after.leader == NO_LEADER:
            raise refuse(ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, "the preferred replica is not in sync, or not alive")
        return
    if partition.leader != NO_LEADER:
        raise refuse(ErrorCode.ELECTION_NOT_NEEDED, f"{partition.leader} leads")
    after = changes.change(topic, index, Wanted(election=Election.UNCLEAN, with_empty=True))
    if after is None or after.leader == NO_LEADER:
        raise refuse(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "no replica is alive")


def balance_leaders(image: MetadataImage, settings: ControllerSettings) -> Decision[bool]:
    """Give leaderships back to preferred replicas that can take them. Answers whether there may be more to do."""
    changes = PartitionChanges(image, settings)
    for topic, index, partition in changes.partitions():
        if len(changes.records) >= ELECTIONS_AT_ONCE:
            break
        preferred = partition.replicas[0]
        if partition.leader not in (preferred, NO_LEADER) and preferred in partition.isr:
            changes.change(topic, index, Wanted(election=Election.PREFERRED))
    return Decision(tuple(changes.records), len(changes.records) >= ELECTIONS_AT_ONCE)
