"""Frames, headers and ApiVersions: what is no request at all."""

from __future__ import annotations

import struct

from streamlog.wire.messages import api_versions
from tests.interop_kafka.cases import case, cases
from tests.interop_kafka.peers import CLOSED, SILENT, Peer, Seen

METADATA_V9 = struct.pack(">hhih", 3, 9, 1, 0) + b"\x00"


def header(api_key: int, version: int) -> bytes:
    return struct.pack(">hhih", api_key, version, 1, -1)


cases(
    size_negative=lambda peer: peer.raw(struct.pack(">i", -5) + bytes(20)),
    size_too_large=lambda peer: peer.raw(struct.pack(">i", 104857601) + bytes(20)),
    http=lambda peer: peer.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    tls=lambda peer: peer.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)),
    frame_empty=lambda peer: peer.frame(b""),
    frame_of_three_bytes=lambda peer: peer.frame(b"\x00\x03\x00"),
    api_unknown=lambda peer: peer.frame(header(500, 0)),
    api_negative=lambda peer: peer.frame(header(-1, 0)),
    api_of_a_controller=lambda peer: peer.frame(header(62, 0) + bytes(40)),
    api_removed=lambda peer: peer.frame(header(4, 0) + bytes(40)),
    version_too_high=lambda peer: peer.frame(header(3, 200) + bytes(20)),
    version_too_low=lambda peer: peer.frame(header(0, 2) + bytes(20)),
    version_negative=lambda peer: peer.frame(header(3, -1) + bytes(20)),
    header_only=lambda peer: peer.frame(header(3, 1)),
    header_without_client_id=lambda peer: peer.frame(struct.pack(">hhi", 3, 9, 1)),
    client_id_longer_than_the_frame=lambda peer: peer.frame(struct.pack(">hhih", 3, 9, 1, 500) + b"x"),
    body_cut=lambda peer: peer.frame(METADATA_V9 + b"\x02" + bytes(10)),
    body_of_garbage=lambda peer: peer.frame(METADATA_V9 + b"\xde\xad\xbe\xef" * 10),
    array_count_negative=lambda peer: _is_answered(peer, header(3, 1) + struct.pack(">i", -2) + bytes(20)),
    array_count_huge=lambda peer: peer.frame(header(3, 1) + struct.pack(">i", 2**31 - 1) + bytes(20)),
    array_count_huge_compact=lambda peer: peer.frame(METADATA_V9 + b"\xff\xff\xff\xff\x07" + bytes(20)),
    string_length_negative=lambda peer: peer.frame(header(3, 1) + struct.pack(">ih", 1, -2)),
    string_longer_than_the_frame=lambda peer: peer.frame(header(3, 1) + struct.pack(">ih", 1, 5000) + b"x"),
    string_null_where_it_must_not_be=lambda peer: peer.frame(header(3, 1) + struct.pack(">ih", 1, -1)),
    varint_of_six_bytes=lambda peer: peer.frame(METADATA_V9 + b"\x80\x80\x80\x80\x80\x01" + bytes(20)),
    tags_two_billion=lambda peer: peer.frame(METADATA_V9 + b"\x01\x01\x00\x00" + b"\xff\xff\xff\xff\x07" + bytes(20)),
    api_versions_too_high=lambda peer: _api_versions_error(peer, 99),
    api_versions_negative=lambda peer: peer.frame(header(18, -1)),
    api_versions_bad_name=lambda peer: _software(peer, "not a name!", "1"),
    api_versions_bad_version=lambda peer: _software(peer, "name", "\x00"),
    api_versions_good_name=lambda peer: _software(peer, "apache-kafka", "4.3.1"),
)


def _is_answered(peer: Peer, body: bytes) -> Seen:
    """Whether there is an answer, whatever it says."""
    return peer.frame(body) not in (CLOSED, SILENT)


def _api_versions_error(peer: Peer, version: int) -> Seen:
    """Correlation id, error, and what else a version 0 answer says."""
    return peer.frame(header(18, version))


def _software(peer: Peer, name: str, version: str) -> Seen:
    request = api_versions.ApiVersionsRequest(client_software_name=name, client_software_version=version)
    answer = peer.ask(request, 3, api_versions.ApiVersionsResponse)
    assert isinstance(answer, api_versions.ApiVersionsResponse)
    return answer.error_code


@case
def api_versions_of_what_we_serve(peer: Peer) -> Seen:
    """Groups, data and admin: the ranges are Kafka's."""
    answer = peer.ask(api_versions.ApiVersionsRequest("test", "1"), 3, api_versions.ApiVersionsResponse)
    assert isinstance(answer, api_versions.ApiVersionsResponse)
    served = {0, 1, 2, 3, 8, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 32, 33, 37, 42, 44, 47, 60, 75}
    return sorted((api.api_key, api.min_version, api.max_version) for api in answer.api_keys if api.api_key in served)
