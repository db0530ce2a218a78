"""What a member of a group is and asks for: its phases, the effects that `membership.py` decides on, its settings.

`group.py` carries the effects out, in the order in which they were returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from streamlog.client.values import TopicPartition
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest

NO_GENERATION = -1

LEASE_MARGIN_SHARE = 10
"""A tenth of a session is kept back from what a member takes for its own: for the way of a request to the broker, which
takes milliseconds, and for what clocks differ by, which is less. Heartbeats come three times in a session at least, so
that one that is answered late costs nothing."""


class Phase(Enum):
    OUT = "out"
    RELEASING = "releasing"
    JOINING = "joining"
    LOADING = "loading"
    SYNCING = "syncing"
    ADOPTING = "adopting"
    STABLE = "stable"
    FAILED = "failed"


GroupRequest: TypeAlias = JoinGroupRequest | SyncGroupRequest | HeartbeatRequest | LeaveGroupRequest


@dataclass(frozen=True, slots=True)
class Send:
    """Send to the coordinator; the answer comes back as an input."""

    request: GroupRequest


@dataclass(frozen=True, slots=True)
class ForgetCoordinator:
    """The broker we asked does not coordinate the group (any more)."""


@dataclass(frozen=True, slots=True)
class LoadTopics:
    """Have the metadata of these topics, then call `on_topics_loaded`."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Have the application finish with partitions, then call `on_released`. `lost`: they belong to others already."""

    partitions: tuple[TopicPartition, ...]
    lost: bool


@dataclass(frozen=True, slots=True)
class Adopt:
    """Hand partitions to the application, then call `on_adopted`."""

    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """The group refused us for good; the application has to know."""

    error: KafkaError


Effect: TypeAlias = Send | ForgetCoordinator | LoadTopics | Release | Adopt | Fail

FATAL = frozenset(
    {
        ErrorCode.FENCED_INSTANCE_ID,
        ErrorCode.GROUP_MAX_SIZE_REACHED,
        ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
        ErrorCode.INVALID_SESSION_TIMEOUT,
        ErrorCode.INVALID_GROUP_ID,
        ErrorCode.GROUP_AUTHORIZATION_FAILED,
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.INVALID_REQUEST,
    }
)

LOST_GENERATION = frozenset({ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION})

HEARTBEATING = frozenset({Phase.RELEASING, Phase.LOADING, Phase.SYNCING, Phase.ADOPTING, Phase.STABLE})
"""Phases in which the broker expects to hear from us. While JoinGroup waits it knows that we are there."""


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    group_id: str
    group_instance_id: str | None
    session_timeout_ms: int
    rebalance_timeout_ms: int
    heartbeat_interval_ms: int
    retry_backoff_ms: int
    rack_id: str | None
    leaves_when_static: bool = False
    """Whether a member with an instance id leaves when it is closed (KIP-1092). Java's stay, for a quick restart."""
