"""The words in which a message is declared, and the plain description that codecs are built from.

A message is a class whose fields carry the protocol's facts in their annotations:

    class FetchTopic(Struct):
        topic: Annotated[str, until(12, ignorable=True)] = ""
        topic_id: Annotated[UUID, since(13, ignorable=True)] = ZERO_UUID
        partitions: list[FetchPartition] = []

Annotations are strings until a codec first needs them, so importing every message costs milliseconds; `describe`
evaluates them once per class. Two codecs read the same description and nothing else: the compiler, which
serves, and the interpreter, which explains failures and which the tests hold equal to the compiler.

Source: KIP-482 (flexible versions, compact encodings, tagged fields); the guide in Kafka's
`clients/src/main/resources/common/message/README.md`.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Annotated, NamedTuple, TypeAlias
from uuid import UUID

import msgspec

NEVER = 0x7FFF
"""A version no message reaches: `flexible_since` of a message that never became flexible."""

ZERO_UUID = UUID(int=0)
"""Stands for "no uuid" everywhere in the protocol."""

STRING_BYTES_MAX = 0x7FFF
"""The old encoding has a signed 16-bit length; Kafka keeps the limit for the compact one."""


class Struct(msgspec.Struct, kw_only=True, gc=False):
    """A composite value inside a message.

    Messages are trees, so the cycle collector has nothing to find in them (gc=False), and a broker that holds
    a hundred thousand partitions pays nothing for its walks.
    """


class Scalar(NamedTuple):
    """A value of fixed width: `format` is struct's letter, big-endian."""

    name: str
    format: str
    size: int


class Blob(NamedTuple):
    """Bytes behind a length: "string", "bytes" or "records"."""

    name: str


class Array(NamedTuple):
    """A count, then that many elements."""

    element: WireType


class Nested(NamedTuple):
    """A struct in place."""

    struct: type[Struct]


WireType: TypeAlias = Scalar | Blob | Array | Nested

Int8: TypeAlias = Annotated[int, Scalar("int8", "b", 1)]
Int16: TypeAlias = Annotated[int, Scalar("int16", "h", 2)]
Int32: TypeAlias = Annotated[int, Scalar("int32", "i", 4)]
Int64: TypeAlias = Annotated[int, Scalar("int64", "q", 8)]
UInt16: TypeAlias = Annotated[int, Scalar("uint16", "H", 2)]
UInt32: TypeAlias = Annotated[int, Scalar("uint32", "I", 4)]
Records: TypeAlias = Annotated[bytes | bytearray | memoryview, Blob("records")]
"""Record batches, opaque here. Decoding gives a view into the frame, encoding hands the buffer on: no copies."""

BOOLEAN = Scalar("boolean", "?", 1)
FLOAT64 = Scalar("float64", "d", 8)
UUID16 = Scalar("uuid", "16s", 16)
STRING = Blob("string")
BYTES = Blob("bytes")

PLAIN_TYPES: dict[object, WireType] = {bool: BOOLEAN, float: FLOAT64, UUID: UUID16, str: STRING, bytes: BYTES}


class Presence(NamedTuple):
    """In which versions a field exists, and how. Versions are inclusive."""

    first: int = 0
    last: int = NEVER
    nullable: int | None = None  # the first version where null may be on the wire; see Field.nullable
    tag: int | None = None  # the field travels among the tagged fields, under this number
    ignorable: bool = False  # a version without the field drops its value instead of refusing it
    compact: bool = True  # false: keeps the old encoding in flexible versions as well


def since(
    first: int, *, nullable: int | None = None, tag: int | None = None, ignorable: bool = False, compact: bool = True
) -> Presence:
    """The field exists from version `first` on."""
    return Presence(first, NEVER, nullable, tag, ignorable, compact)


def until(last: int, *, nullable: int | None = None, ignorable: bool = False) -> Presence:
    """The field's last version is `last`."""
    return Presence(0, last, nullable, None, ignorable)


def between(first: int, last: int, *, nullable: int | None = None, ignorable: bool = False) -> Presence:
    """The field exists in versions `first` to `last`, both included."""
    return Presence(first, last, nullable, None, ignorable)


ALWAYS = Presence()


class Field(NamedTuple):
    """One field of a struct, annotations resolved."""

    name: str
    type: WireType
    optional: bool  # declared as `X | None`
    presence: Presence
    default: object

    def exists(self, version: int) -> bool:
        return self.presence.first <= version <= self.presence.last

    def nullable(self, version: int) -> bool:
        """Whether the wire has a way to say null.

        `X | None` means that it has, from the version that `nullable=` names, or always. The exception is a tagged
        struct: None means that it was left out, and once it is there it is not null, unless `nullable=` says so.
        """
        if self.presence.nullable is None:
            return self.optional and not self.optional_by_tag
        return version >= self.presence.nullable

    @property
    def optional_by_tag(self) -> bool:
        return self.presence.tag is not None and isinstance(self.type, Nested) and self.presence.nullable is None

    def tagged(self, version: int) -> bool:
        return self.presence.tag is not None and self.exists(version)

    def is_default(self, value: object) -> bool:
        """Whether a version without the field loses nothing, and a tagged field stays off the wire."""
        if value == self.default:
            return True
        return self.optional_by_tag and isinstance(self.type, Nested) and value == self.type.struct()


@cache
def describe(struct: type[Struct]) -> tuple[Field, ...]:
    """The fields of `struct`, in the order of the wire."""
    hints = typing.get_type_hints(struct, include_extras=True)
    blank = struct()
    return tuple(_field(name, hints[name], getattr(blank, name)) for name in struct.__struct_fields__)


def _field(name: str, hint: object, default: object) -> Field:
    presence, optional = ALWAYS, False
    found: WireType | None = None
    while found is None:
        if typing.get_origin(hint) is Annotated:
            hint, *facts = typing.get_args(hint)
            for fact in facts:
                if isinstance(fact, Presence):
                    presence = fact
                else:
                    found = fact
        elif typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint):
            optional = True
            (hint,) = (arm for arm in typing.get_args(hint) if arm is not type(None))
        else:
            found = _type(hint)
    return Field(name, found, optional, presence, default)


def _type(hint: object) -> WireType:
    if typing.get_origin(hint) is Annotated:
        return next(fact for fact in typing.get_args(hint) if isinstance(fact, Scalar | Blob))
    if typing.get_origin(hint) is list:
        return Array(_type(typing.get_args(hint)[0]))
    if isinstance(hint, type) and issubclass(hint, Struct):
        return Nested(hint)
    return PLAIN_TYPES[hint]
