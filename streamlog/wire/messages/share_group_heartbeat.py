"""ShareGroupHeartbeat (API 76): the member side of share groups (KIP-932)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct


class ShareGroupHeartbeatRequest(Request):
    """What has changed about the member; None means "as before". `member_epoch`: 0 joins, -1 leaves."""

    api_key = 76
    min_version = 1
    max_version = 1
    flexible_since = 0

    group_id: str = ""
    member_id: str = ""
    member_epoch: Int32 = 0
    rack_id: str | None = None
    subscribed_topic_names: list[str] | None = None


class TopicPartitions(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[Int32] = []


class Assignment(Struct):
    topic_partitions: list[TopicPartitions] = []


class ShareGroupHeartbeatResponse(Response):
    """The member's epoch, and its assignment if that has changed."""

    api_key = 76
    min_version = 1
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    member_id: str | None = None
    member_epoch: Int32 = 0
    heartbeat_interval_ms: Int32 = 0
    assignment: Assignment | None = None
