"""DescribeGroups (API 15): state and members of classic groups.

Versions: 3 authorized operations (KIP-430); 4 static members (KIP-345); 5 is flexible; 6 answers GROUP_ID_NOT_FOUND
with a message instead of a dead group (KIP-1043).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct, since


class DescribeGroupsRequest(Request):
    """Asks about groups by id."""

    api_key = 15
    min_version = 0
    max_version = 6
    flexible_since = 5

    groups: list[str] = []
    include_authorized_operations: Annotated[bool, since(3)] = False


class DescribedGroupMember(Struct):
    member_id: str = ""
    group_instance_id: Annotated[str | None, since(4, ignorable=True)] = None
    client_id: str = ""
    client_host: str = ""
    member_metadata: bytes = b""
    member_assignment: bytes = b""


class DescribedGroup(Struct):
    error_code: Int16 = 0
    error_message: Annotated[str | None, since(6)] = None
    group_id: str = ""
    group_state: str = ""
    protocol_type: str = ""
    protocol_data: str = ""
    members: list[DescribedGroupMember] = []
    authorized_operations: Annotated[Int32, since(3)] = -0x8000_0000


class DescribeGroupsResponse(Response):
    """One description per group."""

    api_key = 15
    min_version = 0
    max_version = 6
    flexible_since = 5

    throttle_time_ms: Annotated[Int32, since(1, ignorable=True)] = 0
    groups: list[DescribedGroup] = []
