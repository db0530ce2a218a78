"""Proposals of leaders on their way to the controller: one AlterPartition at a time, with whatever has come together.

A proposal that nobody has answered is sent again, unless the partition has changed meanwhile: the controller compares
epochs, so asking twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from uuid import UUID

from streamlog.broker.partition import Partition
from streamlog.broker.replication.leader import IsrProposal, LeaderState, Verdict
from streamlog.env import Scope
from streamlog.errors import StreamlogError
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import alter_partition as asked
from streamlog.wire.messages import alter_partition_response as answered

log = logging.getLogger(__name__)

AskController: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Put a request to the active controller, wherever it is. Raises KafkaError when that takes too long."""

RETRY_MS_MIN: Final = 50
RETRY_MS_MAX: Final = 1_000

PARTITIONS_MAX: Final = 2_000
"""In one request: the records of its answer are one batch of the metadata log."""

REJECTED: Final = (ErrorCode.INELIGIBLE_REPLICA, ErrorCode.OPERATION_NOT_ATTEMPTED)
OUTDATED: Final = (
    ErrorCode.FENCED_LEADER_EPOCH,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.INVALID_UPDATE_VERSION,
    ErrorCode.NEW_LEADER_ELECTED,
    ErrorCode.UNKNOWN_TOPIC_ID,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
)


class IsrChangeQueue:
    """See the module's essay. Its task lives while something is to be asked."""

    def __init__(self, node_id: int, scope: Scope, ask: AskController, own_broker_epoch: Callable[[], int]) -> None:
        self._node_id = node_id
        self._scope = scope
        self._ask = ask
        self._own_broker_epoch = own_broker_epoch
        self._queued: dict[Partition, IsrProposal] = {}
        self._is_running = False

    def submit(self, partition: Partition, proposal: IsrProposal) -> None:
        self._queued[partition] = proposal
        if not self._is_running:
            self._is_running = True
            self._scope.spawn("alter partitions", self._run())

    async def _run(self) -> None:
        retry_ms = RETRY_MS_MIN
        try:
            while self._queued:
                asking = dict(list(self._queued.items())[:PARTITIONS_MAX])
                for partition in asking:
                    del self._queued[partition]
                answers = await self._exchange(asking)
                again = [one for one in asking.items() if not self._conclude(*one, answers.get(_key(one[0])))]
                if not again:
                    retry_ms = RETRY_MS_MIN
                    continue
                await asyncio.sleep(retry_ms / 1000)
                retry_ms = min(2 * retry_ms, RETRY_MS_MAX)
                for partition, proposal in again:
                    if partition.leader is not None and partition.leader.proposed is proposal:
                        self._queued.setdefault(partition, proposal)
        finally:
            self._is_running = False

    async def _exchange(self, asking: dict[Partition, IsrProposal]) -> dict[tuple[UUID, int], answered.PartitionData]:
        """The controller's answers by partition; none of them when there is none."""
        topics: dict[UUID, asked.TopicData] = {}
        for partition, proposal in asking.items():
            topic = topics.setdefault(partition.topic_id, asked.TopicData(topic_id=partition.topic_id))
            topic.partitions.append(self._encode(partition, proposal))
        request = asked.AlterPartitionRequest(
            broker_id=self._node_id, broker_epoch=self._own_broker_epoch(), topics=list(topics.values())
        )
        try:
            response = await self._ask(request)
        except StreamlogError as error:
            log.warning("the controller could not be asked to change in-sync sets: %s", error)
            return {}
        assert isinstance(response, answered.AlterPartitionResponse), "the answer is of the request's API"
        if response.error_code:
            log.warning("the controller refuses to change in-sync sets: %s", ErrorCode.of(response.error_code).name)
            return {}
        return {(topic.topic_id, data.partition_index): data for topic in response.topics for data in topic.partitions}

    def _encode(self, partition: Partition, proposal: IsrProposal) -> asked.PartitionData:
        own_epoch = self._own_broker_epoch()
        return asked.PartitionData(
            partition_index=partition.index,
            leader_epoch=proposal.leader_epoch,
            new_isr_with_epochs=[
                asked.BrokerState(broker_id=member, broker_epoch=own_epoch if member == self._node_id else epoch)
                for member, epoch in proposal.isr
            ],
            partition_epoch=proposal.partition_epoch,
        )

    def _conclude(self, partition: Partition, proposal: IsrProposal, answer: answered.PartitionData | None) -> bool:
        """Tell the leader. False: the same is to be asked again."""
        state = partition.leader
        if state is None or state.leader_epoch != proposal.leader_epoch:
            return True
        verdict = _judge(state, proposal, answer)
        if answer is not None and answer.error_code:
            log.info("partition=%r isr not changed: %s", partition, ErrorCode.of(answer.error_code).name)
        partition.advance()
        return verdict is not Verdict.RETRIED


def _judge(state: LeaderState, proposal: IsrProposal, answer: answered.PartitionData | None) -> Verdict:
    if answer is None:
        return state.on_unanswered(proposal)
    code = ErrorCode.of(answer.error_code)
    if code is ErrorCode.NONE:
        return state.on_accepted(proposal, answer.leader_epoch, answer.partition_epoch)
    if code in REJECTED:
        return state.on_rejected(proposal)
    if code in OUTDATED:
        return state.on_outdated(proposal)
    return state.on_unanswered(proposal)


def _key(partition: Partition) -> tuple[UUID, int]:
    return partition.topic_id, partition.index
