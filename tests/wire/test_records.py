"""Record batches through the public face: what goes in comes out, in the bytes Kafka defines."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.records import (
    HEADER_BYTES,
    BatchBuilder,
    Compression,
    ControlKey,
    ControlType,
    CorruptBatch,
    EndTransactionMarker,
    NeedMoreData,
    Record,
    RecordHeaders,
    UnsupportedMagic,
    decode_batch_header,
    decode_control_key,
    decode_end_transaction_marker,
    decode_records,
    encode_batch,
    encode_control_batch,
    encode_control_key,
    encode_end_transaction_marker,
    iter_batch_headers,
    set_base_offset,
    set_leader_epoch,
    set_max_timestamp,
    set_max_timestamp_and_append_time,
    set_producer,
    verify_crc,
)

KEYS = [b"a", None, b"", b"long" * 100]
VALUES = [b"1", b"2", None, b""]
TIMESTAMPS_MS = [1_700_000_000_000, 1_700_000_000_001, 1_699_999_999_999, 1_700_000_900_000]
HEADERS: list[RecordHeaders] = [(), (("h", b"v"), ("n", None)), (), (("", b""),)]


def small_batch(base_offset: int = 0) -> bytearray:
    return encode_batch(keys=[b"k"], values=[b"v"], timestamps_ms=[5], base_offset=base_offset)


@pytest.mark.parametrize("compression", list(Compression))
def test_batch_round_trips(compression: Compression) -> None:
    """Nulls, empties, headers and unordered timestamps survive every compression."""
    batch = encode_batch(
        keys=KEYS,
        values=VALUES,
        timestamps_ms=TIMESTAMPS_MS,
        headers=HEADERS,
        base_offset=42,
        compression=compression,
    )
    columns = decode_records(batch)
    assert columns.offsets == [42, 43, 44, 45]
    assert (columns.keys, columns.values) == (KEYS, VALUES)
    assert (columns.timestamps_ms, columns.headers) == (TIMESTAMPS_MS, HEADERS)
    assert len(columns) == 4
    assert columns == decode_records(memoryview(batch)) == decode_records(bytes(batch), 0, decode_batch_header(batch))
    assert list(columns.rows())[1] == Record(43, 1_700_000_000_001, None, b"2", (("h", b"v"), ("n", None)))


def test_header_says_what_was_encoded() -> None:
    """Every field and every bit."""
    batch = encode_batch(
        keys=KEYS,
        values=VALUES,
        timestamps_ms=TIMESTAMPS_MS,
        base_offset=100,
        compression=Compression.LZ4,
        producer_id=2**40,
        producer_epoch=7,
        base_sequence=2**31 - 2,
        leader_epoch=3,
        is_transactional=True,
    )
    header = decode_batch_header(b"before" + batch, 6)
    assert (header.base_offset, header.last_offset_delta, header.record_count) == (100, 3, 4)
    assert (header.last_offset, header.next_offset) == (103, 104)
    assert (header.size_bytes, header.batch_length_bytes) == (len(batch), len(batch) - 12)
    assert (header.base_timestamp_ms, header.max_timestamp_ms) == (TIMESTAMPS_MS[0], max(TIMESTAMPS_MS))
    assert (header.producer_id, header.producer_epoch, header.has_producer_id) == (2**40, 7, True)
    assert (header.base_sequence, header.last_sequence) == (2**31 - 2, 1)  # sequences wrap to 0
    assert (header.leader_epoch, header.magic, header.compression) == (3, 2, Compression.LZ4)
    assert (header.is_transactional, header.is_control, header.is_log_append_time) == (True, False, False)
    assert (header.has_delete_horizon, header.delete_horizon_ms) == (False, None)


def test_header_without_producer_has_no_sequence() -> None:
    """The defaults are Kafka's -1s."""
    header = decode_batch_header(small_batch())
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (-1, -1, -1)
    assert (header.has_producer_id, header.last_sequence, header.leader_epoch) == (False, -1, -1)


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_short_header_needs_more_data(size: int) -> None:
    """Fewer than 61 bytes are never judged, whatever is in them."""
    with pytest.raises(NeedMoreData):
        decode_batch_header(b"\xff" * size)


