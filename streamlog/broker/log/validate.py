"""What a batch has to be before it enters the log.

A producer's batch is judged by its header, its checksum and a walk over its records, decompressed, as Kafka judges
it: what cannot be read again would stop every consumer of the partition at that offset. The walk keeps nothing and
makes no object per record. A coordinator's batches are our own and only measured; a follower's come from its
leader, which has judged them, and are checked for damage on the way.
"""

from __future__ import annotations

from typing import NamedTuple

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.producer_state import TransactionMarker, read_marker
from streamlog.broker.log.refusal import AppendRefused
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.records import (
    BatchHeader,
    BatchProblem,
    CorruptBatch,
    NeedMoreData,
    UnsupportedMagic,
    WritableBuffer,
    decode_batch_header,
    decode_records,
    encode_batch,
    examine_records,
    iter_batch_headers,
    set_max_timestamp,
    validate_header,
    verify_crc,
)

MAGIC_POSITION, MAGIC = 16, 2

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

DECOMPRESSED_AT_ONCE_BYTES_MAX = 2 * 1024 * 1024
"""What a batch may decompress to and be judged on the loop: 3 ms. A bomb of 64 MiB takes 50 to 200."""

_CODES = {
    "corrupt": ErrorCode.CORRUPT_MESSAGE,
    "invalid": ErrorCode.INVALID_RECORD,
    "too_large": ErrorCode.INVALID_RECORD,
    "null_key": ErrorCode.INVALID_RECORD,
    "timestamp": ErrorCode.INVALID_TIMESTAMP,
}


class JudgeInThread(Exception):
    """A batch decompresses to so much that judging it would hold up the loop. Nothing has happened."""


def decode_header(batches: WritableBuffer, position: int = 0) -> BatchHeader:
    """The header of a batch that lies completely in `batches`. Raises AppendRefused."""
    try:
        header = decode_batch_header(batches, position)
    except UnsupportedMagic as error:
        # Formats of the past are known and refused; one of the future cannot be told from damage.
        is_old = batches[position + MAGIC_POSITION] < MAGIC
        raise AppendRefused(ErrorCode.INVALID_RECORD if is_old else ErrorCode.CORRUPT_MESSAGE, str(error)) from None
    except CorruptBatch as error:
        raise AppendRefused(ErrorCode.CORRUPT_MESSAGE, str(error)) from None
    except NeedMoreData as error:
        raise AppendRefused(ErrorCode.INVALID_RECORD, str(error)) from None
    if position + header.size_bytes > len(batches):
        raise AppendRefused(
            ErrorCode.INVALID_RECORD, f"a batch of {header.size_bytes} bytes, {len(batches) - position} arrived"
        )
    return header


class PreparedBatch(NamedTuple):
    """A producer's batch that was judged, in the topic's compression."""

    batches: WritableBuffer
    header: BatchHeader


def prepare(batches: WritableBuffer, config: LogConfig, now_ms: int) -> PreparedBatch:
    """The work for a thread where `check_client_batch` raised JudgeInThread. Raises AppendRefused."""
    header = check_client_batch(batches, decode_header(batches), config, now_ms)
    if config.compression is not None and header.compression is not config.compression:
        batches = recompress(batches, header, config)
        header = decode_header(batches)
        check_size(len(batches), config)
    return PreparedBatch(batches, header)


