"""Describe, list and delete groups: what tools ask (KIP-222, KIP-518, KIP-848, KIP-1043)."""

from __future__ import annotations

from streamlog.broker.coordinator.group.offsets import bury
from streamlog.broker.coordinator.group.records import OffsetForgotten
from streamlog.broker.coordinator.group.requests import DeleteGroup, DescribeGroup, ListShard
from streamlog.broker.coordinator.group.state import ClassicGroup, GroupState
from streamlog.broker.coordinator.group.table import GroupDecision, GroupTable
from streamlog.broker.coordinator.shard import Caller, Now, Reply
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.describe_groups import DescribedGroup, DescribedGroupMember
from streamlog.wire.messages.list_groups import ListedGroup

NOT_FOUND_SINCE = 6
"""Before this DescribeGroups version an unknown group is described as dead, without an error (KIP-1043)."""

CLASSIC = "classic"


def describe_group(table: GroupTable, request: DescribeGroup, caller: Caller, out: GroupDecision) -> None:
    group = table.groups.get(request.group_id)
    if group is None:
        described = DescribedGroup(group_id=request.group_id, group_state=GroupState.DEAD.value)
        if caller.api_version >= NOT_FOUND_SINCE:
            described.error_code = ErrorCode.GROUP_ID_NOT_FOUND
            described.error_message = f"Group {request.group_id} not found."
    else:
        described = _describe(group)
    out.replies.append(Reply(caller.token, described))


def _describe(group: ClassicGroup) -> DescribedGroup:
    """Metadata and the protocol's name mean something only in a complete generation."""
    is_stable = group.state is GroupState.STABLE
    return DescribedGroup(
        group_id=group.group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=group.protocol_name or "" if is_stable else "",
        members=[
            DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata(group.protocol_name) if is_stable else b"",
                member_assignment=member.assignment,
            )
            for member in group.members.values()
        ],
    )


def list_groups(table: GroupTable, request: ListShard, caller: Caller, out: GroupDecision) -> None:
    listed: list[ListedGroup] = []
    for group_id in sorted(table.groups):
        group = table.groups[group_id]
        if request.states and group.state.value.lower() not in request.states:
            continue
        if request.types and CLASSIC.lower() not in request.types:
            continue
        listed.append(
            ListedGroup(
                group_id=group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state.value,
                group_type=CLASSIC,
            )
        )
    out.replies.append(Reply(caller.token, listed))


def delete_group(table: GroupTable, request: DeleteGroup, caller: Caller, now: Now, out: GroupDecision) -> None:
    """Only a group without members can be deleted; its positions go with it."""
    group = table.groups.get(request.group_id)
    if group is None:
        error = ErrorCode.GROUP_ID_NOT_FOUND
    elif group.state is not GroupState.EMPTY:
        error = ErrorCode.NON_EMPTY_GROUP
    else:
        error = ErrorCode.NONE
        out.records.extend(
            OffsetForgotten(request.group_id, topic, partition)
            for topic, partition in table.offsets.partitions(request.group_id)
        )
        bury(table, group, "it was deleted", now, out)
    out.replies.append(Reply(caller.token, error))
