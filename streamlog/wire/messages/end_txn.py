"""EndTxn (API 26): commit or abort a transaction (KIP-98).

Versions: 2 may answer PRODUCER_FENCED (KIP-588); 3 is flexible; 4 may answer TRANSACTION_ABORTABLE; 5 answers the
producer's next epoch (KIP-890).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, since


class EndTxnRequest(Request):
    """`committed` false aborts."""

    api_key = 26
    min_version = 0
    max_version = 5
    flexible_since = 3

    transactional_id: str = ""
    producer_id: Int64 = 0
    producer_epoch: Int16 = 0
    committed: bool = False


class EndTxnResponse(Response):
    """From version 5 on, id and epoch to go on with."""

    api_key = 26
    min_version = 0
    max_version = 5
    flexible_since = 3

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    producer_id: Annotated[Int64, since(5, ignorable=True)] = -1
    producer_epoch: Annotated[Int16, since(5, ignorable=True)] = -1
