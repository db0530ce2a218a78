"""The two phases of a rebalance: collect the members, then start a generation with those who came.

Every path that changes the membership ends here, in `rebalance_or_complete`: either the group can start over
(`prepare`), or it is already collecting and may just have become complete.
"""

from __future__ import annotations

from streamlog.broker.coordinator.group.state import ClassicGroup, GroupState, InitialDelay, Member
from streamlog.broker.coordinator.group.table import GroupDecision, GroupTable, Timer, note
from streamlog.broker.coordinator.shard import Now, Reply
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from streamlog.wire.messages.sync_group import SyncGroupResponse

NULLABLE_PROTOCOL_SINCE = 7
"""JoinGroup responses may leave the protocol null from this version on (KIP-559)."""


def rebalance_or_complete(table: GroupTable, group: ClassicGroup, reason: str, now: Now, out: GroupDecision) -> None:
    """The membership or a member's metadata changed."""
    if group.can_rebalance():
        prepare(table, group, reason, now, out)
    else:
        maybe_complete_join(table, group, now, out)


def prepare(table: GroupTable, group: ClassicGroup, reason: str, now: Now, out: GroupDecision) -> None:
    """Start collecting members. An empty group waits a little for more of them (KIP-134)."""
    if group.state is GroupState.COMPLETING_REBALANCE:
        refuse_syncs(table, group, ErrorCode.REBALANCE_IN_PROGRESS, now, out)
        for member in group.members.values():
            member.assignment = b""
    group.pending_sync_ids.clear()
    table.deadlines.cancel((Timer.SYNC, group.group_id, ""))
    first = group.state is GroupState.EMPTY
    table.move(group, GroupState.PREPARING_REBALANCE, reason, now, out)
    if first:
        delay_ms = table.limits.group_initial_rebalance_delay_ms
        group.initial_delay = InitialDelay(delay_ms, max(group.rebalance_timeout_ms() - delay_ms, 0))
        table.deadlines.set((Timer.JOIN, group.group_id, ""), now.mono_ms + delay_ms)
    elif group.has_all_members_joined():
        complete_join(table, group, now, out)
    else:
        table.deadlines.set((Timer.JOIN, group.group_id, ""), now.mono_ms + group.rebalance_timeout_ms())


def maybe_complete_join(table: GroupTable, group: ClassicGroup, now: Now, out: GroupDecision) -> None:
    """Start the generation if the last expected member has come, unless the initial delay is running."""
    collecting = group.state is GroupState.PREPARING_REBALANCE and group.initial_delay is None
    if collecting and group.has_all_members_joined():
        complete_join(table, group, now, out)


def on_join_deadline(table: GroupTable, group: ClassicGroup, now: Now, out: GroupDecision) -> None:
    """The time for joining is up; while members keep coming, the initial delay is extended."""
    delay = group.initial_delay
    if delay is None or not delay.member_added or delay.remaining_ms == 0:
        complete_join(table, group, now, out)
        return
    next_ms = min(table.limits.group_initial_rebalance_delay_ms, delay.remaining_ms)
    group.initial_delay = InitialDelay(next_ms, max(delay.remaining_ms - delay.step_ms, 0))
    table.deadlines.set((Timer.JOIN, group.group_id, ""), now.mono_ms + next_ms)


def complete_join(table: GroupTable, group: ClassicGroup, now: Now, out: GroupDecision) -> None:
    """Start a generation with the members who joined.

    Dynamic members who did not rejoin are out; static ones stay until their session ends (KIP-345). When nobody at
    all rejoined, the decision is put off: sessions will end, or somebody will come.
    """
    table.deadlines.cancel((Timer.JOIN, group.group_id, ""))
    group.initial_delay = None
    for member in list(group.members.values()):
        if member.member_id not in group.awaiting_join and member.group_instance_id is None:
            group.remove(member.member_id)
            table.end_session(group, member.member_id)
    if group.members and not group.elect_joined_leader():
        table.deadlines.set((Timer.JOIN, group.group_id, ""), now.mono_ms + group.rebalance_timeout_ms())
        return
    before = group.state
    group.start_generation(now.wall_ms)
    note(group, before, "the joining phase is over", out)
    if not group.members:
        out.records.append(group.to_record())
        return
    for member in group.members.values():
        caller = group.awaiting_join.pop(member.member_id, None)
        if caller is not None:
            out.replies.append(Reply(caller.token, generation_response(group, member.member_id)))
        table.keep_alive(group, member, now)
        member.is_new = False
        group.pending_sync_ids[member.member_id] = None
    table.deadlines.set((Timer.SYNC, group.group_id, ""), now.mono_ms + group.rebalance_timeout_ms())


def on_sync_deadline(table: GroupTable, group: ClassicGroup, now: Now, out: GroupDecision) -> None:
    """Members that joined a generation and never asked for their assignment are out."""
    late = list(group.pending_sync_ids)
    if not late or not group.is_in(GroupState.COMPLETING_REBALANCE, GroupState.STABLE):
        return
    for member_id in late:
        group.remove(member_id)
        table.end_session(group, member_id)
    prepare(table, group, f"members did not sync in time: {', '.join(late)}", now, out)


def drop_member(
    table: GroupTable,
    group: ClassicGroup,
    member: Member,
    out: GroupDecision,
    why: ErrorCode = ErrorCode.UNKNOWN_MEMBER_ID,
) -> None:
    """Take a member out, answering whatever it still waits for. The caller decides what that means for the group."""
    table.end_session(group, member.member_id)
    parked = group.awaiting_join.pop(member.member_id, None)
    if parked is not None:
        out.replies.append(Reply(parked.token, join_error(parked.api_version, why)))
    parked = group.awaiting_sync.pop(member.member_id, None)
    if parked is not None:
        out.replies.append(Reply(parked.token, SyncGroupResponse(error_code=why)))
    group.remove(member.member_id)


def refuse_syncs(table: GroupTable, group: ClassicGroup, error: ErrorCode, now: Now, out: GroupDecision) -> None:
    """Tell everybody who waits for an assignment that none will come.

    Their sessions start anew: one that ended while its member was parked was excused, and would otherwise never
    be watched again.
    """
    for member_id, caller in group.awaiting_sync.items():
        out.replies.append(Reply(caller.token, SyncGroupResponse(error_code=error)))
        table.keep_alive(group, group.members[member_id], now)
    group.awaiting_sync.clear()


def generation_response(group: ClassicGroup, member_id: str, *, skip_assignment: bool = False) -> JoinGroupResponse:
    """The current generation as this member needs it: the leader gets the member list."""
    members: list[JoinGroupResponseMember] = []
    if member_id == group.leader_id:
        members = [
            JoinGroupResponseMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                metadata=member.metadata(group.protocol_name),
            )
            for member in group.members.values()
        ]
    return JoinGroupResponse(
        generation_id=group.generation_id,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        leader=group.leader_id or "",
        skip_assignment=skip_assignment,
        member_id=member_id,
        members=members,
    )


def join_error(api_version: int, error: ErrorCode, member_id: str = "") -> JoinGroupResponse:
    return JoinGroupResponse(
        error_code=error,
        member_id=member_id,
        protocol_name=None if api_version >= NULLABLE_PROTOCOL_SINCE else "",
    )
