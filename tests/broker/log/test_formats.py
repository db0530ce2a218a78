"""The small files, byte for byte, and the structures behind them."""

from __future__ import annotations

import uuid

import hypothesis.strategies as st
import pytest
from hypothesis import given

from streamlog.broker.log.checkpoint import (
    DamagedCheckpoint,
    decode_epochs,
    decode_meta_properties,
    decode_offsets,
    decode_partition_metadata,
    encode_epochs,
    encode_meta_properties,
    encode_offsets,
    encode_partition_metadata,
)
from streamlog.broker.log.epochs import EpochCache
from streamlog.broker.log.offset_index import OffsetIndex
from streamlog.broker.log.time_index import TimeIndex
from streamlog.broker.log.transaction_index import AbortedTransaction, decode_aborted

TOPIC_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_checkpoint_files_are_kafkas_text() -> None:
    """Version, count, entries; sorted, so that equal maps give equal files."""
    offsets = {("orders", 1): 7, ("a.b", 0): 2**40}
    assert encode_offsets(offsets) == b"0\n2\na.b 0 1099511627776\norders 1 7\n"
    assert decode_offsets(encode_offsets(offsets)) == offsets
    assert decode_offsets(b"") == {}
    assert encode_epochs([(0, 0), (3, 10)]) == b"0\n2\n0 0\n3 10\n"
    assert encode_partition_metadata(TOPIC_ID) == b"version: 0\ntopic_id: ABEiM0RVZneImaq7zN3u_w"
    assert decode_partition_metadata(encode_partition_metadata(TOPIC_ID)) == TOPIC_ID
    properties = decode_meta_properties(encode_meta_properties(cluster_id="c", node_id=3, directory_id=TOPIC_ID))
    assert properties["directory.id"] == "ABEiM0RVZneImaq7zN3u_w"


@pytest.mark.parametrize("data", [b"1\n0\n", b"0\n", b"0\n2\na 0 1\n", b"0\n1\na 0\n", b"0\n1\na 0 x\n", b"\xff\n0\n"])
def test_damaged_checkpoints_do_not_parse(data: bytes) -> None:
    """Another version, no count, a wrong count, missing fields, no number, no text."""
    with pytest.raises(DamagedCheckpoint):
        decode_offsets(data)


def test_epochs_that_do_not_rise_do_not_parse() -> None:
    """Neither column may go back."""
    for data in (b"0\n2\n3 10\n2 20\n", b"0\n2\n3 10\n4 5\n"):
        with pytest.raises(DamagedCheckpoint):
            decode_epochs(data)


BATCHES = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 500), st.integers(-1, 1000)), max_size=40)


@given(batches=BATCHES, asked=st.integers(90, 2200))
def test_offset_index_finds_the_last_entry_not_above(batches: list[tuple[int, int, int]], asked: int) -> None:
    """By offset and by position, before and after a round trip through the file."""
    index = OffsetIndex(100)
    entries: list[tuple[int, int]] = []
    offset, position = 99, 0
    for count, size_bytes, _ in batches:
        offset += count
        index.append(offset, position)
        entries.append((offset, position))
        position += size_bytes
    copy = OffsetIndex.decode(100, index.encode_from(0), position + 1)
    assert copy is not None
    for current in (index, copy):
        assert current.floor(asked) == max((entry for entry in entries if entry[0] <= asked), default=None)
        assert current.floor_position(asked) == max((at for _, at in entries if at <= asked), default=0)
    assert OffsetIndex.decode(100, index.encode_from(0)[:-1], position + 1) is None or not entries
    if entries:
        assert OffsetIndex.decode(100, index.encode_from(0), entries[-1][1]) is None


@given(batches=BATCHES, asked=st.integers(-5, 1010), cut=st.integers(95, 2200))
def test_time_index_never_skips_a_record_that_is_new_enough(
    batches: list[tuple[int, int, int]], asked: int, cut: int
) -> None:
    """Where a search starts, nothing before is as new as the asked timestamp; also after a cut."""
    index = TimeIndex(100)
    offset, newest_ms, newest_offset = 99, -1, 100
    times: list[tuple[int, int]] = []
    for count, _, timestamp_ms in batches:
        offset += count
        times.append((offset, timestamp_ms))
        if timestamp_ms > newest_ms:
            newest_ms, newest_offset = timestamp_ms, offset
        index.maybe_append(newest_ms, newest_offset)
    copy = TimeIndex.decode(100, index.encode_from(0))
    assert copy is not None
    for current in (index, copy):
        start = (current.floor(asked) or (0, 0))[1]
        assert all(timestamp_ms < asked for at, timestamp_ms in times if at <= start)
        assert current.last()[0] == newest_ms
        current.truncate_to_offset(cut)
        assert all(current.entry(number)[1] < cut for number in range(len(current)))


def test_transaction_index_is_34_bytes_an_entry() -> None:
    """And one that cannot belong to the segment is damaged."""
    entry = AbortedTransaction(7, 5, 12, 13)
    assert entry.encode().hex() == "0000" + "".join(f"{number:016x}" for number in entry)
    assert decode_aborted(entry.encode(), 10, 20) == [entry]
    for base_offset, end_offset in ((13, 20), (10, 12)):
        assert decode_aborted(entry.encode(), base_offset, end_offset) is None
    assert decode_aborted(entry.encode()[:-1], 10, 20) is None
    assert decode_aborted(entry.encode() * 2, 10, 20) is None


def test_epoch_answers_lead_followers_to_the_common_prefix() -> None:
    """KIP-101: latest, past, skipped, older than all, newer than all."""
    epochs = EpochCache([(2, 10), (4, 20), (5, 20)])
    assert epochs.entries() == [(2, 10), (5, 20)], "an epoch that wrote nothing is replaced by the next one"
    assert epochs.end_offset_for(5, 99) == (5, 99)
    assert epochs.end_offset_for(3, 99) == (2, 20)
    assert epochs.end_offset_for(2, 99) == (2, 20)
    assert epochs.end_offset_for(1, 99) == (1, 10)
    assert epochs.end_offset_for(6, 99) == (-1, -1)
    assert epochs.end_offset_for(-1, 99) == (-1, -1)
    assert [epochs.epoch_at(offset) for offset in (9, 10, 19, 20)] == [-1, 2, 2, 5]
    epochs.truncate_from_end(20)
    epochs.truncate_from_start(15)
    assert (epochs.entries(), epochs.latest) == ([(2, 15)], 2)
