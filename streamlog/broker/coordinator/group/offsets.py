"""OffsetCommit, OffsetFetch and OffsetDelete: a group's positions.

A commit is accepted from a member of the running generation, or from anybody while the group has no members: that
is how consumers without group management and administrators use it. A member that commits is alive (KIP-62).
"""

from __future__ import annotations

from uuid import UUID

from streamlog.broker.coordinator.group.offset_store import differ
from streamlog.broker.coordinator.group.records import (
    NO_LEADER_EPOCH,
    ZERO_UUID,
    GroupForgotten,
    OffsetCommitted,
    OffsetForgotten,
)
from streamlog.broker.coordinator.group.requests import FetchOffsets, ForgetTopics
from streamlog.broker.coordinator.group.state import ClassicGroup, GroupState
from streamlog.broker.coordinator.group.table import GroupDecision, GroupTable, member_error
from streamlog.broker.coordinator.shard import Caller, Now, Reply
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from streamlog.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from streamlog.wire.messages.offset_fetch import (
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)

UNKNOWN_GROUP_SINCE = 9
"""From this OffsetCommit version on, a generation of a group that does not exist is GROUP_ID_NOT_FOUND (KIP-848)."""

BROKER_RETENTION = -1
NO_OFFSET = -1


def commit_offsets(
    table: GroupTable, request: OffsetCommitRequest, caller: Caller, now: Now, out: GroupDecision
) -> None:
    group = table.groups.get(request.group_id)
    error = _commit_error(group, request, caller)
    if error is not None:
        out.replies.append(Reply(caller.token, commit_response(request, error)))
        return
    if group is not None and group.is_in(GroupState.STABLE, GroupState.PREPARING_REBALANCE):
        table.keep_alive(group, group.members[request.member_id], now)
    kept_ms = request.retention_time_ms
    expires_at_ms = None if kept_ms == BROKER_RETENTION else now.wall_ms + kept_ms
    response = OffsetCommitResponse(topics=[])
    for topic in request.topics:
        answers: list[OffsetCommitResponsePartition] = []
        for partition in topic.partitions:
            metadata = partition.committed_metadata or ""
            too_large = len(metadata) > table.limits.offset_metadata_max_bytes
            code = ErrorCode.OFFSET_METADATA_TOO_LARGE if too_large else ErrorCode.NONE
            answers.append(OffsetCommitResponsePartition(partition_index=partition.partition_index, error_code=code))
            if not too_large:
                out.records.append(
                    OffsetCommitted(
                        group_id=request.group_id,
                        topic=topic.name,
                        partition=partition.partition_index,
                        offset=partition.committed_offset,
                        leader_epoch=partition.committed_leader_epoch,
                        metadata=metadata,
                        committed_at_ms=now.wall_ms,
                        expires_at_ms=expires_at_ms,
                        topic_id=topic.topic_id,
                    )
                )
        response.topics.append(OffsetCommitResponseTopic(name=topic.name, topic_id=topic.topic_id, partitions=answers))
    if group is None and out.records:
        table.groups[request.group_id] = ClassicGroup(request.group_id, state_changed_at_ms=now.wall_ms)
    out.replies.append(Reply(caller.token, response))


def _commit_error(group: ClassicGroup | None, request: OffsetCommitRequest, caller: Caller) -> ErrorCode | None:
    generation_id = request.generation_id_or_member_epoch
    if group is None:
        if generation_id < 0:
            return None
        new = caller.api_version >= UNKNOWN_GROUP_SINCE
        return ErrorCode.GROUP_ID_NOT_FOUND if new else ErrorCode.ILLEGAL_GENERATION
    if generation_id < 0 and group.state is GroupState.EMPTY:
        return None
    if generation_id < 0 and not request.member_id and request.group_instance_id is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = member_error(group, request.member_id, request.group_instance_id)
    if error is not None:
        return error
    if generation_id != group.generation_id:
        return ErrorCode.ILLEGAL_GENERATION
    # The member has its generation from the JoinGroup response; the assignment it would commit for is not out yet.
    return ErrorCode.REBALANCE_IN_PROGRESS if group.state is GroupState.COMPLETING_REBALANCE else None


