"""Picks the record codec: the compiled twin where it was built, the interpreted one elsewhere."""

from __future__ import annotations

from typing import Literal

from streamlog.wire.records_interpreted import NO_HEADERS, Columns, RecordAppender, RecordHeaders
from streamlog.wire.records_interpreted import decode_records as decode_records
from streamlog.wire.records_interpreted import encode_records as encode_records

__all__ = ["CODEC", "NO_HEADERS", "Columns", "RecordHeaders", "decode_records", "encode_records", "new_appender"]

CODEC: Literal["compiled", "interpreted"] = "interpreted"
new_appender = RecordAppender
