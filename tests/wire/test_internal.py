"""Records of Kafka's own topics and files, with the bytes around them."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.internal.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    TopicPartition,
)
from streamlog.wire.internal.control import ControlType, EndTxnMarker, decode_control_key, encode_control_key
from streamlog.wire.internal.framing import (
    decode_coordinator_key,
    decode_coordinator_value,
    decode_metadata_record,
    decode_versioned,
    encode_coordinator_key,
    encode_metadata_record,
    encode_versioned,
)
from streamlog.wire.internal.group import GROUP_RECORDS, GroupMetadataKey, OffsetCommitKey, OffsetCommitValue
from streamlog.wire.internal.metadata import METADATA_RECORDS, NoOpRecord, TopicRecord
from streamlog.wire.internal.quorum_state import QuorumState, Voter, decode_quorum_state, encode_quorum_state
from streamlog.wire.uuids import METADATA_TOPIC_ID, uuid_from_text, uuid_to_text

TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_committed_offset_in_bytes() -> None:
    """Type 1 and the key, version 3 and the value: what console tools print from __consumer_offsets."""
    key = OffsetCommitKey(group="g", topic="t", partition=2)
    value = OffsetCommitValue(offset=5, leader_epoch=1, metadata="", commit_timestamp=1000)
    assert encode_coordinator_key(key).hex(" ") == "00 01 00 01 67 00 01 74 00 00 00 02"
    assert encode_versioned(value, 3).hex(" ") == (
        "00 03 00 00 00 00 00 00 00 05 00 00 00 01 00 00 00 00 00 00 00 00 03 e8"
    )


def test_coordinator_records_come_back() -> None:
    """The key's type leads to both classes, the value's version to its fields."""
    key = OffsetCommitKey(group="g", topic="t", partition=2)
    for version in range(5):
        value = OffsetCommitValue(offset=5, metadata="m", commit_timestamp=1000)
        assert decode_coordinator_key(GROUP_RECORDS, encode_coordinator_key(key)) == key
        assert decode_coordinator_value(GROUP_RECORDS, key, encode_versioned(value, version)) == value


def test_keys_of_unknown_type_are_told_from_damaged_ones() -> None:
    """A newer broker's record is skipped, a damaged one is not."""
    assert decode_coordinator_key(GROUP_RECORDS, b"\x03\xe7anything") is None
    for damaged in (b"", b"\x00", b"\x00\x01\x00\x05ab", encode_coordinator_key(GroupMetadataKey(group="g")) + b"x"):
        with pytest.raises(RemoteProtocolError):
            decode_coordinator_key(GROUP_RECORDS, damaged)


def test_values_of_unknown_version_are_refused() -> None:
    """KIP-915: a version that we do not know may have any shape."""
    with pytest.raises(RemoteProtocolError, match="OffsetCommitValue has no version 5"):
        decode_coordinator_value(GROUP_RECORDS, OffsetCommitKey(), b"\x00\x05" + bytes(30))


def test_metadata_record_in_bytes() -> None:
    """Frame version 1, type 2, version 0, then the body."""
    record = TopicRecord(name="t", topic_id=TOPIC_ID)
    data = encode_metadata_record(record, 0)
    assert data.hex(" ") == "01 02 00 02 74 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00"
    assert decode_metadata_record(METADATA_RECORDS, data) == (record, 0)


@pytest.mark.parametrize("record_type", METADATA_RECORDS)
def test_metadata_records_of_every_type_and_version_come_back(record_type: int) -> None:
    """The frame says enough to read the body."""
    kind = METADATA_RECORDS[record_type]
    for version in range(kind.max_version + 1):
        assert decode_metadata_record(METADATA_RECORDS, encode_metadata_record(kind(), version)) == (kind(), version)


@pytest.mark.parametrize(
    "data", ["", "01", "0102", "00020002", "02140000", "01630000", "01140500", "ffffffffffff", "011400"]
)
def test_damaged_metadata_records_are_refused(data: str) -> None:
    """Cut off, other frame versions, unknown types and versions: a node cannot go on without knowing what happened."""
    with pytest.raises(RemoteProtocolError):
        decode_metadata_record(METADATA_RECORDS, bytes.fromhex(data))


@given(st.binary(max_size=40))
def test_any_metadata_record_is_read_or_refused(data: bytes) -> None:
    """Nothing else can happen."""
    try:
        decode_metadata_record(METADATA_RECORDS, data)
    except RemoteProtocolError:
        return


def test_no_op_record_is_four_bytes() -> None:
    """It is written twice a second for ever."""
    assert encode_metadata_record(NoOpRecord(), 0) == b"\x01\x14\x00\x00"


