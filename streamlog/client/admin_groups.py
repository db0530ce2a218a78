"""Groups and what they have committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from streamlog.client.admin_values import (
    GroupDescription,
    GroupListing,
    GroupMember,
)
from streamlog.client.asking import Asking, check, error_of
from streamlog.client.group_offsets import commit_offsets, fetch_offsets
from streamlog.client.member_effects import (
    NO_GENERATION,
)
from streamlog.client.subscription import PROTOCOL_TYPE, Assignment, decode_assignment, decode_subscription
from streamlog.client.values import (
    GroupMetadata,
    OffsetAndMetadata,
    TopicPartition,
    partitions_by_topic,
)
from streamlog.errors import RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Response
from streamlog.wire.messages import (
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListGroupsRequest,
    ListGroupsResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
)
from streamlog.wire.messages.describe_groups import DescribedGroup
from streamlog.wire.messages.offset_delete import OffsetDeleteRequestPartition, OffsetDeleteRequestTopic

R = TypeVar("R", bound=Response)


async def list_groups(asking: Asking, *, states: Sequence[str] = (), types: Sequence[str] = ()) -> list[GroupListing]:
    """The groups of all brokers, sorted by id."""
    found: dict[str, GroupListing] = {}

    async def attempt(node_id: int) -> ListGroupsResponse:
        connection = await asking.cluster.connection(node_id)
        request = ListGroupsRequest(states_filter=list(states), types_filter=list(types))
        answer = await connection.request(request, ListGroupsResponse)
        check(answer.error_code, None, "listing groups")
        return answer

    await asking.cluster.refresh(timeout_ms=asking.timeout_ms)
    for node_id in sorted(asking.cluster.metadata.brokers):
        ask = _bound(attempt, node_id)
        answer = await asking.cluster.retrying("listing groups", ask, timeout_ms=asking.timeout_ms)
        for one in answer.groups:
            found[one.group_id] = GroupListing(one.group_id, one.protocol_type, one.group_state, one.group_type)
    return [found[name] for name in sorted(found)]


async def describe_groups(asking: Asking, group_ids: Iterable[str]) -> dict[str, GroupDescription]:
    """Members and what they have. A group that does not exist has the state Dead. Raises SomeFailed."""
    found: dict[str, GroupDescription] = {}

    async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
        answers: dict[str, KafkaError | None] = {}
        for group_id in left:
            request = DescribeGroupsRequest(groups=[group_id])
            answer = await asking.coordinator(group_id, request, DescribeGroupsResponse)
            for one in answer.groups:
                answers[one.group_id] = asking.group_error(one.group_id, one.error_code, one.error_message)
                if one.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
                    answers[one.group_id] = None
                found[one.group_id] = _described(one)
        return answers

    await asking.each("describing groups", group_ids, attempt)
    return found


async def delete_groups(asking: Asking, group_ids: Iterable[str]) -> None:
    """Delete groups without members, and their offsets. Raises SomeFailed."""

    async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
        answers: dict[str, KafkaError | None] = {}
        for group_id in left:
            request = DeleteGroupsRequest(groups_names=[group_id])
            answer = await asking.coordinator(group_id, request, DeleteGroupsResponse)
            for one in answer.results:
                answers[one.group_id] = asking.group_error(one.group_id, one.error_code, None)
        return answers

    await asking.each("deleting groups", group_ids, attempt)


async def list_group_offsets(asking: Asking, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """Everything a group has committed."""

    async def attempt() -> dict[TopicPartition, OffsetAndMetadata]:
        found = await fetch_offsets(asking.cluster, group_id, None, {}, stable=False)
        return {one: found[one] for one in sorted(found)}

    return await asking.cluster.retrying("listing group offsets", attempt, timeout_ms=asking.timeout_ms)


async def alter_group_offsets(
    asking: Asking, group_id: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> None:
    """Commit offsets for a group that has no members now. Raises SomeFailed."""

    async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
        nobody = GroupMetadata(group_id, NO_GENERATION, "", None)
        codes = await commit_offsets(asking.cluster, nobody, {one: offsets[one] for one in left}, {})
        return {one: error_of(code, f"group '{group_id}'") for one, code in codes.items()}

    await asking.each("altering group offsets", offsets, attempt)


async def delete_group_offsets(asking: Asking, group_id: str, partitions: Iterable[TopicPartition]) -> None:
    """Forget committed offsets of topics that no member subscribes to. Raises SomeFailed."""

    async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
        request = OffsetDeleteRequest(
            group_id=group_id,
            topics=[
                OffsetDeleteRequestTopic(
                    name=topic, partitions=[OffsetDeleteRequestPartition(partition_index=one) for one in numbers]
                )
                for topic, numbers in partitions_by_topic(left).items()
            ],
        )
        answer = await asking.coordinator(group_id, request, OffsetDeleteResponse)
        asking.raise_group_error(group_id, answer.error_code)
        return {
            TopicPartition(topic.name, one.partition_index): error_of(one.error_code, None)
            for topic in answer.topics
            for one in topic.partitions
        }

    await asking.each("deleting group offsets", partitions, attempt)


def _bound(attempt: Callable[[int], Awaitable[R]], node_id: int) -> Callable[[], Awaitable[R]]:
    return lambda: attempt(node_id)


def _described(group: DescribedGroup) -> GroupDescription:
    members = []
    for one in group.members:
        topics: tuple[str, ...] = ()
        userdata: bytes | None = None
        assignment = Assignment(())
        if group.protocol_type == PROTOCOL_TYPE:
            try:
                if one.member_metadata:
                    subscription = decode_subscription(one.member_metadata)
                    topics, userdata = subscription.topics, subscription.userdata
                assignment = decode_assignment(one.member_assignment)
            except RemoteProtocolError:
                topics = ()  # another client's protocol under the consumers' name
        members.append(
            GroupMember(
                one.member_id,
                one.group_instance_id,
                one.client_id,
                one.client_host,
                topics,
                assignment.partitions,
                userdata,
                assignment.userdata,
            )
        )
    return GroupDescription(group.group_id, group.group_state, group.protocol_type, group.protocol_data, tuple(members))
