"""What a broker checks before it appends a producer's batch (Kafka's LogValidator)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamlog.wire.compression import PayloadTooLarge
from streamlog.wire.records_batch import open_section
from streamlog.wire.records_codec import codec
from streamlog.wire.records_header import (
    COMPRESSION_MASK,
    HEADER_BYTES,
    BatchHeader,
    CorruptBatch,
    NeedMoreData,
    ReadableBuffer,
    UnsupportedMagic,
    decode_batch_header,
    verify_crc,
)

# How many records of a refused batch are named: enough to see what is wrong, and no answer larger than its question.
RECORD_INDEXES_MAX = 100

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """Why a broker refuses a producer's batch.

    corrupt: CORRUPT_MESSAGE. invalid: INVALID_RECORD. too_large: INVALID_RECORD, it would decompress to more than
    is allowed. null_key: INVALID_RECORD, a compacted topic needs keys.
    timestamp: INVALID_TIMESTAMP. For the last two, record_indexes are the record_errors of the response, the first 100.
    """

    kind: Literal["corrupt", "invalid", "too_large", "null_key", "timestamp"]
    message: str
    record_indexes: tuple[int, ...] = ()


def validate_records(
    data: ReadableBuffer,
    position: int = 0,
    header: BatchHeader | None = None,
    *,
    keys_required: bool = False,
    timestamp_ms_min: int | None = None,
    timestamp_ms_max: int | None = None,
    verify: bool = True,
    decompressed_bytes_max: int | None = None,
) -> BatchProblem | None:
    """Look inside a producer's batch as Kafka's LogValidator does; None if it may be appended.

    Checks the header's counts and bits, then every record: structure, consecutive offsets, keys if required, and
    timestamps within the given bounds (a record without one, -1, passes). Memory: the section decompressed, and no
    object per record, so the smallest of records cost a broker nothing extra.
    Raises: NeedMoreData: the buffer ends inside the batch.
    """
    if header is None:
        try:
            header = decode_batch_header(data, position)
        except UnsupportedMagic as error:
            return BatchProblem("invalid", str(error))
        except CorruptBatch as error:
            return BatchProblem("corrupt", str(error))
    if len(data) - position < header.size_bytes:
        raise NeedMoreData(f"a batch of {header.size_bytes} bytes, {len(data) - position} are here")
    if verify and not verify_crc(data, position, header):
        return BatchProblem("corrupt", "the checksum does not match")
    problem = validate_header(header)
    if problem is not None:
        return problem
    found = examine_records(
        data,
        position,
        header,
        keys_required=keys_required,
        timestamp_ms_min=INT64_MIN if timestamp_ms_min is None else timestamp_ms_min,
        timestamp_ms_max=INT64_MAX if timestamp_ms_max is None else timestamp_ms_max,
        decompressed_bytes_max=decompressed_bytes_max,
    )
    return None if isinstance(found, int) else found


def examine_records(
    data: ReadableBuffer,
    position: int,
    header: BatchHeader,
    *,
    keys_required: bool,
    timestamp_ms_min: int,
    timestamp_ms_max: int,
    decompressed_bytes_max: int | None = None,
) -> BatchProblem | int:
    """The part of validate_records that looks at the records: what is wrong with them, or their largest timestamp.

    The batch is all there, its checksum is right and validate_header has nothing against it. The bounds may exceed
    64 bits. The largest timestamp is -1 when no record has one.
    """
    try:
        if header.attributes & COMPRESSION_MASK:
            section = open_section(data, position, header, False, decompressed_bytes_max)
        else:
            section = memoryview(data)[position + HEADER_BYTES : position + header.size_bytes]
        consecutive, max_timestamp_ms, without_key, outside = codec.scan_records(
            section,
            header.record_count,
            header.base_timestamp_ms,
            # Limits are now minus or plus a setting, and the settings go up to 2^63 - 1.
            max(INT64_MIN, timestamp_ms_min),
            min(INT64_MAX, timestamp_ms_max),
            RECORD_INDEXES_MAX,
        )
    except CorruptBatch as error:
        return BatchProblem("too_large" if isinstance(error.__cause__, PayloadTooLarge) else "invalid", str(error))
    if not consecutive:
        return BatchProblem("invalid", "the records' offsets are not consecutive from the base offset")
    if keys_required and without_key:
        return BatchProblem("null_key", "a compacted topic does not accept records without a key", without_key)
    if outside:
        return BatchProblem(
            "timestamp", f"timestamps have to lie within [{timestamp_ms_min}, {timestamp_ms_max}]", outside
        )
    return max_timestamp_ms


def validate_header(header: BatchHeader) -> BatchProblem | None:
    """The part of validate_records that needs no look at the records; for every batch a client sends."""
    if (
        0 < header.record_count == header.last_offset_delta + 1
        and 0 <= header.attributes <= COMPRESSION_MASK
        and (header.base_sequence >= 0 or header.producer_id < 0)
    ):
        return None  # none of the bits below, so none of the questions: they cost this function thrice over
    if header.record_count <= 0 or header.record_count != header.last_offset_delta + 1:
        return BatchProblem(
            "invalid", f"{header.record_count} records, but a last offset delta of {header.last_offset_delta}"
        )
    if header.is_control:
        return BatchProblem("invalid", "clients may not write control records")
    if header.has_producer_id and header.base_sequence < 0:
        return BatchProblem("invalid", f"producer {header.producer_id} sent base sequence {header.base_sequence}")
    if header.is_transactional and not header.has_producer_id:
        return BatchProblem("invalid", "a transactional batch needs a producer id")
    if header.is_log_append_time:
        return BatchProblem("timestamp", "a producer may not set the log append time bit")
    return None
