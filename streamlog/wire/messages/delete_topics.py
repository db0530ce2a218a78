"""DeleteTopics (API 20): remove topics.

Versions: 4 is flexible; 5 answers messages and may be throttled (KIP-599); 6 can name topics by id (KIP-516).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct, since, until


class DeleteTopicState(Struct):
    name: str | None = None
    topic_id: UUID = ZERO_UUID


class DeleteTopicsRequest(Request):
    """Topics to remove: `topic_names` up to version 5, `topics` (by name or by id) from 6 on."""

    api_key = 20
    min_version = 1
    max_version = 6
    flexible_since = 4

    topics: Annotated[list[DeleteTopicState], since(6)] = []
    topic_names: Annotated[list[str], until(5, ignorable=True)] = []
    timeout_ms: Int32 = 0


class DeletableTopicResult(Struct):
    name: Annotated[str | None, since(0, nullable=6)] = ""
    topic_id: Annotated[UUID, since(6, ignorable=True)] = ZERO_UUID
    error_code: Int16 = 0
    error_message: Annotated[str | None, since(5, ignorable=True)] = None


class DeleteTopicsResponse(Response):
    """One result per topic."""

    api_key = 20
    min_version = 1
    max_version = 6
    flexible_since = 4

    throttle_time_ms: Int32 = 0
    responses: list[DeletableTopicResult] = []