@pytest.mark.parametrize(
    ("at", "patch", "error"),
    [
        pytest.param(16, b"\x01", UnsupportedMagic, id="magic 1"),
        pytest.param(16, b"\xff", UnsupportedMagic, id="magic -1"),
        pytest.param(8, b"\0\0\0\x30", CorruptBatch, id="length below the header's"),
        pytest.param(8, b"\xff\xff\xff\xff", CorruptBatch, id="negative length"),
        pytest.param(21, b"\0\x05", CorruptBatch, id="compression 5"),
    ],
)
def test_impossible_header_is_corrupt(at: int, patch: bytes, error: type[CorruptBatch]) -> None:
    """These bytes cannot begin a batch; the peer is to blame."""
    batch = small_batch()
    batch[at : at + len(patch)] = patch
    with pytest.raises(error):
        decode_batch_header(batch)
    assert issubclass(error, RemoteProtocolError)


def test_builder_builds_what_encode_batch_encodes() -> None:
    """Record by record or as columns: the same bytes."""
    builder = BatchBuilder()
    for key, value, timestamp_ms, headers in zip(KEYS, VALUES, TIMESTAMPS_MS, HEADERS, strict=True):
        builder.append(key, value, timestamp_ms, headers)
    assert len(builder) == 4
    batch = builder.build(producer_id=9, producer_epoch=1, base_sequence=7, is_transactional=True)
    assert batch == encode_batch(
        keys=KEYS,
        values=VALUES,
        timestamps_ms=TIMESTAMPS_MS,
        headers=HEADERS,
        producer_id=9,
        producer_epoch=1,
        base_sequence=7,
        is_transactional=True,
    )
    assert builder.size_bytes >= len(batch)


def test_builder_goes_on_after_a_build() -> None:
    """Building takes nothing away, so a producer may build, be told to split, and build again."""
    builder = BatchBuilder()
    builder.append(b"k", b"v", 1)
    first = builder.build(compression=Compression.ZSTD)
    assert builder.build(compression=Compression.ZSTD) == first
    builder.append(b"k", b"v", 2)
    assert decode_records(builder.build()).timestamps_ms == [1, 2]


def test_empty_builder_builds_nothing() -> None:
    """There is no batch of no records for a producer."""
    with pytest.raises(LocalProtocolError):
        BatchBuilder().build()


def test_iteration_stops_at_a_torn_tail() -> None:
    """A log that ends inside a batch, or inside a header, yields the whole ones before it and says where they end."""
    batch = small_batch()
    for torn in (batch[:-1], batch[:HEADER_BYTES], batch[:10], b""):
        headers = iter_batch_headers(b"skip" + batch + batch + torn, 4)
        assert [position for position, _ in headers] == [4, 4 + len(batch)]
        assert headers.valid_bytes == 4 + 2 * len(batch)


def test_iteration_raises_where_no_batch_can_begin() -> None:
    """Damage is not a torn tail: it is reported, with the end of what was whole."""
    batch = small_batch()
    headers = iter_batch_headers(batch + bytes(100))
    assert next(headers)[0] == 0
    with pytest.raises(CorruptBatch):
        next(headers)
    assert headers.valid_bytes == len(batch)


