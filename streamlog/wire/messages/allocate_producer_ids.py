"""AllocateProducerIds (API 67): a broker gets a block of producer ids from the controller (KIP-730)."""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64


class AllocateProducerIdsRequest(Request):
    """The broker and its epoch."""

    api_key = 67
    min_version = 0
    max_version = 0
    flexible_since = 0

    broker_id: Int32 = 0
    broker_epoch: Int64 = -1


class AllocateProducerIdsResponse(Response):
    """First id and length of the block."""

    api_key = 67
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    producer_id_start: Int64 = 0
    producer_id_len: Int32 = 0
