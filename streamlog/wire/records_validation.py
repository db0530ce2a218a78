"""What a broker checks before it appends a producer's batch (Kafka's LogValidator)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamlog.wire.records_batch import decode_records
from streamlog.wire.records_header import (
    NO_TIMESTAMP,
    BatchHeader,
    CorruptBatch,
    NeedMoreData,
    ReadableBuffer,
    UnsupportedMagic,
    decode_batch_header,
    verify_crc,
)


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """Why a broker refuses a producer's batch.

    corrupt: CORRUPT_MESSAGE. invalid: INVALID_RECORD. null_key: INVALID_RECORD, a compacted topic needs keys.
    timestamp: INVALID_TIMESTAMP. For the last two, record_indexes are the record_errors of the response.
    """

    kind: Literal["corrupt", "invalid", "null_key", "timestamp"]
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
    timestamps within the given bounds (a record without one, -1, passes).
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
    try:
        columns = decode_records(data, position, header, verify=False, decompressed_bytes_max=decompressed_bytes_max)
    except CorruptBatch as error:
        return BatchProblem("invalid", str(error))
    if columns.offsets != list(range(header.base_offset, header.next_offset)):
        return BatchProblem("invalid", "the records' offsets are not consecutive from the base offset")
    if keys_required and None in columns.keys:
        indexes = tuple(index for index, key in enumerate(columns.keys) if key is None)
        return BatchProblem("null_key", "a compacted topic does not accept records without a key", indexes)
    return _validate_timestamps(columns.timestamps_ms, timestamp_ms_min, timestamp_ms_max)


def validate_header(header: BatchHeader) -> BatchProblem | None:
    """The part of validate_records that needs no look at the records; for every batch a client sends."""
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


def _validate_timestamps(timestamps_ms: list[int], least: int | None, most: int | None) -> BatchProblem | None:
    low = NO_TIMESTAMP if least is None else least
    high = 2**63 - 1 if most is None else most
    if low <= min(timestamps_ms) and max(timestamps_ms) <= high:
        return None
    indexes = tuple(
        index
        for index, timestamp_ms in enumerate(timestamps_ms)
        if timestamp_ms != -1 and not low <= timestamp_ms <= high
    )
    if not indexes:
        return None
    return BatchProblem("timestamp", f"timestamps have to lie within [{low}, {high}]", indexes)
