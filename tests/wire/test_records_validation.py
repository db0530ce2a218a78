"""What a broker accepts from a producer, by the rules of Kafka's LogValidator."""

from __future__ import annotations

import tracemalloc

import pytest

from streamlog.wire.records import (
    BatchProblem,
    Compression,
    NeedMoreData,
    encode_batch,
    set_max_timestamp,
    set_max_timestamp_and_append_time,
    validate_records,
)


def good_batch(compression: Compression = Compression.NONE, **changes: object) -> bytearray:
    columns: dict[str, object] = {"keys": [b"a", None], "values": [b"1", b"2"], "timestamps_ms": [10, 20]}
    return encode_batch(**(columns | changes), compression=compression)  # type: ignore[arg-type]


def patched(batch: bytearray, at: int, field: bytes) -> bytearray:
    """The batch with some bytes changed behind the checksum's back, which is then renewed."""
    batch[at : at + len(field)] = field
    set_max_timestamp(batch, 0, int.from_bytes(batch[35:43], "big"))
    return batch


def counted(count: int) -> bytearray:
    """A batch of two records that claims another count."""
    return patched(patched(good_batch(), 23, (count - 1).to_bytes(4, "big")), 57, count.to_bytes(4, "big"))


def kind_of(problem: BatchProblem | None) -> str | None:
    return None if problem is None else problem.kind


@pytest.mark.parametrize("compression", list(Compression))
def test_sound_batch_has_no_problem(compression: Compression) -> None:
    """Nor does an idempotent or transactional one."""
    assert validate_records(good_batch(compression)) is None
    sequenced = good_batch(compression, producer_id=1, producer_epoch=0, base_sequence=0, is_transactional=True)
    assert validate_records(sequenced) is None


@pytest.mark.parametrize(
    ("batch", "kind"),
    [
        pytest.param(patched(good_batch(), 16, b"\x01"), "invalid", id="magic 1"),
        pytest.param(patched(good_batch(), 21, b"\0\x06"), "corrupt", id="unknown compression"),
        pytest.param(patched(good_batch(), 23, b"\0\0\0\x02"), "invalid", id="more offsets than records"),
        pytest.param(patched(good_batch(), 23, b"\xff\xff\xff\xff"), "invalid", id="negative last offset delta"),
        pytest.param(patched(good_batch(), 57, b"\0\0\0\0"), "invalid", id="no records"),
        pytest.param(
            patched(patched(good_batch(), 23, b"\0\0\0\0"), 57, b"\0\0\0\x01"), "invalid", id="bytes left over"
        ),
        pytest.param(
            patched(patched(good_batch(), 23, b"\0\0\0\x02"), 57, b"\0\0\0\x03"), "invalid", id="a record short"
        ),
        pytest.param(good_batch(is_control=True), "invalid", id="control bit"),
        pytest.param(good_batch(producer_id=1, producer_epoch=0), "invalid", id="producer without sequence"),
        pytest.param(good_batch(is_transactional=True), "invalid", id="transaction without producer"),
        pytest.param(good_batch(offset_deltas=[1, 0], last_offset_delta=1), "invalid", id="offsets out of order"),
        pytest.param(good_batch(offset_deltas=[0, 0], last_offset_delta=1), "invalid", id="offset twice"),
        pytest.param(good_batch(log_append_time=True), "timestamp", id="log append time bit"),
    ],
)
def test_bad_batch_is_named(batch: bytearray, kind: str) -> None:
    """Each rule has its answer."""
    assert kind_of(validate_records(batch)) == kind


def test_checksum_is_judged_before_everything_behind_it() -> None:
    """Damaged bytes are CORRUPT_MESSAGE, which a producer retries, whatever they seem to say."""
    batch = good_batch(is_control=True)
    batch[-1] ^= 1
    assert kind_of(validate_records(batch)) == "corrupt"
    assert kind_of(validate_records(batch, verify=False)) == "invalid"


def test_damaged_compressed_records_are_invalid() -> None:
    """The checksum is right, the payload is not what its compression says."""
    batch = good_batch(Compression.LZ4)
    assert kind_of(validate_records(patched(batch, 61, b"\0"))) == "invalid"


def test_bomb_is_too_large() -> None:
    """A payload past the cap is told from one that cannot be read: a reader with another cap may take it."""
    batch = encode_batch(keys=[b"k"], values=[bytes(10_000)], timestamps_ms=[0], compression=Compression.ZSTD)
    assert validate_records(batch, decompressed_bytes_max=11_000) is None
    assert kind_of(validate_records(batch, decompressed_bytes_max=9_000)) == "too_large"


def test_compacted_topic_needs_keys() -> None:
    """The answer lists which records have none."""
    problem = validate_records(good_batch(), keys_required=True)
    assert problem is not None
    assert (problem.kind, problem.record_indexes) == ("null_key", (1,))
    assert validate_records(good_batch(keys=[b"a", b"b"]), keys_required=True) is None


def test_timestamps_have_bounds() -> None:
    """The answer lists which records are outside; -1 means that a record has none, and passes."""
    batch = good_batch(keys=[b"a"] * 4, values=[None] * 4, timestamps_ms=[10, -1, 31, 9])
    problem = validate_records(batch, timestamp_ms_min=10, timestamp_ms_max=30)
    assert problem is not None
    assert (problem.kind, problem.record_indexes) == ("timestamp", (2, 3))
    assert validate_records(batch, timestamp_ms_min=9, timestamp_ms_max=31) is None
    assert validate_records(batch, timestamp_ms_min=9) is None


def test_many_bad_records_are_named_up_to_a_hundred() -> None:
    """No answer is larger than its question."""
    batch = good_batch(keys=[None] * 500, values=[None] * 500, timestamps_ms=[0] * 500)
    problem = validate_records(batch, keys_required=True)
    assert problem is not None
    assert problem.record_indexes == tuple(range(100))


def test_validation_makes_no_object_per_record() -> None:
    """A compressed batch of very many empty records costs its decompressed bytes, not fifteen times as much."""
    count = 100_000
    batch = good_batch(
        Compression.ZSTD,
        keys=[None] * count,
        values=[None] * count,
        timestamps_ms=[0] * count,
        last_offset_delta=count - 1,
    )
    tracemalloc.start()
    try:
        assert validate_records(batch) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * 10 * count
    finally:
        tracemalloc.stop()


def test_batch_behind_others_is_found() -> None:
    """The position is honoured, and a batch that is not all there is not judged."""
    batch = good_batch()
    assert validate_records(batch + batch, len(batch)) is None
    with pytest.raises(NeedMoreData):
        validate_records(batch[:-1])


def test_stamped_batch_is_no_longer_a_producers() -> None:
    """What the broker itself wrote does not pass as a client's."""
    batch = good_batch()
    set_max_timestamp_and_append_time(batch, 0, 5)
    assert kind_of(validate_records(batch)) == "timestamp"


def test_limits_beyond_64_bits_are_no_limits() -> None:
    """message.timestamp.after.max.ms may be 2^63 - 1, which now plus it exceeds."""
    assert validate_records(good_batch(), timestamp_ms_min=-(2**63) - 5, timestamp_ms_max=2**63 + 5) is None
