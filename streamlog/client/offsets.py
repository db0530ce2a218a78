"""Questions about offsets, asked of many leaders at once: ListOffsets and OffsetForLeaderEpoch.

One attempt each; every partition gets an answer or the error that stood in its way, so that callers can retry those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

from streamlog.client.cluster import Cluster, topic_error
from streamlog.client.values import TopicPartition, partitions_by_topic
from streamlog.errors import StreamlogError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    ListOffsetsRequest,
    ListOffsetsResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from streamlog.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsTopic
from streamlog.wire.messages.offset_for_leader_epoch import OffsetForLeaderPartition, OffsetForLeaderTopic

T = TypeVar("T")

CONSUMER_REPLICA_ID = -1


class OffsetAnswer(NamedTuple):
    """What a leader said of one partition; -1 where there is nothing to say."""

    offset: int
    timestamp_ms: int
    leader_epoch: int


Answers: TypeAlias = dict[TopicPartition, OffsetAnswer | StreamlogError]


async def list_offsets(cluster: Cluster, timestamps: Mapping[TopicPartition, int], *, read_committed: bool) -> Answers:
    """The first offset at or after a timestamp (ms), or -2 for the earliest offset, -1 for the end, and so on."""

    async def ask(node_id: int, wanted: Mapping[TopicPartition, int]) -> Answers:
        topics = [
            ListOffsetsTopic(
                name=topic,
                partitions=[
                    ListOffsetsPartition(
                        partition_index=number,
                        current_leader_epoch=cluster.metadata.leader_epoch(TopicPartition(topic, number)),
                        timestamp=wanted[TopicPartition(topic, number)],
                    )
                    for number in numbers
                ],
            )
            for topic, numbers in partitions_by_topic(list(wanted)).items()
        ]
        request = ListOffsetsRequest(
            replica_id=CONSUMER_REPLICA_ID,
            isolation_level=1 if read_committed else 0,
            topics=topics,
            timeout_ms=cluster.settings.request_timeout_ms,
        )
        response = await cluster.request(node_id, request, ListOffsetsResponse)
        answers: Answers = {}
        for topic in response.topics:
            for one in topic.partitions:
                partition = TopicPartition(topic.name, one.partition_index)
                answer = OffsetAnswer(one.offset, one.timestamp, one.leader_epoch)
                answers[partition] = _refusal(partition, one.error_code) or answer
        return answers

    return await _ask_leaders(cluster, timestamps, ask)


async def end_of_epochs(cluster: Cluster, wanted: Mapping[TopicPartition, tuple[int, int]]) -> Answers:
    """Where an epoch ends in the leader's log: of (current leader epoch, epoch in question) per partition (KIP-320)."""

    async def ask(node_id: int, mine: Mapping[TopicPartition, tuple[int, int]]) -> Answers:
        topics = [
            OffsetForLeaderTopic(
                topic=topic,
                partitions=[
                    OffsetForLeaderPartition(
                        partition=number,
                        current_leader_epoch=mine[TopicPartition(topic, number)][0],
                        leader_epoch=mine[TopicPartition(topic, number)][1],
                    )
                    for number in numbers
                ],
            )
            for topic, numbers in partitions_by_topic(list(mine)).items()
        ]
        request = OffsetForLeaderEpochRequest(replica_id=CONSUMER_REPLICA_ID, topics=topics)
        response = await cluster.request(node_id, request, OffsetForLeaderEpochResponse)
        answers: Answers = {}
        for topic in response.topics:
            for one in topic.partitions:
                partition = TopicPartition(topic.topic, one.partition)
                answer = OffsetAnswer(one.end_offset, -1, one.leader_epoch)
                answers[partition] = _refusal(partition, one.error_code) or answer
        return answers

    return await _ask_leaders(cluster, wanted, ask)


async def _ask_leaders(
    cluster: Cluster,
    wanted: Mapping[TopicPartition, T],
    ask: Callable[[int, Mapping[TopicPartition, T]], Awaitable[Answers]],
) -> Answers:
    """`ask` every leader about its partitions, all at the same time."""
    answers: Answers = {}
    by_leader: dict[int, dict[TopicPartition, T]] = {}
    for partition, question in wanted.items():
        leader = cluster.metadata.leader(partition.topic, partition.partition)
        if leader is None:
            code = cluster.metadata.errors.get(partition.topic, ErrorCode.LEADER_NOT_AVAILABLE)
            answers[partition] = topic_error(partition.topic, code)
        else:
            by_leader.setdefault(leader, {})[partition] = question

    async def ask_one(node_id: int, mine: Mapping[TopicPartition, T]) -> Answers:
        try:
            found = await ask(node_id, mine)
        except StreamlogError as failure:
            return dict.fromkeys(mine, failure)
        missing = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "the broker's answer does not mention the partition")
        return {partition: found.get(partition, missing) for partition in mine}

    for found in await asyncio.gather(*(ask_one(node_id, mine) for node_id, mine in sorted(by_leader.items()))):
        answers.update(found)
    return answers


def _refusal(partition: TopicPartition, error_code: int) -> KafkaError | None:
    if not error_code:
        return None
    return KafkaError(ErrorCode.of(error_code), f"{partition}")
