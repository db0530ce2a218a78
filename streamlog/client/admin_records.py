"""Records and offsets of partitions, asked of their leaders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from streamlog.client.asking import Asking, error_of
from streamlog.client.failures import one_line
from streamlog.client.offsets import OffsetAnswer
from streamlog.client.offsets import list_offsets as ask_leaders
from streamlog.client.values import (
    OffsetAndTimestamp,
    TopicPartition,
    partitions_by_topic,
)
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    DeleteRecordsRequest,
    DeleteRecordsResponse,
)
from streamlog.wire.messages.delete_records import DeleteRecordsPartition, DeleteRecordsTopic


async def delete_records(asking: Asking, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Delete records before these offsets (-1: all there are). Returns the new first offsets. Raises SomeFailed."""
    found: dict[TopicPartition, int] = {}
    await _known(asking, offsets)

    async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
        answers: dict[TopicPartition, KafkaError | None] = {}
        for leader, mine in _by_leader(asking, left).items():
            request = DeleteRecordsRequest(
                topics=[
                    DeleteRecordsTopic(
                        name=topic,
                        partitions=[
                            DeleteRecordsPartition(
                                partition_index=number, offset=offsets[TopicPartition(topic, number)]
                            )
                            for number in numbers
                        ],
                    )
                    for topic, numbers in partitions_by_topic(mine).items()
                ],
                timeout_ms=asking.timeout_ms,
            )
            answer = await asking.cluster.request(leader, request, DeleteRecordsResponse)
            for topic in answer.topics:
                for one in topic.partitions:
                    partition = TopicPartition(topic.name, one.partition_index)
                    found[partition] = one.low_watermark
                    answers[partition] = error_of(one.error_code, None)
        return answers

    await asking.each("deleting records", offsets, attempt)
    return found


async def list_offsets(
    asking: Asking, timestamps: Mapping[TopicPartition, int], *, read_committed: bool = False
) -> dict[TopicPartition, OffsetAndTimestamp]:
    """First offset at or after a time in ms; -2 the earliest, -1 the end, -3 that of the largest timestamp.

    An offset of -1: there is none.
    """
    found: dict[TopicPartition, OffsetAndTimestamp] = {}
    await _known(asking, timestamps)

    async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
        answers: dict[TopicPartition, KafkaError | None] = {}
        asked = {one: timestamps[one] for one in left}
        for partition, answer in (await ask_leaders(asking.cluster, asked, read_committed=read_committed)).items():
            if isinstance(answer, OffsetAnswer):
                found[partition] = OffsetAndTimestamp(answer.offset, answer.timestamp_ms, answer.leader_epoch)
                answers[partition] = None
            elif isinstance(answer, KafkaError):
                answers[partition] = answer
            else:
                answers[partition] = KafkaError(ErrorCode.NETWORK_EXCEPTION, one_line(answer))
        return answers

    await asking.each("listing offsets", timestamps, attempt)
    return found


async def _known(asking: Asking, partitions: Iterable[TopicPartition]) -> None:
    """Know the leaders of these partitions. Raises KafkaError when a topic or partition does not exist."""
    for one in partitions:
        count = await asking.cluster.partition_count(one.topic, timeout_ms=asking.timeout_ms)
        if not 0 <= one.partition < count:
            why = f"topic '{one.topic}' has {count} partitions, there is no partition {one.partition}"
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, why)


def _by_leader(asking: Asking, partitions: Sequence[TopicPartition]) -> dict[int, list[TopicPartition]]:
    found: dict[int, list[TopicPartition]] = {}
    for one in partitions:
        leader = asking.cluster.metadata.leader(one.topic, one.partition)
        if leader is None:
            raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"{one} has no leader right now")
        found.setdefault(leader, []).append(one)
    return found
