"""LeaveGroup (API 13): a member leaves, or an administrator removes several.

Versions: 3 removes several at once, static members too (KIP-345); 4 is flexible; 5 carries a reason (KIP-800).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct, since, until


class MemberIdentity(Struct):
    member_id: str = ""
    group_instance_id: str | None = None
    reason: Annotated[str | None, since(5, ignorable=True)] = None


class LeaveGroupRequest(Request):
    """Who leaves: `member_id` up to version 2, `members` from 3 on."""

    api_key = 13
    min_version = 0
    max_version = 5
    flexible_since = 4

    group_id: str = ""
    member_id: Annotated[str, until(2)] = ""
    members: Annotated[list[MemberIdentity], since(3)] = []


class MemberResponse(Struct):
    member_id: str = ""
    group_instance_id: str | None = ""
    error_code: Int16 = 0


class LeaveGroupResponse(Response):
    """One error code per member from version 3 on."""

    api_key = 13
    min_version = 0
    max_version = 5
    flexible_since = 4

    throttle_time_ms: Annotated[Int32, since(1, ignorable=True)] = 0
    error_code: Int16 = 0
    members: Annotated[list[MemberResponse], since(3)] = []
