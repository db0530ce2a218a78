"""The records of `__consumer_offsets` are Kafka's, byte by byte; all older versions are read."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.broker.coordinator.group.record_codec import decode, encode
from streamlog.broker.coordinator.group.records import (
    GroupForgotten,
    GroupRecord,
    GroupStored,
    MemberStored,
    OffsetCommitted,
    OffsetForgotten,
)
from streamlog.errors import RemoteProtocolError
from streamlog.wire.internal.framing import encode_versioned
from streamlog.wire.internal.group import GroupMetadataValue, MemberMetadata, OffsetCommitValue

NAMES = st.text(max_size=20)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(0, 2**63 - 1)
OFFSETS = st.builds(
    OffsetCommitted,
    group_id=NAMES,
    topic=NAMES,
    partition=INT32,
    offset=INT64,
    leader_epoch=INT32,
    metadata=NAMES,
    committed_at_ms=INT64,
    topic_id=st.uuids(),
)
MEMBERS = st.builds(
    MemberStored,
    member_id=NAMES,
    group_instance_id=st.none() | NAMES,
    client_id=NAMES,
    client_host=NAMES,
    rebalance_timeout_ms=st.integers(0, 2**31 - 1),
    session_timeout_ms=INT32,
    subscription=st.binary(max_size=20),
    assignment=st.binary(max_size=20),
)
GROUPS = st.builds(
    GroupStored,
    group_id=NAMES,
    generation_id=INT32,
    protocol_type=st.none() | st.text(min_size=1, max_size=20),
    protocol_name=st.none() | NAMES,
    leader_id=st.none() | NAMES,
    state_changed_at_ms=st.none() | TIMES,
    members=st.lists(MEMBERS, max_size=3).map(tuple),
)
RECORDS = st.one_of(
    OFFSETS, st.builds(OffsetForgotten, NAMES, NAMES, INT32), GROUPS, st.builds(GroupForgotten, group_id=NAMES)
)


@given(RECORDS)
def test_what_was_written_is_read(record: GroupRecord) -> None:
    """Every field survives."""
    assert decode(*encode(record)) == record


def test_an_offset_looks_as_kafka_writes_it() -> None:
    """Key version 1, value version 4 with the topic id as a tagged field."""
    record = OffsetCommitted("g", "t", 3, 42, 7, "m", 1_000, topic_id=UUID(int=1))
    key, value = encode(record)
    assert key == b"\0\1" + b"\0\1g" + b"\0\1t" + b"\0\0\0\3"
    assert value == (
        b"\0\4" + (42).to_bytes(8, "big") + (7).to_bytes(4, "big") + b"\2m" + (1_000).to_bytes(8, "big")
        + b"\1\0\x10" + UUID(int=1).bytes
    )  # fmt: skip


def test_a_commit_with_its_own_expiry_is_written_in_the_version_that_has_one() -> None:
    """Version 1, at the price of the leader epoch."""
    record = OffsetCommitted("g", "t", 3, 42, -1, "m", 1_000, expires_at_ms=2_000)
    key, value = encode(record)
    assert value is not None
    assert value[:2] == b"\0\1"
    assert decode(key, value) == record


@pytest.mark.parametrize("version", range(5))
def test_offsets_of_all_versions_are_read(version: int) -> None:
    """Version 1 alone carries an expiry."""
    key, _ = encode(OffsetForgotten("g", "t", 3))
    value = OffsetCommitValue(offset=42, metadata="m", commit_timestamp=1_000)
    if version == 1:
        value.expire_timestamp = 2_000
    read = decode(key, encode_versioned(value, version))
    assert read == OffsetCommitted("g", "t", 3, 42, -1, "m", 1_000, 2_000 if version == 1 else None)


def test_offsets_of_the_oldest_brokers_are_read() -> None:
    """Key version 0."""
    key, _ = encode(OffsetForgotten("g", "t", 3))
    value = b"\0\0" + (42).to_bytes(8, "big") + b"\0\1m" + (1_000).to_bytes(8, "big")
    assert decode(b"\0\0" + key[2:], value) == OffsetCommitted("g", "t", 3, 42, -1, "m", 1_000)
    assert decode(b"\0\0" + key[2:], None) == OffsetForgotten("g", "t", 3)


@pytest.mark.parametrize("version", range(5))
def test_groups_of_all_versions_are_read(version: int) -> None:
    """What a version lacks has its meaning of the time: one timeout for both, no timestamp, no instance."""
    key, _ = encode(GroupForgotten("g"))
    member = MemberMetadata(member_id="a", client_id="c", client_host="/h", session_timeout=5, subscription=b"s")
    if version >= 1:
        member.rebalance_timeout = 6
    value = GroupMetadataValue(protocol_type="consumer", generation=2, protocol="range", leader="a", members=[member])
    read = decode(key, encode_versioned(value, version))
    assert isinstance(read, GroupStored)
    assert read.members == (MemberStored("a", None, "c", "/h", 6 if version else 5, 5, b"s", b""),)
    assert read.state_changed_at_ms is None


def test_records_of_other_groups_are_stepped_over() -> None:
    """KIP-848 and later kinds of groups share the topic."""
    assert decode(b"\0\3\0\1g", b"\0\0\0\0\0\1\0") is None
    assert decode(b"\x7f\xff", b"") is None


@pytest.mark.parametrize(("key", "value"), [(b"", b""), (b"\0\1\0\5g", b""), (b"\0\2\0\1g", b"\0\x63")])
def test_what_does_not_parse_is_said_to(key: bytes, value: bytes) -> None:
    """A damaged record must not become a forgotten offset."""
    with pytest.raises(RemoteProtocolError):
        decode(key, value)
