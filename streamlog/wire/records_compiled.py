# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The record codec in C speed: Cython in pure Python mode, compiled at install time where a compiler is.

The twin of records_interpreted.py, which also describes the format; the tests hold both to the same output for every
input, good or bad. Everything per record happens in C types; Python objects are made only for what the caller asked
for (keys, values, numbers) and put straight into lists of their final length.

Safety rests on two rules. Reading: every access goes through a Cursor, which never passes its end and remembers
that it was asked to; the sticky flag is looked at before a size is believed. Writing: `_reserve` comes before every
record with an upper bound of what that record takes.

Where it was not compiled it refuses to be imported, whether or not Cython happens to be installed.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    raise ImportError("the record codec was not compiled when streamlog was installed")

from cython.cimports.cpython.buffer import Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cython.cimports.cpython.bytearray import (
    PyByteArray_AS_STRING,
    PyByteArray_FromStringAndSize,
    PyByteArray_Resize,
)
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython.cimports.cpython.list import PyList_New, PyList_SET_ITEM
from cython.cimports.cpython.ref import Py_INCREF
from cython.cimports.cpython.unicode import PyUnicode_DecodeUTF8
from cython.cimports.libc.string import memcpy, memset

from streamlog.errors import LocalProtocolError
from streamlog.wire.records_header import BATCH_BYTES_MAX, HEADER_BYTES, NO_HEADERS, CorruptBatch

REVISION = 3  # see records_codec.CODEC_REVISION

_HEADER_BYTES = cython.declare(cython.Py_ssize_t, HEADER_BYTES)
_BATCH_BYTES_MAX = cython.declare(cython.Py_ssize_t, BATCH_BYTES_MAX)
_NO_HEADERS = cython.declare(tuple, NO_HEADERS)

_INT32_MAX = cython.declare(cython.longlong, 2**31 - 1)
_INT64_MAX = cython.declare(cython.longlong, 2**63 - 1)
_INT64_MIN = cython.declare(cython.longlong, -_INT64_MAX - 1)  # C has no literal for it
# attributes, two deltas, two lengths and a count: no record is smaller, its size varint aside.
_RECORD_BODY_BYTES_MIN = cython.declare(cython.Py_ssize_t, 6)
# The most a record adds to its key, value and headers: size (5), attributes, timestamp (10), offset (5), two
# lengths (5 each), header count (5); rounded up.
_RECORD_OVERHEAD_BYTES_MAX = cython.declare(cython.Py_ssize_t, 40)
# A builder starts with room for a few records and doubles; Kafka's default batch is 16 KiB.
_CAPACITY_MIN = cython.declare(cython.Py_ssize_t, 4096)


# ---- writing


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _zigzag(value: cython.longlong) -> cython.ulonglong:
    return (cython.cast(cython.ulonglong, value) << 1) ^ cython.cast(cython.ulonglong, value >> 63)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _varint_bytes(value: cython.ulonglong) -> cython.Py_ssize_t:
    size: cython.Py_ssize_t = 1
    while value > 127:
        value >>= 7
        size += 1
    return size


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _put_varint(out: cython.p_uchar, value: cython.ulonglong) -> cython.p_uchar:
    while value > 127:
        out[0] = cython.cast(cython.uchar, value & 127 | 128)
        out += 1
        value >>= 7
    out[0] = cython.cast(cython.uchar, value)
    return out + 1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _put_bytes(out: cython.p_uchar, data: object, size: cython.Py_ssize_t) -> cython.p_uchar:
    """Length and bytes of `data`, which is bytes, or of a null where size is -1."""
    out = _put_varint(out, _zigzag(size))
    if size > 0:
        memcpy(out, PyBytes_AS_STRING(data), size)
        out += size
    return out


@cython.cfunc
@cython.inline
@cython.exceptval(-2)
def _nullable_bytes(data: object, name: str) -> cython.Py_ssize_t:
    """Size of a nullable bytes argument, -1 for None."""
    if data is None:
        return -1
    if not isinstance(data, bytes):
        raise LocalProtocolError(f"a record's {name} has to be bytes or None, not {type(data).__name__}")
    return PyBytes_GET_SIZE(data)


