"""What a shard is asked: messages of the protocol where one shard answers them whole, and a part where several do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from streamlog.wire.messages.heartbeat import HeartbeatRequest
from streamlog.wire.messages.join_group import JoinGroupRequest
from streamlog.wire.messages.leave_group import LeaveGroupRequest
from streamlog.wire.messages.offset_commit import OffsetCommitRequest
from streamlog.wire.messages.offset_delete import OffsetDeleteRequest
from streamlog.wire.messages.offset_fetch import OffsetFetchRequestGroup
from streamlog.wire.messages.sync_group import SyncGroupRequest


@dataclass(frozen=True, slots=True)
class FetchOffsets:
    """Answered by OffsetFetchResponseGroup. `group.topics` of None asks for all."""

    group: OffsetFetchRequestGroup
    require_stable: bool


@dataclass(frozen=True, slots=True)
class DescribeGroup:
    """Answered by DescribedGroup."""

    group_id: str


@dataclass(frozen=True, slots=True)
class ListShard:
    """Answered by a list of ListedGroup, ordered by group id. Filters are lower case; empty means everything."""

    states: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    """Answered by an ErrorCode."""

    group_id: str


@dataclass(frozen=True, slots=True)
class ForgetTopics:
    """Topics were deleted, and with them every position in them. Answered by None."""

    topics: Mapping[str, UUID]
    """By name; the ids tell them from topics of the same name that were created since."""


@dataclass(frozen=True, slots=True)
class ForgetNewcomer:
    """Whoever was given this member id has left before it was in a generation. Answered by None.

    Members are not forgotten so: they come back on another connection, and have their session for it.
    """

    group_id: str
    member_id: str


GroupRequest: TypeAlias = (
    JoinGroupRequest
    | SyncGroupRequest
    | HeartbeatRequest
    | LeaveGroupRequest
    | OffsetCommitRequest
    | OffsetDeleteRequest
    | FetchOffsets
    | DescribeGroup
    | ListShard
    | DeleteGroup
    | ForgetTopics
    | ForgetNewcomer
)
