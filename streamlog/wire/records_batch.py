"""Batches of records: encode them, build them record by record, decode them into columns."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from streamlog.errors import LocalProtocolError
from streamlog.wire.compression import Compression, CorruptPayload, compress, decompress
from streamlog.wire.records_codec import Appender, codec
from streamlog.wire.records_control import ControlType, encode_control_key
from streamlog.wire.records_header import (
    BATCH_BYTES_MAX,
    COMPRESSION_MASK,
    CONTROL_BIT,
    DELETE_HORIZON_BIT,
    HEADER,
    HEADER_BYTES,
    LOG_APPEND_TIME_BIT,
    LOG_OVERHEAD_BYTES,
    MAGIC,
    NO_LEADER_EPOCH,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    NO_TIMESTAMP,
    TRANSACTIONAL_BIT,
    BatchHeader,
    CorruptBatch,
    NeedMoreData,
    ReadableBuffer,
    RecordHeaders,
    decode_batch_header,
    store_crc,
    verify_crc,
)


class Record(NamedTuple):
    """One record as a value, for callers that are not in a hurry."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders


class RecordColumns:
    """The records of one batch as parallel lists: index i of each list is record i.

    Offsets are absolute and may have gaps after compaction. Records without headers share one empty tuple.
    """

    __slots__ = ("headers", "keys", "offsets", "timestamps_ms", "values")

    def __init__(
        self,
        offsets: list[int],
        timestamps_ms: list[int],
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[RecordHeaders],
    ) -> None:
        self.offsets = offsets
        self.timestamps_ms = timestamps_ms
        self.keys = keys
        self.values = values
        self.headers = headers

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, end: int) -> RecordColumns:
        """A copy of the records start <= index < end."""
        return RecordColumns(
            self.offsets[start:end],
            self.timestamps_ms[start:end],
            self.keys[start:end],
            self.values[start:end],
            self.headers[start:end],
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordColumns) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]  # as every mutable value

    def rows(self) -> Iterator[Record]:
        """The same records, one object each."""
        return map(
            Record._make, zip(self.offsets, self.timestamps_ms, self.keys, self.values, self.headers, strict=True)
        )


def decode_records(
    data: ReadableBuffer,
    position: int = 0,
    header: BatchHeader | None = None,
    *,
    verify: bool = True,
    decompressed_bytes_max: int | None = None,
) -> RecordColumns:
    """Decode the records of the batch at `position`.

    Args:    header: the batch's header, if the caller has decoded it already.
             verify: check the CRC first; a caller that did so may skip it.
             decompressed_bytes_max: refuse to decompress to more; default 64 MiB, or 16 times the compressed size.
    Raises:  NeedMoreData: the buffer ends inside the batch. CorruptBatch: anything else that is not a batch of
             exactly record_count records, including a payload past decompressed_bytes_max.
    """
    if header is None:
        header = decode_batch_header(data, position)
    section = open_section(data, position, header, verify, decompressed_bytes_max)
    append_time_ms = header.max_timestamp_ms if header.attributes & LOG_APPEND_TIME_BIT else None
    columns = codec.decode_records(
        section, header.record_count, header.base_offset, header.base_timestamp_ms, append_time_ms
    )
    return RecordColumns(*columns)


def open_section(
    data: ReadableBuffer, position: int, header: BatchHeader, verify: bool, decompressed_bytes_max: int | None
) -> ReadableBuffer:
    """The records section of the batch at `position`, decompressed; errors as decode_records documents them."""
    end = position + LOG_OVERHEAD_BYTES + header.batch_length_bytes
    if len(data) < end:
        raise NeedMoreData(f"a batch of {header.size_bytes} bytes, {len(data) - position} are here")
    if verify and not verify_crc(data, position, header):
        raise CorruptBatch(f"checksum of the batch at offset {header.base_offset} does not match its bytes")
    if header.record_count < 0 or header.last_offset_delta < 0:
        raise CorruptBatch(f"{header.record_count} records, last offset delta {header.last_offset_delta}")
    section = memoryview(data)[position + HEADER_BYTES : end]
    if not header.attributes & COMPRESSION_MASK:
        return section
    try:
        return decompress(section, header.compression, decompressed_bytes_max)
    except CorruptPayload as error:
        raise CorruptBatch(f"batch at offset {header.base_offset}: {error}") from error