@cython.cfunc
def _encode_headers(headers: object) -> bytes:
    """Header count and headers of one record. Rare enough to be built apart, in two passes."""
    total: cython.Py_ssize_t = 0
    fields: list = []
    size: cython.Py_ssize_t
    for name, value in headers:
        if not isinstance(name, str):
            raise LocalProtocolError(f"a record header's key has to be str, not {type(name).__name__}")
        try:
            encoded = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"a record header's key is no UTF-8: {error}") from None
        for field in (encoded, value):
            size = _nullable_bytes(field, "header value")
            total += _varint_bytes(_zigzag(size)) + max(size, 0)
            fields.append(field)
    total += _varint_bytes(_zigzag(len(fields) // 2))  # not len(headers): what is counted is what is written
    packed: bytes = PyBytes_FromStringAndSize(cython.NULL, total)
    out: cython.p_uchar = cython.cast(cython.p_uchar, PyBytes_AS_STRING(packed))
    out = _put_varint(out, _zigzag(len(fields) // 2))
    for field in fields:
        out = _put_bytes(out, field, _nullable_bytes(field, "header value"))
    return packed


@cython.final
@cython.cclass
class RecordAppender:
    """Collects the records of one batch, encoded as they come; see BatchBuilder, which is what others use."""

    _out: bytearray  # header space and encoded records up to _position, free room behind
    _capacity: cython.Py_ssize_t  # len(_out)
    _position: cython.Py_ssize_t
    _count: cython.longlong
    _base_timestamp_ms: cython.longlong  # of the first record; valid when _count > 0
    _max_timestamp_ms: cython.longlong  # valid when _count > 0

    def __init__(self) -> None:
        self._open(_CAPACITY_MIN)

    @cython.cfunc
    @cython.exceptval(-1)
    def _open(self, capacity: cython.Py_ssize_t) -> cython.int:
        self._out = PyByteArray_FromStringAndSize(cython.NULL, capacity)
        self._capacity = capacity
        self._position = _HEADER_BYTES
        self._count = 0
        memset(PyByteArray_AS_STRING(self._out), 0, _HEADER_BYTES)
        return 0

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1)
    def _reserve(self, more: cython.Py_ssize_t) -> cython.int:
        needed: cython.Py_ssize_t = self._position + more
        if needed > self._capacity:
            self._capacity = max(2 * self._capacity, needed)
            PyByteArray_Resize(self._out, self._capacity)
        return 0

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1)
    def _write(
        self,
        key: object,
        value: object,
        timestamp_delta: cython.longlong,
        offset_delta: cython.longlong,
        headers: object,
    ) -> cython.int:
        """Append one record. `headers` is None or whatever has a length; nothing is written if this raises."""
        key_bytes: cython.Py_ssize_t = _nullable_bytes(key, "key")
        value_bytes: cython.Py_ssize_t = _nullable_bytes(value, "value")
        header_bytes: cython.Py_ssize_t = 1
        encoded_headers: object = None
        if headers is not None and headers is not _NO_HEADERS and len(headers) > 0:
            encoded_headers = _encode_headers(headers)
            header_bytes = PyBytes_GET_SIZE(encoded_headers)
        body_bytes: cython.Py_ssize_t = (
            1
            + _varint_bytes(_zigzag(timestamp_delta))
            + _varint_bytes(_zigzag(offset_delta))
            + _varint_bytes(_zigzag(key_bytes))
            + max(key_bytes, 0)
            + _varint_bytes(_zigzag(value_bytes))
            + max(value_bytes, 0)
            + header_bytes
        )
        if self._position + body_bytes + 5 > _BATCH_BYTES_MAX:
            raise LocalProtocolError(f"a batch of {self._position + body_bytes} bytes does not fit its 32-bit length")
        self._reserve(body_bytes + 10)
        start: cython.p_uchar = cython.cast(cython.p_uchar, PyByteArray_AS_STRING(self._out))
        out: cython.p_uchar = start + self._position
        out = _put_varint(out, _zigzag(body_bytes))
        out[0] = 0
        out = _put_varint(out + 1, _zigzag(timestamp_delta))
        out = _put_varint(out, _zigzag(offset_delta))
        out = _put_bytes(out, key, key_bytes)
        out = _put_bytes(out, value, value_bytes)
        if encoded_headers is None:
            out[0] = 0
            out += 1
        else:
            memcpy(out, PyBytes_AS_STRING(encoded_headers), header_bytes)
            out += header_bytes
        self._position = out - start
        return 0

    def append(self, key: object, value: object, timestamp_ms: object, headers: object = NO_HEADERS) -> object:
        """Add one record and return size_bytes; a refused record (LocalProtocolError) leaves no trace."""
        at_ms: cython.longlong = _int64(timestamp_ms, "timestamp")
        if self._count == 0:
            self._base_timestamp_ms = at_ms
            self._max_timestamp_ms = at_ms
        self._write(key, value, _timestamp_delta(at_ms, self._base_timestamp_ms), self._count, headers)
        if at_ms > self._max_timestamp_ms:
            self._max_timestamp_ms = at_ms
        self._count += 1
        return self._position

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        return self._position

    @property
    def base_timestamp_ms(self) -> int:
        return self._base_timestamp_ms

    @property
    def max_timestamp_ms(self) -> int:
        return self._max_timestamp_ms

    def encode(self) -> bytearray:
        """The records section behind 61 zero bytes."""
        return PyByteArray_FromStringAndSize(PyByteArray_AS_STRING(self._out), self._position)


@cython.cfunc
@cython.inline
@cython.exceptval(-1, check=True)
def _int64(number: object, name: str) -> cython.longlong:
    # The check keeps __index__ of foreign types out: it could change the lists that are being walked.
    if not isinstance(number, int):
        raise LocalProtocolError(f"a record's {name} has to be int, not {type(number).__name__}")
    try:
        return number
    except OverflowError:
        raise LocalProtocolError(f"{name} {number} does not fit 64 bits") from None


@cython.cfunc
@cython.inline
@cython.exceptval(-1, check=True)
def _timestamp_delta(timestamp_ms: cython.longlong, base_timestamp_ms: cython.longlong) -> cython.longlong:
    if (base_timestamp_ms >= 0 and timestamp_ms < _INT64_MIN + base_timestamp_ms) or (
        base_timestamp_ms < 0 and timestamp_ms > _INT64_MAX + base_timestamp_ms
    ):
        raise LocalProtocolError(f"timestamp {timestamp_ms} is too far from the batch's base timestamp")
    return timestamp_ms - base_timestamp_ms


def encode_records(
    keys: object,
    values: object,
    timestamps_ms: object,
    headers: object,
    base_timestamp_ms: object,
    offset_deltas: object,
) -> bytearray:
    """Encode the records section behind 61 zero bytes that the caller fills with the batch header.

    Without offset_deltas they count from 0. Raises LocalProtocolError for what the format cannot carry.
    """
    key_list: list = keys if type(keys) is list else list(keys)
    value_list: list = values if type(values) is list else list(values)
    timestamp_list: list = timestamps_ms if type(timestamps_ms) is list else list(timestamps_ms)
    # Headers are walked by Python code of their own, which might change a list: a private copy cannot.
    header_list: list = None if headers is None else list(headers)
    delta_list: list = None if offset_deltas is None else list(offset_deltas)
    base_ms: cython.longlong = _int64(base_timestamp_ms, "base timestamp")
    count: cython.Py_ssize_t = len(key_list)
    if header_list is not None:
        key_list, value_list, timestamp_list = list(key_list), list(value_list), list(timestamp_list)
    assert len(value_list) == count, "columns of one batch have one length"
    assert len(timestamp_list) == count, "columns of one batch have one length"
    assert header_list is None or len(header_list) == count, "columns of one batch have one length"
    assert delta_list is None or len(delta_list) == count, "columns of one batch have one length"

    appender: RecordAppender = RecordAppender.__new__(RecordAppender)
    appender._open(_HEADER_BYTES + _capacity_of(key_list, value_list))
    index: cython.Py_ssize_t
    offset_delta: cython.longlong
    for index in range(count):
        offset_delta = index
        if delta_list is not None:
            offset_delta = _int64(delta_list[index], "offset delta")
            if offset_delta < 0 or offset_delta > _INT32_MAX:
                raise LocalProtocolError(f"offset delta {offset_delta} does not fit a batch")
        appender._write(
            key_list[index],
            value_list[index],
            _timestamp_delta(_int64(timestamp_list[index], "timestamp"), base_ms),
            offset_delta,
            None if header_list is None else header_list[index],
        )
    PyByteArray_Resize(appender._out, appender._position)
    return appender._out


@cython.cfunc
@cython.exceptval(-1)
def _capacity_of(keys: list, values: list) -> cython.Py_ssize_t:
    """Room for these records without headers, so that encoding them never grows the buffer."""
    total: cython.Py_ssize_t = 10
    index: cython.Py_ssize_t
    for index in range(len(keys)):
        total += (
            _RECORD_OVERHEAD_BYTES_MAX
            + max(_nullable_bytes(keys[index], "key"), 0)
            + max(_nullable_bytes(values[index], "value"), 0)
        )
    if total > _BATCH_BYTES_MAX:
        return 0  # probably too large: find out while growing
    return total


# ---- reading

Cursor = cython.struct(at=cython.p_uchar, end=cython.p_uchar, overrun=cython.int)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _get_byte(cursor: cython.pointer(Cursor)) -> cython.uchar:
    if cursor.at >= cursor.end:
        cursor.overrun = 1
        return 0
    byte: cython.uchar = cursor.at[0]
    cursor.at += 1
    return byte


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _get_varint(cursor: cython.pointer(Cursor)) -> cython.longlong:
    """Up to 5 bytes, of which 32 bits count, as in Kafka; the zigzag undone."""
    byte: cython.uint = _get_byte(cursor)
    value: cython.uint = byte & 127
    shift: cython.int = 7
    while byte > 127:
        if shift > 28:
            cursor.overrun = 1
            return 0
        byte = _get_byte(cursor)
        value |= (byte & 127) << shift
        shift += 7
    return cython.cast(cython.int, (value >> 1) ^ (0 - (value & 1)))


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _get_varlong(cursor: cython.pointer(Cursor)) -> cython.longlong:
    """Up to 10 bytes, of which 64 bits count, as in Kafka; the zigzag undone."""
    byte: cython.ulonglong = _get_byte(cursor)
    value: cython.ulonglong = byte & 127
    shift: cython.int = 7
    while byte > 127:
        if shift > 63:
            cursor.overrun = 1
            return 0
        byte = _get_byte(cursor)
        value |= (byte & 127) << shift
        shift += 7
    return cython.cast(cython.longlong, (value >> 1) ^ (0 - (value & 1)))


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _overflows(base: cython.longlong, delta: cython.longlong) -> cython.bint:
    return (delta > 0 and base > _INT64_MAX - delta) or (delta < 0 and base < _INT64_MIN - delta)


@cython.cfunc
@cython.inline
def _get_bytes(cursor: cython.pointer(Cursor)) -> object:
    """A nullable bytes field. A size that cannot be sets the flag instead of being believed."""
    size: cython.longlong = _get_varint(cursor)
    if size < 0 or size > cursor.end - cursor.at:
        if size != -1:
            cursor.overrun = 1
        return None
    data: object = PyBytes_FromStringAndSize(cython.cast(cython.p_char, cursor.at), size)
    cursor.at += size
    return data


@cython.cfunc
def _get_headers(cursor: cython.pointer(Cursor)) -> object:
    """The headers of one record, its count included."""
    count: cython.longlong = _get_varint(cursor)
    if count < 0 or count > cursor.end - cursor.at:
        cursor.overrun = 1
        return _NO_HEADERS
    headers: list = []
    size: cython.longlong
    while count > 0 and not cursor.overrun:
        size = _get_varint(cursor)
        if size < 0 or size > cursor.end - cursor.at:
            cursor.overrun = 1
            break
        name = PyUnicode_DecodeUTF8(cython.cast(cython.p_char, cursor.at), size, b"surrogateescape")
        cursor.at += size
        headers.append((name, _get_bytes(cursor)))
        count -= 1
    return tuple(headers) if headers else _NO_HEADERS


def decode_records(
    section: object,
    record_count: cython.longlong,
    base_offset: cython.longlong,
    base_timestamp_ms: cython.longlong,
    append_time_ms: object,
) -> tuple:
    """Decode an uncompressed records section into columns: offsets, timestamps, keys, values, headers.

    With append_time_ms every record has that timestamp. Raises CorruptBatch unless the section is exactly
    record_count well-formed records.
    """
    buffer = cython.declare(Py_buffer)
    PyObject_GetBuffer(section, cython.address(buffer), PyBUF_SIMPLE)
    try:
        return _decode(
            cython.cast(cython.p_uchar, buffer.buf),
            buffer.len,
            record_count,
            base_offset,
            base_timestamp_ms,
            append_time_ms,
        )
    finally:
        PyBuffer_Release(cython.address(buffer))


@cython.cfunc
def _decode(
    start: cython.p_uchar,
    section_bytes: cython.Py_ssize_t,
    record_count: cython.Py_ssize_t,
    base_offset: cython.longlong,
    base_timestamp_ms: cython.longlong,
    append_time_ms: object,
) -> tuple:
    if record_count > section_bytes // (_RECORD_BODY_BYTES_MIN + 1):
        raise CorruptBatch(f"{record_count} records cannot fit {section_bytes} bytes")
    # Filled front to back; a list that is dropped half filled holds NULLs, which its deallocation skips.
    offsets: list = PyList_New(record_count)
    timestamps_ms: list = PyList_New(record_count)
    keys: list = PyList_New(record_count)
    values: list = PyList_New(record_count)
    headers: list = [_NO_HEADERS] * record_count
    section_end: cython.p_uchar = start + section_bytes
    cursor = cython.declare(Cursor)
    cursor.at = start
    cursor.end = section_end
    cursor.overrun = 0
    size: cython.longlong
    delta: cython.longlong
    index: cython.Py_ssize_t
    item: object
    # Neighbours often share a timestamp: one int object serves them.
    timestamp_delta: cython.longlong = 0
    timestamp: object = base_timestamp_ms if append_time_ms is None else append_time_ms
    for index in range(record_count):
        cursor.end = section_end
        size = _get_varint(cython.address(cursor))
        if cursor.overrun or size < _RECORD_BODY_BYTES_MIN or size > section_end - cursor.at:
            raise CorruptBatch(f"record {index} claims {size} bytes of {section_end - cursor.at}")
        cursor.end = cursor.at + size
        cursor.at += 1  # the attributes have no meaning yet, and Kafka does not look at them

        delta = _get_varlong(cython.address(cursor))
        if delta != timestamp_delta:
            if _overflows(base_timestamp_ms, delta):
                raise CorruptBatch(f"record {index} has a timestamp of more than 64 bits")
            if append_time_ms is None:
                timestamp = base_timestamp_ms + delta
                timestamp_delta = delta
        Py_INCREF(timestamp)
        PyList_SET_ITEM(timestamps_ms, index, timestamp)

        delta = _get_varint(cython.address(cursor))
        if _overflows(base_offset, delta):
            raise CorruptBatch(f"record {index} has an offset of more than 64 bits")
        item = base_offset + delta
        Py_INCREF(item)
        PyList_SET_ITEM(offsets, index, item)

        item = _get_bytes(cython.address(cursor))
        Py_INCREF(item)
        PyList_SET_ITEM(keys, index, item)

        item = _get_bytes(cython.address(cursor))
        Py_INCREF(item)
        PyList_SET_ITEM(values, index, item)

        if cursor.at < cursor.end and cursor.at[0] == 0:
            cursor.at += 1
        else:
            headers[index] = _get_headers(cython.address(cursor))
        if cursor.overrun or cursor.at != cursor.end:
            raise CorruptBatch(f"record {index} is not as long as its size says")
    if cursor.at != section_end:
        raise CorruptBatch(f"{section_end - cursor.at} bytes follow the last record")
    return offsets, timestamps_ms, keys, values, headers


# ---- validating, without making a Python object per record


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _skip_bytes(cursor: cython.pointer(Cursor)) -> cython.longlong:
    """Step over a nullable bytes field and return its size, -1 for null."""
    size: cython.longlong = _get_varint(cursor)
    if size < -1 or size > cursor.end - cursor.at:
        cursor.overrun = 1
        return 0
    if size > 0:
        cursor.at += size
    return size


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _skip_headers(cursor: cython.pointer(Cursor)) -> cython.void:
    count: cython.longlong = _get_varint(cursor)
    if count < 0 or count > cursor.end - cursor.at:
        cursor.overrun = 1
    while count > 0 and not cursor.overrun:
        if _skip_bytes(cursor) < 0:
            cursor.overrun = 1  # a null header key
        _skip_bytes(cursor)
        count -= 1


def scan_records(
    section: object,
    record_count: cython.longlong,
    base_timestamp_ms: cython.longlong,
    timestamp_ms_min: cython.longlong,
    timestamp_ms_max: cython.longlong,
    indexes_max: cython.Py_ssize_t,
) -> tuple:
    """Walk an uncompressed records section as decode_records does, keeping nothing.

    Returns whether the offset deltas count from 0 without a gap, the largest timestamp (-1: none has one), and up to
    indexes_max record indexes each: without a key, and with a timestamp outside the bounds (-1, no timestamp, is
    inside). Raises CorruptBatch.
    """
    buffer = cython.declare(Py_buffer)
    PyObject_GetBuffer(section, cython.address(buffer), PyBUF_SIMPLE)
    try:
        return _scan(
            cython.cast(cython.p_uchar, buffer.buf),
            buffer.len,
            record_count,
            base_timestamp_ms,
            timestamp_ms_min,
            timestamp_ms_max,
            indexes_max,
        )
    finally:
        PyBuffer_Release(cython.address(buffer))


@cython.cfunc
def _scan(
    start: cython.p_uchar,
    section_bytes: cython.Py_ssize_t,
    record_count: cython.longlong,
    base_timestamp_ms: cython.longlong,
    timestamp_ms_min: cython.longlong,
    timestamp_ms_max: cython.longlong,
    indexes_max: cython.Py_ssize_t,
) -> tuple:
    if record_count > section_bytes // (_RECORD_BODY_BYTES_MIN + 1):
        raise CorruptBatch(f"{record_count} records cannot fit {section_bytes} bytes")
    # Most batches need neither list, and a broker looks into every batch that producers send.
    without_key: list = None
    outside: list = None
    max_timestamp_ms: cython.longlong = -1
    consecutive: cython.bint = True
    within: cython.bint
    section_end: cython.p_uchar = start + section_bytes
    cursor = cython.declare(Cursor)
    cursor.at = start
    cursor.overrun = 0
    size: cython.longlong
    delta: cython.longlong
    timestamp_ms: cython.longlong
    index: cython.longlong
    for index in range(record_count):
        cursor.end = section_end
        size = _get_varint(cython.address(cursor))
        if cursor.overrun or size < _RECORD_BODY_BYTES_MIN or size > section_end - cursor.at:
            raise CorruptBatch(f"record {index} claims {size} bytes of {section_end - cursor.at}")
        cursor.end = cursor.at + size
        cursor.at += 1

        delta = _get_varlong(cython.address(cursor))
        if _overflows(base_timestamp_ms, delta):
            raise CorruptBatch(f"record {index} has a timestamp of more than 64 bits")
        timestamp_ms = base_timestamp_ms + delta
        within = timestamp_ms == -1 or (timestamp_ms >= timestamp_ms_min and timestamp_ms <= timestamp_ms_max)
        if not within:
            outside = _note(outside, index, indexes_max)
        if timestamp_ms > max_timestamp_ms:
            max_timestamp_ms = timestamp_ms
        if _get_varint(cython.address(cursor)) != index:
            consecutive = False
        if _skip_bytes(cython.address(cursor)) < 0:
            without_key = _note(without_key, index, indexes_max)
        _skip_bytes(cython.address(cursor))
        _skip_headers(cython.address(cursor))
        if cursor.overrun or cursor.at != cursor.end:
            raise CorruptBatch(f"record {index} is not as long as its size says")
    if cursor.at != section_end:
        raise CorruptBatch(f"{section_end - cursor.at} bytes follow the last record")
    return (
        consecutive,
        max_timestamp_ms,
        () if without_key is None else tuple(without_key),
        () if outside is None else tuple(outside),
    )


@cython.cfunc
def _note(indexes: object, index: cython.longlong, indexes_max: cython.Py_ssize_t) -> list:
    if indexes is None:
        indexes = []
    if len(indexes) < indexes_max:
        indexes.append(index)
    return indexes
