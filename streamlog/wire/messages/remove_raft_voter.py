"""RemoveRaftVoter (API 81): one voter of the metadata quorum less (KIP-853)."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32


class RemoveRaftVoterRequest(Request):
    """The voter."""

    api_key = 81
    min_version = 0
    max_version = 0
    flexible_since = 0

    cluster_id: str | None = ""
    voter_id: Int32 = 0
    voter_directory_id: UUID = ZERO_UUID


class RemoveRaftVoterResponse(Response):
    """Whether it is removed."""

    api_key = 81
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
