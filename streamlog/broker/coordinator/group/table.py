"""Everything one shard holds, and the few words in which the message families speak about it.

Two layers. `stored` and `offsets` are the fold of the log and change only in `apply`. `groups` is the live layer:
who is joining, who is parked, who must heartbeat until when. It is built from the fold when a shard has loaded, and
thrown away with the shard. Whenever a group is Stable or Empty both layers say the same (`check`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias
from uuid import UUID

from streamlog.broker.coordinator.deadlines import Deadlines
from streamlog.broker.coordinator.group.limits import NOTE_CHARS_MAX, GroupLimits
from streamlog.broker.coordinator.group.offset_store import OffsetStore
from streamlog.broker.coordinator.group.records import GroupRecord, GroupStored
from streamlog.broker.coordinator.group.state import ClassicGroup, GroupState, Member
from streamlog.broker.coordinator.shard import Decision, Now
from streamlog.wire.error_codes import ErrorCode

GroupDecision: TypeAlias = Decision[GroupRecord]


class Timer(Enum):
    """What a deadline of a group is for."""

    SESSION = "session"
    """A member, or a pending member id, must be heard of."""
    JOIN = "join"
    """The joining phase ends with whoever is there."""
    SYNC = "sync"
    """Whoever has not synced is out."""
    EXPIRY = "expiry"
    """Look for offsets and groups that nobody needs any more."""


DeadlineKey: TypeAlias = tuple[Timer, str, str]
"""(what for, group id, member id); the ids that do not apply are empty."""

EXPIRY_KEY: DeadlineKey = (Timer.EXPIRY, "", "")


@dataclass(slots=True)
class GroupTable:
    """The groups and offsets of one `__consumer_offsets` partition."""

    limits: GroupLimits
    draw_uuid: Callable[[], UUID]
    """Randomness for member ids, injected."""
    groups: dict[str, ClassicGroup] = field(default_factory=dict)
    """Live groups. A superset of the groups in the fold: an empty shell may wait for the next expiry round."""
    stored: dict[str, GroupStored] = field(default_factory=dict)
    """The last completed generation of each group, folded."""
    offsets: OffsetStore = field(default_factory=OffsetStore)
    """Committed offsets, folded."""
    deadlines: Deadlines[DeadlineKey] = field(default_factory=Deadlines)

    def group(self, group_id: str) -> ClassicGroup:
        """The group of this name, created empty when there is none."""
        return self.groups.setdefault(group_id, ClassicGroup(group_id))

    def expect_heartbeat(self, group: ClassicGroup, member_id: str, timeout_ms: int, now: Now) -> None:
        self.deadlines.set((Timer.SESSION, group.group_id, member_id), now.mono_ms + timeout_ms)

    def keep_alive(self, group: ClassicGroup, member: Member, now: Now) -> None:
        """The member was heard of: its session starts anew."""
        self.expect_heartbeat(group, member.member_id, member.session_timeout_ms, now)

    def end_session(self, group: ClassicGroup, member_id: str) -> None:
        self.deadlines.cancel((Timer.SESSION, group.group_id, member_id))

    def move(self, group: ClassicGroup, target: GroupState, reason: str, now: Now, out: GroupDecision) -> None:
        """Change a group's state and say so."""
        before = group.state
        group.transition(target, now.wall_ms)
        note(group, before, reason, out)

    def check(self) -> None:
        """Assert that both layers agree wherever no rebalance is running."""
        for group_id, group in self.groups.items():
            group.check()
            stored = self.stored.get(group_id)
            if group.state is GroupState.STABLE:
                assert stored is not None, "a stable group is written down"
                assert _comparable(group.to_record()) == _comparable(stored), "a stable group is what was written"
            elif group.state is GroupState.EMPTY and stored is not None:
                assert group.generation_id == stored.generation_id, "an empty group has its written generation"
                assert not stored.members, "an empty group was written as empty"
            for member_id in group.members:
                is_parked = member_id in group.awaiting_join or member_id in group.awaiting_sync
                is_watched = self.deadlines.get((Timer.SESSION, group_id, member_id)) is not None
                assert is_parked or is_watched, f"{member_id} could live for ever"
        for group_id in (*self.stored, *self.offsets.group_ids()):
            assert group_id in self.groups, f"{group_id} is in the log but not alive"
        for timer, group_id, member_id in self.deadlines:
            if timer is Timer.SESSION:
                group = self.groups[group_id]
                assert member_id in group.members or member_id in group.pending_member_ids, f"{member_id} is gone"


def note(group: ClassicGroup, before: GroupState, reason: str, out: GroupDecision) -> None:
    """One line for the log, same keys in the same order; the reason may hold a client's words, so it is quoted."""
    out.notes.append(
        f"group={group.group_id!r} generation={group.generation_id} from={before.value} to={group.state.value} "
        f"members={len(group.members)} leader={group.leader_id!r} reason={reason[:NOTE_CHARS_MAX]!r}"
    )


def member_error(group: ClassicGroup, member_id: str, group_instance_id: str | None) -> ErrorCode | None:
    """Why this sender may not speak for the member it names (KIP-345), or None."""
    if group_instance_id is not None:
        current = group.static_member_ids.get(group_instance_id)
        if current is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if current != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
    return None if member_id in group.members else ErrorCode.UNKNOWN_MEMBER_ID


def _comparable(record: GroupStored) -> tuple[object, ...]:
    """The record without what moves while a group is stable: the time of its last transition."""
    return (
        record.generation_id,
        record.protocol_type,
        record.protocol_name,
        record.leader_id,
        sorted(record.members, key=lambda member: member.member_id),
    )
