"""InitProducerId (API 22): a producer id for an idempotent or transactional producer (KIP-98).

Versions: 2 is flexible; 3 lets a producer go on with its id and epoch (KIP-360); 4 may answer PRODUCER_FENCED
(KIP-588); 5 TRANSACTION_ABORTABLE (KIP-890); 6 is for two-phase commit (KIP-939) and not stable yet.
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, since


class InitProducerIdRequest(Request):
    """Asks for an id; with a transactional id this also fences the producer before and ends its transaction."""

    api_key = 22
    min_version = 0
    max_version = 6
    flexible_since = 2

    transactional_id: str | None = ""
    transaction_timeout_ms: Int32 = 0
    producer_id: Annotated[Int64, since(3)] = -1
    producer_epoch: Annotated[Int16, since(3)] = -1
    enable2_pc: Annotated[bool, since(6)] = False
    keep_prepared_txn: Annotated[bool, since(6)] = False


class InitProducerIdResponse(Response):
    """The id and its epoch."""

    api_key = 22
    min_version = 0
    max_version = 6
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    producer_id: Int64 = -1
    producer_epoch: Int16 = 0
    ongoing_txn_producer_id: Annotated[Int64, since(6)] = -1
    ongoing_txn_producer_epoch: Annotated[Int16, since(6)] = -1
