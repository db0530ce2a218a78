"""Serdes: what other Kafka clients would write, round trips, and errors that say what is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.errors import UserError
from streamlog.serde import (
    VALUE_FORMAT_MSGPACK,
    Format,
    SerdeError,
    key_serde_for,
    serde_for,
    table_value_serde_for,
)


class Flight(msgspec.Struct):
    carrier: str
    delay_min: float | None
    scheduled_at: datetime


@dataclasses.dataclass
class Seat:
    row: int
    letter: str


class Fare(TypedDict):
    price: Decimal
    booking: UUID


FLIGHT = Flight("UA", 2.5, datetime(2013, 1, 1, 5, 15, tzinfo=UTC))
VALUES: list[tuple[Any, Any]] = [
    (Flight, FLIGHT),
    (Seat, Seat(12, "F")),
    (Fare, Fare(price=Decimal("10.50"), booking=UUID(int=7))),
    (datetime, FLIGHT.scheduled_at),
    (UUID, UUID(int=3)),
    (Decimal, Decimal("1.10")),
    (list[int], [1, 2]),
    (dict[str, Flight], {"a": FLIGHT}),
    (tuple[str, int], ("a", 1)),
    (int | None, None),
    (set[int], {1}),
    (str, "ü"),
    (int, -7),
    (float, 1.5),
    (bool, True),
    (bytes, b"\x00\xff"),
    (Any, {"free": ["form", 1]}),
    (object, {"free": ["form", 1]}),
    (dict, {"a": 1}),
]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize(("kind", "value"), VALUES, ids=lambda value: str(value)[:20])
def test_every_supported_type_survives_a_round_trip(kind: Any, value: Any, encoding: Format) -> None:
    """From bytes and from a memoryview, as values, as keys and as table rows."""
    for serde in (serde_for(kind, encoding), key_serde_for(kind, encoding), table_value_serde_for(kind)):
        data = serde.encode(value)
        assert serde.decode(data) == value
        assert serde.decode(memoryview(data)) == value


@pytest.mark.parametrize(
    ("kind", "key", "data"),
    [
        (str, "UA", b"UA"),
        (str, "", b""),
        (bytes, b"\x00", b"\x00"),
        (int, -12, b"-12"),
        (float, 1.5, b"1.5"),
        (tuple[str, int], ("a", 1), b'["a",1]'),
        (Seat, Seat(1, "A"), b'{"row":1,"letter":"A"}'),
    ],
)
def test_keys_have_the_bytes_that_other_clients_write(kind: Any, key: Any, data: bytes) -> None:
    """str, bytes and int carry no quotes, so `kcat -k` and Java's StringSerializer agree on the partition."""
    assert key_serde_for(kind).encode(key) == data


def test_a_str_value_in_json_has_quotes_and_bytes_never_do() -> None:
    """Values are honest JSON; bytes are the escape hatch."""
    assert serde_for(str).encode("a") == b'"a"'
    assert serde_for(bytes).encode(b"a") == b"a"
    assert serde_for(str, "raw").encode("a") == b"a"


@settings(deadline=None)
@given(st.one_of(st.integers(), st.booleans()))
def test_int_keys_have_one_spelling(number: int) -> None:
    """Equal keys are equal bytes."""
    serde = key_serde_for(int)
    assert serde.decode(serde.encode(number)) == number
    assert serde.encode(number) == b"%d" % number


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_float_keys_have_one_spelling(number: float) -> None:
    """1 and 1.0 are one key, and so are 0.0 and -0.0."""
    serde = key_serde_for(float)
    assert serde.decode(serde.encode(number)) == number
    assert serde.encode(number) == serde.encode(float(number)) == serde.encode(number + 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None])
def test_a_float_key_that_could_not_be_found_again_is_refused(value: Any) -> None:
    """NaN is not equal to itself."""
    with pytest.raises(SerdeError, match="cannot write"):
        key_serde_for(float).encode(value)


@pytest.mark.parametrize("data", [b"007", b"+7", b" 7", b"1_0", b"", b"7.0", b"x", b"\xff", "٣".encode()])
def test_an_int_key_in_another_spelling_is_refused(data: bytes) -> None:
    """Were 7 and 007 one key, it would live in two partitions."""
    with pytest.raises(SerdeError, match="not an int"):
        key_serde_for(int).decode(data)


def test_wrong_bytes_say_type_field_and_the_first_bytes() -> None:
    """The message stands alone."""
    with pytest.raises(SerdeError) as caught:
        serde_for(Flight).decode(b'{"carrier":"UA","delay_min":"late","scheduled_at":"2013-01-01T05:15:00Z"}')
    message = str(caught.value)
    assert "json Flight" in message
    assert "$.delay_min" in message
    assert """{"carrier":"UA""" in message
    with pytest.raises(SerdeError, match=r"The bytes are b'\\xff'"):
        serde_for(str, "raw").decode(b"\xff")


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([Flight, int, str, list[Seat], Fare, Any]))
def test_no_bytes_raise_anything_but_serde_errors(data: bytes, kind: Any) -> None:
    """Whatever a producer sent, the task can decide: skip, dead-letter, stop."""
    for serde in (serde_for(kind), serde_for(kind, "msgpack"), key_serde_for(kind), table_value_serde_for(kind)):
        with contextlib.suppress(SerdeError):
            serde.decode(data)


