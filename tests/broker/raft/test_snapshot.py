"""Snapshots of the metadata log: whole or not at all."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.broker.raft.messages import SnapshotId
from streamlog.broker.raft.snapshot import (
    BATCH_BYTES,
    DamagedSnapshot,
    decode_snapshot,
    encode_snapshot,
    parse_name,
)
from streamlog.wire.internal.voters import Voter, VotersRecord

VOTERS = VotersRecord(voters=[Voter(voter_id=1, voter_directory_id=UUID(int=7))])


def new_snapshot(*values: bytes) -> bytes:
    return encode_snapshot(values, epoch=3, voters=VOTERS, last_timestamp_ms=5, now_ms=9)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_snapshot_gives_back_what_went_in(count: int) -> None:
    """Values, voters, timestamp."""
    values = [b"record %d" % number for number in range(count)]
    found = decode_snapshot(new_snapshot(*values))
    assert (found.values, found.voters, found.last_timestamp_ms) == (values, VOTERS, 5)


def test_a_large_snapshot_has_several_batches() -> None:
    """So that a reader needs little memory at a time."""
    values = [bytes(BATCH_BYTES // 4)] * 10
    assert decode_snapshot(new_snapshot(*values)).values == values


def test_a_snapshot_cut_anywhere_is_damaged() -> None:
    """Without its last byte the footer is not whole."""
    data = new_snapshot(b"a", b"b")
    for cut in range(len(data)):
        with pytest.raises(DamagedSnapshot):
            decode_snapshot(data[:cut])
    with pytest.raises(DamagedSnapshot):
        decode_snapshot(data + b"x")


def test_a_flipped_bit_is_damage_or_changes_nothing() -> None:
    """Everything that counts is covered by a checksum; offsets and epochs in front of it mean nothing in a snapshot."""
    data = new_snapshot(b"a")
    whole = decode_snapshot(data)
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0x10
        try:
            assert decode_snapshot(broken) == whole
        except DamagedSnapshot:
            continue


def test_names_sort_as_their_offsets() -> None:
    """Kafka's file names."""
    name = SnapshotId(27, 3).file_name
    assert name == "00000000000000000027-0000000003.checkpoint"
    assert parse_name(name) == (27, 3)
    assert parse_name("00000000000000000027.log") is None
