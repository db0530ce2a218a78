"""Heartbeat, LeaveGroup and sessions that end: who is still there."""

from __future__ import annotations

from streamlog.broker.coordinator.group.rebalance import drop_member, maybe_complete_join, prepare
from streamlog.broker.coordinator.group.requests import ForgetNewcomer
from streamlog.broker.coordinator.group.state import ClassicGroup, GroupState
from streamlog.broker.coordinator.group.table import GroupDecision, GroupTable, member_error
from streamlog.broker.coordinator.shard import Caller, Now, Reply
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlog.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse

BATCH_SINCE = 3
"""LeaveGroup names several members from this version on."""


def heartbeat(table: GroupTable, request: HeartbeatRequest, caller: Caller, now: Now, out: GroupDecision) -> None:
    """Keep the member alive, and tell it when it has to rejoin."""
    error = _heartbeat_error(table, request)
    if error is None:
        group = table.groups[request.group_id]
        table.keep_alive(group, group.members[request.member_id], now)
        if group.state is GroupState.PREPARING_REBALANCE:
            error = ErrorCode.REBALANCE_IN_PROGRESS
    out.replies.append(Reply(caller.token, HeartbeatResponse(error_code=error or ErrorCode.NONE)))


def _heartbeat_error(table: GroupTable, request: HeartbeatRequest) -> ErrorCode | None:
    group = table.groups.get(request.group_id)
    if group is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = member_error(group, request.member_id, request.group_instance_id)
    if error is not None:
        return error
    return ErrorCode.ILLEGAL_GENERATION if request.generation_id != group.generation_id else None


def leave_group(table: GroupTable, request: LeaveGroupRequest, caller: Caller, now: Now, out: GroupDecision) -> None:
    """Take out the named members; static ones may be named by instance id alone (KIP-345, administration)."""
    leaving = request.members if caller.api_version >= BATCH_SINCE else [MemberIdentity(member_id=request.member_id)]
    group = table.groups.get(request.group_id)
    answers: list[MemberResponse] = []
    gone: list[str] = []
    for identity in leaving:
        error = ErrorCode.UNKNOWN_MEMBER_ID if group is None else _leave(table, group, identity, out)
        if not error:
            gone.append(identity.member_id or identity.group_instance_id or "")
        answers.append(
            MemberResponse(member_id=identity.member_id, group_instance_id=identity.group_instance_id, error_code=error)
        )
    if caller.api_version >= BATCH_SINCE:
        out.replies.append(Reply(caller.token, LeaveGroupResponse(members=answers)))
    else:
        out.replies.append(Reply(caller.token, LeaveGroupResponse(error_code=answers[0].error_code)))
    if group is None or not gone:
        return
    if group.is_in(GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
        reasons = {identity.reason for identity in leaving if identity.reason} or {"not provided"}
        prepare(table, group, f"members left: {', '.join(gone)}; client reason: {'; '.join(sorted(reasons))}", now, out)
    else:
        maybe_complete_join(table, group, now, out)


def _leave(table: GroupTable, group: ClassicGroup, identity: MemberIdentity, out: GroupDecision) -> ErrorCode:
    member_id = identity.member_id
    if not member_id:
        member_id = group.static_member_ids.get(identity.group_instance_id or "", "")
    elif member_id in group.pending_member_ids:
        group.remove(member_id)
        table.end_session(group, member_id)
        return ErrorCode.NONE
    error = member_error(group, member_id, identity.group_instance_id)
    if error is not None:
        return error
    drop_member(table, group, group.members[member_id], out)
    return ErrorCode.NONE


def forget_newcomer(table: GroupTable, request: ForgetNewcomer, caller: Caller, now: Now, out: GroupDecision) -> None:
    """The connection behind a first JoinGroup has ended. Nobody else waits a session for who cannot come back.

    A client that does come back with its id is told that it is unknown, and begins anew.
    """
    out.replies.append(Reply(caller.token, None))
    group = table.groups.get(request.group_id)
    if group is None:
        return
    member = group.members.get(request.member_id)
    if request.member_id in group.pending_member_ids:
        group.remove(request.member_id)
        table.end_session(group, request.member_id)
    elif member is not None and member.is_new and request.member_id in group.awaiting_join:
        drop_member(table, group, member, out)
    else:
        return
    maybe_complete_join(table, group, now, out)


def on_session_end(table: GroupTable, group: ClassicGroup, member_id: str, now: Now, out: GroupDecision) -> None:
    """Nothing was heard of a member, or of somebody who was given a member id, for a whole session.

    Whoever is parked is excused: the answer is ours to give. Only a new member is not, because the client behind a
    first JoinGroup may be long gone, and it cannot heartbeat.
    """
    if member_id in group.pending_member_ids:
        group.remove(member_id)
        maybe_complete_join(table, group, now, out)
        return
    member = group.members.get(member_id)
    if member is None:
        return
    is_parked = member_id in group.awaiting_join or member_id in group.awaiting_sync
    if is_parked and not member.is_new:
        return
    drop_member(table, group, member, out)
    if group.is_in(GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
        prepare(table, group, f"the session of member {member_id} ended", now, out)
    else:
        maybe_complete_join(table, group, now, out)
