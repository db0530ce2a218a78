"""OffsetCommit (API 8): store how far a group has read.

Versions: 3 answers a throttle time; 5 drops the retention time; 6 adds leader epochs (KIP-320); 7 static members
(KIP-345); 8 is flexible; 9 takes member epochs of the new group protocol (KIP-848); 10 names topics by id (KIP-848).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Struct, since, until


class OffsetCommitRequestPartition(Struct):
    partition_index: Int32 = 0
    committed_offset: Int64 = 0
    committed_leader_epoch: Annotated[Int32, since(6, ignorable=True)] = -1
    committed_metadata: str | None = ""


class OffsetCommitRequestTopic(Struct):
    name: Annotated[str, until(9, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(10, ignorable=True)] = ZERO_UUID
    partitions: list[OffsetCommitRequestPartition] = []


class OffsetCommitRequest(Request):
    """Offsets of a group's member.

    `generation_id_or_member_epoch` -1 with an empty member id: a consumer without a group's protocol.
    """

    api_key = 8
    min_version = 2
    max_version = 10
    flexible_since = 8

    group_id: str = ""
    generation_id_or_member_epoch: Int32 = -1
    member_id: str = ""
    group_instance_id: Annotated[str | None, since(7)] = None
    retention_time_ms: Annotated[Int64, until(4, ignorable=True)] = -1
    topics: list[OffsetCommitRequestTopic] = []


class OffsetCommitResponsePartition(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0


class OffsetCommitResponseTopic(Struct):
    name: Annotated[str, until(9, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(10, ignorable=True)] = ZERO_UUID
    partitions: list[OffsetCommitResponsePartition] = []


class OffsetCommitResponse(Response):
    """One error code per partition."""

    api_key = 8
    min_version = 2
    max_version = 10
    flexible_since = 8

    throttle_time_ms: Annotated[Int32, since(3, ignorable=True)] = 0
    topics: list[OffsetCommitResponseTopic] = []
