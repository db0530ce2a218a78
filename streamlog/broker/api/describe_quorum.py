"""DescribeQuorum (API 55): how far everybody is who follows the metadata quorum's leader (KIP-595, KIP-836)."""

from __future__ import annotations

from typing import Final

from streamlog.broker.raft.quorum import Quorum
from streamlog.broker.raft.rpc import PARTITION, TOPIC
from streamlog.broker.raft.states import Progress
from streamlog.env import Env
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.describe_quorum import DescribeQuorumRequest
from streamlog.wire.messages.describe_quorum_response import (
    DescribeQuorumResponse,
    Listener,
    Node,
    PartitionData,
    ReplicaState,
    TopicData,
)
from streamlog.wire.schema import ZERO_UUID

NOBODY: Final = -1


DIRECTORIES_SINCE: Final = 2
"""Before this version voters have no directories and endpoints (KIP-853), and there is nowhere to write them."""


def handle(env: Env, quorum: Quorum, request: DescribeQuorumRequest, version: int) -> DescribeQuorumResponse:
    asked = [
        (topic.topic_name, partition.partition_index) for topic in request.topics for partition in topic.partitions
    ]
    if asked != [(TOPIC, PARTITION)]:
        return DescribeQuorumResponse(error_code=ErrorCode.INVALID_REQUEST, error_message=None)
    found = quorum.describe()
    if found is None:
        answer = quorum.core.answer(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        data = PartitionData(
            error_code=answer.error,
            error_message=None,
            leader_id=NOBODY if answer.leader_id is None else answer.leader_id,
            leader_epoch=answer.epoch,
            high_watermark=-1,
        )
        return _response(data)
    now_ms, wall_ms = env.clock.mono_ms(), env.clock.wall_ms()

    def state(progress: Progress) -> ReplicaState:
        def at(mono_ms: int) -> int:
            return wall_ms - (now_ms - mono_ms) if mono_ms >= 0 else -1

        is_leader = progress.key.id == found.leader_id
        return ReplicaState(
            replica_id=progress.key.id,
            replica_directory_id=progress.key.directory_id if version >= DIRECTORIES_SINCE else ZERO_UUID,
            log_end_offset=progress.end_offset,
            last_fetch_timestamp=wall_ms if is_leader else at(progress.fetched_at_ms),
            last_caught_up_timestamp=wall_ms if is_leader else at(progress.caught_up_at_ms),
        )

    response = _response(
        PartitionData(
            error_message=None,
            leader_id=found.leader_id,
            leader_epoch=found.epoch,
            high_watermark=found.high_watermark,
            current_voters=[state(progress) for progress in found.voters],
            observers=[state(progress) for progress in found.observers],
        )
    )
    if version < DIRECTORIES_SINCE:
        return response
    response.nodes = [
        Node(
            node_id=voter.key.id,
            listeners=[Listener(name=name, host=host, port=port) for name, host, port in voter.endpoints],
        )
        for voter in found.voter_set
    ]
    return response


def _response(data: PartitionData) -> DescribeQuorumResponse:
    return DescribeQuorumResponse(error_message=None, topics=[TopicData(topic_name=TOPIC, partitions=[data])])