@given(st.integers(0, 8 * 70 - 1))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    """Behind the checksum every bit counts; the fields before it are the broker's to change."""
    batch = small_batch(base_offset=3)
    assert len(batch) == 70
    header = decode_batch_header(batch)
    assert verify_crc(batch, 0, header)
    batch[bit // 8] ^= 1 << bit % 8
    if bit // 8 < 16:
        return
    with pytest.raises(CorruptBatch):
        decode_records(batch)


def test_unverified_decode_skips_the_checksum() -> None:
    """For callers that have checked it already."""
    batch = small_batch()
    batch[17:21] = bytes(4)
    with pytest.raises(CorruptBatch, match="checksum"):
        decode_records(batch)
    assert decode_records(batch, verify=False).values == [b"v"]


def test_batch_cut_short_needs_more_data() -> None:
    """The header is whole, the records are not."""
    with pytest.raises(NeedMoreData):
        decode_records(small_batch()[:-1])


@pytest.mark.parametrize("at", [23, 57], ids=["last offset delta", "record count"])
def test_negative_counts_are_corrupt(at: int) -> None:
    """A reader that believed them would go backwards."""
    batch = small_batch()
    batch[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(CorruptBatch):
        decode_records(batch, verify=False)


def test_record_count_beyond_the_bytes_allocates_nothing() -> None:
    """2^31 - 1 records in 9 bytes are refused before lists are made."""
    batch = small_batch()
    batch[57:61] = b"\x7f\xff\xff\xff"
    tracemalloc.start()
    try:
        with pytest.raises(CorruptBatch):
            decode_records(batch, verify=False)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_decompression_has_a_cap() -> None:
    """The caller's limit holds, and so does corrupt data behind a valid checksum."""
    batch = encode_batch(keys=[None], values=[bytes(100_000)], timestamps_ms=[0], compression=Compression.GZIP)
    assert len(decode_records(batch, decompressed_bytes_max=101_000)) == 1
    with pytest.raises(CorruptBatch, match="more than 99000"):
        decode_records(batch, decompressed_bytes_max=99_000)


def test_broker_fields_are_patched_without_a_new_checksum() -> None:
    """Offset and leader epoch lie before what the checksum covers."""
    buffer = bytearray(b"xx" + small_batch())
    crc = decode_batch_header(buffer, 2).crc
    set_base_offset(buffer, 2, 2**50)
    set_leader_epoch(memoryview(buffer), 2, 12)
    header = decode_batch_header(buffer, 2)
    assert (header.base_offset, header.leader_epoch, header.crc) == (2**50, 12, crc)
    assert decode_records(buffer, 2).offsets == [2**50]
    assert buffer[:2] == b"xx"


def test_log_append_time_is_every_records_timestamp() -> None:
    """One bit and one field stamp the whole batch; the checksum is renewed."""
    batch = encode_batch(keys=KEYS, values=VALUES, timestamps_ms=TIMESTAMPS_MS, compression=Compression.SNAPPY)
    set_max_timestamp_and_append_time(batch, 0, 99)
    header = decode_batch_header(batch)
    assert (header.is_log_append_time, header.max_timestamp_ms, header.compression) == (True, 99, Compression.SNAPPY)
    assert decode_records(batch).timestamps_ms == [99] * 4


def test_corrected_fields_renew_the_checksum() -> None:
    """The largest timestamp, and a producer's identity when its epoch changes before a retry."""
    batch = small_batch()
    set_max_timestamp(batch, 0, 77)
    set_producer(batch, 0, producer_id=5, producer_epoch=2, base_sequence=10)
    header = decode_batch_header(batch)
    assert verify_crc(batch, 0, header)
    assert (header.max_timestamp_ms, header.is_log_append_time) == (77, False)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (5, 2, 10)


def test_compacted_batch_keeps_its_offset_range() -> None:
    """The cleaner leaves gaps, the original last offset, and a delete horizon in the base timestamp's place."""
    batch = encode_batch(
        keys=[b"a", b"b"],
        values=[b"1", None],
        timestamps_ms=[1_000, 3_000],
        base_offset=500,
        offset_deltas=[2, 7],
        last_offset_delta=9,
        delete_horizon_ms=2_000,
        base_sequence=0,
        producer_id=1,
        producer_epoch=0,
    )
    header = decode_batch_header(batch)
    assert (header.last_offset, header.last_sequence, header.record_count) == (509, 9, 2)
    assert (header.delete_horizon_ms, header.base_timestamp_ms, header.max_timestamp_ms) == (2_000, 2_000, 3_000)
    columns = decode_records(batch)
    assert (columns.offsets, columns.timestamps_ms) == ([502, 507], [1_000, 3_000])


def test_gaps_imply_the_last_offset() -> None:
    """Without an explicit one the last record's delta is the batch's."""
    batch = encode_batch(keys=[b"a"], values=[b"1"], timestamps_ms=[0], offset_deltas=[4])
    assert decode_batch_header(batch).last_offset_delta == 4


def test_emptied_batch_keeps_its_producer_state() -> None:
    """A batch whose records are all gone still tells sequences and offsets; it is never compressed."""
    batch = encode_batch(
        keys=[],
        values=[],
        timestamps_ms=[],
        base_offset=10,
        last_offset_delta=4,
        max_timestamp_ms=77,
        producer_id=5,
        producer_epoch=1,
        base_sequence=20,
        compression=Compression.ZSTD,
    )
    header = decode_batch_header(batch)
    assert (len(batch), header.record_count, header.compression) == (HEADER_BYTES, 0, Compression.NONE)
    assert (header.next_offset, header.last_sequence) == (15, 24)
    assert (header.base_timestamp_ms, header.max_timestamp_ms) == (-1, 77)
    assert len(decode_records(batch)) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"keys": [None]}, id="columns of different lengths"),
        pytest.param({"headers": [()]}, id="headers for some records only"),
        pytest.param({"offset_deltas": [0]}, id="deltas for some records only"),
        pytest.param({"keys": [], "values": [], "timestamps_ms": []}, id="empty without a last offset"),
        pytest.param({"timestamps_ms": [-2, 5]}, id="negative base timestamp"),
        pytest.param({"last_offset_delta": -1}, id="negative last offset delta"),
        pytest.param({"base_offset": 2**63}, id="base offset of 65 bits"),
        pytest.param({"producer_epoch": 2**15}, id="producer epoch of 17 bits"),
        pytest.param({"keys": ["a", "b"]}, id="str keys"),
        pytest.param({"compression": Compression.ZSTD, "level": 99}, id="level that zstd lacks"),
    ],
)
def test_batch_that_cannot_be_written_is_refused(arguments: dict[str, object]) -> None:
    """The caller's mistake, said before a byte leaves."""
    good: dict[str, object] = {"keys": [b"a", b"b"], "values": [b"1", b"2"], "timestamps_ms": [0, 5]}
    with pytest.raises(LocalProtocolError):
        encode_batch(**(good | arguments))  # type: ignore[arg-type]  # wrong on purpose