@pytest.mark.parametrize(
    ("kind", "value"), [(str, 5), (bytes, 5), (bytes, "a"), (int, "5"), (int, 1.5), (int, None), (str, "\ud800")]
)
def test_a_key_of_another_type_is_refused(kind: Any, value: Any) -> None:
    """A silent conversion would make a second key of the first; bytes(5) would be five zeros."""
    with pytest.raises(SerdeError, match="cannot write"):
        key_serde_for(kind).encode(value)


class Trip(msgspec.Struct):
    flights: list[Flight]
    seat: Seat | None = None


WRONG: list[tuple[Any, Any, str]] = [
    (int, "5", "wanted int, got str"),
    (int, True, "wanted int, got bool"),
    (int, 1.5, "wanted int, got float"),
    (str, 5, "wanted str, got int"),
    (str, b"a", "wanted str, got bytes"),
    (float, "1", "wanted float, got str"),
    (bool, 1, "wanted bool, got int"),
    (bytes, "a", "wanted bytes, got str"),
    (Flight, Seat(1, "A"), "missing required field `carrier`"),
    (Flight, Flight("UA", "late", FLIGHT.scheduled_at), r"Expected `float \| null`, got `str` - at `\$.delay_min`"),  # type: ignore[arg-type]
    (Trip, Trip([FLIGHT, Flight(5, 1.0, FLIGHT.scheduled_at)]), r"Expected `str`, got `int` - at `\$.flights\[1\]"),  # type: ignore[arg-type]
    (Trip, Trip([], Seat("1", "A")), r"at `\$.seat.row`"),  # type: ignore[arg-type]
    (Seat, Seat("1", "A"), r"at `\$.row`"),  # type: ignore[arg-type]
    (Fare, {"price": Decimal(1)}, "missing required field `booking`"),
    (dict[str, int], {"a": "1"}, r"Expected `int`, got `str`"),
    (list[int], [1, None], r"at `\$\[1\]`"),
    (int | None, "5", "got `str`"),
    (datetime, 5, "Expected `datetime`"),
    (Flight, object(), "objects of object cannot be written"),
]


@pytest.mark.parametrize("encoding", ["json", "msgpack", "row"])
@pytest.mark.parametrize(("kind", "value", "why"), WRONG, ids=[why for _, _, why in WRONG])
def test_what_could_not_be_read_is_not_written(kind: Any, value: Any, why: str, encoding: Any) -> None:
    """Once it is in the log, every reader of it fails, for ever; the writer is told instead, and which field."""
    if encoding == "row":
        serde = table_value_serde_for(kind, "table t")
        assert serde.fit is not None
        with pytest.raises(SerdeError, match=why):
            serde.fit(value)
    else:
        serde = serde_for(kind, encoding, "topic t")
    with pytest.raises(SerdeError, match=why) as caught:
        serde.encode(value)
    assert re.match(r"(topic|table) t: cannot write .* as .*: .*\. Convert it, or declare", str(caught.value))


def test_numbers_that_json_cannot_say_are_refused() -> None:
    """They would be written as null; msgpack has them."""
    with pytest.raises(SerdeError, match="got `null`"):
        serde_for(float).encode(math.nan)
    with pytest.raises(SerdeError, match="got `null`"):
        serde_for(list[float]).encode([1.0, -math.inf])
    assert math.isnan(serde_for(float, "msgpack").decode(serde_for(float, "msgpack").encode(math.nan)))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (tuple[float, ...], (1.0,), (1,)),
        (datetime, datetime(2013, 1, 1, 12, tzinfo=UTC), datetime(2013, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))),
        (frozenset[str], frozenset("abcdefgh"), frozenset("hgfedcba")),
        (frozenset[int], frozenset([0, 8, 16, 1]), frozenset([16, 1, 8, 0])),
    ],
)
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_keys_that_are_equal_are_equal_in_bytes(kind: Any, one: Any, other: Any, encoding: Format) -> None:
    """Or one key would be two rows, on two partitions."""
    assert one == other
    serde = key_serde_for(kind, encoding)
    assert serde.encode(one) == serde.encode(other)


@pytest.mark.parametrize(("kind", "value"), [(tuple[float, ...], (math.nan,)), (Seat, Seat("1", "A"))])  # type: ignore[arg-type]
def test_a_key_that_does_not_equal_itself_is_refused(kind: Any, value: Any) -> None:
    """It could be written, and never be found again."""
    for encoding in ("json", "msgpack"):
        with pytest.raises(SerdeError, match="cannot write"):
            key_serde_for(kind, encoding).encode(value)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    """A producer may send a hundred thousand brackets."""
    with pytest.raises(SerdeError):
        serde_for(Any).decode(b"[" * 100_000)
    with pytest.raises(SerdeError):
        serde_for(Any, "msgpack").decode(b"\x91" * 100_000)


