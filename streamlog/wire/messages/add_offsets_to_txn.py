"""AddOffsetsToTxn (API 25): put a group's offsets into a transaction (KIP-98).

Versions: 2 may answer PRODUCER_FENCED (KIP-588); 3 is flexible; 4 may answer TRANSACTION_ABORTABLE (KIP-890).
"""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64


class AddOffsetsToTxnRequest(Request):
    """The transaction and the group."""

    api_key = 25
    min_version = 0
    max_version = 4
    flexible_since = 3

    transactional_id: str = ""
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    group_id: str = ""


class AddOffsetsToTxnResponse(Response):
    """Whether the group's partition of __consumer_offsets is in the transaction now."""

    api_key = 25
    min_version = 0
    max_version = 4
    flexible_since = 3

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
