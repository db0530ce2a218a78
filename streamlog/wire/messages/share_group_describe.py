"""ShareGroupDescribe (API 77): state and members of share groups (KIP-932)."""

from __future__ import annotations

from uuid import UUID

import msgspec

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct


class ShareGroupDescribeRequest(Request):
    """Groups."""

    api_key = 77
    min_version = 1
    max_version = 1
    flexible_since = 0

    group_ids: list[str] = []
    include_authorized_operations: bool = False


class TopicPartitions(Struct):
    topic_id: UUID = ZERO_UUID
    topic_name: str = ""
    partitions: list[Int32] = []


class Assignment(Struct):
    topic_partitions: list[TopicPartitions] = []


class Member(Struct):
    member_id: str = ""
    rack_id: str | None = None
    member_epoch: Int32 = 0
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: list[str] = []
    assignment: Assignment = msgspec.field(default_factory=Assignment)


class DescribedGroup(Struct):
    error_code: Int16 = 0
    error_message: str | None = None
    group_id: str = ""
    group_state: str = ""
    group_epoch: Int32 = 0
    assignment_epoch: Int32 = 0
    assignor_name: str = ""
    members: list[Member] = []
    authorized_operations: Int32 = -0x8000_0000


class ShareGroupDescribeResponse(Response):
    """One description per group."""

    api_key = 77
    min_version = 1
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    groups: list[DescribedGroup] = []
