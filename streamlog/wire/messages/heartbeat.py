"""Heartbeat (API 12): a member of a classic group says that it is alive.

Versions: 3 static members (KIP-345); 4 is flexible.
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, since


class HeartbeatRequest(Request):
    """Keeps a session open."""

    api_key = 12
    min_version = 0
    max_version = 4
    flexible_since = 4

    group_id: str = ""
    generation_id: Int32 = 0
    member_id: str = ""
    group_instance_id: Annotated[str | None, since(3)] = None


class HeartbeatResponse(Response):
    """Says whether to rejoin: REBALANCE_IN_PROGRESS."""

    api_key = 12
    min_version = 0
    max_version = 4
    flexible_since = 4

    throttle_time_ms: Annotated[Int32, since(1, ignorable=True)] = 0
    error_code: Int16 = 0
