"""SyncGroup (API 14): the leader hands in the assignment, every member fetches its own.

Versions: 3 static members (KIP-345); 4 is flexible; 5 checks protocol type and name (KIP-559).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct, since


class SyncGroupRequestAssignment(Struct):
    member_id: str = ""
    assignment: bytes = b""


class SyncGroupRequest(Request):
    """The leader's request carries everybody's assignment, the others' an empty list."""

    api_key = 14
    min_version = 0
    max_version = 5
    flexible_since = 4

    group_id: str = ""
    generation_id: Int32 = 0
    member_id: str = ""
    group_instance_id: Annotated[str | None, since(3)] = None
    protocol_type: Annotated[str | None, since(5, ignorable=True)] = None
    protocol_name: Annotated[str | None, since(5, ignorable=True)] = None
    assignments: list[SyncGroupRequestAssignment] = []


class SyncGroupResponse(Response):
    """This member's assignment, opaque to the broker (ConsumerProtocolAssignment for consumers)."""

    api_key = 14
    min_version = 0
    max_version = 5
    flexible_since = 4

    throttle_time_ms: Annotated[Int32, since(1, ignorable=True)] = 0
    error_code: Int16 = 0
    protocol_type: Annotated[str | None, since(5, ignorable=True)] = None
    protocol_name: Annotated[str | None, since(5, ignorable=True)] = None
    assignment: bytes = b""