def test_subscription_comes_back() -> None:
    """Version, topics, user data, and what later versions added."""
    subscription = ConsumerProtocolSubscription(
        topics=["a", "b"],
        user_data=b"x",
        owned_partitions=[TopicPartition(topic="a", partitions=[0, 1])],
        generation_id=4,
        rack_id="r",
    )
    assert decode_versioned(ConsumerProtocolSubscription, encode_versioned(subscription, 3)) == subscription
    oldest = decode_versioned(ConsumerProtocolSubscription, encode_versioned(subscription, 0))
    assert oldest == ConsumerProtocolSubscription(topics=["a", "b"], user_data=b"x")


def test_subscription_of_a_later_version_is_read_as_far_as_known() -> None:
    """The consumer protocol promises to add only at the end, so an old member can lead a group of newer ones."""
    subscription = ConsumerProtocolSubscription(topics=["a"], generation_id=4)
    later = b"\x00\x09" + encode_versioned(subscription, 3)[2:] + b"something new"
    assert decode_versioned(ConsumerProtocolSubscription, later) == subscription


def test_assignment_in_bytes() -> None:
    """Version 0 is what every client understands."""
    assignment = ConsumerProtocolAssignment(assigned_partitions=[TopicPartition(topic="t", partitions=[3])])
    assert encode_versioned(assignment, 0).hex(" ") == (
        "00 00 00 00 00 01 00 01 74 00 00 00 01 00 00 00 03 ff ff ff ff"
    )


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff\xff", b"\x00\x00\x00\x00\x00\x05"])
def test_damaged_subscriptions_are_refused(data: bytes) -> None:
    """Members send these bytes through the coordinator unseen."""
    with pytest.raises(RemoteProtocolError):
        decode_versioned(ConsumerProtocolSubscription, data)


def test_end_transaction_marker_in_bytes() -> None:
    """Key: version 0 and type; value: version 0 and the coordinator's epoch."""
    assert encode_control_key(ControlType.COMMIT) == b"\x00\x00\x00\x01"
    assert encode_versioned(EndTxnMarker(coordinator_epoch=7), 0) == b"\x00\x00\x00\x00\x00\x07"


def test_control_keys_are_read() -> None:
    """Unknown types are for readers of the future, damaged keys for nobody."""
    for control_type in ControlType:
        assert decode_control_key(encode_control_key(control_type)) is control_type
    assert decode_control_key(b"\x00\x01\x00\x02later") is ControlType.LEADER_CHANGE
    assert decode_control_key(b"\x00\x00\x00\x63") is None
    for damaged in (b"", b"\x00\x00\x00", b"\xff\xff\x00\x01"):
        with pytest.raises(RemoteProtocolError):
            decode_control_key(damaged)


def test_quorum_state_is_kafkas_line_of_json() -> None:
    """The file of a voter, in both versions."""
    newer = QuorumState(leader_id=1, leader_epoch=7, voted_id=2, voted_directory_id=METADATA_TOPIC_ID)
    assert encode_quorum_state(newer, 1) == (
        b'{"leaderId":1,"leaderEpoch":7,"votedId":2,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAQ","data_version":1}'
    )
    older = QuorumState(leader_id=-1, leader_epoch=7, voted_id=2, current_voters=[Voter(voter_id=2)])
    assert encode_quorum_state(older, 0) == (
        b'{"clusterId":"","leaderId":-1,"leaderEpoch":7,"votedId":2,"appliedOffset":0,'
        b'"currentVoters":[{"voterId":2}],"data_version":0}'
    )
    assert decode_quorum_state(encode_quorum_state(newer, 1)) == (newer, 1)
    assert decode_quorum_state(encode_quorum_state(older, 0)) == (older, 0)


def test_vote_for_a_directory_does_not_fit_the_old_quorum_state() -> None:
    """Forgetting part of a vote would allow a second one."""
    with pytest.raises(LocalProtocolError, match="voted_directory_id"):
        encode_quorum_state(QuorumState(voted_directory_id=TOPIC_ID), 0)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"data_version":2}', b'{"data_version":1,"leaderId":1}', b'{"leaderId":1', b"\xff"]
)
def test_damaged_quorum_state_is_refused(content: bytes) -> None:
    """A voter that has lost its vote must not start."""
    with pytest.raises(RemoteProtocolError):
        decode_quorum_state(content)


def test_uuids_are_written_as_kafka_writes_them() -> None:
    """URL-safe base64 without padding."""
    assert uuid_to_text(TOPIC_ID) == "ABEiM0RVZneImaq7zN3u_w"
    assert uuid_from_text("ABEiM0RVZneImaq7zN3u_w") == TOPIC_ID


@given(st.uuids(allow_nil=True))
def test_uuids_come_back_from_text(uuid: UUID) -> None:
    """Every uuid has one text."""
    assert uuid_from_text(uuid_to_text(uuid)) == uuid


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 23, "A" * 24, "ABEiM0RVZneImaq7zN3u/w", "é" * 22, "=" * 22])
def test_text_that_is_no_uuid_is_refused(text: str) -> None:
    """Too short, too long, other alphabets."""
    with pytest.raises(ValueError, match="uuid"):
        uuid_from_text(text)
