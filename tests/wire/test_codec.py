"""Compiled codecs do what the plain interpreter does, and neither is hurt by what it is fed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlog.errors import RemoteProtocolError
from streamlog.wire import interpreter
from streamlog.wire.bounds import BUDGET_FLOOR_BYTES
from streamlog.wire.message import Message
from streamlog.wire.schema import Struct
from tests.wire.catalogue import MESSAGES, versions
from tests.wire.memory import peak_bytes
from tests.wire.strategies import messages_of

every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
few = settings(
    max_examples=5,
    deadline=None,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
)


def flexible(message: type[Message], version: int) -> bool:
    return version >= message.flexible_since


def interpreted(message: type[Message], version: int, data: bytes) -> tuple[Struct, int]:
    budget = BUDGET_FLOOR_BYTES + message.budget_per_byte * len(data)
    return interpreter.decode(message, data, version, flexible(message, version), 0, budget)


def outcome(decode: Callable[[], object]) -> object:
    """What decoding gives: a value, or the fact that it was refused."""
    try:
        return decode()
    except RemoteProtocolError:
        return "refused"


def survives(message: type[Message], version: int) -> None:
    @few
    @given(messages_of(message, version))
    def check(value: Message) -> None:
        data = value.encode(version)
        assert message.decode(data, version) == value
        assert message.decode(memoryview(bytearray(data)), version) == value
        assert message.decode(b"head" + data, version, 4) == value
        assert message.decode_prefix(data + b"tail", version) == (value, len(data))
        assert b"".join(value.encode_parts(version)) == data

    check()


@every_message
def test_messages_survive_the_wire(message: type[Message]) -> None:
    """Decoding gives back what was encoded; views and other positions make no difference."""
    for version in versions(message):
        survives(message, version)


def agree(message: type[Message], version: int) -> None:
    @few
    @given(messages_of(message, version))
    def check(value: Message) -> None:
        data = value.encode(version)
        assert interpreter.encode(value, version, flexible(message, version)) == data
        assert interpreted(message, version, data) == (value, len(data))

    check()


@every_message
def test_compiled_and_interpreted_codecs_agree(message: type[Message]) -> None:
    """Two implementations, the same bytes and the same values."""
    for version in versions(message):
        agree(message, version)


DAMAGED_PEAK_BYTES_MAX = 1 << 20
"""Damaged messages are a few kilobytes; what they claim is up to gigabytes."""

DAMAGES = [b"\xff", b"\x00", b"\x80", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\x0f", b"\x02"]


@st.composite
def damaged(draw: st.DrawFn, message: type[Message], version: int) -> bytes:
    """Bytes of a message, a few of them changed, added or cut off; counts become huge more often than by chance."""
    data = bytearray(draw(messages_of(message, version)).encode(version))
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, len(data)))
        damage = draw(st.none() | st.sampled_from(DAMAGES) | st.binary(min_size=1, max_size=4))
        if damage is None:
            del data[position:]
        else:
            data[position : position + draw(st.integers(0, len(damage)))] = damage
    return bytes(data)


def alike(message: type[Message], version: int) -> None:
    outcome(lambda: message.decode_prefix(b"", version))  # codecs are compiled when first used: not part of the measure

    @few
    @given(damaged(message, version) | st.binary(max_size=40))
    def check(data: bytes) -> None:
        compiled, peak = peak_bytes(lambda: outcome(lambda: message.decode_prefix(data, version)))
        assert peak < DAMAGED_PEAK_BYTES_MAX
        assert compiled == outcome(lambda: interpreted(message, version, data))

    check()


@every_message
def test_damaged_bytes_are_refused_or_read_alike(message: type[Message]) -> None:
    """Whatever the bytes: both codecs read the same message, or both refuse with RemoteProtocolError, and cheaply."""
    for version in versions(message):
        alike(message, version)
