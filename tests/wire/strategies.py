"""Messages for hypothesis, made from their declarations."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from hypothesis import strategies as st

from streamlog.wire.message import Message
from streamlog.wire.schema import Array, Blob, Field, Nested, Scalar, Struct, WireType, describe

M = TypeVar("M", bound=Message)

RANGES = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
}
TEXT = st.text(max_size=6) | st.text(alphabet="aé€😀", min_size=120, max_size=140)
BINARY = st.binary(max_size=6) | st.binary(min_size=125, max_size=132)


@cache
def messages_of(message: type[M], version: int, tame: bool = False) -> st.SearchStrategy[M]:
    """Messages that `version` can carry, in the form in which decoding gives them back.

    `tame` ones hold only what codecs accept that turn error codes into enums and times into dates.
    """
    return _structs(message, version, tame)


def _structs(struct: type[M], version: int, tame: bool) -> st.SearchStrategy[M]:
    fields = [field for field in describe(struct) if field.exists(version)]
    return st.builds(struct, **{field.name: _values(field, version, tame) for field in fields})


def _values(field: Field, version: int, tame: bool) -> st.SearchStrategy[object]:
    if tame and field.name.endswith("error_code"):
        return st.sampled_from([0, 1, 3, 25, 41, 100])
    if tame and field.name.endswith(("_ms", "timestamp")):
        return st.integers(0, 1_000_000)
    values = _of_type(field.type, version, tame)
    if field.optional_by_tag:
        # A struct of nothing but defaults is left out, and comes back as None.
        return st.none() | values.filter(lambda value: not field.is_default(value))
    if field.tagged(version):
        values = st.just(field.default) | values
    return st.none() | values if field.nullable(version) else values


def _of_type(type_: WireType, version: int, tame: bool) -> st.SearchStrategy[object]:
    match type_:
        case Scalar("boolean"):
            return st.booleans()
        case Scalar("float64"):
            return st.floats(allow_nan=False)
        case Scalar("uuid"):
            return st.uuids(allow_nil=True)
        case Scalar():
            lowest, highest = RANGES[type_.name]
            return st.integers(lowest, highest)
        case Blob("string"):
            return TEXT
        case Blob():
            return BINARY
        case Array():
            return st.lists(_of_type(type_.element, version, tame), max_size=3)
        case Nested():
            return _nested(type_.struct, version, tame)


@cache
def _nested(struct: type[Struct], version: int, tame: bool) -> st.SearchStrategy[object]:
    fields = [field for field in describe(struct) if field.exists(version)]
    return st.builds(struct, **{field.name: _values(field, version, tame) for field in fields})