def test_a_table_row_begins_with_its_format() -> None:
    """The bytes of rows are a format on disk and in changelogs: this one may never change."""
    serde = table_value_serde_for(int)
    assert serde.encode(5) == b"\x01\x05"
    assert VALUE_FORMAT_MSGPACK == 1
    assert table_value_serde_for(Seat).encode(Seat(1, "A")) == b"\x01" + msgspec.msgpack.encode(
        {"row": 1, "letter": "A"}
    )


@pytest.mark.parametrize("data", [b"", b"\x00\x05", b"\x02\x05", b"5"])
def test_a_row_of_another_format_says_so(data: bytes) -> None:
    """A downgrade finds rows of a newer release: it must not read them as something else."""
    with pytest.raises(SerdeError, match="this release reads format 1"):
        table_value_serde_for(int).decode(data)


def test_unsupported_types_are_refused_at_start() -> None:
    """Not at the first record."""

    class Opaque:
        pass

    with pytest.raises(UserError, match="Opaque: make it a"):
        serde_for(Opaque)
    with pytest.raises(UserError, match="'raw' is for bytes"):
        serde_for(Flight, "raw")
    with pytest.raises(UserError, match="unknown format 'avro'"):
        serde_for(Flight, "avro")  # type: ignore[call-overload] # what an untyped program would pass
    with pytest.raises(UserError, match="cannot read or write"):
        serde_for(Seat | Flight)


def test_pydantic_models_work_at_the_top_and_nested() -> None:
    """They are recognised by their methods; streamlog does not depend on pydantic."""
    pydantic = pytest.importorskip("pydantic")
    order_type: Any = pydantic.create_model("Order", id=(int, ...), note=(str, "none"))
    order = order_type(id=3)

    encodings: list[Format] = ["json", "msgpack"]
    for encoding in encodings:
        serde = serde_for(order_type, encoding)
        assert serde.decode(memoryview(serde.encode(order))) == order
        nested = serde_for(list[order_type], encoding)
        assert nested.decode(nested.encode([order])) == [order]

    assert json.loads(serde_for(order_type).encode(order)) == {"id": 3, "note": "none"}
    assert table_value_serde_for(order_type).decode(table_value_serde_for(order_type).encode(order)) == order
    with pytest.raises(SerdeError, match="json Order"):
        serde_for(order_type).decode(b'{"id":"x"}')
    with pytest.raises(SerdeError, match="expected Order, got int"):
        serde_for(order_type).encode(3)


@pytest.mark.parametrize("kind", [int | float, bool | int, tuple[str, int | float], Decimal | int | None])
def test_equal_numbers_of_two_kinds_are_no_keys(kind: Any) -> None:
    """1 and 1.0 and True are one key of a dict, and would be two in a log."""
    with pytest.raises(UserError, match=r"topic orders, key: keys of type .* declare one kind"):
        key_serde_for(kind, what="topic orders, key")
    key_serde_for(int | None)
    key_serde_for(float | str)


class Moody(msgspec.Struct):
    """Whose own code raises what encoders do not."""

    n: int

    def __post_init__(self) -> None:
        {0: 0}[self.n]

    def __repr__(self) -> str:
        raise RuntimeError("not today")


@pytest.mark.parametrize("serde", [serde_for(Moody), serde_for(Moody, "msgpack"), table_value_serde_for(Moody)])
def test_whatever_user_code_raises_means_that_the_value_does_not_fit(serde: Any) -> None:
    """On the way in and out; also where the value cannot even be shown."""
    good = serde.encode(Moody(0))
    bad = good.replace(b"0", b"5").replace(b"\xa1n\x00", b"\xa1n\x05")
    with pytest.raises(SerdeError, match="KeyError: 5"):
        serde.decode(bad)
    spoilt = Moody(0)
    spoilt.n = 5
    with pytest.raises(SerdeError, match=r"cannot write a Moody.*KeyError: 5"):
        serde.encode(spoilt)
    if serde.fit is not None:
        with pytest.raises(SerdeError, match="cannot write a Moody"):
            serde.fit(spoilt)


def test_a_key_whose_own_code_raises_does_not_fit() -> None:
    """Nor does a time that has no place in UTC."""

    class Key(msgspec.Struct, frozen=True):
        n: int

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        def __hash__(self) -> int:
            return 0

    with pytest.raises(SerdeError, match="ZeroDivisionError"):
        key_serde_for(Key).encode(Key(1))
    with pytest.raises(SerdeError, match="cannot write"):
        key_serde_for(datetime).encode(datetime.min.replace(tzinfo=timezone(timedelta(hours=5))))
