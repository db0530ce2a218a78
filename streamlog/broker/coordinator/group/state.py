"""One classic consumer group: its members, its state, and what must always hold between them.

A group lives through generations. Members join; when all expected ones have, the generation number goes up, one
protocol that everybody supports is chosen by vote, and the leader receives the member list. The leader sends back
who gets what; when that is written, the generation is complete.

    Empty                no members; holds offsets, or waits to be forgotten
    PreparingRebalance   members are (re)joining; their JoinGroups are parked
    CompletingRebalance  all have joined; followers' SyncGroups are parked until the leader's arrives
    Stable               the generation is complete and written; heartbeats keep it alive
    Dead                 deleted; nothing leads out of it, a new group of the same name is a new object

The log holds completed generations only (`GroupStored`). Who is parked, who is alive and who is halfway through a
rebalance is volatile: a new coordinator starts from the last completed generation, and clients rejoin.

Source: KIP-62 (sessions and rebalance timeouts), KIP-134 (initial delay), KIP-345 (static members), KIP-394 (member
ids are given before they count).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from streamlog.broker.coordinator.group.records import GroupStored, MemberStored
from streamlog.broker.coordinator.group.subscription import CONSUMER_PROTOCOL_TYPE, subscribed_topics
from streamlog.broker.coordinator.shard import Caller

GENERATION_ID_MAX = 0x7FFFFFFF

Protocols: TypeAlias = tuple[tuple[str, bytes], ...]
"""(name, metadata), the member's favourite first."""


class GroupState(Enum):
    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


LEGAL_TRANSITIONS: dict[GroupState, frozenset[GroupState]] = {
    GroupState.EMPTY: frozenset({GroupState.PREPARING_REBALANCE, GroupState.DEAD}),
    GroupState.PREPARING_REBALANCE: frozenset({GroupState.COMPLETING_REBALANCE, GroupState.EMPTY, GroupState.DEAD}),
    GroupState.COMPLETING_REBALANCE: frozenset({GroupState.STABLE, GroupState.PREPARING_REBALANCE, GroupState.DEAD}),
    GroupState.STABLE: frozenset({GroupState.PREPARING_REBALANCE, GroupState.DEAD}),
    GroupState.DEAD: frozenset(),
}