def check_client_batch(
    batches: WritableBuffer,
    header: BatchHeader,
    config: LogConfig,
    now_ms: int,
    decompressed_bytes_max: int | None = None,
) -> BatchHeader:
    """Raise AppendRefused unless `batches` is exactly one batch that a producer may append.

    Raises JudgeInThread when it would decompress to more than `decompressed_bytes_max`.
    `header` is its header; returned is the one to go on with, where the largest timestamp was corrected another.
    """
    size_bytes = header.size_bytes
    if size_bytes != len(batches):
        raise AppendRefused(ErrorCode.INVALID_RECORD, "a produce request carries one batch for each partition")
    if size_bytes > config.max_message_bytes or size_bytes > config.segment_bytes:
        check_size(size_bytes, config)
    if header.base_offset != 0:
        raise AppendRefused(ErrorCode.INVALID_RECORD, f"a producer's batch starts at 0, not at {header.base_offset}")
    problem = validate_header(header)
    if problem is not None:
        raise _refusal(problem)
    if not verify_crc(batches, 0, header):
        raise AppendRefused(ErrorCode.CORRUPT_MESSAGE, "the batch's checksum does not match its bytes")
    if config.log_append_time:
        found = examine_records(
            batches,
            0,
            header,
            keys_required=config.compact,
            timestamp_ms_min=INT64_MIN,
            timestamp_ms_max=INT64_MAX,
            decompressed_bytes_max=decompressed_bytes_max,
        )
    else:
        found = examine_records(
            batches,
            0,
            header,
            keys_required=config.compact,
            timestamp_ms_min=now_ms - config.message_timestamp_before_max_ms,
            timestamp_ms_max=now_ms + config.message_timestamp_after_max_ms,
            decompressed_bytes_max=decompressed_bytes_max,
        )
    if not isinstance(found, int):
        if found.kind == "too_large" and decompressed_bytes_max is not None:
            raise JudgeInThread
        raise _refusal(found)
    if found != header.max_timestamp_ms:
        # Time lookups and retention go by the header, so it has to be true. Kafka corrects it too.
        set_max_timestamp(batches, 0, found)
        return decode_header(batches)
    return header


def check_size(size_bytes: int, config: LogConfig) -> None:
    if size_bytes > config.max_message_bytes:
        raise AppendRefused(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"a batch of {size_bytes} bytes; max.message.bytes is {config.max_message_bytes}",
        )
    if size_bytes > config.segment_bytes:
        raise AppendRefused(
            ErrorCode.RECORD_LIST_TOO_LARGE, f"a batch of {size_bytes} bytes; segment.bytes is {config.segment_bytes}"
        )


def _refusal(problem: BatchProblem) -> AppendRefused:
    return AppendRefused(_CODES[problem.kind], problem.message, problem.record_indexes)


def recompress(batches: WritableBuffer, header: BatchHeader, config: LogConfig) -> bytearray:
    """The same records in the topic's own compression. Raises AppendRefused if they cannot be read."""
    assert config.compression is not None, "called only where a topic prescribes its compression"
    try:
        columns = decode_records(batches, 0, header, verify=False)
    except CorruptBatch as error:
        raise AppendRefused(ErrorCode.INVALID_RECORD, str(error)) from None
    return encode_batch(
        keys=columns.keys,
        values=columns.values,
        timestamps_ms=columns.timestamps_ms,
        headers=columns.headers,
        compression=config.compression,
        level=config.compression_level,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        is_transactional=header.is_transactional,
    )


class PlacedBatch(NamedTuple):
    """One of several batches in a buffer."""

    position: int
    header: BatchHeader
    marker: TransactionMarker | None
    """What a control batch says."""


def split_batches(view: memoryview, *, torn_tail_allowed: bool = False) -> list[PlacedBatch]:
    """The batches of a coordinator or a leader. Raises AppendRefused for what is none, or a marker that cannot be read.

    A fetch response may end inside a batch; with `torn_tail_allowed` that one is left out.
    """
    found: list[PlacedBatch] = []
    batches = iter_batch_headers(view)
    try:
        for position, header in batches:
            batch = view[position : position + header.size_bytes]
            found.append(PlacedBatch(position, header, read_marker(batch, header) if header.is_control else None))
    except UnsupportedMagic as error:
        raise AppendRefused(ErrorCode.INVALID_RECORD, str(error)) from None
    except CorruptBatch as error:
        raise AppendRefused(ErrorCode.CORRUPT_MESSAGE, str(error)) from None
    if batches.valid_bytes < len(view) and not torn_tail_allowed:
        raise AppendRefused(ErrorCode.CORRUPT_MESSAGE, "the last batch is cut")
    return found


def check_follows(view: memoryview, placed: list[PlacedBatch], log_end_offset: int) -> None:
    """Raise AppendRefused unless a leader's batches are undamaged and go on where the log ends, gaps allowed."""
    expected = log_end_offset
    for position, header, _ in placed:
        if header.base_offset < expected or header.last_offset_delta < 0:
            raise AppendRefused(
                ErrorCode.CORRUPT_MESSAGE, f"the leader sent offset {header.base_offset}, not {expected}"
            )
        if not verify_crc(view, position, header):
            raise AppendRefused(
                ErrorCode.CORRUPT_MESSAGE, f"the batch at offset {header.base_offset} fails its checksum"
            )
        expected = header.next_offset
