"""OffsetFetch (API 9): read back committed offsets.

Versions: 2 can ask for all topics (null) and answers a group's error; 5 leader epochs (KIP-320); 6 is flexible; 7 can
insist on offsets that no open transaction may change (KIP-447); 8 asks for several groups at once (KIP-709); 9
carries member epochs (KIP-848); 10 names topics by id (KIP-848). Up to version 7 one group stands in the message
itself, from 8 on in `groups`.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Struct, between, since, until


class OffsetFetchRequestTopic(Struct):
    name: str = ""
    partition_indexes: list[Int32] = []


class OffsetFetchRequestTopics(Struct):
    name: Annotated[str, until(9, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(10, ignorable=True)] = ZERO_UUID
    partition_indexes: list[Int32] = []


class OffsetFetchRequestGroup(Struct):
    group_id: str = ""
    member_id: Annotated[str | None, since(9, ignorable=True)] = None
    member_epoch: Annotated[Int32, since(9, ignorable=True)] = -1
    topics: list[OffsetFetchRequestTopics] | None = []


class OffsetFetchRequest(Request):
    """Asks for offsets of groups. `topics` None means everything that the group has committed."""

    api_key = 9
    min_version = 1
    max_version = 10
    flexible_since = 6

    group_id: Annotated[str, until(7)] = ""
    topics: Annotated[list[OffsetFetchRequestTopic] | None, until(7, nullable=2)] = []
    groups: Annotated[list[OffsetFetchRequestGroup], since(8)] = []
    require_stable: Annotated[bool, since(7)] = False


class OffsetFetchResponsePartition(Struct):
    partition_index: Int32 = 0
    committed_offset: Int64 = 0
    committed_leader_epoch: Annotated[Int32, since(5, ignorable=True)] = -1
    metadata: str | None = ""
    error_code: Int16 = 0


class OffsetFetchResponseTopic(Struct):
    name: str = ""
    partitions: list[OffsetFetchResponsePartition] = []


class OffsetFetchResponsePartitions(Struct):
    partition_index: Int32 = 0
    committed_offset: Int64 = 0
    committed_leader_epoch: Int32 = -1
    metadata: str | None = ""
    error_code: Int16 = 0


class OffsetFetchResponseTopics(Struct):
    name: Annotated[str, until(9, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(10, ignorable=True)] = ZERO_UUID
    partitions: list[OffsetFetchResponsePartitions] = []


class OffsetFetchResponseGroup(Struct):
    group_id: str = ""
    topics: list[OffsetFetchResponseTopics] = []
    error_code: Int16 = 0


class OffsetFetchResponse(Response):
    """Committed offsets; -1 where a partition has none."""

    api_key = 9
    min_version = 1
    max_version = 10
    flexible_since = 6

    throttle_time_ms: Annotated[Int32, since(3, ignorable=True)] = 0
    topics: Annotated[list[OffsetFetchResponseTopic], until(7)] = []
    error_code: Annotated[Int16, between(2, 7, ignorable=True)] = 0
    groups: Annotated[list[OffsetFetchResponseGroup], since(8)] = []
