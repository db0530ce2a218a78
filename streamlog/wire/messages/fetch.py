"""Fetch (API 1): read record batches; followers and Raft voters replicate with it too.

Versions: 4 adds the isolation level and aborted transactions (KIP-98); 5 log start offsets (KIP-107); 7 sessions that
send only what changed (KIP-227); 9 the reader's leader epoch (KIP-320); 10 takes zstd (KIP-110); 11 rack and
preferred replica (KIP-392); 12 is flexible and carries diverging epochs (KIP-595); 13 names topics by id (KIP-516);
14 may answer OFFSET_MOVED_TO_TIERED_STORAGE (KIP-405); 15 replaces replica_id by replica_state (KIP-903); 16 answers
endpoints of new leaders (KIP-951); 17 adds the replica's directory (KIP-853); 18 the follower's high watermark
(KIP-1166).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32, Int64, Records, Struct, since, until


class ReplicaState(Struct):
    replica_id: Int32 = -1
    replica_epoch: Int64 = -1


class FetchPartition(Struct):
    partition: Int32 = 0
    current_leader_epoch: Annotated[Int32, since(9, ignorable=True)] = -1
    fetch_offset: Int64 = 0
    last_fetched_epoch: Annotated[Int32, since(12)] = -1
    log_start_offset: Annotated[Int64, since(5, ignorable=True)] = -1
    partition_max_bytes: Int32 = 0
    replica_directory_id: Annotated[UUID, since(17, tag=0, ignorable=True)] = ZERO_UUID
    high_watermark: Annotated[Int64, since(18, tag=1, ignorable=True)] = 0x7FFF_FFFF_FFFF_FFFF


class FetchTopic(Struct):
    topic: Annotated[str, until(12, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(13, ignorable=True)] = ZERO_UUID
    partitions: list[FetchPartition] = []


class ForgottenTopic(Struct):
    topic: Annotated[str, until(12, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(13, ignorable=True)] = ZERO_UUID
    partitions: list[Int32] = []


class FetchRequest(Request):
    """What to read, and how long to wait for it: until `min_bytes` are there or `max_wait_ms` have passed.

    `session_epoch` -1 asks without a session, 0 for a new one; `replica_id` -1 is a consumer.
    """

    api_key = 1
    min_version = 4
    max_version = 18
    flexible_since = 12

    cluster_id: Annotated[str | None, since(12, tag=0, ignorable=True)] = None
    replica_id: Annotated[Int32, until(14)] = -1
    replica_state: Annotated[ReplicaState | None, since(15, tag=1)] = None
    max_wait_ms: Int32 = 0
    min_bytes: Int32 = 0
    max_bytes: Int32 = 0x7FFF_FFFF
    isolation_level: Int8 = 0
    session_id: Annotated[Int32, since(7, ignorable=True)] = 0
    session_epoch: Annotated[Int32, since(7, ignorable=True)] = -1
    topics: list[FetchTopic] = []
    forgotten_topics_data: Annotated[list[ForgottenTopic], since(7)] = []
    rack_id: Annotated[str, since(11, ignorable=True)] = ""


class EpochEndOffset(Struct):
    epoch: Int32 = -1
    end_offset: Int64 = -1


class LeaderIdAndEpoch(Struct):
    leader_id: Int32 = -1
    leader_epoch: Int32 = -1


class SnapshotId(Struct):
    end_offset: Int64 = -1
    epoch: Int32 = -1


class AbortedTransaction(Struct):
    producer_id: Int64 = 0
    first_offset: Int64 = 0


class PartitionData(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0
    high_watermark: Int64 = 0
    last_stable_offset: Int64 = -1
    log_start_offset: Annotated[Int64, since(5, ignorable=True)] = -1
    diverging_epoch: Annotated[EpochEndOffset | None, since(12, tag=0)] = None
    current_leader: Annotated[LeaderIdAndEpoch | None, since(12, tag=1)] = None
    snapshot_id: Annotated[SnapshotId | None, since(12, tag=2)] = None
    aborted_transactions: list[AbortedTransaction] | None = []
    preferred_read_replica: Annotated[Int32, since(11)] = -1
    records: Records | None = None


class FetchableTopicResponse(Struct):
    topic: Annotated[str, until(12, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(13, ignorable=True)] = ZERO_UUID
    partitions: list[PartitionData] = []


class NodeEndpoint(Struct):
    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None


class FetchResponse(Response):
    """Batches from the asked offsets on. The first batch is whole even if it is larger than asked for (KIP-74).

    `preferred_read_replica` -1: stay with the leader. `aborted_transactions` None: not a read-committed fetch.
    """

    api_key = 1
    min_version = 4
    max_version = 18
    flexible_since = 12

    throttle_time_ms: Int32 = 0
    error_code: Annotated[Int16, since(7, ignorable=True)] = 0
    session_id: Annotated[Int32, since(7)] = 0
    responses: list[FetchableTopicResponse] = []
    node_endpoints: Annotated[list[NodeEndpoint], since(16, tag=0)] = []
