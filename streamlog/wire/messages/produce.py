"""Produce (API 0): append record batches to partitions.

Versions: 3 takes record batch v2 and a transactional id (KIP-98); 4 may answer KAFKA_STORAGE_ERROR; 5 answers the log
start offset (KIP-107); 7 takes zstd (KIP-110); 8 answers which records of a batch were refused (KIP-467); 9 is
flexible; 10 answers the new leader when the partition has moved (KIP-951); 11 may answer TRANSACTION_ABORTABLE
(KIP-890); 12 adds a partition to its transaction on the way (KIP-890); 13 names topics by id (KIP-516).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Records, Struct, since, until


class PartitionProduceData(Struct):
    index: Int32 = 0
    records: Records | None = None


class TopicProduceData(Struct):
    name: Annotated[str, until(12, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(13, ignorable=True)] = ZERO_UUID
    partition_data: list[PartitionProduceData] = []


class ProduceRequest(Request):
    """Batches for partitions of one or more topics.

    `acks`: 0 wants no response, 1 the leader's word, -1 that of all in-sync replicas.
    """

    api_key = 0
    min_version = 3
    max_version = 13
    flexible_since = 9

    transactional_id: str | None = None
    acks: Int16 = 0
    timeout_ms: Int32 = 0
    topic_data: list[TopicProduceData] = []


class BatchIndexAndErrorMessage(Struct):
    batch_index: Int32 = 0
    batch_index_error_message: str | None = None


class LeaderIdAndEpoch(Struct):
    leader_id: Int32 = -1
    leader_epoch: Int32 = -1


class PartitionProduceResponse(Struct):
    index: Int32 = 0
    error_code: Int16 = 0
    base_offset: Int64 = 0
    log_append_time_ms: Int64 = -1
    log_start_offset: Annotated[Int64, since(5, ignorable=True)] = -1
    record_errors: Annotated[list[BatchIndexAndErrorMessage], since(8, ignorable=True)] = []
    error_message: Annotated[str | None, since(8, ignorable=True)] = None
    current_leader: Annotated[LeaderIdAndEpoch | None, since(10, tag=0)] = None


class TopicProduceResponse(Struct):
    name: Annotated[str, until(12, ignorable=True)] = ""
    topic_id: Annotated[UUID, since(13, ignorable=True)] = ZERO_UUID
    partition_responses: list[PartitionProduceResponse] = []


class NodeEndpoint(Struct):
    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None


class ProduceResponse(Response):
    """Where each batch begins, or why it was refused.

    `base_offset` and `log_append_time_ms` are -1 when they mean nothing.
    """

    api_key = 0
    min_version = 3
    max_version = 13
    flexible_since = 9

    responses: list[TopicProduceResponse] = []
    throttle_time_ms: Int32 = 0
    node_endpoints: Annotated[list[NodeEndpoint], since(10, tag=0)] = []
