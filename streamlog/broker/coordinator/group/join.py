"""JoinGroup: who may come in, and what their coming means.

A new dynamic member is first given an id and asked to come again with it (KIP-394), so that a client that retries
is one member and not several. A static member comes back without an id and takes over its old place (KIP-345). A
known member that rejoins may change nothing, and then simply learns the current generation.
"""

from __future__ import annotations

from streamlog.broker.coordinator.group.limits import NEW_MEMBER_JOIN_TIMEOUT_MS, PENDING_IDS_MAX
from streamlog.broker.coordinator.group.rebalance import (
    drop_member,
    generation_response,
    join_error,
    maybe_complete_join,
    rebalance_or_complete,
)
from streamlog.broker.coordinator.group.state import ClassicGroup, GroupState, Member, Protocols
from streamlog.broker.coordinator.group.table import GroupDecision, GroupTable, member_error
from streamlog.broker.coordinator.shard import Caller, Now, Reply
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.join_group import JoinGroupRequest
from streamlog.wire.messages.sync_group import SyncGroupResponse

MEMBER_ID_REQUIRED_SINCE = 4
SKIP_ASSIGNMENT_SINCE = 9


def join_group(table: GroupTable, request: JoinGroupRequest, caller: Caller, now: Now, out: GroupDecision) -> None:
    limits = table.limits
    if not limits.group_min_session_timeout_ms <= request.session_timeout_ms <= limits.group_max_session_timeout_ms:
        return _refuse(caller, ErrorCode.INVALID_SESSION_TIMEOUT, request.member_id, out)
    group = table.groups.get(request.group_id)
    is_new_group = group is None
    if group is None:
        if request.member_id:
            return _refuse(caller, ErrorCode.UNKNOWN_MEMBER_ID, request.member_id, out)
        group = ClassicGroup(request.group_id, state_changed_at_ms=now.wall_ms)
    if not _has_room(table, group, request.member_id):
        return _turn_away(table, group, request, caller, now, out)
    if not group.supports(request.protocol_type, [protocol.name for protocol in request.protocols]):
        return _refuse(caller, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, request.member_id, out)
    if is_new_group:
        # The group exists from its first JoinGroup on, also for the next coordinator.
        table.groups[request.group_id] = group
        out.records.append(group.to_record())
    if request.member_id:
        return _join_known(table, group, request, caller, now, out)
    return _join_unknown(table, group, request, caller, now, out)


def _has_room(table: GroupTable, group: ClassicGroup, member_id: str) -> bool:
    """Members of the group are always let in, new ones up to group.max.size.

    While collecting, those who are already waiting count, not those who might come back: otherwise a group that is
    over the limit, because the limit was lowered, could never shrink.
    """
    if group.is_in(GroupState.EMPTY, GroupState.DEAD):
        return True
    if group.state is GroupState.PREPARING_REBALANCE:
        return member_id in group.awaiting_join or len(group.awaiting_join) < table.limits.group_max_size
    return member_id in group.members or len(group.members) < table.limits.group_max_size


def _turn_away(
    table: GroupTable, group: ClassicGroup, request: JoinGroupRequest, caller: Caller, now: Now, out: GroupDecision
) -> None:
    member = group.members.get(request.member_id)
    if member is not None:
        drop_member(table, group, member, out, ErrorCode.GROUP_MAX_SIZE_REACHED)
    else:
        group.remove(request.member_id)
        table.end_session(group, request.member_id)
    _refuse(caller, ErrorCode.GROUP_MAX_SIZE_REACHED, "", out)
    maybe_complete_join(table, group, now, out)


def _join_unknown(
    table: GroupTable, group: ClassicGroup, request: JoinGroupRequest, caller: Caller, now: Now, out: GroupDecision
) -> None:
    instance_id = request.group_instance_id
    member_id = f"{caller.client_id if instance_id is None else instance_id}-{table.draw_uuid()}"
    if instance_id is not None and instance_id in group.static_member_ids:
        _replace_static(table, group, request, instance_id, member_id, caller, now, out)
    elif instance_id is None and caller.api_version >= MEMBER_ID_REQUIRED_SINCE:
        if len(group.pending_member_ids) >= PENDING_IDS_MAX:
            oldest = next(iter(group.pending_member_ids))
            group.remove(oldest)
            table.end_session(group, oldest)
        group.pending_member_ids[member_id] = None
        table.expect_heartbeat(group, member_id, request.session_timeout_ms, now)
        _refuse(caller, ErrorCode.MEMBER_ID_REQUIRED, member_id, out)
    else:
        _add(table, group, request, member_id, caller, now, out)


