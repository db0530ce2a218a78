"""The fixed part of a v2 record batch: 61 bytes that a broker reads and patches without looking further.

    field               type  at     what it is
    base_offset         i64    0     offset of the first record; the broker writes it
    batch_length_bytes  i32    8     size of everything after this field
    leader_epoch        i32   12     epoch of the leader that appended the batch; the broker writes it
    magic               i8    16     2
    crc                 u32   17     CRC-32C of everything after this field, up to the batch's end
    attributes          i16   21     bits 0-2 compression, 3 log append time, 4 transactional, 5 control,
                                     6 delete horizon
    last_offset_delta   i32   23     last offset of the batch as written, even if compaction took that record
    base_timestamp_ms   i64   27     what the records' timestamp deltas count from
    max_timestamp_ms    i64   35
    producer_id         i64   43     -1: not idempotent
    producer_epoch      i16   51
    base_sequence       i32   53
    record_count        i32   57
    records                   61     one block, compressed as a whole

The checksum starts behind the two fields that a broker assigns, so storing a batch never recomputes it.
Sources: KIP-98 (the format), KIP-101 (leader epoch), KIP-534 (delete horizon).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from streamlog.errors import RemoteProtocolError, StreamlogError
from streamlog.wire.compression import Compression
from streamlog.wire.crc import crc32c

ReadableBuffer = bytes | bytearray | memoryview
WritableBuffer = bytearray | memoryview

RecordHeaders = tuple[tuple[str, bytes | None], ...]
# offsets, timestamps, keys, values and headers of a batch: what the record codec returns.
Columns = tuple[list[int], list[int], list[bytes | None], list[bytes | None], list[RecordHeaders]]

NO_HEADERS: RecordHeaders = ()

HEADER = Struct(">qiibIhiqqqhii")
HEADER_BYTES = 61
# base_offset and batch_length_bytes, which batch_length_bytes does not count.
LOG_OVERHEAD_BYTES = 12
BATCH_LENGTH_BYTES_MIN = HEADER_BYTES - LOG_OVERHEAD_BYTES
# batch_length_bytes is a signed 32-bit field.
BATCH_BYTES_MAX = 2**31 - 1

MAGIC = 2

COMPRESSION_MASK = 0x07
LOG_APPEND_TIME_BIT = 0x08
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20
DELETE_HORIZON_BIT = 0x40

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_SEQUENCE = -1
NO_LEADER_EPOCH = -1

# Six times as fast as the enum's own look-up; decode_batch_header refuses the ids behind it.
_COMPRESSIONS = tuple(Compression)

_AT_BATCH_LENGTH = 8
_AT_LEADER_EPOCH = 12
_AT_CRC = 17
_AT_ATTRIBUTES = 21
_AT_MAX_TIMESTAMP = 35
_AT_PRODUCER = 43

_I16 = Struct(">h")
_I32 = Struct(">i")
_U32 = Struct(">I")
_I64 = Struct(">q")
_PLACE = Struct(">qii")
_PRODUCER = Struct(">qhi")


class NeedMoreData(StreamlogError):
    """The buffer ends inside a batch: read more bytes, or cut the tail if there are no more."""


class CorruptBatch(RemoteProtocolError):
    """Bytes that cannot be a record batch (Kafka's CORRUPT_MESSAGE)."""


class UnsupportedMagic(CorruptBatch):
    """A batch in another format than v2, which is the only one Kafka 4 knows."""


class BatchHeader(NamedTuple):
    """The header of one batch as it stands in the bytes: offsets absolute, timestamps in ms since the epoch.

    Signs and counts are as the peer wrote them; `decode_records` and `validate_records` judge them.
    """

    base_offset: int
    batch_length_bytes: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole batch, header included."""
        return LOG_OVERHEAD_BYTES + self.batch_length_bytes

    @property
    def last_offset(self) -> int:
        """The last offset the batch covers (inclusive), whether or not that record is still there."""
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """The first offset after the batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record, wrapping from 2^31 - 1 to 0 as KIP-98 says; -1 without sequences."""
        if self.base_sequence < 0:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & 0x7FFF_FFFF

    @property
    def compression(self) -> Compression:
        return _COMPRESSIONS[self.attributes & COMPRESSION_MASK]

    @property
    def is_log_append_time(self) -> bool:
        return self.attributes & LOG_APPEND_TIME_BIT != 0

    @property
    def is_transactional(self) -> bool:
        return self.attributes & TRANSACTIONAL_BIT != 0

    @property
    def is_control(self) -> bool:
        return self.attributes & CONTROL_BIT != 0

    @property
    def has_delete_horizon(self) -> bool:
        return self.attributes & DELETE_HORIZON_BIT != 0

    @property
    def delete_horizon_ms(self) -> int | None:
        """When tombstones and markers of this batch may go; it shares the field with the base timestamp."""
        return self.base_timestamp_ms if self.attributes & DELETE_HORIZON_BIT else None

    @property
    def has_producer_id(self) -> bool:
        return self.producer_id >= 0


def decode_batch_header(data: ReadableBuffer, position: int = 0) -> BatchHeader:
    """Read the header at `position`; nothing is copied and nothing behind the header is touched.

    Raises: NeedMoreData: fewer than 61 bytes from there. UnsupportedMagic, CorruptBatch: these bytes are no v2 batch.
    Source: KIP-98.
    """
    if len(data) - position < HEADER_BYTES:
        raise NeedMoreData(f"a batch header has {HEADER_BYTES} bytes, {max(len(data) - position, 0)} are here")
    # tuple.__new__ skips the keyword matching of BatchHeader(*fields): this runs once per batch on every path.
    header = tuple.__new__(BatchHeader, HEADER.unpack_from(data, position))
    if header.magic != MAGIC:
        raise UnsupportedMagic(f"record batch at byte {position} has magic {header.magic}, not 2")
    if header.batch_length_bytes < BATCH_LENGTH_BYTES_MIN:
        raise CorruptBatch(f"record batch at byte {position} claims {header.batch_length_bytes} bytes: too few")
    if header.attributes & COMPRESSION_MASK > Compression.ZSTD:
        raise CorruptBatch(f"record batch at byte {position} has an unknown compression: {header.attributes & 7}")
    return header


class BatchHeaderIterator(Iterator[tuple[int, BatchHeader]]):
    """Walks whole batches; `valid_bytes` is where the next one starts, or would.

    It stops at a torn tail (a header or a batch that the buffer does not hold completely) and raises CorruptBatch
    where bytes cannot be a batch. Either way `valid_bytes` is then the end of the last whole batch.
    """

    def __init__(self, data: ReadableBuffer, position: int = 0) -> None:
        self._data = data
        self._end = len(data)
        self.valid_bytes = position

    def __next__(self) -> tuple[int, BatchHeader]:
        position = self.valid_bytes
        if self._end - position < HEADER_BYTES:
            raise StopIteration
        header = decode_batch_header(self._data, position)
        end = position + LOG_OVERHEAD_BYTES + header.batch_length_bytes
        if end > self._end:
            raise StopIteration
        self.valid_bytes = end
        return position, header


def iter_batch_headers(data: ReadableBuffer, position: int = 0) -> BatchHeaderIterator:
    """Iterate (position, header) of the whole batches from `position`; see BatchHeaderIterator for its ends."""
    return BatchHeaderIterator(data, position)


def compute_crc(data: ReadableBuffer, position: int, size_bytes: int) -> int:
    """CRC-32C of what the batch's checksum covers. Nothing is copied."""
    return crc32c(memoryview(data)[position + _AT_ATTRIBUTES : position + size_bytes])


def verify_crc(data: ReadableBuffer, position: int, header: BatchHeader) -> bool:
    """Whether the batch's bytes are the ones its producer checksummed; False too if the buffer ends inside it."""
    return compute_crc(data, position, header.size_bytes) == header.crc


def set_base_offset(buffer: WritableBuffer, position: int, offset: int) -> None:
    """Assign the batch its place in the log. Not covered by the checksum."""
    _I64.pack_into(buffer, position, offset)


def set_leader_epoch(buffer: WritableBuffer, position: int, leader_epoch: int) -> None:
    """Stamp the epoch of the appending leader (KIP-101). Not covered by the checksum."""
    _I32.pack_into(buffer, position + _AT_LEADER_EPOCH, leader_epoch)


def set_place(buffer: WritableBuffer, base_offset: int, batch_length_bytes: int, leader_epoch: int) -> None:
    """`set_base_offset` and `set_leader_epoch` at once, on the batch at the start of `buffer`.

    The length, which stands between the two, is written as it was: one call costs half of what two do.
    """
    _PLACE.pack_into(buffer, 0, base_offset, batch_length_bytes, leader_epoch)


def set_max_timestamp_and_append_time(buffer: WritableBuffer, position: int, timestamp_ms: int) -> None:
    """LogAppendTime: every record of the batch gets this timestamp, by one bit and one field; checksum renewed."""
    (attributes,) = _I16.unpack_from(buffer, position + _AT_ATTRIBUTES)
    _I16.pack_into(buffer, position + _AT_ATTRIBUTES, attributes | LOG_APPEND_TIME_BIT)
    set_max_timestamp(buffer, position, timestamp_ms)


def set_max_timestamp(buffer: WritableBuffer, position: int, timestamp_ms: int) -> None:
    """Correct the batch's largest timestamp; checksum renewed."""
    _I64.pack_into(buffer, position + _AT_MAX_TIMESTAMP, timestamp_ms)
    _renew_crc(buffer, position)


def set_producer(
    buffer: WritableBuffer, position: int, producer_id: int, producer_epoch: int, base_sequence: int
) -> None:
    """Stamp a built batch with its producer's identity and sequence (KIP-98); checksum renewed."""
    _PRODUCER.pack_into(buffer, position + _AT_PRODUCER, producer_id, producer_epoch, base_sequence)
    _renew_crc(buffer, position)


def store_crc(buffer: WritableBuffer, position: int, size_bytes: int) -> None:
    """Compute the checksum of the batch of size_bytes at `position` and write it into its header."""
    _U32.pack_into(buffer, position + _AT_CRC, compute_crc(buffer, position, size_bytes))


def _renew_crc(buffer: WritableBuffer, position: int) -> None:
    (batch_length_bytes,) = _I32.unpack_from(buffer, position + _AT_BATCH_LENGTH)
    store_crc(buffer, position, LOG_OVERHEAD_BYTES + batch_length_bytes)
