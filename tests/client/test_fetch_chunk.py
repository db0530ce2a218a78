"""What a fetch brought: decoded once, cut where asked, gaps stepped over."""

from __future__ import annotations

import pytest

from streamlog.client.fetch_chunk import Chunk
from streamlog.errors import RemoteProtocolError
from streamlog.wire.messages.fetch import AbortedTransaction
from streamlog.wire.records import Compression, ControlType, encode_batch, encode_control_batch


def batch(base_offset: int, count: int, *, producer_id: int = -1, compression: Compression = Compression.NONE) -> bytes:
    return bytes(
        encode_batch(
            keys=[None] * count,
            values=[b"%d" % (base_offset + index) for index in range(count)],
            timestamps_ms=[1_000] * count,
            base_offset=base_offset,
            producer_id=producer_id,
            producer_epoch=0 if producer_id >= 0 else -1,
            base_sequence=0 if producer_id >= 0 else -1,
            is_transactional=producer_id >= 0,
            compression=compression,
            leader_epoch=4,
        )
    )


def marker(offset: int, producer_id: int, kind: ControlType) -> bytes:
    return bytes(
        encode_control_batch(
            kind, bytes(6), timestamp_ms=1_000, base_offset=offset, producer_id=producer_id, producer_epoch=0
        )
    )


def take_all(chunk: Chunk) -> list[int]:
    columns, next_offset = chunk.take(None)
    assert next_offset == chunk.end_offset
    assert chunk.used_up
    return columns.offsets


@pytest.mark.parametrize("compression", list(Compression))
def test_batches_are_joined_and_the_part_before_the_offset_is_dropped(compression: Compression) -> None:
    """A fetch from the middle of a batch brings all of it; what was read before does not come again."""
    data = batch(0, 10, compression=compression) + batch(10, 5, compression=compression)
    chunk = Chunk(memoryview(data), 7, None)
    assert (chunk.start_offset, chunk.end_offset, chunk.leader_epoch) == (7, 15, 4)
    assert take_all(chunk) == list(range(7, 15))


def test_a_chunk_is_cut_where_the_caller_wants() -> None:
    """Each part ends behind its last record, the last one at the end of the chunk."""
    chunk = Chunk(memoryview(batch(0, 5) + batch(8, 2)), 0, None)
    parts = []
    while not chunk.used_up:
        columns, next_offset = chunk.take(3)
        parts.append((columns.offsets, next_offset))
    assert parts == [([0, 1, 2], 3), ([3, 4, 8], 9), ([9], 10)]


def test_a_torn_last_batch_is_left_for_the_next_fetch() -> None:
    """Brokers cut answers at a size; the chunk ends behind the last whole batch."""
    chunk = Chunk(memoryview((batch(0, 3) + batch(3, 3))[:-1]), 0, None)
    assert chunk.end_offset == 3


def test_aborted_transactions_are_left_out_up_to_their_marker() -> None:
    """Two producers interleave; the one that aborted is void until its marker, not before and not after."""
    data = (
        batch(0, 2, producer_id=1)
        + batch(2, 2, producer_id=2)
        + marker(4, 1, ControlType.ABORT)
        + batch(5, 1, producer_id=1)
        + marker(6, 2, ControlType.COMMIT)
        + marker(7, 1, ControlType.COMMIT)
    )
    aborted = [AbortedTransaction(producer_id=1, first_offset=0)]
    assert take_all(Chunk(memoryview(data), 0, aborted)) == [2, 3, 5]
    assert take_all(Chunk(memoryview(data), 0, None)) == [0, 1, 2, 3, 5]


def test_a_chunk_of_markers_has_no_records_and_still_an_end() -> None:
    """The position has to pass them, or a restore never ends."""
    chunk = Chunk(memoryview(marker(41, 1, ControlType.COMMIT)), 41, [])
    columns, next_offset = chunk.take(10)
    assert (len(columns), next_offset) == (0, 42)
    assert chunk.used_up


def test_damage_is_noticed_when_records_are_taken() -> None:
    """A flipped bit does not reach the application."""
    data = bytearray(batch(0, 3))
    data[-2] ^= 1
    chunk = Chunk(memoryview(data), 0, None)
    with pytest.raises(RemoteProtocolError, match="checksum"):
        chunk.take(None)


@pytest.mark.parametrize("data", [b"garbage", batch(0, 3)[:-1], batch(0, 3)])
def test_an_answer_without_a_whole_batch_at_the_offset_is_refused(data: bytes) -> None:
    """Else the same fetch would be sent for ever."""
    with pytest.raises(RemoteProtocolError):
        Chunk(memoryview(data), 3, None)
