"""DescribeTransactions (API 65): state of transactional ids (KIP-664)."""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, Struct


class DescribeTransactionsRequest(Request):
    """Transactional ids."""

    api_key = 65
    min_version = 0
    max_version = 0
    flexible_since = 0

    transactional_ids: list[str] = []


class TopicData(Struct):
    topic: str = ""
    partitions: list[Int32] = []


class TransactionState(Struct):
    error_code: Int16 = 0
    transactional_id: str = ""
    transaction_state: str = ""
    transaction_timeout_ms: Int32 = 0
    transaction_start_time_ms: Int64 = 0
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    topics: list[TopicData] = []


class DescribeTransactionsResponse(Response):
    """State, producer and partitions of each."""

    api_key = 65
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    transaction_states: list[TransactionState] = []
