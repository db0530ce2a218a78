"""A shard on a bench: a list for a log, clocks that are turned by hand, and verbs for what members do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from streamlog.broker.coordinator.group.group_shard import GroupShard
from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.group.records import ZERO_UUID, GroupRecord, key_of
from streamlog.broker.coordinator.group.requests import (
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    GroupRequest,
    ListShard,
)
from streamlog.broker.coordinator.group.state import GroupState
from streamlog.broker.coordinator.shard import Applied, Caller, Decision, Now, Reply, Token
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.describe_groups import DescribedGroup
from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from streamlog.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from streamlog.wire.messages.list_groups import ListedGroup
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from streamlog.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from streamlog.wire.messages.offset_fetch import (
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponseGroup,
)
from streamlog.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse

T = TypeVar("T")

GROUP = "payments"
TOPIC = "orders"
SESSION_MS = 10_000
REBALANCE_MS = 60_000
WALL_EPOCH_MS = 1_700_000_000_000
LATEST = {"join": 9, "sync": 5, "heartbeat": 4, "leave": 5, "commit": 9, "describe": 6}


def subscription(*topics: str) -> bytes:
    """ConsumerProtocolSubscription v0 by hand."""
    names = b"".join(len(topic).to_bytes(2, "big") + topic.encode() for topic in topics)
    return (0).to_bytes(2, "big") + len(topics).to_bytes(4, "big") + names + (-1).to_bytes(4, "big", signed=True)


def uuids() -> Callable[[], UUID]:
    numbers = itertools.count(1)
    return lambda: UUID(int=next(numbers))


@dataclass
class Bench:
    """One shard with its log. Replies are kept by token; a token without a reply is parked."""

    limits: GroupLimits = field(default_factory=lambda: GroupLimits(group_initial_rebalance_delay_ms=0))
    mono_ms: int = 0
    log: list[Applied[GroupRecord]] = field(default_factory=list)
    replies: dict[Token, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw_uuid = uuids()
        self._tokens = itertools.count(1)
        self.shard = GroupShard(self.limits, self.draw_uuid)
        self._perform(self.shard.on_loaded(self.now))

    @property
    def now(self) -> Now:
        return Now(self.mono_ms, WALL_EPOCH_MS + self.mono_ms)

    def ask(self, request: GroupRequest, api_version: int = 9, client_id: str = "c") -> Token:
        token = Token(next(self._tokens))
        caller = Caller(token, api_version, client_id, "/127.0.0.1")
        self._perform(self.shard.handle(request, caller, self.now))
        return token

    def wait(self, duration_ms: int) -> None:
        """Let time pass, stopping at every deadline on the way."""
        end_ms = self.mono_ms + duration_ms
        while (due_ms := self.shard.next_deadline_ms()) is not None and due_ms <= end_ms:
            self.mono_ms = max(self.mono_ms, due_ms)
            self._perform(self.shard.on_deadline(self.now))
        self.mono_ms = end_ms

    def restart(self, *, compacted: bool = False) -> None:
        """A new coordinator loads the log; whoever was parked is forgotten."""
        self.shard = replay(self.log, self.limits, self.draw_uuid, compacted=compacted)
        self._perform(self.shard.on_loaded(self.now))

    def reply(self, token: Token, kind: type[T]) -> T:
        response = self.replies[token]
        assert isinstance(response, kind)
        return response

    def is_parked(self, token: Token) -> bool:
        return token not in self.replies

    def state(self, group_id: str = GROUP) -> GroupState:
        return self.shard.table.groups[group_id].state

    def _perform(self, decision: Decision[GroupRecord]) -> None:
        for record in decision.records:
            applied = Applied(record, len(self.log))
            self.log.append(applied)
            self.shard.apply(applied)
        for reply in decision.replies:
            assert isinstance(reply, Reply)
            assert reply.token not in self.replies, "every request is answered once"
            self.replies[reply.token] = reply.response
        self.notes.extend(decision.notes)
        self.shard.table.check()

    # What clients do.

    def join(
        self,
        member_id: str = "",
        *,
        group_id: str = GROUP,
        instance: str | None = None,
        protocols: dict[str, bytes] | None = None,
        protocol_type: str = "consumer",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        api_version: int = LATEST["join"],
    ) -> Token:
        request = JoinGroupRequest(
            group_id=group_id,
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            member_id=member_id,
            group_instance_id=instance,
            protocol_type=protocol_type,
            protocols=[
                JoinGroupRequestProtocol(name=name, metadata=metadata)
                for name, metadata in (protocols or {"range": subscription(TOPIC)}).items()
            ],
        )
        return self.ask(request, api_version)

    def new_id(self, **options: object) -> str:
        """The id that MEMBER_ID_REQUIRED gives to a new dynamic member."""
        response = self.reply(self.join(**options), JoinGroupResponse)  # type: ignore[arg-type]  # passed on as is
        assert response.error_code == ErrorCode.MEMBER_ID_REQUIRED
        return response.member_id

    def sync(
        self,
        member_id: str,
        generation_id: int,
        assignments: dict[str, bytes] | None = None,
        *,
        instance: str | None = None,
        protocol_type: str | None = "consumer",
        protocol_name: str | None = "range",
        group_id: str = GROUP,
        api_version: int = LATEST["sync"],
    ) -> Token:
        request = SyncGroupRequest(
            group_id=group_id,
            generation_id=generation_id,
            member_id=member_id,
            group_instance_id=instance,
            protocol_type=protocol_type,
            protocol_name=protocol_name,
            assignments=[
                SyncGroupRequestAssignment(member_id=name, assignment=data)
                for name, data in (assignments or {}).items()
            ],
        )
        return self.ask(request, api_version)

    def heartbeat(
        self, member_id: str, generation_id: int, *, instance: str | None = None, group_id: str = GROUP
    ) -> ErrorCode:
        request = HeartbeatRequest(
            group_id=group_id, generation_id=generation_id, member_id=member_id, group_instance_id=instance
        )
        return ErrorCode(self.reply(self.ask(request, LATEST["heartbeat"]), HeartbeatResponse).error_code)

    def leave(self, *identities: MemberIdentity | str, group_id: str = GROUP) -> list[ErrorCode]:
        members = [MemberIdentity(member_id=one) if isinstance(one, str) else one for one in identities]
        token = self.ask(LeaveGroupRequest(group_id=group_id, members=members), LATEST["leave"])
        response = self.reply(token, LeaveGroupResponse)
        assert response.error_code == ErrorCode.NONE
        return [ErrorCode(member.error_code) for member in response.members]

    def commit(
        self,
        offset: int,
        *,
        member_id: str = "",
        generation_id: int = -1,
        instance: str | None = None,
        topic: str = TOPIC,
        partition: int = 0,
        metadata: str | None = None,
        retention_ms: int = -1,
        group_id: str = GROUP,
        api_version: int = LATEST["commit"],
        topic_id: UUID = ZERO_UUID,
    ) -> ErrorCode:
        request = OffsetCommitRequest(
            group_id=group_id,
            generation_id_or_member_epoch=generation_id,
            member_id=member_id,
            group_instance_id=instance,
            retention_time_ms=retention_ms,
            topics=[
                OffsetCommitRequestTopic(
                    name=topic,
                    topic_id=topic_id,
                    partitions=[
                        OffsetCommitRequestPartition(
                            partition_index=partition, committed_offset=offset, committed_metadata=metadata
                        )
                    ],
                )
            ],
        )
        response = self.reply(self.ask(request, api_version), OffsetCommitResponse)
        return ErrorCode(response.topics[0].partitions[0].error_code)

    def fetch(
        self, *, topic: str = TOPIC, partition: int = 0, group_id: str = GROUP, topic_id: UUID = ZERO_UUID
    ) -> int:
        """The committed offset, -1 for none."""
        asked = OffsetFetchRequestTopics(name=topic, topic_id=topic_id, partition_indexes=[partition])
        group = OffsetFetchRequestGroup(group_id=group_id, topics=[asked])
        response = self.reply(self.ask(FetchOffsets(group, require_stable=True)), OffsetFetchResponseGroup)
        return response.topics[0].partitions[0].committed_offset

    def fetch_all(self, group_id: str = GROUP) -> dict[tuple[str, int], int]:
        group = OffsetFetchRequestGroup(group_id=group_id, topics=None)
        response = self.reply(self.ask(FetchOffsets(group, require_stable=False)), OffsetFetchResponseGroup)
        return {
            (topic.name, partition.partition_index): partition.committed_offset
            for topic in response.topics
            for partition in topic.partitions
        }

    def delete_offset(self, *, topic: str = TOPIC, partition: int = 0, group_id: str = GROUP) -> ErrorCode:
        """The error of the group, or else of the partition."""
        request = OffsetDeleteRequest(
            group_id=group_id,
            topics=[
                OffsetDeleteRequestTopic(
                    name=topic, partitions=[OffsetDeleteRequestPartition(partition_index=partition)]
                )
            ],
        )
        response = self.reply(self.ask(request, 0), OffsetDeleteResponse)
        return ErrorCode(response.error_code or response.topics[0].partitions[0].error_code)

    def delete_group(self, group_id: str = GROUP) -> ErrorCode:
        return self.reply(self.ask(DeleteGroup(group_id), 2), ErrorCode)

    def describe(self, group_id: str = GROUP, api_version: int = LATEST["describe"]) -> DescribedGroup:
        return self.reply(self.ask(DescribeGroup(group_id), api_version), DescribedGroup)

    def list_groups(
        self, *, states: frozenset[str] = frozenset(), types: frozenset[str] = frozenset()
    ) -> list[ListedGroup]:
        listed = self.reply(self.ask(ListShard(states, types), 5), list)
        assert all(isinstance(one, ListedGroup) for one in listed)
        return listed

    # Whole stories.

    def stable_group(self, count: int, **options: object) -> tuple[list[str], int]:
        """`count` dynamic members in a stable group. Returns their ids, leader first, and the generation."""
        ids = [self.new_id(**options) for _ in range(count)]
        joins = [self.join(member_id, **options) for member_id in ids]  # type: ignore[arg-type]  # passed on as is
        self.wait(self.limits.group_initial_rebalance_delay_ms)
        return ids, self.settle(joins)

    def settle(self, joins: list[Token]) -> int:
        """Everybody whose JoinGroup was answered syncs, and the leader gives everybody its own id."""
        answers = [self.reply(token, JoinGroupResponse) for token in joins]
        assert all(answer.error_code == ErrorCode.NONE for answer in answers), answers
        generation_id = answers[0].generation_id
        syncs = []
        for answer in answers:
            given = {member.member_id: member.member_id.encode() for member in answer.members}
            syncs.append(
                self.sync(
                    answer.member_id,
                    generation_id,
                    given,
                    protocol_name=answer.protocol_name,
                    protocol_type=answer.protocol_type,
                )
            )
        for answer, token in zip(answers, syncs, strict=True):
            response = self.reply(token, SyncGroupResponse)
            assert response.error_code == ErrorCode.NONE
            assert response.assignment == answer.member_id.encode()
        assert self.state() is GroupState.STABLE
        return generation_id


def replay(
    log: list[Applied[GroupRecord]], limits: GroupLimits, draw_uuid: Callable[[], UUID], *, compacted: bool = False
) -> GroupShard:
    """A shard that has folded `log`, or what compaction would leave of it."""
    shard = GroupShard(limits, draw_uuid)
    last = {key_of(applied.record): applied.offset for applied in log}
    for applied in log:
        if not compacted or last[key_of(applied.record)] == applied.offset:
            shard.apply(applied)
    return shard