def encode_batch(
    *,
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    timestamps_ms: Sequence[int],
    headers: Sequence[RecordHeaders] | None = None,
    base_offset: int = 0,
    compression: Compression = Compression.NONE,
    level: int | None = None,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    leader_epoch: int = NO_LEADER_EPOCH,
    is_transactional: bool = False,
    is_control: bool = False,
    log_append_time: bool = False,
    offset_deltas: Sequence[int] | None = None,
    last_offset_delta: int | None = None,
    max_timestamp_ms: int | None = None,
    delete_horizon_ms: int | None = None,
) -> bytearray:
    """Encode one batch; the columns are as in RecordColumns.

    The last four arguments are for the log cleaner, which keeps a batch's offset range while records leave it:
        offset_deltas: offset minus base_offset of each record that stays, ascending; default 0, 1, 2...
        last_offset_delta: the original one; required when no record is left.
        max_timestamp_ms: required when log_append_time is kept or no record is left; default: the records' maximum.
        delete_horizon_ms: sets the attribute bit and takes the base timestamp's place (KIP-534).
    Raises: LocalProtocolError: the format cannot carry this.
    """
    count = len(keys)
    if not (count == len(values) == len(timestamps_ms)) or (headers is not None and len(headers) != count):
        raise LocalProtocolError("the columns of a batch differ in length")
    if offset_deltas is not None and len(offset_deltas) != count:
        raise LocalProtocolError("a batch needs one offset delta for each record")
    if last_offset_delta is None:
        if count == 0:
            raise LocalProtocolError("an empty batch needs last_offset_delta")
        last_offset_delta = count - 1 if offset_deltas is None else offset_deltas[-1]
    if max_timestamp_ms is None:
        max_timestamp_ms = max(timestamps_ms, default=NO_TIMESTAMP)
    if delete_horizon_ms is not None:
        base_timestamp_ms = delete_horizon_ms
    else:
        base_timestamp_ms = timestamps_ms[0] if count else NO_TIMESTAMP
    attributes = (
        (LOG_APPEND_TIME_BIT if log_append_time else 0)
        | (TRANSACTIONAL_BIT if is_transactional else 0)
        | (CONTROL_BIT if is_control else 0)
        | (DELETE_HORIZON_BIT if delete_horizon_ms is not None else 0)
    )
    batch = codec.encode_records(keys, values, timestamps_ms, headers, base_timestamp_ms, offset_deltas)
    return _finish(
        batch,
        compression if count else Compression.NONE,
        level,
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        attributes=attributes,
        last_offset_delta=last_offset_delta,
        base_timestamp_ms=base_timestamp_ms,
        max_timestamp_ms=max_timestamp_ms,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        record_count=count,
    )


def _finish(
    batch: bytearray,
    compression: Compression,
    level: int | None,
    *,
    base_offset: int,
    leader_epoch: int,
    attributes: int,
    last_offset_delta: int,
    base_timestamp_ms: int,
    max_timestamp_ms: int,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
    record_count: int,
) -> bytearray:
    """Compress the section behind the 61 bytes and write the header into them."""
    if compression is not Compression.NONE:
        with memoryview(batch) as view, view[HEADER_BYTES:] as section:
            compressed = compress(section, compression, level)
        batch = bytearray(HEADER_BYTES)
        batch += compressed
    if len(batch) > BATCH_BYTES_MAX:
        raise LocalProtocolError(f"a batch of {len(batch)} bytes does not fit its 32-bit length")
    if base_timestamp_ms < NO_TIMESTAMP or last_offset_delta < 0:
        raise LocalProtocolError(f"base timestamp {base_timestamp_ms}, last offset delta {last_offset_delta}")
    try:
        HEADER.pack_into(
            batch,
            0,
            base_offset,
            len(batch) - LOG_OVERHEAD_BYTES,
            leader_epoch,
            MAGIC,
            0,
            attributes | compression,
            last_offset_delta,
            base_timestamp_ms,
            max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count,
        )
    except struct.error as error:
        raise LocalProtocolError(f"a batch header cannot carry this: {error}") from None
    store_crc(batch, 0, len(batch))
    return batch


class _Append(Protocol):
    def __call__(
        self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: RecordHeaders = ...
    ) -> int: ...


class BatchBuilder:
    """One batch of a producer, record by record.

    `append(key, value, timestamp_ms, headers=())` takes a record and returns the size the uncompressed batch has
    reached, in bytes, the header included and never too low. It is the codec's own method, held as an attribute:
    a Python frame around it would cost more than the work. A record it refuses (LocalProtocolError: not bytes, a
    batch past 2 GiB) leaves the builder as it was.
    """

    __slots__ = ("_appender", "append")

    def __init__(self) -> None:
        self._appender: Appender = codec.RecordAppender()
        self.append: _Append = self._appender.append

    def __len__(self) -> int:
        return len(self._appender)

    @property
    def size_bytes(self) -> int:
        """Upper bound of the uncompressed batch."""
        return self._appender.size_bytes

    def build(
        self,
        *,
        base_offset: int = 0,
        compression: Compression = Compression.NONE,
        level: int | None = None,
        producer_id: int = NO_PRODUCER_ID,
        producer_epoch: int = NO_PRODUCER_EPOCH,
        base_sequence: int = NO_SEQUENCE,
        leader_epoch: int = NO_LEADER_EPOCH,
        is_transactional: bool = False,
    ) -> bytearray:
        """Encode what was appended; needs at least one record. The builder is unchanged, more may follow."""
        count = len(self._appender)
        if count == 0:
            raise LocalProtocolError("a batch needs at least one record")
        return _finish(
            self._appender.encode(),
            compression,
            level,
            base_offset=base_offset,
            leader_epoch=leader_epoch,
            attributes=TRANSACTIONAL_BIT if is_transactional else 0,
            last_offset_delta=count - 1,
            base_timestamp_ms=self._appender.base_timestamp_ms,
            max_timestamp_ms=self._appender.max_timestamp_ms,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            record_count=count,
        )


def encode_control_batch(
    control_type: ControlType,
    value: bytes,
    *,
    timestamp_ms: int,
    base_offset: int = 0,
    leader_epoch: int = NO_LEADER_EPOCH,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
) -> bytearray:
    """A batch of one control record; transactional if it is the marker that ends a transaction."""
    return encode_batch(
        keys=[encode_control_key(control_type)],
        values=[value],
        timestamps_ms=[timestamp_ms],
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        is_transactional=control_type in (ControlType.ABORT, ControlType.COMMIT),
        is_control=True,
    )