def test_header_keys_of_other_bytes_survive() -> None:
    """Kafka does not check that header keys are UTF-8; neither may a compaction change them."""
    batch = encode_batch(keys=[None], values=[None], timestamps_ms=[0], headers=[(("\udcff\udcfe", b""),)])
    assert b"\xff\xfe" in batch
    columns = decode_records(batch)
    assert encode_batch(keys=[None], values=[None], timestamps_ms=[0], headers=columns.headers) == batch


@pytest.mark.parametrize("control_type", [ControlType.ABORT, ControlType.COMMIT])
def test_transaction_marker_round_trips(control_type: ControlType) -> None:
    """A transactional control batch of one record with the coordinator's epoch."""
    value = encode_end_transaction_marker(coordinator_epoch=6)
    batch = encode_control_batch(
        control_type, value, timestamp_ms=8, base_offset=30, leader_epoch=2, producer_id=77, producer_epoch=4
    )
    header = decode_batch_header(batch)
    assert (header.is_control, header.is_transactional, header.base_sequence) == (True, True, -1)
    assert (header.producer_id, header.producer_epoch, header.leader_epoch) == (77, 4, 2)
    (record,) = decode_records(batch).rows()
    assert decode_control_key(record.key) == ControlKey(version=0, type=control_type)
    assert decode_end_transaction_marker(record.value) == EndTransactionMarker(version=0, coordinator_epoch=6)


def test_quorum_control_batch_is_not_transactional() -> None:
    """LEADER_CHANGE and its kin belong to no producer."""
    header = decode_batch_header(encode_control_batch(ControlType.LEADER_CHANGE, b"message", timestamp_ms=1))
    assert (header.is_control, header.is_transactional, header.producer_id) == (True, False, -1)


def test_unknown_control_type_is_read_as_unknown() -> None:
    """A later release's control record is skipped, not refused; longer keys are read by what is known of them."""
    assert decode_control_key(b"\0\0\0\x63") == ControlKey(0, ControlType.UNKNOWN)
    assert decode_control_key(b"\0\0\xff\xff") == ControlKey(0, ControlType.UNKNOWN)
    assert decode_control_key(encode_control_key(ControlType.COMMIT, version=1) + b"more") == ControlKey(
        1, ControlType.COMMIT
    )


@pytest.mark.parametrize("key", [None, b"", b"\0\0\0", b"\xff\xff\0\0"])
def test_malformed_control_key_is_corrupt(key: bytes | None) -> None:
    """Missing, short, or of a negative version."""
    with pytest.raises(CorruptBatch):
        decode_control_key(key)


@pytest.mark.parametrize("value", [None, b"\0\0\0\0\0", b"\xff\xff\0\0\0\0"])
def test_malformed_transaction_marker_is_corrupt(value: bytes | None) -> None:
    """Missing, short, or of a negative version."""
    with pytest.raises(CorruptBatch):
        decode_end_transaction_marker(value)
