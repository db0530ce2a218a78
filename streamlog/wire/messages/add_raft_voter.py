"""AddRaftVoter (API 80): one more voter of the metadata quorum (KIP-853).

Versions: 1 chooses whether to wait until it is committed (KIP-1186).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct, UInt16, since


class Listener(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0


class AddRaftVoterRequest(Request):
    """The voter and its endpoints."""

    api_key = 80
    min_version = 0
    max_version = 1
    flexible_since = 0

    cluster_id: str | None = ""
    timeout_ms: Int32 = 0
    voter_id: Int32 = 0
    voter_directory_id: UUID = ZERO_UUID
    listeners: list[Listener] = []
    ack_when_committed: Annotated[bool, since(1)] = True


class AddRaftVoterResponse(Response):
    """Whether it votes."""

    api_key = 80
    min_version = 0
    max_version = 1
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