def commit_response(request: OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse:
    """The same answer for every partition."""
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=[
                    OffsetCommitResponsePartition(partition_index=partition.partition_index, error_code=error)
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def fetch_offsets(table: GroupTable, request: FetchOffsets, caller: Caller, out: GroupDecision) -> None:
    """Positions of one group; a group or partition nobody committed for has offset -1, and that is no error.

    Topics are known by name here. Asked for all, the answer has no topic ids: the metadata of the day has them.
    """
    group = request.group
    if group.topics is not None:
        wanted = [(topic.name, topic.topic_id, topic.partition_indexes) for topic in group.topics]
    else:
        topics = table.offsets.committed.get(group.group_id, {})
        wanted = [(name, ZERO_UUID, sorted(topics[name])) for name in sorted(topics)]
    out.replies.append(
        Reply(
            caller.token,
            OffsetFetchResponseGroup(
                group_id=group.group_id,
                topics=[
                    OffsetFetchResponseTopics(
                        name=name,
                        topic_id=topic_id,
                        partitions=[_position(table, request, name, topic_id, partition) for partition in partitions],
                    )
                    for name, topic_id, partitions in wanted
                ],
            ),
        )
    )


def _position(
    table: GroupTable, request: FetchOffsets, topic: str, topic_id: UUID, partition: int
) -> OffsetFetchResponsePartitions:
    group_id = request.group.group_id
    position = table.offsets.get(group_id, topic, partition)
    if position is not None and differ(position.topic_id, topic_id):
        position = None  # the topic was deleted and created anew, and its tombstones are still to come
    is_unstable = request.require_stable and table.offsets.is_pending(group_id, topic, partition)
    if position is None or is_unstable:
        return OffsetFetchResponsePartitions(
            partition_index=partition,
            committed_offset=NO_OFFSET,
            committed_leader_epoch=NO_LEADER_EPOCH,
            metadata="",
            error_code=ErrorCode.UNSTABLE_OFFSET_COMMIT if is_unstable else ErrorCode.NONE,
        )
    return OffsetFetchResponsePartitions(
        partition_index=partition,
        committed_offset=position.offset,
        committed_leader_epoch=position.leader_epoch,
        metadata=position.metadata,
    )


def delete_offsets(table: GroupTable, request: OffsetDeleteRequest, caller: Caller, out: GroupDecision) -> None:
    """Forget positions, except of topics that the group is consuming (KIP-496)."""
    group = table.groups.get(request.group_id)
    if group is None:
        out.replies.append(Reply(caller.token, OffsetDeleteResponse(error_code=ErrorCode.GROUP_ID_NOT_FOUND)))
        return
    if group.state is not GroupState.EMPTY and not group.uses_consumer_protocol():
        out.replies.append(Reply(caller.token, OffsetDeleteResponse(error_code=ErrorCode.NON_EMPTY_GROUP)))
        return
    response = OffsetDeleteResponse(topics=[])
    for topic in request.topics:
        in_use = group.is_subscribed_to(topic.name)
        code = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if in_use else ErrorCode.NONE
        response.topics.append(
            OffsetDeleteResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetDeleteResponsePartition(partition_index=partition.partition_index, error_code=code)
                    for partition in topic.partitions
                ],
            )
        )
        if not in_use:
            out.records.extend(
                OffsetForgotten(request.group_id, topic.name, partition.partition_index)
                for partition in topic.partitions
                if table.offsets.get(request.group_id, topic.name, partition.partition_index) is not None
                or table.offsets.is_pending(request.group_id, topic.name, partition.partition_index)
            )
    out.replies.append(Reply(caller.token, response))


def forget_topics(table: GroupTable, request: ForgetTopics, caller: Caller, out: GroupDecision) -> None:
    """The topics are gone; a topic of the same name created later starts without positions."""
    for group_id in table.offsets.group_ids():
        for topic, topic_id in sorted(request.topics.items()):
            out.records.extend(
                OffsetForgotten(group_id, topic, partition)
                for partition in table.offsets.partitions_of(group_id, topic, topic_id)
            )
    out.replies.append(Reply(caller.token, None))


def expire(table: GroupTable, now: Now, out: GroupDecision) -> None:
    """Forget what nobody has used for the retention time, and groups of which nothing is left (KIP-211).

    An empty group's offsets live on for the retention time after its last member left; a running consumer group's
    only expire in topics it no longer subscribes to, by their own age; without group management, by their own age.
    """
    for group_id in sorted(table.groups):
        group = table.groups[group_id]
        all_expired = not table.offsets.has_open_transactions(group_id)
        for topic, partition, position in table.offsets.positions(group_id):
            since_ms = _unused_since_ms(group, topic, position.committed_at_ms)
            if since_ms is None or table.offsets.is_pending(group_id, topic, partition):
                all_expired = False
                continue
            due_ms = position.expires_at_ms
            if due_ms is None:
                due_ms = since_ms + table.limits.offsets_retention_ms
            if now.wall_ms >= due_ms:
                out.records.append(OffsetForgotten(group_id, topic, partition))
            else:
                all_expired = False
        if all_expired and group.state is GroupState.EMPTY and not group.pending_member_ids:
            bury(table, group, "nothing of it is left", now, out)


def bury(table: GroupTable, group: ClassicGroup, reason: str, now: Now, out: GroupDecision) -> None:
    """The group is over. Its name is free for a new one."""
    for member_id in group.pending_member_ids:
        table.end_session(group, member_id)
    table.move(group, GroupState.DEAD, reason, now, out)
    del table.groups[group.group_id]
    out.records.append(GroupForgotten(group.group_id))


def _unused_since_ms(group: ClassicGroup, topic: str, committed_at_ms: int) -> int | None:
    """Since when nobody has needed a position in `topic`, or None while somebody might."""
    if group.protocol_type is None:
        return committed_at_ms
    if group.state is GroupState.EMPTY:
        return committed_at_ms if group.state_changed_at_ms is None else group.state_changed_at_ms
    is_known = group.uses_consumer_protocol() and group.topics is not None
    if group.state is GroupState.STABLE and is_known and not group.is_subscribed_to(topic):
        return committed_at_ms
    return None
