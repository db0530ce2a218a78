"""How much a decoder may build from a frame, whoever sent it.

A byte on the wire can claim far more memory than it takes: a struct of two empty arrays is three bytes and 250
bytes of Python, a tagged section can announce two thousand million fields (the amplification of CVE-2026-111108 and
CVE-2026-111115). So a count is believed only while the frame has bytes left for that many of the
smallest element, and what the elements will cost at most is taken from a budget that depends on the frame's size alone.
"""

from __future__ import annotations

from functools import cache

from streamlog.wire.schema import Array, Blob, Nested, Scalar, Struct, WireType, describe

BUDGET_FLOOR_BYTES = 64 << 20
"""What any frame may cost. An honest control message costs about ten bytes of Python per byte (a four-byte integer
becomes 40 that stay: a list slot and an object), so this serves honest messages of 6 MB, larger than any seen; and a
broker survives it."""

REQUEST_BUDGET_PER_BYTE = 4
"""Requests come from strangers. Beyond the floor only frames full of records are honest, and those are not copied."""

RESPONSE_BUDGET_PER_BYTE = 16
"""Responses come from the user's own cluster, whose metadata may hold a million partitions; 16 leaves room for the
ten of an honest message."""

UNKNOWN_TAG_COST_BYTES = 64
"""A tagged field that we do not know builds nothing, but skipping it costs about what building 64 bytes does."""

SLOT_BYTES = 8
ELEMENT_BYTES = 16
"""A list's slot, the room it grows into, and for integers the tuple that they pass through."""

OBJECT_COSTS = {
    "boolean": 0,
    "int8": 32,
    "int16": 32,
    "uint16": 32,
    "int32": 32,
    "uint32": 32,
    "int64": 32,
    "float64": 24,
    "uuid": 256,  # the object and its integer, and for the first thousands the entry that remembers them
    "string": 80,  # a few characters outside Latin-1; longer text is paid by its own bytes
    "bytes": 48,
    "records": 184,  # a memoryview
}
LIST_BYTES = 72
STRUCT_BYTES = 16


@cache
def encoded_size_min(type_: WireType, version: int, flexible: bool, nullable: bool = False) -> int:
    """Bytes that the smallest value of `type_` takes on the wire; never less than one."""
    match type_:
        case Scalar():
            return type_.size
        case Blob("string"):
            return 1 if flexible else 2
        case Blob() | Array():
            return 1 if flexible else 4
        case Nested():
            if nullable:
                return 1
            size = 1 if flexible else 0  # the count of tagged fields
            for field in describe(type_.struct):
                if field.exists(version) and not field.tagged(version):
                    flexible_field = flexible and field.presence.compact
                    size += encoded_size_min(field.type, version, flexible_field, field.nullable(version))
            return max(size, 1)


@cache
def decoded_cost(type_: WireType) -> int:
    """Bytes of Python memory that one element of `type_` in an array may take, without what its own arrays hold."""
    return ELEMENT_BYTES + _object_cost(type_)


def _object_cost(type_: WireType) -> int:
    match type_:
        case Scalar() | Blob():
            return OBJECT_COSTS[type_.name]
        case Array():
            return LIST_BYTES
        case Nested():
            return struct_cost(type_.struct)


@cache
def struct_cost(struct: type[Struct]) -> int:
    return STRUCT_BYTES + sum(SLOT_BYTES + _object_cost(field.type) for field in describe(struct))
