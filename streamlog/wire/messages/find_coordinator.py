"""FindCoordinator (API 10): which broker coordinates a group, a transactional id or a share partition.

Versions: 1 tells the kinds of key apart (KIP-98); 3 is flexible; 4 asks for many keys at once (KIP-699); 5 may answer
TRANSACTION_ABORTABLE (KIP-890); 6 asks for share partitions (KIP-932).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct, between, since, until


class FindCoordinatorRequest(Request):
    """Asks for the coordinator of `key`, or of `coordinator_keys` from version 4 on.

    `key_type`: 0 group, 1 transaction, 2 share.
    """

    api_key = 10
    min_version = 0
    max_version = 6
    flexible_since = 3

    key: Annotated[str, until(3)] = ""
    key_type: Annotated[Int8, since(1)] = 0
    coordinator_keys: Annotated[list[str], since(4)] = []


class Coordinator(Struct):
    key: str = ""
    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""


class FindCoordinatorResponse(Response):
    """The coordinator's address; up to version 3 in the message itself, from 4 on in `coordinators`."""

    api_key = 10
    min_version = 0
    max_version = 6
    flexible_since = 3

    throttle_time_ms: Annotated[Int32, since(1, ignorable=True)] = 0
    error_code: Annotated[Int16, until(3)] = 0
    error_message: Annotated[str | None, between(1, 3, ignorable=True)] = ""
    node_id: Annotated[Int32, until(3)] = 0
    host: Annotated[str, until(3)] = ""
    port: Annotated[Int32, until(3)] = 0
    coordinators: Annotated[list[Coordinator], since(4)] = []
