"""SyncGroup: the leader hands in who gets what, everybody receives their part.

The generation is complete when the leader's assignment is in the log. The state moves on at once and the replies wait
for the log, like all replies; so a member that asks in between sees a stable group and waits for the same write.
"""

from __future__ import annotations

from streamlog.broker.coordinator.group.rebalance import prepare, refuse_syncs
from streamlog.broker.coordinator.group.state import ClassicGroup, GroupState
from streamlog.broker.coordinator.group.table import GroupDecision, GroupTable, Timer, member_error
from streamlog.broker.coordinator.shard import Caller, Now, Reply
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

MEMBER_OVERHEAD_BYTES = 256
"""Ids, host and numbers of a member in the log, generously."""

PROTOCOL_REQUIRED_SINCE = 5
"""From this version on the member must say which protocol it believes in (KIP-559)."""


def sync_group(table: GroupTable, request: SyncGroupRequest, caller: Caller, now: Now, out: GroupDecision) -> None:
    error = _error(table, request, caller)
    if error is not None:
        out.replies.append(Reply(caller.token, SyncGroupResponse(error_code=error)))
        return
    group = table.groups[request.group_id]
    _owe_no_sync(table, group, request.member_id)
    if group.state is GroupState.STABLE:
        out.replies.append(Reply(caller.token, _assignment(group, request.member_id)))
        return
    superseded = group.awaiting_sync.pop(request.member_id, None)
    if superseded is not None:
        out.replies.append(Reply(superseded.token, SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS)))
    group.awaiting_sync[request.member_id] = caller
    if request.member_id == group.leader_id:
        _complete(table, group, request, now, out)


def _error(table: GroupTable, request: SyncGroupRequest, caller: Caller) -> ErrorCode | None:
    if caller.api_version >= PROTOCOL_REQUIRED_SINCE and (
        request.protocol_type is None or request.protocol_name is None
    ):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    group = table.groups.get(request.group_id)
    if group is None or group.state is GroupState.EMPTY:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = member_error(group, request.member_id, request.group_instance_id)
    if error is not None:
        return error
    if request.generation_id != group.generation_id:
        return ErrorCode.ILLEGAL_GENERATION
    if _differ(request.protocol_type, group.protocol_type) or _differ(request.protocol_name, group.protocol_name):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if group.state is GroupState.PREPARING_REBALANCE:
        return ErrorCode.REBALANCE_IN_PROGRESS
    return None


def _differ(said: str | None, actual: str | None) -> bool:
    return said is not None and actual is not None and said != actual


def _owe_no_sync(table: GroupTable, group: ClassicGroup, member_id: str) -> None:
    group.pending_sync_ids.pop(member_id, None)
    if not group.pending_sync_ids:
        table.deadlines.cancel((Timer.SYNC, group.group_id, ""))


def _complete(table: GroupTable, group: ClassicGroup, request: SyncGroupRequest, now: Now, out: GroupDecision) -> None:
    """Members that the leader forgot get nothing; names that are no members are ignored."""
    given = {assignment.member_id: bytes(assignment.assignment) for assignment in request.assignments}
    if _weight_bytes(group, given) > table.limits.group_record_max_bytes:
        refuse_syncs(table, group, ErrorCode.UNKNOWN_SERVER_ERROR, now, out)
        return prepare(table, group, "the generation is too large to be written", now, out)
    for member in group.members.values():
        member.assignment = given.get(member.member_id, b"")
    table.move(group, GroupState.STABLE, f"leader {request.member_id} has assigned", now, out)
    out.records.append(group.to_record())
    for member_id, caller in group.awaiting_sync.items():
        out.replies.append(Reply(caller.token, _assignment(group, member_id)))
        table.keep_alive(group, group.members[member_id], now)
    group.awaiting_sync.clear()
    return None


def _weight_bytes(group: ClassicGroup, given: dict[str, bytes]) -> int:
    """The size of the generation's record, not counting short fields exactly."""
    return sum(
        len(member.metadata(group.protocol_name)) + len(given.get(member_id, b"")) + MEMBER_OVERHEAD_BYTES
        for member_id, member in group.members.items()
    )


def _assignment(group: ClassicGroup, member_id: str) -> SyncGroupResponse:
    return SyncGroupResponse(
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        assignment=group.members[member_id].assignment,
    )
