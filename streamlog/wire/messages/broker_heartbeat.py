"""BrokerHeartbeat (API 63): a broker lives, and says what it wants (KIP-631).

Versions: 1 reports offline directories (KIP-858); 2 cordoned ones (KIP-1066).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, since


class BrokerHeartbeatRequest(Request):
    """What the broker has read of the metadata, and whether it wants to be fenced or to shut down."""

    api_key = 63
    min_version = 0
    max_version = 2
    flexible_since = 0

    broker_id: Int32 = 0
    broker_epoch: Int64 = -1
    current_metadata_offset: Int64 = 0
    want_fence: bool = False
    want_shut_down: bool = False
    offline_log_dirs: Annotated[list[UUID], since(1, tag=0)] = []
    cordoned_log_dirs: Annotated[list[UUID] | None, since(2, tag=1)] = None


class BrokerHeartbeatResponse(Response):
    """What the controller makes of it."""

    api_key = 63
    min_version = 0
    max_version = 2
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    is_caught_up: bool = False
    is_fenced: bool = True
    should_shut_down: bool = False
