"""ListGroups (API 16): the groups that a broker coordinates.

Versions: 3 is flexible; 4 filters by state (KIP-518); 5 by type (KIP-848).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Struct, since


class ListGroupsRequest(Request):
    """Filters; empty lists let everything through."""

    api_key = 16
    min_version = 0
    max_version = 5
    flexible_since = 3

    states_filter: Annotated[list[str], since(4)] = []
    types_filter: Annotated[list[str], since(5)] = []


class ListedGroup(Struct):
    group_id: str = ""
    protocol_type: str = ""
    group_state: Annotated[str, since(4, ignorable=True)] = ""
    group_type: Annotated[str, since(5, ignorable=True)] = ""


class ListGroupsResponse(Response):
    """Groups with their protocol type, state and type."""

    api_key = 16
    min_version = 0
    max_version = 5
    flexible_since = 3

    throttle_time_ms: Annotated[Int32, since(1, ignorable=True)] = 0
    error_code: Int16 = 0
    groups: list[ListedGroup] = []
