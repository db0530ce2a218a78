"""The record codec in plain Python, used where no compiler was at install time.

records_compiled.py is its twin in C speed; the tests hold both to the same output for every input, good or bad.
Both know one thing: the records section of a batch, after the 61-byte header and outside compression. Per record:

    size_bytes varint | attributes i8 (0) | timestamp_delta varlong | offset_delta varint
    | key_bytes varint | key | value_bytes varint | value | header_count varint
    | then per header: key_bytes varint | key utf-8 | value_bytes varint | value

Integers are zigzag varints; a length of -1 is null. What makes this module fast, in the order of what it gains: the
loops call nothing per field, small varints come out of a table, and one check at a record's end stands for all
bounds within it (slices never reach past the section, and a field that lies makes the record end elsewhere).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from types import NoneType

from streamlog.errors import LocalProtocolError
from streamlog.wire.records_header import (
    BATCH_BYTES_MAX,
    HEADER_BYTES,
    NO_HEADERS,
    Columns,
    CorruptBatch,
    RecordHeaders,
)

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_UINT32_MASK, _UINT64_MASK = 2**32 - 1, 2**64 - 1
# attributes, two deltas, two lengths and a count: no record is smaller, its size varint aside.
_RECORD_BODY_BYTES_MIN = 6
# The most a record adds to its key, value and headers: size (5), attributes, timestamp (10), offset (5), two
# lengths (5 each), header count. An estimate only, but never too low.
_RECORD_OVERHEAD_BYTES_MAX = 32


def _varint(value: int) -> bytes:
    """Zigzag varint of a signed 64-bit number (32-bit fields are checked by their callers)."""
    rest = value << 1 ^ value >> 63
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


# Every varint of one or two bytes, -8192 to 8191: Python's negative indexes find the negative half at the end.
_SMALL = 8192
_ZIGZAG = [*range(0, 2 * _SMALL, 2), *range(2 * _SMALL - 1, 0, -2)]
_VARINT = [bytes((n & 127 | 128, n >> 7)) if n > 127 else bytes((n,)) for n in _ZIGZAG]


def encode_records(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    timestamps_ms: Sequence[int],
    headers: Sequence[RecordHeaders] | None,
    base_timestamp_ms: int,
    offset_deltas: Sequence[int] | None,
) -> bytearray:
    """Encode the records section behind 61 zero bytes that the caller fills with the batch header.

    Without offset_deltas they count from 0. Raises LocalProtocolError for what the format cannot carry.
    """
    _check_types(keys, "key", bytes)
    _check_types(values, "value", bytes)
    _check_types(timestamps_ms, "timestamp", int)
    if offset_deltas is not None:
        _check_types(offset_deltas, "offset delta", int)
    if not _fits_int64(base_timestamp_ms - _SMALL) or not _fits_int64(base_timestamp_ms + _SMALL):
        # Only this close to the ends of time can a small delta leave the range, so only here every sum is looked at.
        for timestamp_ms in timestamps_ms:
            _timestamp_varint(timestamp_ms, timestamp_ms - base_timestamp_ms)
    parts: list[bytes] = [bytes(HEADER_BYTES)]
    append = parts.append
    varint = _VARINT
    deltas = range(len(keys)) if offset_deltas is None else offset_deltas
    all_headers = repeat(NO_HEADERS) if headers is None else headers
    for key, value, timestamp_ms, offset_delta, record_headers in zip(
        keys, values, timestamps_ms, deltas, all_headers, strict=False
    ):
        if record_headers or key is None or value is None:
            key_part, value_part, header_part = _rare_parts(key, value, record_headers)
        else:
            size = len(key)
            key_part = (varint[size] if size < _SMALL else _varint(size)) + key
            size = len(value)
            value_part = (varint[size] if size < _SMALL else _varint(size)) + value
            header_part = b"\x00"
        delta = timestamp_ms - base_timestamp_ms
        timestamp_part = varint[delta] if -_SMALL <= delta < _SMALL else _timestamp_varint(timestamp_ms, delta)
        offset_part = varint[offset_delta] if 0 <= offset_delta < _SMALL else _offset_varint(offset_delta)
        size = 1 + len(timestamp_part) + len(offset_part) + len(key_part) + len(value_part) + len(header_part)
        append(varint[size] if size < _SMALL else _varint(size))
        append(b"\x00")
        append(timestamp_part)
        append(offset_part)
        append(key_part)
        append(value_part)
        append(header_part)
    batch = bytearray().join(parts)
    if len(batch) > BATCH_BYTES_MAX:
        raise LocalProtocolError(f"a batch of {len(batch)} bytes does not fit its 32-bit length")
    return batch


def _check_types(column: Sequence[object], name: str, wanted: type) -> None:
    """Refuse what is no bytes, at the speed of a set: a concatenation would take a bytearray for bytes."""
    for kind in set(map(type, column)) - {wanted}:
        if not issubclass(kind, wanted) and not (kind is NoneType and wanted is bytes):
            raise LocalProtocolError(f"a record's {name} has to be {wanted.__name__}, not {kind.__name__}")


def _rare_parts(key: bytes | None, value: bytes | None, headers: RecordHeaders) -> tuple[bytes, bytes, bytes]:
    """The parts of a record that has a null, headers, or an argument of a wrong type."""
    parts = [_varint(len(headers))]
    for name, header_value in headers:
        if not isinstance(name, str):
            raise LocalProtocolError(f"a record header's key has to be str, not {type(name).__name__}")
        try:
            encoded = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"a record header's key is no UTF-8: {error}") from None
        parts.append(_varint(len(encoded)))
        parts.append(encoded)
        parts.append(_nullable(header_value, "header value"))
    return _nullable(key, "key"), _nullable(value, "value"), b"".join(parts)


def _nullable(field: bytes | None, name: str) -> bytes:
    if field is None:
        return b"\x01"
    if not isinstance(field, bytes):
        raise LocalProtocolError(f"a record's {name} has to be bytes or None, not {type(field).__name__}")
    return _varint(len(field)) + field


def _fits_int64(number: int) -> bool:
    return _INT64_MIN <= number <= _INT64_MAX


def _timestamp_varint(timestamp_ms: int, delta: int) -> bytes:
    if not _fits_int64(timestamp_ms) or not _fits_int64(delta):
        raise LocalProtocolError(f"timestamp {timestamp_ms} is too far from the batch's base timestamp")
    return _varint(delta)


def _offset_varint(offset_delta: int) -> bytes:
    if not 0 <= offset_delta < 2**31:
        raise LocalProtocolError(f"offset delta {offset_delta} does not fit a batch")
    return _varint(offset_delta)


class RecordAppender:
    """Collects the records of one batch; see BatchBuilder, which is what others use."""

    __slots__ = ("_headers", "_keys", "_timestamps_ms", "_values", "size_bytes")

    def __init__(self) -> None:
        self._keys: list[bytes | None] = []
        self._values: list[bytes | None] = []
        self._timestamps_ms: list[int] = []
        self._headers: list[RecordHeaders] = []
        # Upper bound of the uncompressed batch, header included.
        self.size_bytes = HEADER_BYTES

    def append(
        self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: RecordHeaders = NO_HEADERS
    ) -> int:
        """Add one record and return size_bytes; a refused record (LocalProtocolError) leaves no trace."""
        size_bytes = _RECORD_OVERHEAD_BYTES_MAX
        if headers or type(key) is not bytes or type(value) is not bytes:
            size_bytes += sum(map(len, _rare_parts(key, value, headers)))
        else:
            size_bytes += len(key) + len(value)
        if not isinstance(timestamp_ms, int):
            raise LocalProtocolError(f"a record's timestamp has to be int, not {type(timestamp_ms).__name__}")
        base_timestamp_ms = self._timestamps_ms[0] if self._timestamps_ms else timestamp_ms
        if not _fits_int64(timestamp_ms) or not _fits_int64(timestamp_ms - base_timestamp_ms):
            raise LocalProtocolError(f"timestamp {timestamp_ms} is too far from the batch's base timestamp")
        size_bytes += self.size_bytes
        if size_bytes > BATCH_BYTES_MAX:
            raise LocalProtocolError(f"a batch of {size_bytes} bytes does not fit its 32-bit length")
        self._keys.append(key)
        self._values.append(value)
        self._timestamps_ms.append(timestamp_ms)
        self._headers.append(headers)
        self.size_bytes = size_bytes
        return size_bytes

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def base_timestamp_ms(self) -> int:
        return self._timestamps_ms[0]

    @property
    def max_timestamp_ms(self) -> int:
        return max(self._timestamps_ms)

    def encode(self) -> bytearray:
        """The records section behind 61 zero bytes."""
        headers = self._headers if any(self._headers) else None
        return encode_records(self._keys, self._values, self._timestamps_ms, headers, self.base_timestamp_ms, None)


def decode_records(
    section: bytes | bytearray | memoryview,
    record_count: int,
    base_offset: int,
    base_timestamp_ms: int,
    append_time_ms: int | None,
) -> Columns:
    """Decode an uncompressed records section into columns: offsets, timestamps, keys, values, headers.

    With append_time_ms every record has that timestamp. Raises CorruptBatch unless the section is exactly
    record_count well-formed records.
    """
    if record_count > len(section) // (_RECORD_BODY_BYTES_MIN + 1):
        raise CorruptBatch(f"{record_count} records cannot fit {len(section)} bytes")
    try:
        return _decode(bytes(section), record_count, base_offset, base_timestamp_ms, append_time_ms)
    except IndexError:
        raise CorruptBatch("the batch ends inside a record") from None


def _decode(
    section: bytes, record_count: int, base_offset: int, base_timestamp_ms: int, append_time_ms: int | None
) -> Columns:
    offsets: list[int] = []
    timestamps_ms: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[RecordHeaders] = [NO_HEADERS] * record_count
    add_offset, add_timestamp, add_key, add_value = offsets.append, timestamps_ms.append, keys.append, values.append
    section_bytes = len(section)
    position = 0
    for index in range(record_count):
        # Below, five times: a varint of one or two bytes in line, longer ones by call; then the zigzag undone.
        size = section[position]
        position += 1
        if size > 127:
            more = section[position]
            position += 1
            if more > 127:
                size, position = _long_varint(section, position - 2)
            else:
                size += (more << 7) - 128
        size = size >> 1 ^ -(size & 1)
        end = position + size
        if size < _RECORD_BODY_BYTES_MIN or end > section_bytes:
            raise CorruptBatch(f"record {index} claims {size} bytes of {section_bytes - position}")

        position += 1  # the attributes have no meaning yet, and Kafka does not look at them
        delta = section[position]
        position += 1
        if delta > 127:
            more = section[position]
            position += 1
            if more > 127:
                delta, position = _long_varlong(section, position - 2)
            else:
                delta += (more << 7) - 128
        timestamp_ms = base_timestamp_ms + (delta >> 1 ^ -(delta & 1))
        if not _INT64_MIN <= timestamp_ms <= _INT64_MAX:
            raise CorruptBatch(f"record {index} has a timestamp of more than 64 bits")

        delta = section[position]
        position += 1
        if delta > 127:
            more = section[position]
            position += 1
            if more > 127:
                delta, position = _long_varint(section, position - 2)
            else:
                delta += (more << 7) - 128
        offset = base_offset + (delta >> 1 ^ -(delta & 1))
        if not _INT64_MIN <= offset <= _INT64_MAX:
            raise CorruptBatch(f"record {index} has an offset of more than 64 bits")

        size = section[position]
        position += 1
        if size > 127:
            more = section[position]
            position += 1
            if more > 127:
                size, position = _long_varint(section, position - 2)
            else:
                size += (more << 7) - 128
        if size == 1:
            add_key(None)
        elif size & 1:
            raise CorruptBatch(f"record {index} has a key of negative size")
        else:
            size >>= 1
            add_key(section[position : position + size])
            position += size

        size = section[position]
        position += 1
        if size > 127:
            more = section[position]
            position += 1
            if more > 127:
                size, position = _long_varint(section, position - 2)
            else:
                size += (more << 7) - 128
        if size == 1:
            add_value(None)
        elif size & 1:
            raise CorruptBatch(f"record {index} has a value of negative size")
        else:
            size >>= 1
            add_value(section[position : position + size])
            position += size

        if section[position]:
            headers[index], position = _decode_headers(section, position, end)
        else:
            position += 1
        if position != end:
            raise CorruptBatch(f"record {index} ends at byte {position}, not at {end} as its size says")
        add_offset(offset)
        add_timestamp(timestamp_ms)
    if position != section_bytes:
        raise CorruptBatch(f"{section_bytes - position} bytes follow the last record")
    if append_time_ms is not None:
        timestamps_ms = [append_time_ms] * record_count
    return offsets, timestamps_ms, keys, values, headers


def _decode_headers(section: bytes, position: int, end: int) -> tuple[RecordHeaders, int]:
    count, position = _signed_varint(section, position)
    if not 0 <= count <= end - position:
        raise CorruptBatch(f"a record claims {count} headers in {end - position} bytes")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, position = _signed_varint(section, position)
        if not 0 <= size <= end - position:
            raise CorruptBatch(f"a record header's key claims {size} bytes of {end - position}")
        name = section[position : position + size].decode("utf-8", "surrogateescape")
        position += size
        size, position = _signed_varint(section, position)
        if not -1 <= size <= end - position:
            raise CorruptBatch(f"a record header's value claims {size} bytes of {end - position}")
        if size < 0:
            headers.append((name, None))
        else:
            headers.append((name, section[position : position + size]))
            position += size
    return tuple(headers), position


def scan_records(
    section: bytes | bytearray | memoryview,
    record_count: int,
    base_timestamp_ms: int,
    timestamp_ms_min: int,
    timestamp_ms_max: int,
    indexes_max: int,
) -> tuple[bool, int, tuple[int, ...], tuple[int, ...]]:
    """Walk an uncompressed records section as decode_records does, keeping nothing.

    Returns whether the offset deltas count from 0 without a gap, the largest timestamp (-1: none has one), and up to
    indexes_max record indexes each: without a key, and with a timestamp outside the bounds (-1, no timestamp, is
    inside). Raises CorruptBatch.
    """
    if record_count > len(section) // (_RECORD_BODY_BYTES_MIN + 1):
        raise CorruptBatch(f"{record_count} records cannot fit {len(section)} bytes")
    section = bytes(section)
    consecutive = True
    without_key: list[int] = []
    outside: list[int] = []
    position = 0
    max_timestamp_ms = -1
    try:
        for index in range(record_count):
            size, position = _signed_varint(section, position)
            end = position + size
            if size < _RECORD_BODY_BYTES_MIN or end > len(section):
                raise CorruptBatch(f"record {index} claims {size} bytes of {len(section) - position}")
            delta, position = _long_varlong(section, position + 1)
            timestamp_ms = base_timestamp_ms + (delta >> 1 ^ -(delta & 1))
            if not _fits_int64(timestamp_ms):
                raise CorruptBatch(f"record {index} has a timestamp of more than 64 bits")
            within = timestamp_ms == -1 or timestamp_ms_min <= timestamp_ms <= timestamp_ms_max
            if not within and len(outside) < indexes_max:
                outside.append(index)
            max_timestamp_ms = max(max_timestamp_ms, timestamp_ms)
            delta, position = _signed_varint(section, position)
            consecutive = consecutive and delta == index
            size, position = _skip_bytes(section, position, end)
            if size < 0 and len(without_key) < indexes_max:
                without_key.append(index)
            _, position = _skip_bytes(section, position, end)
            position = _skip_headers(section, position, end)
            if position != end:
                raise CorruptBatch(f"record {index} ends at byte {position}, not at {end} as its size says")
    except IndexError:
        raise CorruptBatch("the batch ends inside a record") from None
    if position != len(section):
        raise CorruptBatch(f"{len(section) - position} bytes follow the last record")
    return consecutive, max_timestamp_ms, tuple(without_key), tuple(outside)


def _skip_bytes(section: bytes, position: int, end: int) -> tuple[int, int]:
    """Size of a nullable bytes field, -1 for null, and where it ends."""
    size, position = _signed_varint(section, position)
    if not -1 <= size <= end - position:
        raise CorruptBatch(f"a field claims {size} bytes of {end - position}")
    return size, position + max(size, 0)


def _skip_headers(section: bytes, position: int, end: int) -> int:
    count, position = _signed_varint(section, position)
    if not 0 <= count <= end - position:
        raise CorruptBatch(f"a record claims {count} headers in {end - position} bytes")
    for _ in range(count):
        size, position = _skip_bytes(section, position, end)
        if size < 0:
            raise CorruptBatch("a record header without a key")
        _, position = _skip_bytes(section, position, end)
    return position


def _signed_varint(section: bytes, position: int) -> tuple[int, int]:
    value, position = _long_varint(section, position)
    return value >> 1 ^ -(value & 1), position


def _long_varint(section: bytes, position: int) -> tuple[int, int]:
    """An unsigned varint of up to 5 bytes, of which 32 bits count, as in Kafka; and where it ends."""
    value = 0
    for shift in range(0, 35, 7):
        byte = section[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & _UINT32_MASK, position
    raise CorruptBatch("a varint of more than 5 bytes")


def _long_varlong(section: bytes, position: int) -> tuple[int, int]:
    """An unsigned varint of up to 10 bytes, of which 64 bits count, as in Kafka; and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = section[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & _UINT64_MASK, position
    raise CorruptBatch("a varlong of more than 10 bytes")
