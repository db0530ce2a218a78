"""Frames: size, header, message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.apis import API_TABLE, ApiKey, request_header_version, response_header_version
from streamlog.wire.frames import (
    RequestHeader,
    ResponseHeader,
    correlation_id_of,
    decode_request_header,
    decode_response,
    encode_request,
    encode_request_parts,
    encode_response_parts,
)
from streamlog.wire.messages import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    FetchResponse,
    MetadataRequest,
    MetadataResponse,
    ProduceRequest,
)
from streamlog.wire.messages.api_versions import ApiVersion
from streamlog.wire.messages.fetch import FetchableTopicResponse, PartitionData
from streamlog.wire.messages.produce import PartitionProduceData, TopicProduceData


def body_of(frame: bytes) -> bytes:
    """A frame without its size, which is checked."""
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return frame[4:]


def test_first_request_of_a_client_in_bytes() -> None:
    """ApiVersions version 0 from a client without a name."""
    frame = encode_request(ApiVersionsRequest(), 0, correlation_id=1, client_id=None)
    assert frame.hex(" ") == "00 00 00 0a 00 12 00 00 00 00 00 01 ff ff"


@pytest.mark.parametrize("api", API_TABLE.values(), ids=lambda api: api.name)
@pytest.mark.parametrize("client_id", ["client", "", None, "é" * 200])
def test_requests_of_every_api_and_version_come_back(api: object, client_id: str | None) -> None:
    """Header and body are found again, and the header is what the declared codec writes."""
    assert isinstance(api, type(API_TABLE[0]))
    for version in range(api.min_version, api.max_version + 1):
        request = api.request()
        frame = body_of(encode_request(request, version, 77, client_id))
        header, position = decode_request_header(memoryview(frame))
        assert header == RequestHeader(
            request_api_key=api.key, request_api_version=version, correlation_id=77, client_id=client_id
        )
        assert header.encode(request_header_version(api.key, version)) == frame[:position]
        assert api.request.decode(frame, version, position) == request


@pytest.mark.parametrize("api", API_TABLE.values(), ids=lambda api: api.name)
def test_responses_of_every_api_and_version_come_back(api: object) -> None:
    """The correlation id is the request's, and the header is what the declared codec writes."""
    assert isinstance(api, type(API_TABLE[0]))
    for version in range(api.min_version, api.max_version + 1):
        response = api.response()
        frame = body_of(b"".join(encode_response_parts(api.key, version, -5, response)))
        assert correlation_id_of(frame) == -5
        assert decode_response(api.response, version, frame) == (-5, response)
        header = ResponseHeader(correlation_id=-5).encode(response_header_version(api.key, version))
        assert frame.startswith(header)


def test_api_versions_response_keeps_the_old_header() -> None:
    """A client has to find the error code before it knows which versions the broker has (KIP-511)."""
    response = ApiVersionsResponse(error_code=35, api_keys=[ApiVersion(api_key=18, min_version=0, max_version=4)])
    frame = body_of(b"".join(encode_response_parts(ApiKey.API_VERSIONS, 0, 9, response)))
    assert frame.hex(" ") == "00 00 00 09 00 23 00 00 00 01 00 12 00 00 00 04"
    assert response_header_version(ApiKey.API_VERSIONS, 4) == 0


def test_header_of_an_unknown_version_is_read() -> None:
    """The body of ApiVersions 99 is a riddle, the header is not: it can be answered."""
    frame = bytes.fromhex("0012 0063 00000007 0002 6162 00")
    header, position = decode_request_header(frame)
    assert (header.request_api_version, header.correlation_id, header.client_id) == (99, 7, "ab")
    assert position == len(frame)


def test_unknown_tagged_fields_of_a_header_are_skipped() -> None:
    """Clients may add to the flexible header."""
    frame = bytes.fromhex("0003 0009 00000007 0002 6162 01 05 03 787878") + MetadataRequest().encode(9)
    header, position = decode_request_header(frame)
    assert header.client_id == "ab"
    assert MetadataRequest.decode(frame, 9, position) == MetadataRequest()


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "0003 0009 00000007",
        "0003 0009 00000007 0005 6162",
        "0003 0009 00000007 fffe",
        "0003 0009 00000007 0001 ff 00",
        "0003 0009 00000007 ffff",
        "0003 0009 00000007 ffff 41" + "0500" * 65,
        "0003 0009 00000007 ffff ffffffffff7f",
        "0003 0009 00000007 ffff 01 05 7f",
        "7fff 0000 00000007 ffff",
        "ffff 0000 00000007 ffff",
        "0003 ffff 00000007 ffff",
        "1603 0100 c8010000 c403",  # a TLS client
        "4745 5420 2f204854 5450",  # a browser
    ],
)
def test_malformed_headers_are_refused(frame: str) -> None:
    """Cut off, without such an API, with a negative version, in another protocol."""
    with pytest.raises(RemoteProtocolError):
        decode_request_header(bytes.fromhex(frame))


@given(st.binary(max_size=60))
def test_any_header_is_read_or_refused(frame: bytes) -> None:
    """Nothing else can happen."""
    try:
        _, position = decode_request_header(frame)
    except RemoteProtocolError:
        return
    assert position <= len(frame)


@given(st.binary(max_size=60))
def test_any_response_is_read_or_refused(frame: bytes) -> None:
    """The same for clients."""
    try:
        decode_response(MetadataResponse, 12, frame)
    except RemoteProtocolError:
        return


def test_records_keep_their_buffers_in_frames() -> None:
    """Header and records are never joined, in either direction."""
    records = memoryview(b"r" * 500)
    partition = PartitionData(partition_index=0, records=records)
    response = FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=[partition])])
    parts = encode_response_parts(ApiKey.FETCH, 11, 3, response)
    assert [part is records for part in parts] == [False, True]
    assert decode_response(FetchResponse, 11, body_of(b"".join(parts))) == (3, response)

    topic = TopicProduceData(name="t", partition_data=[PartitionProduceData(records=records)])
    request_parts = encode_request_parts(ProduceRequest(topic_data=[topic]), 9, 3, "c")
    assert [part is records for part in request_parts] == [False, True, False]
    assert body_of(b"".join(request_parts))[:8].hex() == "0000000900000003"


def test_client_id_that_does_not_fit_is_refused() -> None:
    """A string has at most 32767 bytes."""
    with pytest.raises(LocalProtocolError, match="client id of 40000 bytes"):
        encode_request(MetadataRequest(), 12, 1, "c" * 40_000)
