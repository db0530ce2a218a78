"""ConsumerGroupDescribe (API 69): state and members of new groups (KIP-848).

Versions: 1 tells classic members from others (KIP-1099).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32, Struct, since


class ConsumerGroupDescribeRequest(Request):
    """Groups."""

    api_key = 69
    min_version = 0
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
    instance_id: str | None = None
    rack_id: str | None = None
    member_epoch: Int32 = 0
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: list[str] = []
    subscribed_topic_regex: str | None = None
    assignment: Assignment = msgspec.field(default_factory=Assignment)
    target_assignment: Assignment = msgspec.field(default_factory=Assignment)
    member_type: Annotated[Int8, since(1, ignorable=True)] = -1


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


class ConsumerGroupDescribeResponse(Response):
    """Current and target assignments. `member_type`: -1 unknown, 0 classic, 1 consumer."""

    api_key = 69
    min_version = 0
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    groups: list[DescribedGroup] = []