def _join_known(
    table: GroupTable, group: ClassicGroup, request: JoinGroupRequest, caller: Caller, now: Now, out: GroupDecision
) -> None:
    member_id = request.member_id
    if member_id in group.pending_member_ids and request.group_instance_id is None:
        return _add(table, group, request, member_id, caller, now, out)
    error = member_error(group, member_id, request.group_instance_id)
    if error is not None:
        return _refuse(caller, error, member_id, out)
    member = group.members[member_id]
    why = _why_rebalance(group, member, _protocols(request))
    if why is None:
        out.replies.append(Reply(caller.token, generation_response(group, member_id)))
        return None
    group.update(member, _protocols(request), _rebalance_timeout_ms(request), request.session_timeout_ms)
    superseded = group.awaiting_join.pop(member_id, None)
    if superseded is not None:
        out.replies.append(
            Reply(superseded.token, join_error(superseded.api_version, ErrorCode.REBALANCE_IN_PROGRESS, member_id))
        )
    group.awaiting_join[member_id] = caller
    return rebalance_or_complete(table, group, f"{why}; client reason: {_reason(request)}", now, out)


def _why_rebalance(group: ClassicGroup, member: Member, protocols: Protocols) -> str | None:
    """Why a member's rejoining needs a new generation; None when the present one still serves.

    A member that did not receive the answer to its JoinGroup asks again with the same metadata. A stable group's
    leader rejoins on purpose: it has seen what no metadata shows, such as a topic that grew.
    """
    if group.state is GroupState.PREPARING_REBALANCE:
        return f"member {member.member_id} is joining"
    if protocols != member.protocols:
        return f"member {member.member_id} changed its metadata"
    if group.state is GroupState.STABLE and member.member_id == group.leader_id:
        return f"leader {member.member_id} is rejoining"
    return None


def _add(
    table: GroupTable,
    group: ClassicGroup,
    request: JoinGroupRequest,
    member_id: str,
    caller: Caller,
    now: Now,
    out: GroupDecision,
) -> None:
    member = Member(
        member_id=member_id,
        group_instance_id=request.group_instance_id,
        client_id=caller.client_id,
        client_host=caller.client_host,
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=_rebalance_timeout_ms(request),
        protocols=_protocols(request),
        is_new=True,
    )
    if group.initial_delay is not None:
        group.initial_delay.member_added = True
    group.add(member, request.protocol_type)
    group.awaiting_join[member_id] = caller
    table.expect_heartbeat(group, member_id, NEW_MEMBER_JOIN_TIMEOUT_MS, now)
    rebalance_or_complete(table, group, f"member {member_id} is new; client reason: {_reason(request)}", now, out)


def _replace_static(
    table: GroupTable,
    group: ClassicGroup,
    request: JoinGroupRequest,
    instance_id: str,
    new_member_id: str,
    caller: Caller,
    now: Now,
    out: GroupDecision,
) -> None:
    """A static member restarted: its old incarnation is fenced, and a stable group need not notice."""
    old_member_id = group.static_member_ids[instance_id]
    old_leader_id = group.leader_id or ""
    _fence(group, old_member_id, out)
    table.end_session(group, old_member_id)
    member = group.replace_static(instance_id, new_member_id)
    group.update(member, _protocols(request), _rebalance_timeout_ms(request), request.session_timeout_ms)
    table.keep_alive(group, member, now)
    if group.state is GroupState.STABLE and group.select_protocol() == group.protocol_name:
        out.records.append(group.to_record())
        response = generation_response(group, new_member_id)
        if caller.api_version >= SKIP_ASSIGNMENT_SINCE:
            # The leader must not assign again, but it needs the members to follow changes of the topics (KIP-814).
            response.skip_assignment = new_member_id == group.leader_id
        else:
            # The old leader's id makes the client take the follower's path, and ask for its old assignment.
            response.leader, response.members = old_leader_id, []
        out.replies.append(Reply(caller.token, response))
        return
    group.awaiting_join[new_member_id] = caller
    reason = f"static member {instance_id} came back as {new_member_id}; client reason: {_reason(request)}"
    rebalance_or_complete(table, group, reason, now, out)


def _fence(group: ClassicGroup, member_id: str, out: GroupDecision) -> None:
    parked = group.awaiting_join.pop(member_id, None)
    if parked is not None:
        out.replies.append(Reply(parked.token, join_error(parked.api_version, ErrorCode.FENCED_INSTANCE_ID, member_id)))
    parked = group.awaiting_sync.pop(member_id, None)
    if parked is not None:
        out.replies.append(Reply(parked.token, SyncGroupResponse(error_code=ErrorCode.FENCED_INSTANCE_ID)))


def _refuse(caller: Caller, error: ErrorCode, member_id: str, out: GroupDecision) -> None:
    out.replies.append(Reply(caller.token, join_error(caller.api_version, error, member_id)))


def _protocols(request: JoinGroupRequest) -> Protocols:
    return tuple((protocol.name, bytes(protocol.metadata)) for protocol in request.protocols)


def _rebalance_timeout_ms(request: JoinGroupRequest) -> int:
    """Version 0 has no rebalance timeout; its session timeout served for both."""
    return request.session_timeout_ms if request.rebalance_timeout_ms < 0 else request.rebalance_timeout_ms


def _reason(request: JoinGroupRequest) -> str:
    return request.reason or "not provided"
