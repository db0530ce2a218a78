"""WriteTxnMarkers (API 27): a transaction coordinator ends transactions in partitions (KIP-98).

Versions: 1 is flexible; 2 tells the transaction's version (KIP-1228).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Int64, Struct, since


class WritableTxnMarkerTopic(Struct):
    name: str = ""
    partition_indexes: list[Int32] = []


class WritableTxnMarker(Struct):
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    transaction_result: bool = False
    topics: list[WritableTxnMarkerTopic] = []
    coordinator_epoch: Int32 = 0
    transaction_version: Annotated[Int8, since(2, ignorable=True)] = 0


class WriteTxnMarkersRequest(Request):
    """Markers by producer; `transaction_result` true commits."""

    api_key = 27
    min_version = 1
    max_version = 2
    flexible_since = 1

    markers: list[WritableTxnMarker] = []


class WritableTxnMarkerPartitionResult(Struct):
    partition_index: Int32 = 0
    error_code: Int16 = 0


class WritableTxnMarkerTopicResult(Struct):
    name: str = ""
    partitions: list[WritableTxnMarkerPartitionResult] = []


class WritableTxnMarkerResult(Struct):
    producer_id: Int64 = 0
    topics: list[WritableTxnMarkerTopicResult] = []


class WriteTxnMarkersResponse(Response):
    """Codes per partition."""

    api_key = 27
    min_version = 1
    max_version = 2
    flexible_since = 1

    markers: list[WritableTxnMarkerResult] = []
