"""A decoder builds no more than a stated multiple of the frame, whatever the frame says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from uuid import UUID

import pytest

from streamlog.errors import RemoteProtocolError
from streamlog.wire.bounds import REQUEST_BUDGET_PER_BYTE, decoded_cost
from streamlog.wire.compiler import compile_decoder, uvarint
from streamlog.wire.message import Message
from streamlog.wire.messages import (
    ApiVersionsRequest,
    CreateTopicsRequest,
    DeleteGroupsRequest,
    FetchRequest,
    MetadataRequest,
    OffsetFetchRequest,
)
from streamlog.wire.schema import Array, Blob, Nested, Scalar, Struct, WireType, describe
from tests.wire.catalogue import MESSAGES
from tests.wire.memory import peak_bytes

ELEMENTS = 2_000
SLACK_BYTES = 16_384


def arrays(struct: type[Struct], version: int) -> Iterator[tuple[list[str], WireType]]:
    """Every array of `struct` outside tagged fields: the names that lead to it, and its element."""
    for field in describe(struct):
        if field.exists(version) and not field.tagged(version) and isinstance(field.type, Array):
            yield [field.name], field.type.element
            if isinstance(field.type.element, Nested):
                for path, element in arrays(field.type.element.struct, version):
                    yield [field.name, *path], element


def holding(struct: type[Struct], path: list[str], elements: list[object]) -> Struct:
    """A struct that is at its default except for the array at `path`."""
    name, *rest = path
    if not rest:
        return struct(**{name: elements})
    (field,) = (field for field in describe(struct) if field.name == name)
    assert isinstance(field.type, Array)
    assert isinstance(field.type.element, Nested)
    return struct(**{name: [holding(field.type.element.struct, rest, elements)]})


uuids = (UUID(int=number << 64) for number in count(1))


def greedy(type_: WireType, version: int) -> object:
    """A value that takes much more memory than bytes: small, but in no part one that Python shares."""
    match type_:
        case Scalar("boolean"):
            return True
        case Scalar("uuid"):
            return next(uuids)
        case Scalar("float64"):
            return 1.5
        case Scalar("int8"):
            return -100
        case Scalar():
            return 1000
        case Blob("string"):
            return "é€"
        case Blob():
            return b"12"
        case Array():
            return []
        case Nested():
            fields = [field for field in describe(type_.struct) if field.exists(version) and not field.tagged(version)]
            return type_.struct(**{field.name: greedy(field.type, version) for field in fields})


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_what_elements_cost_is_not_underestimated(message: type[Message]) -> None:
    """For every array: what decoding allocates per element stays below the cost that the budget is charged."""
    version = message.max_version
    for path, element in arrays(message, version):
        value = holding(message, path, [greedy(element, version) for _ in range(ELEMENTS)])
        assert isinstance(value, Message)
        data = value.encode(version)
        _, peak = peak_bytes(partial(message.decoders[version], data, 0))
        assert peak <= ELEMENTS * decoded_cost(element) + len(data) + SLACK_BYTES, path


def frame(prefix: bytes, element: bytes, size: int) -> bytes:
    """A request whose first array claims, truthfully, as many elements as `size` bytes hold."""
    elements = size // len(element)
    return prefix + uvarint(elements + 1) + element * elements + bytes(32)


AMPLIFIERS: dict[str, tuple[type[Message], int, bytes, bytes]] = {
    "structs of one empty string": (DeleteGroupsRequest, 2, b"", b"\x01"),
    "topics with nothing in them": (CreateTopicsRequest, 7, b"", b"\x01\x00\x00\x00\x00\x00\x00\x01\x01\x00"),
    "groups with nothing in them": (OffsetFetchRequest, 9, b"", b"\x01\x00\x00\x00\x00\x00\x01\x00"),
    "fetched topics without partitions": (FetchRequest, 13, bytes(21), bytes(16) + b"\x01\x00"),
    "topics by name": (MetadataRequest, 9, b"", b"\x01\x00"),
}


@pytest.mark.parametrize("claim", AMPLIFIERS)
def test_arrays_of_nothing_are_not_amplified(claim: str) -> None:
    """CVE-2026-111108: elements of a byte or two may not become gigabytes of objects."""
    message, version, prefix, element = AMPLIFIERS[claim]
    floor = 64 << 10
    decode = compile_decoder(message, version, True, floor, REQUEST_BUDGET_PER_BYTE)
    data = frame(prefix, element, 1 << 20)

    def refused_or_small() -> None:
        try:
            decode(data, 0)
        except RemoteProtocolError:
            return

    _, peak = peak_bytes(refused_or_small)
    assert peak <= floor + (REQUEST_BUDGET_PER_BYTE + 1) * len(data) + SLACK_BYTES


def test_a_large_frame_of_nothing_is_refused() -> None:
    """With the real limits: 16 MiB of empty topics would cost more than the floor and four bytes for each."""
    with pytest.raises(RemoteProtocolError):
        MetadataRequest.decode(frame(b"", b"\x01\x00", 16 << 20), 9)


@pytest.mark.parametrize("tags", [b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x7f"])
def test_tagged_fields_are_believed_only_as_far_as_bytes_reach(tags: bytes) -> None:
    """CVE-2026-111115: a section that announces two thousand million tagged fields is refused at once."""
    body = ApiVersionsRequest(client_software_name="a", client_software_version="1").encode(3)
    data = body[:-1] + tags + bytes(64)

    def refused() -> None:
        with pytest.raises(RemoteProtocolError):
            ApiVersionsRequest.decode(data, 3)

    _, peak = peak_bytes(refused)
    assert peak < 256 << 10


def test_unknown_tagged_fields_are_skipped() -> None:
    """A client from the future is understood as far as we know its words."""
    body = ApiVersionsRequest(client_software_name="a", client_software_version="1").encode(3)
    future = body[:-1] + b"\x02" + b"\x07\x03abc" + b"\xc8\x01\x00"
    assert ApiVersionsRequest.decode(future, 3) == ApiVersionsRequest.decode(body, 3)


def test_a_count_is_not_believed_beyond_the_frame() -> None:
    """An array that claims 2**31 - 1 elements costs nothing."""

    def refused() -> None:
        with pytest.raises(RemoteProtocolError, match="topics announces 2147483647 elements"):
            MetadataRequest.decode(b"\x7f\xff\xff\xff" + bytes(40), 4)

    _, peak = peak_bytes(refused)
    assert peak < 256 << 10
