"""What a message can be told to do, and what it says when it cannot."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.compiler import source_of
from streamlog.wire.internal.metadata import TopicRecord
from streamlog.wire.messages import (
    DeleteTopicsRequest,
    DescribeGroupsRequest,
    FetchRequest,
    FetchResponse,
    HeartbeatRequest,
    JoinGroupRequest,
    MetadataRequest,
    ProduceRequest,
    ProduceResponse,
)
from streamlog.wire.messages.delete_topics import DeleteTopicState
from streamlog.wire.messages.fetch import (
    EpochEndOffset,
    FetchableTopicResponse,
    FetchPartition,
    FetchTopic,
    PartitionData,
)
from streamlog.wire.messages.produce import (
    LeaderIdAndEpoch,
    PartitionProduceData,
    PartitionProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def produce(records: bytes | bytearray | memoryview) -> ProduceRequest:
    partition = PartitionProduceData(index=7, records=records)
    topic = TopicProduceData(name="t", topic_id=TOPIC_ID, partition_data=[partition])
    return ProduceRequest(acks=-1, timeout_ms=1500, topic_data=[topic])


def test_produce_v3_in_bytes() -> None:
    """The old encoding: two-byte lengths of strings, four-byte ones of arrays and records."""
    assert produce(b"batch").encode(3).hex(" ") == (
        "ff ff ff ff 00 00 05 dc 00 00 00 01 00 01 74 00 00 00 01 00 00 00 07 00 00 00 05 62 61 74 63 68"
    )


def test_produce_v13_in_bytes() -> None:
    """The compact encoding: lengths are varints and one more, tagged sections end structs, ids replace names."""
    assert produce(b"batch").encode(13).hex(" ") == (
        "00 ff ff 00 00 05 dc 02 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff "
        "02 00 00 00 07 06 62 61 74 63 68 00 00 00"
    )


def test_tagged_struct_in_bytes() -> None:
    """A tagged section: how many, then tag, size and content of each."""
    partition = PartitionProduceResponse(
        index=1, error_code=6, base_offset=-1, current_leader=LeaderIdAndEpoch(leader_id=2, leader_epoch=3)
    )
    response = ProduceResponse(responses=[TopicProduceResponse(name="t", partition_responses=[partition])])
    assert response.encode(10).hex(" ") == (
        "02 02 74 02 00 00 00 01 00 06 ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff 01 00 "
        "01 00 09 00 00 00 02 00 00 00 03 00 00 00 00 00 00 00"
    )


def test_records_are_not_copied() -> None:
    """The buffer that goes in is the buffer that comes out, and what is decoded is a view of the frame."""
    records = memoryview(bytearray(b"x" * 1000))
    for version in (3, 13):
        parts = produce(records).encode_parts(version)
        assert parts[1] is records
        frame = b"".join(parts)
        decoded = ProduceRequest.decode(frame, version).topic_data[0].partition_data[0].records
        assert isinstance(decoded, memoryview)
        assert decoded.obj is frame


def test_records_of_several_partitions_stay_apart() -> None:
    """Each buffer of records is a part of its own, empty and missing ones are not."""
    partitions = [PartitionData(partition_index=i, records=r) for i, r in enumerate([b"one", None, b"", b"two"])]
    response = FetchResponse(responses=[FetchableTopicResponse(topic_id=TOPIC_ID, partitions=partitions)])
    parts = response.encode_parts(16)
    assert [bytes(part) for part in parts[1::2]] == [b"one", b"two"]
    decoded = FetchResponse.decode(b"".join(parts), 16).responses[0].partitions
    assert [None if p.records is None else bytes(p.records) for p in decoded] == [b"one", None, b"", b"two"]


def test_ignorable_field_is_dropped_where_the_version_lacks_it() -> None:
    """rack_id is new in version 11 and says so little that older brokers need not hear it."""
    request = FetchRequest(rack_id="r1")
    assert FetchRequest.decode(request.encode(11), 11).rack_id == "r1"
    assert FetchRequest.decode(request.encode(10), 10).rack_id == ""


def test_other_field_is_refused_where_the_version_lacks_it() -> None:
    """A value that would be lost is an error that names field and version."""
    request = DescribeGroupsRequest(include_authorized_operations=True)
    with pytest.raises(
        LocalProtocolError, match=r"include_authorized_operations = True .* version 2 has no such field"
    ):
        request.encode(2)
    assert DescribeGroupsRequest().encode(2) == b"\0\0\0\0"


def test_field_is_refused_deep_inside() -> None:
    """The path leads to the element."""
    partitions = [FetchPartition(), FetchPartition(last_fetched_epoch=3)]
    request = FetchRequest(topics=[FetchTopic(topic="t", partitions=partitions)])
    with pytest.raises(LocalProtocolError, match=r"FetchRequest\.topics\[0\]\.partitions\[1\]\.last_fetched_epoch = 3"):
        request.encode(11)


def test_null_is_refused_where_the_version_cannot_say_it() -> None:
    """Before version 1, Metadata has no way to ask for all topics but an empty list."""
    assert MetadataRequest(topics=None).encode(1) == b"\xff\xff\xff\xff"
    with pytest.raises(LocalProtocolError, match=r"topics is None, and version 0 cannot say null"):
        MetadataRequest(topics=None).encode(0)


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (HeartbeatRequest(generation_id=1 << 31), r"generation_id = 2147483648 is not of type int32"),
        (HeartbeatRequest(group_id="g" * 32768), r"group_id is 32768 bytes of UTF-8; a string has at most 32767"),
        (HeartbeatRequest(member_id="\ud800"), r"member_id holds a lone surrogate"),
        (HeartbeatRequest(member_id=b"m"), r"member_id is bytes, not str"),  # type: ignore[arg-type]
        (HeartbeatRequest(generation_id=None), r"generation_id is None"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("version", [0, 4])
def test_values_that_do_not_fit_are_named(request_: HeartbeatRequest, what: str, version: int) -> None:
    """Too large, too long, not text, not there: the message says which field."""
    with pytest.raises(LocalProtocolError, match=what):
        request_.encode(version)


def test_longest_string_passes() -> None:
    """32767 bytes are the limit in both encodings, not one past it."""
    request = HeartbeatRequest(group_id="g" * 32767)
    for version in (0, 4):
        assert HeartbeatRequest.decode(request.encode(version), version) == request


def test_versions_outside_the_range_are_refused() -> None:
    """Kafka 4 dropped the oldest versions; the newest are not guessed."""
    for version in (2, 14, -1):
        with pytest.raises(LocalProtocolError, match="ProduceRequest has versions 3 to 13"):
            ProduceRequest().encode(version)
        with pytest.raises(LocalProtocolError, match="ProduceRequest has versions 3 to 13"):
            ProduceRequest.decode(b"", version)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", r"group_id needs 2 bytes; 0 are left"),
        (b"\x00\x05abc", r"group_id needs 5 bytes; 3 are left"),
        (b"\xff\xff", r"group_id is null"),
        (b"\xff\xfe", r"group_id has length -2"),
        (b"\x00\x01\xff\x00\x00\x00\x00", r"group_id is not UTF-8"),
        (b"\x00\x01a\x00\x00", r"generation_id needs 4 bytes; 2 are left"),
    ],
)
def test_malformed_bytes_are_refused_by_name(data: bytes, what: str) -> None:
    """Whoever reads the log of a broker can see what the client got wrong."""
    with pytest.raises(RemoteProtocolError, match=rf"HeartbeatRequest\.{what}"):
        HeartbeatRequest.decode(data, 0)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x00", "group_id is null"),
        (b"\x80\x80\x80\x80\x80\x00", "group_id: a varint of more than 5 bytes"),
        (b"\x81\x80\x02" + b"a" * 40_000, "group_id announces 32768 bytes; a string has at most 32767"),
    ],
)
def test_malformed_compact_bytes_are_refused_by_name(data: bytes, what: str) -> None:
    """The same in the compact encoding."""
    with pytest.raises(RemoteProtocolError, match=rf"HeartbeatRequest\.{what}"):
        HeartbeatRequest.decode(data, 4)


def test_long_varints_are_read_as_kafka_reads_them() -> None:
    """A length may be padded with zero groups up to five bytes; Kafka accepts that too."""
    body = HeartbeatRequest(group_id="abc").encode(4)
    assert body[0] == 4
    assert HeartbeatRequest.decode(b"\x84\x80\x80\x80\x00" + body[1:], 4).group_id == "abc"


def test_bytes_behind_a_request_are_ignored() -> None:
    """Kafka 4.3 reads a request and forgets the rest of its frame."""
    request = HeartbeatRequest(group_id="g")
    assert HeartbeatRequest.decode(request.encode(4) + b"more", 4) == request


def test_bytes_behind_a_record_are_an_error() -> None:
    """What stands in a log is exact, in Kafka as well."""
    data = TopicRecord(name="t", topic_id=TOPIC_ID).encode(0)
    with pytest.raises(RemoteProtocolError, match="4 bytes of garbage behind TopicRecord"):
        TopicRecord.decode(data + b"more", 0)


def test_tagged_field_that_is_not_as_long_as_it_says_is_refused() -> None:
    """The size in front of a tagged field is believed only if the field agrees."""
    diverging = EpochEndOffset(epoch=5, end_offset=9)
    response = FetchResponse(
        responses=[FetchableTopicResponse(partitions=[PartitionData(diverging_epoch=diverging, records=b"")])]
    )
    data = bytearray(response.encode(12))
    assert FetchResponse.decode(data, 12) == response
    position = data.index(b"\x01\x00\x0d") + 2
    data[position] += 1
    with pytest.raises(RemoteProtocolError, match="diverging_epoch is not as long as its tag says"):
        FetchResponse.decode(data, 12)


def test_tagged_struct_of_defaults_is_left_out() -> None:
    """As Kafka does; the reader sees None either way."""
    response = ProduceResponse(
        responses=[
            TopicProduceResponse(partition_responses=[PartitionProduceResponse(current_leader=LeaderIdAndEpoch())])
        ]
    )
    decoded = ProduceResponse.decode(response.encode(10), 10)
    assert decoded.responses[0].partition_responses[0].current_leader is None


def test_either_of_two_fields_by_version() -> None:
    """DeleteTopics changed its shape in version 6; one class holds both."""
    by_id = DeleteTopicsRequest(topics=[DeleteTopicState(name=None, topic_id=TOPIC_ID)])
    assert DeleteTopicsRequest.decode(by_id.encode(6), 6) == by_id
    with pytest.raises(LocalProtocolError, match="version 5 has no such field"):
        by_id.encode(5)


def test_defaults_are_not_shared() -> None:
    """Two messages never hold the same list."""
    first, second = JoinGroupRequest(), JoinGroupRequest()
    assert first.protocols is not second.protocols
    one, two = (FetchResponse.decode(FetchResponse().encode(16), 16) for _ in range(2))
    assert one.node_endpoints is not two.node_endpoints


def test_generated_source_can_be_read() -> None:
    """`source_of` shows what runs."""
    source = source_of(ProduceRequest, 13, flexible=True)
    assert "def encode(message, out, parts=None):" in source
    assert "def decode(data, position=0):" in source
    compile(source, "source", "exec")
