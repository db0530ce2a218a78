"""AlterPartition: a leader asks for another ISR. Decides; changes nothing.

Compare and set: the leader names the leader epoch and the partition epoch it knows, so what it asks for rests on the
partition as it is, or is refused. Members it wants in must be alive as the incarnations it has seen (KIP-903): a
follower that has restarted since may have lost what made it in sync.

Sources: KIP-497, KIP-704, KIP-841, KIP-903, KIP-966; the controller of Kafka 4.3 for which error wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamlog.broker.metadata.changes import PartitionChanges
from streamlog.broker.metadata.decision import ControllerSettings, Decision
from streamlog.broker.metadata.heartbeats import check_broker_epoch
from streamlog.broker.metadata.image import MetadataImage, PartitionRegistration, TopicImage
from streamlog.broker.metadata.partition_change import RECOVERED, RECOVERING, Wanted
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.alter_partition import AlterPartitionRequest, BrokerState, PartitionData
from streamlog.wire.messages.alter_partition_response import AlterPartitionResponse
from streamlog.wire.messages.alter_partition_response import PartitionData as PartitionResult
from streamlog.wire.messages.alter_partition_response import TopicData as TopicResult

ANY_EPOCH = -1
"""A broker epoch that is not checked: followers older than KIP-903 do not tell theirs."""


def alter_partition(
    image: MetadataImage, settings: ControllerSettings, request: AlterPartitionRequest
) -> Decision[AlterPartitionResponse]:
    """Decide an AlterPartition request. Raises KafkaError STALE_BROKER_EPOCH: the leader is another incarnation."""
    check_broker_epoch(image, request.broker_id, request.broker_epoch)
    changes = PartitionChanges(image, settings)
    topics: list[TopicResult] = []
    for asked in request.topics:
        topic = image.topics_by_id.get(asked.topic_id)
        results = [
            PartitionResult(partition_index=wanted.partition_index, error_code=ErrorCode.UNKNOWN_TOPIC_ID)
            if topic is None
            else _alter(changes, request.broker_id, topic, wanted)
            for wanted in asked.partitions
        ]
        topics.append(TopicResult(topic_id=asked.topic_id, partitions=results))
    return Decision(tuple(changes.records), AlterPartitionResponse(topics=topics))


def _alter(changes: PartitionChanges, leader: int, topic: TopicImage, asked: PartitionData) -> PartitionResult:
    index = asked.partition_index
    isr = asked.new_isr_with_epochs or [BrokerState(broker_id=replica) for replica in asked.new_isr]
    code = _reason_against(changes, leader, topic, asked, isr)
    if code is not ErrorCode.NONE:
        return PartitionResult(partition_index=index, error_code=code)
    members = tuple(member.broker_id for member in isr)
    wanted = Wanted(
        isr=members,
        leader_recovery_state=asked.leader_recovery_state,
        directories=changes.directories_of(changes.partition(topic, index), members),
        election=changes.election(topic.name),
    )
    after = changes.change(topic, index, wanted) or changes.partition(topic, index)
    if after.leader != leader:
        # The new ISR has completed a reassignment that takes the leader away. It is done, and an error all the same:
        # the one who asked has to look at the metadata.
        return PartitionResult(partition_index=index, error_code=ErrorCode.NEW_LEADER_ELECTED)
    return PartitionResult(
        partition_index=index,
        leader_id=after.leader,
        leader_epoch=after.leader_epoch,
        isr=list(after.isr),
        leader_recovery_state=after.leader_recovery_state,
        partition_epoch=after.partition_epoch,
    )


def _reason_against(
    changes: PartitionChanges, leader: int, topic: TopicImage, asked: PartitionData, isr: Sequence[BrokerState]
) -> ErrorCode:
    if asked.partition_index not in topic.partitions:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    partition = changes.partition(topic, asked.partition_index)
    if asked.leader_epoch > partition.leader_epoch or asked.partition_epoch > partition.partition_epoch:
        return ErrorCode.NOT_CONTROLLER  # the leader knows more than we do: somebody else is the controller by now
    if asked.leader_epoch < partition.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    if leader != partition.leader:
        return ErrorCode.INVALID_REQUEST
    if asked.partition_epoch < partition.partition_epoch:
        return ErrorCode.INVALID_UPDATE_VERSION
    members = [member.broker_id for member in isr]
    if not _is_possible(partition, members, asked.leader_recovery_state):
        return ErrorCode.INVALID_REQUEST
    if not all(_is_eligible(changes.image, member) for member in isr):
        return ErrorCode.INELIGIBLE_REPLICA
    return ErrorCode.NONE


def _is_possible(partition: PartitionRegistration, members: Sequence[int], recovery_state: int) -> bool:
    if len(set(members)) < len(members) or not set(members) <= set(partition.replicas):
        return False
    if partition.leader not in members or recovery_state not in (RECOVERED, RECOVERING):
        return False
    # While the leader recovers from an unclean election nobody else can be in sync with what it will be.
    if recovery_state == RECOVERING:
        return len(members) == 1 and partition.leader_recovery_state == RECOVERING
    return True


def _is_eligible(image: MetadataImage, member: BrokerState) -> bool:
    broker = image.brokers.get(member.broker_id)
    if broker is None or not broker.is_active:
        return False
    return member.broker_epoch in (ANY_EPOCH, broker.epoch)
