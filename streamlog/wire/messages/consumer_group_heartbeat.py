"""ConsumerGroupHeartbeat (API 68): the whole member side of the new group protocol (KIP-848).

Versions: 1 subscribes by pattern and lets members make their own ids (KIP-1082).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct, since


class TopicPartitions(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[Int32] = []


class ConsumerGroupHeartbeatRequest(Request):
    """What has changed about the member; None and -1 mean "as before".

    `member_epoch`: 0 joins, -1 leaves, -2 leaves for a while as a static member.
    """

    api_key = 68
    min_version = 0
    max_version = 1
    flexible_since = 0

    group_id: str = ""
    member_id: str = ""
    member_epoch: Int32 = 0
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: Int32 = -1
    subscribed_topic_names: list[str] | None = None
    subscribed_topic_regex: Annotated[str | None, since(1)] = None
    server_assignor: str | None = None
    topic_partitions: list[TopicPartitions] | None = None


class Assignment(Struct):
    topic_partitions: list[TopicPartitions] = []


class ConsumerGroupHeartbeatResponse(Response):
    """The member's epoch, and its assignment if that has changed."""

    api_key = 68
    min_version = 0
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    member_id: str | None = None
    member_epoch: Int32 = 0
    heartbeat_interval_ms: Int32 = 0
    assignment: Assignment | None = None
