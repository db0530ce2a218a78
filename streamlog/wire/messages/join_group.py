"""JoinGroup (API 11): enter a consumer group of the classic protocol, or its next generation.

Versions: 1 has a rebalance timeout of its own; 4 may answer MEMBER_ID_REQUIRED (KIP-394); 5 static members (KIP-345);
6 is flexible; 7 answers the protocol type (KIP-559); 8 carries a reason (KIP-800); 9 lets a leader skip the
assignment (KIP-814).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct, since


class JoinGroupRequestProtocol(Struct):
    name: str = ""
    metadata: bytes = b""


class JoinGroupRequest(Request):
    """A member with the protocols that it speaks, in order of preference.

    Version 0 uses the session timeout for rebalances as well.
    """

    api_key = 11
    min_version = 0
    max_version = 9
    flexible_since = 6

    group_id: str = ""
    session_timeout_ms: Int32 = 0
    rebalance_timeout_ms: Annotated[Int32, since(1, ignorable=True)] = -1
    member_id: str = ""
    group_instance_id: Annotated[str | None, since(5)] = None
    protocol_type: str = ""
    protocols: list[JoinGroupRequestProtocol] = []
    reason: Annotated[str | None, since(8, ignorable=True)] = None


class JoinGroupResponseMember(Struct):
    member_id: str = ""
    group_instance_id: Annotated[str | None, since(5, ignorable=True)] = None
    metadata: bytes = b""


class JoinGroupResponse(Response):
    """The generation that was formed. Only the leader gets the members."""

    api_key = 11
    min_version = 0
    max_version = 9
    flexible_since = 6

    throttle_time_ms: Annotated[Int32, since(2, ignorable=True)] = 0
    error_code: Int16 = 0
    generation_id: Int32 = -1
    protocol_type: Annotated[str | None, since(7, ignorable=True)] = None
    protocol_name: Annotated[str | None, since(0, nullable=7)] = ""
    leader: str = ""
    skip_assignment: Annotated[bool, since(9)] = False
    member_id: str = ""
    members: list[JoinGroupResponseMember] = []
