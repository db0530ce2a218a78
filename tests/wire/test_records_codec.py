"""The compiled and the interpreted record codec are one codec: same bytes, same columns, same refusals.

Where the compiled one was not built only the interpreted half of each claim is checked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.errors import LocalProtocolError
from streamlog.wire import records_codec, records_interpreted
from streamlog.wire.records_codec import Codec, Scan
from streamlog.wire.records_header import HEADER_BYTES, Columns, CorruptBatch, RecordHeaders

INTERPRETED = records_codec.interpreted_codec()
COMPILED = records_codec.compiled_codec()
CODECS = [INTERPRETED] if COMPILED is None else [INTERPRETED, COMPILED]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# What the format allows: header keys are UTF-8, or whatever bytes a peer put there, kept as surrogate escapes.
header_keys = st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
fields = st.none() | st.binary(max_size=20) | st.integers(60, 70).map(bytes) | st.just(bytes(9000))
record_headers = st.lists(st.tuples(header_keys, st.none() | st.binary(max_size=8)), max_size=3).map(tuple)
timestamps = st.integers(-1, 2**45) | st.integers(1_700_000_000_000, 1_700_000_020_000)
rows = st.lists(st.tuples(fields, fields, timestamps, record_headers), min_size=1, max_size=12)


def encode_outcome(codec: Codec, *arguments: object) -> bytearray | str:
    """The encoded section, or the name of the refusal."""
    try:
        return codec.encode_records(*arguments)  # type: ignore[arg-type]  # some of them are wrong on purpose
    except LocalProtocolError:
        return "LocalProtocolError"


def decode_outcome(codec: Codec, section: bytes, count: int, append_time_ms: int | None = None) -> Columns | str:
    """The decoded columns, or the name of the refusal."""
    try:
        return codec.decode_records(section, count, 100, 1_700_000_000_000, append_time_ms)
    except CorruptBatch:
        return "CorruptBatch"


def scan_outcome(codec: Codec, section: bytes, count: int) -> Scan | str:
    """What a scan finds, or the name of the refusal."""
    try:
        return codec.scan_records(section, count, 1_700_000_000_000, 1_700_000_000_000, 1_700_000_010_000, 3)
    except CorruptBatch:
        return "CorruptBatch"


def scan_by_decoding(decoded: Columns | str) -> Scan | str:
    """The same, from what decode_outcome decoded."""
    if isinstance(decoded, str):
        return decoded
    offsets, timestamps_ms, keys, _, _ = decoded
    without_key = [index for index, key in enumerate(keys) if key is None]
    outside = [
        index for index, at in enumerate(timestamps_ms) if at != -1 and not 0 <= at - 1_700_000_000_000 <= 10_000
    ]
    consecutive = offsets == list(range(100, 100 + len(offsets)))
    return consecutive, max([-1, *timestamps_ms]), tuple(without_key[:3]), tuple(outside[:3])


def assert_one_outcome(outcome: Callable[[Codec], object]) -> object:
    """Every codec comes to the same result; return it."""
    results = [outcome(codec) for codec in CODECS]
    assert all(result == results[0] for result in results), results
    return results[0]


def columns_of(
    batch: list[tuple[bytes | None, bytes | None, int, RecordHeaders]],
) -> tuple[list[bytes | None], list[bytes | None], list[int], list[RecordHeaders]]:
    keys, values, timestamps_ms, headers = zip(*batch, strict=True)
    return list(keys), list(values), list(timestamps_ms), list(headers)


@given(rows)
def test_both_encode_the_same_bytes_and_decode_them_back(
    batch: list[tuple[bytes | None, bytes | None, int, RecordHeaders]],
) -> None:
    """Round trip through each codec, bytes compared between them."""
    keys, values, timestamps_ms, headers = columns_of(batch)
    base_ms = timestamps_ms[0]
    encoded = assert_one_outcome(
        lambda codec: encode_outcome(codec, keys, values, timestamps_ms, headers, base_ms, None)
    )
    assert isinstance(encoded, bytearray)
    assert encoded[:HEADER_BYTES] == bytes(HEADER_BYTES)
    for codec in CODECS:
        decoded = codec.decode_records(encoded[HEADER_BYTES:], len(batch), 7, base_ms, None)
        assert decoded == (list(range(7, 7 + len(batch))), timestamps_ms, keys, values, headers)


@given(rows)
def test_appender_encodes_what_encode_records_does(
    batch: list[tuple[bytes | None, bytes | None, int, RecordHeaders]],
) -> None:
    """Record by record gives the same section; the size it reports is never too low."""
    keys, values, timestamps_ms, headers = columns_of(batch)
    for codec in CODECS:
        appender = codec.RecordAppender()
        for index, row in enumerate(batch):
            assert len(appender) == index
            size_bytes = appender.append(*row)
            assert size_bytes == appender.size_bytes >= len(appender.encode())
        assert appender.encode() == codec.encode_records(keys, values, timestamps_ms, headers, timestamps_ms[0], None)
        assert appender.base_timestamp_ms == timestamps_ms[0]
        assert appender.max_timestamp_ms == max(timestamps_ms)


@given(rows, st.data())
def test_gaps_of_compaction_survive(
    batch: list[tuple[bytes | None, bytes | None, int, RecordHeaders]], data: st.DataObject
) -> None:
    """Explicit offset deltas come back as offsets."""
    keys, values, timestamps_ms, headers = columns_of(batch)
    count = len(batch)
    deltas = sorted(data.draw(st.sets(st.integers(0, 2**31 - 1), min_size=count, max_size=count)))
    encoded = assert_one_outcome(
        lambda codec: encode_outcome(codec, keys, values, timestamps_ms, headers, timestamps_ms[0], deltas)
    )
    assert isinstance(encoded, bytearray)
    for codec in CODECS:
        offsets = codec.decode_records(encoded[HEADER_BYTES:], count, 5, timestamps_ms[0], None)[0]
        assert offsets == [5 + delta for delta in deltas]


mutations = st.lists(
    st.tuples(st.sampled_from(["set", "flip", "insert", "delete", "cut"]), st.integers(0, 400), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400)
@given(rows, mutations, st.integers(-1, 1), st.none() | timestamps)
def test_both_agree_on_damaged_bytes(
    batch: list[tuple[bytes | None, bytes | None, int, RecordHeaders]],
    changes: list[tuple[str, int, int]],
    count_error: int,
    append_time_ms: int | None,
) -> None:
    """Whatever a byte was changed to, both accept it with the same meaning or both refuse it."""
    keys, values, timestamps_ms, headers = columns_of(batch)
    section = INTERPRETED.encode_records(keys, values, timestamps_ms, headers, timestamps_ms[0], None)[HEADER_BYTES:]
    for kind, where, byte in changes:
        where %= max(len(section), 1)
        match kind:
            case "set":
                section[where : where + 1] = bytes([byte])
            case "flip":
                section[where : where + 1] = bytes(b ^ (1 << byte % 8) for b in section[where : where + 1])
            case "insert":
                section[where:where] = bytes([byte])
            case "delete":
                del section[where]
            case _:
                del section[where:]
        if not section:
            break
    damaged = bytes(section)
    count = max(len(batch) + count_error, 0)
    assert_one_outcome(lambda codec: decode_outcome(codec, damaged, count, append_time_ms))
    found = assert_one_outcome(lambda codec: scan_outcome(codec, damaged, count))
    assert found == scan_by_decoding(decode_outcome(INTERPRETED, damaged, count))


@settings(max_examples=400)
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 12, 14, 127, 128, 129, 255]) | st.integers(0, 255), max_size=40),
    st.integers(0, 4),
)
def test_both_agree_on_made_up_bytes(numbers: list[int], count: int) -> None:
    """Bytes that were never a batch, rich in the values where varints turn."""
    decoded = assert_one_outcome(lambda codec: decode_outcome(codec, bytes(numbers), count))
    assert isinstance(decoded, (tuple, str))
    assert assert_one_outcome(lambda codec: scan_outcome(codec, bytes(numbers), count)) == scan_by_decoding(decoded)


def record(body: bytes, size: bytes | None = None) -> bytes:
    return (bytes([len(body) * 2]) if size is None else size) + body


GOOD_BODY = bytes([0, 0, 0, 2, 107, 2, 118, 0])  # timestamp +0, offset +0, key "k", value "v", no headers


@pytest.mark.parametrize(
    ("section", "count"),
    [
        pytest.param(b"", 1, id="nothing where a record should be"),
        pytest.param(record(GOOD_BODY), 0, id="bytes where no record should be"),
        pytest.param(record(GOOD_BODY) + b"\x00", 1, id="bytes after the last record"),
        pytest.param(record(GOOD_BODY), 2, id="fewer records than counted"),
        pytest.param(record(GOOD_BODY), 2**31 - 1, id="count far beyond the bytes"),
        pytest.param(record(GOOD_BODY)[:-1], 1, id="cut record"),
        pytest.param(record(GOOD_BODY, b"\x01"), 1, id="negative record size"),
        pytest.param(record(GOOD_BODY, b"\xfe\xff\xff\xff\x0f"), 1, id="record size 2^31 - 1"),
        pytest.param(record(GOOD_BODY, b"\x0e"), 1, id="record size one too small"),
        pytest.param(record(GOOD_BODY, b"\x80\x80\x80\x80\x80\x00"), 1, id="record size of six bytes"),
        pytest.param(record(bytes([0, 0, 0, 3, 2, 118, 0, 0])), 1, id="key size -2"),
        pytest.param(record(bytes([0, 0, 0, 1, 3, 0, 0])), 1, id="value size -2"),
        pytest.param(record(bytes([0, 0, 0, 60, 107, 2, 118, 0])), 1, id="key size past the record"),
        pytest.param(record(b"\x00\x00\x00\xfe\xff\xff\xff\x0fk\x02v\x00"), 1, id="key size 2^31 - 1"),
        pytest.param(record(b"\x00" + b"\x80" * 10 + b"\x00\x00\x01\x01\x00"), 1, id="timestamp delta of eleven bytes"),
        pytest.param(record(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x01\x01\x01"), 1, id="header count -1"),
        pytest.param(
            record(b"\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x01\x01\x00"), 1, id="timestamp overflow"
        ),
        pytest.param(record(bytes([0, 0, 0, 1, 1, 200, 1, 0, 0])), 1, id="header count past the record"),
        pytest.param(record(bytes([0, 0, 0, 1, 1, 2, 1, 1])), 1, id="null header key"),
        pytest.param(record(bytes([0, 0, 0, 1, 1, 2, 0, 3])), 1, id="header value size -2"),
        pytest.param(record(bytes([0, 0, 0, 1, 1, 2, 0, 8])), 1, id="header value size past the record"),
    ],
)
def test_malformed_section_is_refused(section: bytes, count: int) -> None:
    """Each way to lie about a size or a count is CorruptBatch, in both codecs."""
    assert assert_one_outcome(lambda codec: decode_outcome(codec, section, count)) == "CorruptBatch"
    assert assert_one_outcome(lambda codec: scan_outcome(codec, section, count)) == "CorruptBatch"


@pytest.mark.parametrize(
    "section",
    [
        pytest.param(record(b"\x07" + GOOD_BODY[1:]), id="unknown record attributes"),
        pytest.param(record(GOOD_BODY, b"\x90\x80\x80\x80\x00"), id="size in five bytes where one would do"),
        pytest.param(record(GOOD_BODY, b"\x90\x80\x80\x80\x70"), id="bits beyond the 32nd"),
        pytest.param(record(b"\x00" + b"\x80" * 9 + b"\x00" + GOOD_BODY[2:]), id="delta in ten bytes"),
        pytest.param(record(GOOD_BODY[:-1] + b"\x80\x00"), id="header count 0 in two bytes"),
    ],
)
def test_unusual_varints_are_read_as_kafka_reads_them(section: bytes) -> None:
    """Not canonical, yet bounded: accepted, because Kafka accepts them."""
    outcome = assert_one_outcome(lambda codec: decode_outcome(codec, section, 1))
    assert outcome == ([100], [1_700_000_000_000], [b"k"], [b"v"], [()])


def test_offset_past_64_bits_is_refused() -> None:
    """A base offset at the end of the range cannot be counted on from."""
    section = record(bytes([0, 0, 2, 1, 1, 0]))
    for codec in CODECS:
        with pytest.raises(CorruptBatch, match="offset"):
            codec.decode_records(section, 1, INT64_MAX, 0, None)


@pytest.mark.parametrize(
    ("keys", "values", "timestamps_ms", "headers", "base_ms", "deltas"),
    [
        pytest.param(["k"], [b""], [0], None, 0, None, id="str key"),
        pytest.param([b""], [bytearray(b"v")], [0], None, 0, None, id="bytearray value"),
        pytest.param([b""], [5], [0], None, 0, None, id="int value"),
        pytest.param([b""], [b""], [0.5], None, 0, None, id="float timestamp"),
        pytest.param([b""], [b""], [2**63], None, 0, None, id="timestamp of 65 bits"),
        pytest.param([b""], [b""], [2**63], None, 2**63 - 1, None, id="timestamp of 65 bits near its base"),
        pytest.param([b"", b""], [b"", b""], [INT64_MAX, -5], None, INT64_MAX, None, id="delta of 65 bits"),
        pytest.param([b""], [b""], [0], [((5, b""),)], 0, None, id="header key not str"),
        pytest.param([b""], [b""], [0], [(("h", "v"),)], 0, None, id="header value not bytes"),
        pytest.param([b""], [b""], [0], [(("\ud800", b"v"),)], 0, None, id="header key with a lone surrogate"),
        pytest.param([b""], [b""], [0], None, 0, [-1], id="negative offset delta"),
        pytest.param([b""], [b""], [0], None, 0, [2**31], id="offset delta of 33 bits"),
    ],
)
def test_what_the_format_cannot_carry_is_refused(
    keys: object, values: object, timestamps_ms: object, headers: object, base_ms: object, deltas: object
) -> None:
    """A wrong type or a number out of range is LocalProtocolError, in both codecs."""
    outcome = assert_one_outcome(
        lambda codec: encode_outcome(codec, keys, values, timestamps_ms, headers, base_ms, deltas)
    )
    assert outcome == "LocalProtocolError"


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(("k", b"v", 1, ()), id="str key"),
        pytest.param((b"k", 7, 1, ()), id="int value"),
        pytest.param((b"k", b"v", 1.5, ()), id="float timestamp"),
        pytest.param((b"k", b"v", INT64_MIN, ()), id="timestamp too far from the first"),
        pytest.param((b"k", b"v", 1, (("h", 1),)), id="int header value"),
    ],
)
def test_refused_record_leaves_the_appender_as_it_was(row: tuple[bytes, bytes, int, RecordHeaders]) -> None:
    """One bad record does not spoil the batch that it was meant for."""
    for codec in CODECS:
        appender = codec.RecordAppender()
        appender.append(b"a", b"1", 10)
        before = appender.size_bytes, len(appender), appender.encode(), appender.max_timestamp_ms
        with pytest.raises(LocalProtocolError):
            appender.append(*row)
        assert (appender.size_bytes, len(appender), appender.encode(), appender.max_timestamp_ms) == before


def test_numbers_at_the_ends_of_their_range_round_trip() -> None:
    """Extremes of timestamps and deltas, where sums could wrap."""
    for base_ms, others in (
        (0, [INT64_MAX, INT64_MIN]),
        (INT64_MAX, [0, INT64_MAX - 1]),
        (-1, [INT64_MIN, INT64_MAX - 1]),
    ):
        timestamps_ms = [base_ms, *others]
        column: list[bytes | None] = [b""] * 3
        encoded = assert_one_outcome(
            lambda codec, c=column, t=timestamps_ms: encode_outcome(codec, c, c, t, None, t[0], None)  # type: ignore[misc]
        )
        assert isinstance(encoded, bytearray)
        for codec in CODECS:
            assert codec.decode_records(encoded[HEADER_BYTES:], 3, 0, base_ms, None)[1] == timestamps_ms


def test_records_without_headers_share_one_tuple() -> None:
    """No allocation per record for what most records do not have."""
    for codec in CODECS:
        headers = codec.decode_records(record(GOOD_BODY) * 3, 3, 0, 0, None)[4]
        assert all(item is headers[0] for item in headers)


@pytest.mark.parametrize("wanted", ["compiled", "interpreted"])
def test_environment_chooses_the_codec(wanted: str) -> None:
    """STREAMLOG_CODEC forces one of the two, for tests and for doubt."""
    if wanted == "compiled" and COMPILED is None:
        pytest.skip("the compiled codec was not built here")
    program = "from streamlog.wire.records import CODEC; print(CODEC)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"STREAMLOG_CODEC": wanted},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == wanted


def test_every_small_varint_of_the_table_is_right() -> None:
    """The table of the interpreted codec says what its varint function computes, negative indexes included."""
    for number in range(-records_interpreted._SMALL, records_interpreted._SMALL):
        assert records_interpreted._VARINT[number] == records_interpreted._varint(number)
