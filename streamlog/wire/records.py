"""Record batches, format v2: the unit in which records are produced, stored, replicated and fetched.

This is the face of the `records*` modules; the rest of streamlog imports from here. A broker mostly needs the header
functions (records_header), which never look at records. Producers build batches, consumers and the stream engine
decode them into columns: parallel lists, because a hot loop should not pay for an object per record.

The record codec exists twice with one meaning: records_compiled (Cython) and records_interpreted. `CODEC` says which
one runs; STREAMLOG_CODEC=interpreted in the environment forces the second.
"""

from __future__ import annotations

from streamlog.wire.compression import Compression
from streamlog.wire.records_batch import (
    BatchBuilder,
    Record,
    RecordColumns,
    decode_records,
    encode_batch,
    encode_control_batch,
)
from streamlog.wire.records_codec import CODEC
from streamlog.wire.records_control import (
    ControlKey,
    ControlType,
    EndTransactionMarker,
    decode_control_key,
    decode_end_transaction_marker,
    encode_control_key,
    encode_end_transaction_marker,
)
from streamlog.wire.records_header import (
    HEADER_BYTES,
    LOG_OVERHEAD_BYTES,
    NO_HEADERS,
    NO_LEADER_EPOCH,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    NO_TIMESTAMP,
    BatchHeader,
    BatchHeaderIterator,
    CorruptBatch,
    NeedMoreData,
    ReadableBuffer,
    RecordHeaders,
    UnsupportedMagic,
    WritableBuffer,
    compute_crc,
    decode_batch_header,
    iter_batch_headers,
    set_base_offset,
    set_leader_epoch,
    set_max_timestamp,
    set_max_timestamp_and_append_time,
    set_place,
    set_producer,
    verify_crc,
)
from streamlog.wire.records_validation import BatchProblem, examine_records, validate_header, validate_records

__all__ = [
    "CODEC",
    "HEADER_BYTES",
    "LOG_OVERHEAD_BYTES",
    "NO_HEADERS",
    "NO_LEADER_EPOCH",
    "NO_PRODUCER_EPOCH",
    "NO_PRODUCER_ID",
    "NO_SEQUENCE",
    "NO_TIMESTAMP",
    "BatchBuilder",
    "BatchHeader",
    "BatchHeaderIterator",
    "BatchProblem",
    "Compression",
    "ControlKey",
    "ControlType",
    "CorruptBatch",
    "EndTransactionMarker",
    "NeedMoreData",
    "ReadableBuffer",
    "Record",
    "RecordColumns",
    "RecordHeaders",
    "UnsupportedMagic",
    "WritableBuffer",
    "compute_crc",
    "decode_batch_header",
    "decode_control_key",
    "decode_end_transaction_marker",
    "decode_records",
    "encode_batch",
    "encode_control_batch",
    "encode_control_key",
    "encode_end_transaction_marker",
    "examine_records",
    "iter_batch_headers",
    "set_base_offset",
    "set_leader_epoch",
    "set_max_timestamp",
    "set_max_timestamp_and_append_time",
    "set_place",
    "set_producer",
    "validate_header",
    "validate_records",
    "verify_crc",
]
