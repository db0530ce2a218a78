"""The group coordinator's state for one `__consumer_offsets` partition: which family answers which message."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never
from uuid import UUID

from streamlog.broker.coordinator.group import admin, join, liveness, offsets, rebalance, sync
from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.group.records import (
    GroupForgotten,
    GroupRecord,
    GroupStored,
    OffsetCommitted,
    OffsetForgotten,
)
from streamlog.broker.coordinator.group.requests import (
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    ForgetNewcomer,
    ForgetTopics,
    GroupRequest,
    ListShard,
)
from streamlog.broker.coordinator.group.state import ClassicGroup
from streamlog.broker.coordinator.group.table import EXPIRY_KEY, GroupDecision, GroupTable, Timer
from streamlog.broker.coordinator.shard import Applied, Caller, Decision, Now
from streamlog.wire.messages.heartbeat import HeartbeatRequest
from streamlog.wire.messages.join_group import JoinGroupRequest
from streamlog.wire.messages.leave_group import LeaveGroupRequest
from streamlog.wire.messages.offset_commit import OffsetCommitRequest
from streamlog.wire.messages.offset_delete import OffsetDeleteRequest
from streamlog.wire.messages.sync_group import SyncGroupRequest


class GroupShard:
    """A shard of consumer groups and their offsets. See `shard.Shard` for the contract."""

    def __init__(self, limits: GroupLimits, draw_uuid: Callable[[], UUID]) -> None:
        self.table = GroupTable(limits, draw_uuid)

    def handle(self, request: GroupRequest, caller: Caller, now: Now) -> GroupDecision:
        table = self.table
        out: GroupDecision = Decision()
        match request:
            case HeartbeatRequest():
                liveness.heartbeat(table, request, caller, now, out)
            case OffsetCommitRequest():
                offsets.commit_offsets(table, request, caller, now, out)
            case FetchOffsets():
                offsets.fetch_offsets(table, request, caller, out)
            case JoinGroupRequest():
                join.join_group(table, request, caller, now, out)
            case SyncGroupRequest():
                sync.sync_group(table, request, caller, now, out)
            case LeaveGroupRequest():
                liveness.leave_group(table, request, caller, now, out)
            case DescribeGroup():
                admin.describe_group(table, request, caller, out)
            case ListShard():
                admin.list_groups(table, request, caller, out)
            case DeleteGroup():
                admin.delete_group(table, request, caller, now, out)
            case OffsetDeleteRequest():
                offsets.delete_offsets(table, request, caller, out)
            case ForgetTopics():
                offsets.forget_topics(table, request, caller, out)
            case ForgetNewcomer():
                liveness.forget_newcomer(table, request, caller, now, out)
            case _:
                assert_never(request)
        return out

    def next_deadline_ms(self) -> int | None:
        return self.table.deadlines.next_ms()

    def on_deadline(self, now: Now) -> GroupDecision:
        table = self.table
        out: GroupDecision = Decision()
        while (key := table.deadlines.pop_due(now.mono_ms)) is not None:
            timer, group_id, member_id = key
            if timer is Timer.EXPIRY:
                offsets.expire(table, now, out)
                self._expect_expiry(now)
                continue
            group = table.groups.get(group_id)
            assert group is not None, f"a deadline outlived its group {group_id}"
            if timer is Timer.SESSION:
                liveness.on_session_end(table, group, member_id, now, out)
            elif timer is Timer.JOIN:
                rebalance.on_join_deadline(table, group, now, out)
            else:
                rebalance.on_sync_deadline(table, group, now, out)
        return out

    def apply(self, applied: Applied[GroupRecord]) -> None:
        record = applied.record
        match record:
            case OffsetCommitted() | OffsetForgotten():
                self.table.offsets.apply(record, applied.offset, applied.producer_id)
            case GroupStored():
                self.table.stored[record.group_id] = record
            case GroupForgotten():
                self.table.stored.pop(record.group_id, None)
            case _:
                assert_never(record)

    def apply_marker(self, producer_id: int, committed: bool) -> None:
        self.table.offsets.apply_marker(producer_id, committed)

    def on_loaded(self, now: Now) -> GroupDecision:
        """Bring the groups of the fold to life; every member has a whole session to find its new coordinator."""
        table = self.table
        out: GroupDecision = Decision()
        for group_id in table.offsets.group_ids():
            if group_id not in table.stored:
                table.groups[group_id] = ClassicGroup(group_id)
        for group_id, stored in sorted(table.stored.items()):
            group = table.groups[group_id] = ClassicGroup.from_record(stored)
            for member in group.members.values():
                table.keep_alive(group, member, now)
            if len(group.members) > table.limits.group_max_size:
                rebalance.prepare(table, group, "the loaded group is larger than group.max.size", now, out)
        self._expect_expiry(now)
        return out

    def _expect_expiry(self, now: Now) -> None:
        self.table.deadlines.set(EXPIRY_KEY, now.mono_ms + self.table.limits.offsets_retention_check_interval_ms)
