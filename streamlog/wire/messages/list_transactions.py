"""ListTransactions (API 66): transactional ids of a coordinator (KIP-664).

Versions: 1 filters by age (KIP-994); 2 by a pattern of the id (KIP-1152).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, Struct, since


class ListTransactionsRequest(Request):
    """Filters; empty lists and -1 let everything through."""

    api_key = 66
    min_version = 0
    max_version = 2
    flexible_since = 0

    state_filters: list[str] = []
    producer_id_filters: list[Int64] = []
    duration_filter: Annotated[Int64, since(1)] = -1
    transactional_id_pattern: Annotated[str | None, since(2)] = None


class TransactionState(Struct):
    transactional_id: str = ""
    producer_id: Int64 = 0
    transaction_state: str = ""


class ListTransactionsResponse(Response):
    """Ids with producer and state."""

    api_key = 66
    min_version = 0
    max_version = 2
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    unknown_state_filters: list[str] = []
    transaction_states: list[TransactionState] = []
