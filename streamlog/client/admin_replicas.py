"""Where partitions lie and who leads them: elections, reassignments, replicas in data directories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from streamlog.client.admin_values import Election, Reassignment, ReplicaLog
from streamlog.client.asking import Asking, check, error_of
from streamlog.client.values import TopicPartition, partitions_by_topic
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    ElectLeadersRequest,
    ElectLeadersResponse,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)
from streamlog.wire.messages.alter_partition_reassignments import ReassignablePartition, ReassignableTopic
from streamlog.wire.messages.describe_log_dirs import DescribableLogDirTopic
from streamlog.wire.messages.elect_leaders import TopicPartitions
from streamlog.wire.messages.list_partition_reassignments import ListPartitionReassignmentsTopics


async def elect_leaders(
    asking: Asking, election: Election, partitions: Iterable[TopicPartition] | None = None
) -> dict[TopicPartition, KafkaError | None]:
    """Elect leaders now. To each partition None when it got one, else why not.

    Asked about all partitions (None), a cluster mentions only those where there was something to elect.
    """
    wanted = None if partitions is None else partitions_by_topic(list(dict.fromkeys(partitions)))
    request = ElectLeadersRequest(
        election_type=election,
        topic_partitions=None
        if wanted is None
        else [TopicPartitions(topic=topic, partitions=numbers) for topic, numbers in wanted.items()],
        timeout_ms=asking.timeout_ms,
    )

    def read(answer: ElectLeadersResponse) -> dict[TopicPartition, KafkaError | None]:
        check(answer.error_code, None, "electing leaders")
        return {
            TopicPartition(topic.topic, one.partition_id): error_of(one.error_code, one.error_message)
            for topic in answer.replica_election_results
            for one in topic.partition_result
        }

    return await asking.through_any("electing leaders", request, ElectLeadersResponse, read)


async def alter_partition_reassignments(
    asking: Asking,
    targets: Mapping[TopicPartition, Sequence[int] | None],
    *,
    allow_replication_factor_change: bool = True,
) -> None:
    """Move partitions to these brokers, the preferred leader first; None cancels a move. Raises SomeFailed.

    Returns when the moves have begun. `list_partition_reassignments` says which still go on.
    """
    failures = count()

    async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
        request = AlterPartitionReassignmentsRequest(
            timeout_ms=asking.timeout_ms,
            allow_replication_factor_change=allow_replication_factor_change,
            topics=[
                ReassignableTopic(
                    name=topic,
                    partitions=[
                        ReassignablePartition(partition_index=number, replicas=_listed(targets, topic, number))
                        for number in numbers
                    ],
                )
                for topic, numbers in partitions_by_topic(left).items()
            ],
        )
        answer = await asking.cluster.request_any(request, AlterPartitionReassignmentsResponse, failures=next(failures))
        check(answer.error_code, answer.error_message, "reassigning partitions")
        return {
            TopicPartition(topic.name, one.partition_index): error_of(one.error_code, one.error_message)
            for topic in answer.responses
            for one in topic.partitions
        }

    await asking.each("reassigning partitions", targets, attempt)


def _listed(targets: Mapping[TopicPartition, Sequence[int] | None], topic: str, number: int) -> list[int] | None:
    replicas = targets[TopicPartition(topic, number)]
    return None if replicas is None else list(replicas)


async def list_partition_reassignments(
    asking: Asking, partitions: Iterable[TopicPartition] | None = None
) -> dict[TopicPartition, Reassignment]:
    """What is on its way now, of these partitions or (None) of all."""
    wanted = None if partitions is None else partitions_by_topic(list(dict.fromkeys(partitions)))
    request = ListPartitionReassignmentsRequest(
        timeout_ms=asking.timeout_ms,
        topics=None
        if wanted is None
        else [
            ListPartitionReassignmentsTopics(name=topic, partition_indexes=numbers) for topic, numbers in wanted.items()
        ],
    )

    def read(answer: ListPartitionReassignmentsResponse) -> dict[TopicPartition, Reassignment]:
        check(answer.error_code, answer.error_message, "listing reassignments")
        return {
            TopicPartition(topic.name, one.partition_index): Reassignment(
                tuple(one.replicas), tuple(one.adding_replicas), tuple(one.removing_replicas)
            )
            for topic in answer.topics
            for one in topic.partitions
        }

    return await asking.through_any("listing reassignments", request, ListPartitionReassignmentsResponse, read)


async def describe_log_dirs(
    asking: Asking, broker_ids: Iterable[int], topics: Iterable[str] | None = None
) -> list[ReplicaLog]:
    """Replicas in the data directories of these brokers, of these topics or (None) of all."""
    found: list[ReplicaLog] = []
    names = None if topics is None else sorted(set(topics))
    wanted = None
    if names is not None:
        metadata = asking.cluster.metadata
        await asking.cluster.refresh(names, timeout_ms=asking.timeout_ms)
        wanted = [
            DescribableLogDirTopic(topic=name, partitions=list(range(metadata.partition_count(name)))) for name in names
        ]
    for broker_id in sorted(set(broker_ids)):
        answer = await _log_dirs(asking, broker_id, DescribeLogDirsRequest(topics=wanted))
        for directory in answer.results:
            check(directory.error_code, directory.log_dir, f"data directories of broker {broker_id}")
            found += [
                ReplicaLog(
                    broker_id,
                    directory.log_dir,
                    TopicPartition(topic.name, one.partition_index),
                    one.partition_size,
                    one.offset_lag,
                    one.is_future_key,
                )
                for topic in directory.topics
                for one in topic.partitions
            ]
    return found


async def _log_dirs(asking: Asking, broker_id: int, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse:
    async def attempt() -> DescribeLogDirsResponse:
        answer = await asking.cluster.request(broker_id, request, DescribeLogDirsResponse)
        check(answer.error_code, None, f"data directories of broker {broker_id}")
        return answer

    if broker_id not in asking.cluster.metadata.brokers:
        raise KafkaError(ErrorCode.BROKER_NOT_AVAILABLE, f"there is no broker {broker_id} right now")
    return await asking.cluster.retrying("describing data directories", attempt, timeout_ms=asking.timeout_ms)