@dataclass(slots=True)
class Member:
    """One member of the current or the coming generation."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    """From the leader of the last completed generation; empty while a new one completes."""
    is_new: bool = False
    """Joined and not yet part of a generation: its session may end even while its JoinGroup is parked."""

    def metadata(self, protocol_name: str | None) -> bytes:
        for name, metadata in self.protocols:
            if name == protocol_name:
                return metadata
        return b""

    def vote(self, candidates: Sequence[str]) -> str:
        return next(name for name, _ in self.protocols if name in candidates)


@dataclass(slots=True)
class InitialDelay:
    """The first rebalance of an empty group waits for more members (KIP-134)."""

    step_ms: int
    """The wait that is running."""
    remaining_ms: int
    """What may still be added to it, so that all waits together stay within the rebalance timeout."""
    member_added: bool = False
    """Somebody joined during the running wait, so it is worth waiting again."""


@dataclass(slots=True)
class ClassicGroup:
    """A group's live state. Its methods keep it consistent and decide nothing about requests."""

    group_id: str
    state: GroupState = GroupState.EMPTY
    state_changed_at_ms: int | None = None
    """Wall clock. None only when an old record did not say: then offsets expire by their own age."""
    generation_id: int = 0
    """Completed and running generations; never goes back."""
    protocol_type: str | None = None
    """None for a group that never had members. Kept while empty."""
    protocol_name: str | None = None
    """The elected protocol; None while there are no members."""
    leader_id: str | None = None
    """One of `members`; None exactly when there are none."""
    members: dict[str, Member] = field(default_factory=dict)
    """By member id, in the order of joining."""
    static_member_ids: dict[str, str] = field(default_factory=dict)
    """Instance id to the member id that currently stands for it."""
    pending_member_ids: dict[str, None] = field(default_factory=dict)
    """Ids given out by MEMBER_ID_REQUIRED and not yet used; disjoint from `members`."""
    awaiting_join: dict[str, Caller] = field(default_factory=dict)
    """Parked JoinGroups; only while preparing."""
    awaiting_sync: dict[str, Caller] = field(default_factory=dict)
    """Parked SyncGroups; only while completing."""
    pending_sync_ids: dict[str, None] = field(default_factory=dict)
    """Members of this generation that have not sent SyncGroup yet."""
    topics: frozenset[str] | None = None
    """What the members of this generation subscribe to; None when that cannot be known."""
    initial_delay: InitialDelay | None = None
    """Runs only while preparing the first rebalance of an empty group."""
    supporters: dict[str, int] = field(default_factory=dict)
    """Protocol name to the number of members that support it; no zeros."""

    def is_in(self, *states: GroupState) -> bool:
        return self.state in states

    def can_rebalance(self) -> bool:
        return GroupState.PREPARING_REBALANCE in LEGAL_TRANSITIONS[self.state]

    def is_simple(self) -> bool:
        """Used only for committing offsets, by clients that assign partitions themselves."""
        return self.protocol_type is None and self.state is GroupState.EMPTY and not self.pending_member_ids

    def uses_consumer_protocol(self) -> bool:
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    def is_subscribed_to(self, topic: str) -> bool:
        """Whether a member consumes `topic`; a consumer group whose subscriptions are unreadable counts as yes."""
        return self.uses_consumer_protocol() if self.topics is None else topic in self.topics

    def has_all_members_joined(self) -> bool:
        return len(self.awaiting_join) == len(self.members) and not self.pending_member_ids

    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def supports(self, protocol_type: str, names: Sequence[str]) -> bool:
        """Whether a member with these protocols could share a generation with the present members."""
        if self.state is GroupState.EMPTY:
            return bool(protocol_type) and bool(names)
        return self.protocol_type == protocol_type and any(
            self.supporters.get(name, 0) == len(self.members) for name in names
        )

    def select_protocol(self) -> str:
        """The protocol with the most votes among those that all members support; ties go to the first voter's."""
        assert self.members, "an empty group has nobody to vote"
        candidates = [name for name, count in self.supporters.items() if count == len(self.members)]
        votes: dict[str, int] = {}
        for member in self.members.values():
            choice = member.vote(candidates)
            votes[choice] = votes.get(choice, 0) + 1
        return max(votes, key=lambda name: votes[name])

    def transition(self, target: GroupState, wall_ms: int) -> None:
        assert target in LEGAL_TRANSITIONS[self.state], f"group {self.group_id}: {self.state} cannot become {target}"
        self.state = target
        self.state_changed_at_ms = wall_ms

    def add(self, member: Member, protocol_type: str) -> None:
        assert member.member_id not in self.members, f"{member.member_id} is a member already"
        if not self.members:
            self.protocol_type = protocol_type
        if member.group_instance_id is not None:
            self.static_member_ids[member.group_instance_id] = member.member_id
        self.members[member.member_id] = member
        self._count_protocols(member, 1)
        self.pending_member_ids.pop(member.member_id, None)
        if self.leader_id is None:
            self.leader_id = member.member_id

    def update(self, member: Member, protocols: Protocols, rebalance_timeout_ms: int, session_timeout_ms: int) -> None:
        self._count_protocols(member, -1)
        member.protocols = protocols
        self._count_protocols(member, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms

    def remove(self, member_id: str) -> None:
        """Forget a member or a pending id. Its parked requests must have been answered before."""
        assert member_id not in self.awaiting_join, f"{member_id} still waits for its JoinGroup"
        assert member_id not in self.awaiting_sync, f"{member_id} still waits for its SyncGroup"
        member = self.members.pop(member_id, None)
        if member is not None:
            self._count_protocols(member, -1)
            if member.group_instance_id is not None:
                self.static_member_ids.pop(member.group_instance_id, None)
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)
        self.pending_member_ids.pop(member_id, None)
        self.pending_sync_ids.pop(member_id, None)

    def replace_static(self, group_instance_id: str, new_member_id: str) -> Member:
        """The instance came back under a new member id: same place, same leadership, same assignment."""
        old_member_id = self.static_member_ids[group_instance_id]
        assert old_member_id not in self.awaiting_join, "the old incarnation was not answered"
        assert old_member_id not in self.awaiting_sync, "the old incarnation was not answered"
        member = self.members.pop(old_member_id)
        member.member_id = new_member_id
        member.is_new = False
        self.members[new_member_id] = member
        self.static_member_ids[group_instance_id] = new_member_id
        if self.leader_id == old_member_id:
            self.leader_id = new_member_id
        if old_member_id in self.pending_sync_ids:
            del self.pending_sync_ids[old_member_id]
            self.pending_sync_ids[new_member_id] = None
        return member

    def elect_joined_leader(self) -> bool:
        """Make sure the leader is one who rejoined. Returns whether there is one."""
        if self.leader_id in self.awaiting_join:
            return True
        joined = next((member_id for member_id in self.members if member_id in self.awaiting_join), None)
        if joined is None:
            return False
        self.leader_id = joined
        return True

    def start_generation(self, wall_ms: int) -> None:
        """Close the joining phase: the next number, the elected protocol, nobody has synced."""
        self.generation_id = self.generation_id + 1 if self.generation_id < GENERATION_ID_MAX else 1
        self.protocol_name = self.select_protocol() if self.members else None
        self.topics = self.known_topics()
        self.pending_sync_ids = {}
        self.transition(GroupState.COMPLETING_REBALANCE if self.members else GroupState.EMPTY, wall_ms)

    def known_topics(self) -> frozenset[str] | None:
        if not self.uses_consumer_protocol():
            return None
        return subscribed_topics([member.metadata(self.protocol_name) for member in self.members.values()])

    def to_record(self) -> GroupStored:
        """The generation as the log keeps it."""
        return GroupStored(
            group_id=self.group_id,
            generation_id=self.generation_id,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol_name,
            leader_id=self.leader_id,
            state_changed_at_ms=self.state_changed_at_ms,
            members=tuple(
                MemberStored(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout_ms=member.rebalance_timeout_ms,
                    session_timeout_ms=member.session_timeout_ms,
                    subscription=member.metadata(self.protocol_name),
                    assignment=member.assignment,
                )
                for member in self.members.values()
            ),
        )

    @classmethod
    def from_record(cls, record: GroupStored) -> ClassicGroup:
        """The group as a new coordinator finds it: complete, nobody parked."""
        group = cls(
            group_id=record.group_id,
            state=GroupState.STABLE if record.members else GroupState.EMPTY,
            state_changed_at_ms=record.state_changed_at_ms,
            generation_id=record.generation_id,
            protocol_type=record.protocol_type,
            protocol_name=record.protocol_name,
        )
        for stored in record.members:
            member = Member(
                member_id=stored.member_id,
                group_instance_id=stored.group_instance_id,
                client_id=stored.client_id,
                client_host=stored.client_host,
                session_timeout_ms=stored.session_timeout_ms,
                rebalance_timeout_ms=stored.rebalance_timeout_ms,
                protocols=((record.protocol_name or "", stored.subscription),),
                assignment=stored.assignment,
            )
            group.add(member, record.protocol_type or "")
        if record.leader_id in group.members:
            group.leader_id = record.leader_id
        group.topics = group.known_topics()
        return group

    def check(self) -> None:
        """Assert everything that the comments of the fields promise."""
        members, state = self.members, self.state
        assert (self.leader_id is None) == (not members), "a group has a leader exactly when it has members"
        assert self.leader_id is None or self.leader_id in members, "the leader is a member"
        assert not (members and state in (GroupState.EMPTY, GroupState.DEAD)), "members keep a group from being empty"
        assert members.keys().isdisjoint(self.pending_member_ids), "a pending id is not a member yet"
        assert self.awaiting_join.keys() <= members.keys(), "only members wait to join"
        assert not self.awaiting_join or state is GroupState.PREPARING_REBALANCE, "joins are parked while preparing"
        assert self.awaiting_sync.keys() <= members.keys(), "only members wait to sync"
        assert not self.awaiting_sync or state is GroupState.COMPLETING_REBALANCE, "syncs are parked while completing"
        assert self.pending_sync_ids.keys() <= members.keys(), "only members owe a sync"
        static_ids = {m.group_instance_id: m.member_id for m in members.values() if m.group_instance_id is not None}
        assert static_ids == self.static_member_ids, "every static member is found by its instance id"
        counts: dict[str, int] = {}
        for member in members.values():
            for name in dict.fromkeys(name for name, _ in member.protocols):
                counts[name] = counts.get(name, 0) + 1
        assert counts == self.supporters, "supporters are counted right"
        assert self.initial_delay is None or state is GroupState.PREPARING_REBALANCE, "the delay is for preparing"

    def _count_protocols(self, member: Member, change: int) -> None:
        for name in dict.fromkeys(name for name, _ in member.protocols):
            count = self.supporters.get(name, 0) + change
            if count:
                self.supporters[name] = count
            else:
                del self.supporters[name]
