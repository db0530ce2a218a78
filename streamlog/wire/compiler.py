"""Turns a declaration into straight-line Python: one encoder and one decoder per message and version, at first use.

What the generated code does differently from walking the fields one by one:

- neighbouring fields of fixed width, the length that follows them and an empty tagged section become one struct call;
- nested structs and arrays become loops in the same function: no calls, and one local budget for the whole message;
- fields that the version lacks are not there at all;
- a varint below 128 is one byte and is handled in place, longer ones in a helper;
- reads do not check the end one by one. Positions only grow, and reading past the end of a buffer raises IndexError or
  struct.error; the one way to get past it unnoticed is a slice, which comes back short, allocates no
  more than what is there, and is caught by the single check at the end.

When the code fails it does not know which field it was in. Then the interpreter goes over the same bytes and says it.

`source_of` shows the code that a message compiles to.
"""

from __future__ import annotations

import struct as fixed
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias
from uuid import UUID

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire import interpreter
from streamlog.wire.bounds import UNKNOWN_TAG_COST_BYTES, decoded_cost, encoded_size_min
from streamlog.wire.schema import (
    STRING_BYTES_MAX,
    ZERO_UUID,
    Array,
    Blob,
    Field,
    Nested,
    Scalar,
    Struct,
    WireType,
    describe,
)

Buffer: TypeAlias = bytes | bytearray | memoryview
Encode: TypeAlias = Callable[[Struct, bytearray, "list[Buffer] | None"], bytearray]
Decode: TypeAlias = Callable[[Buffer, int], tuple[Any, int]]

UUIDS_KNOWN_MAX = 4096
"""Topic ids come again with every request, and making a UUID costs forty times what finding it does. When the table is
full it is emptied: strangers can make it useless, not large."""

SHORT = range(8)
"""Arrays of numbers are mostly lists of replicas: for these lengths the struct is ready."""

EXPLAINED_BYTES_MAX = 64 << 10
"""Longer frames are refused without naming the field: the second, slow walk must not become the attack."""


class Malformed(Exception):
    """Raised inside generated decoders; never leaves them."""


# ---- what generated code calls when the short way does not do


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def string_length(length_plus_1: int) -> bytes:
    if length_plus_1 > STRING_BYTES_MAX + 1:
        raise LocalProtocolError("string too long")
    return uvarint(length_plus_1)


def read_uvarint(data: Buffer, position: int, first: int) -> tuple[int, int]:
    """Finish a varint whose first byte, already read, said that more follow."""
    value = first & 0x7F
    for shift in (7, 14, 21, 28):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise Malformed


def read_string_length(data: Buffer, position: int, first: int) -> tuple[int, int]:
    length_plus_1, position = read_uvarint(data, position, first)
    if length_plus_1 > STRING_BYTES_MAX + 1:
        raise Malformed
    return length_plus_1, position


def skip_tagged_fields(data: Buffer, position: int, count: int) -> int:
    for _ in range(count):
        tag = data[position]
        position += 1
        if tag > 0x7F:
            _, position = read_uvarint(data, position, tag)
        size = data[position]
        position += 1
        if size > 0x7F:
            size, position = read_uvarint(data, position, size)
        position += size
    return position


def packer(count: int, letter: str) -> Callable[..., bytes]:
    return fixed.Struct(f">{count}{letter}").pack


def unpacker(count: int, letter: str) -> Callable[[Buffer, int], tuple[Any, ...]]:
    return fixed.Struct(f">{count}{letter}").unpack_from


uuids_known: dict[bytes, UUID] = {bytes(16): ZERO_UUID}


def remember_uuid(raw: bytes) -> UUID:
    if len(uuids_known) >= UUIDS_KNOWN_MAX:
        uuids_known.clear()
        uuids_known[bytes(16)] = ZERO_UUID
    found = uuids_known[raw] = UUID(bytes=raw)
    return found


HELPERS: dict[str, object] = {
    "Malformed": Malformed,
    "StructError": fixed.error,
    "known_uuid": uuids_known.get,
    "packer": packer,
    "read_string_length": read_string_length,
    "read_uvarint": read_uvarint,
    "remember_uuid": remember_uuid,
    "skip_tagged_fields": skip_tagged_fields,
    "string_length": string_length,
    "unpacker": unpacker,
    "uvarint": uvarint,
}


class _Code:
    """Lines of a function under construction, and the names its text refers to."""

    def __init__(self, version: int, flexible: bool) -> None:
        self.version, self.flexible = version, flexible
        self.lines: list[str] = []
        self.indent = 1
        self.names = dict(HELPERS)
        self._fresh = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def block(self, head: str) -> _Block:
        self.line(head)
        return _Block(self)

    def fresh(self, stem: str) -> str:
        self._fresh += 1
        return f"{stem}{self._fresh}"

    def constant(self, stem: str, value: object) -> str:
        """A name for `value` in the generated text: itself where Python can write it down."""
        if value is None or isinstance(value, bool | int | str | bytes | float):
            return repr(value)
        for name, known in self.names.items():
            if known is value:
                return name
        name = self.fresh(stem)
        self.names[name] = value
        return name

    def packer(self, format_: str) -> str:
        name = "pack_" + format_.replace("?", "t")
        self.names[name] = fixed.Struct(">" + format_).pack
        return name

    def unpacker(self, format_: str) -> str:
        name = "unpack_" + format_.replace("?", "t")
        self.names[name] = fixed.Struct(">" + format_).unpack_from
        return name

    def packers(self, letter: str) -> str:
        name = f"pack_n_{letter}"
        self.names[name] = tuple(fixed.Struct(f">{count}{letter}").pack for count in SHORT)
        return name

    def unpackers(self, letter: str) -> str:
        name = f"unpack_n_{letter}"
        self.names[name] = tuple(fixed.Struct(f">{count}{letter}").unpack_from for count in SHORT)
        return name

    def source(self, signature: str) -> str:
        return "\n".join([f"def {signature}:", *self.lines, ""])

    def function(self, signature: str, label: str) -> Any:
        exec(compile(self.source(signature), f"<{label}>", "exec"), self.names)
        return self.names[signature.partition("(")[0]]


class _Block:
    def __init__(self, code: _Code) -> None:
        self.code = code

    def __enter__(self) -> None:
        self.code.indent += 1

    def __exit__(self, *_: object) -> None:
        self.code.indent -= 1


# ---- encoders


class _EncoderCode(_Code):
    """`run` holds what has been decided to be written next but may still be joined by its neighbours."""

    def __init__(self, version: int, flexible: bool) -> None:
        super().__init__(version, flexible)
        self.out = "out"
        self.run: list[tuple[str, str]] = []

    def put(self, format_: str, expression: str) -> None:
        self.run.append((format_, expression))

    def packed(self, extra: tuple[str, str] | None = None) -> str | None:
        """The expression for the bytes of the run, `extra` included."""
        run = self.run if extra is None else [*self.run, extra]
        if not run:
            return None
        if all(expression == "" for _, expression in run):
            return repr(bytes(len(run)))
        arguments = ", ".join(expression for _, expression in run if expression)
        return f"{self.packer(''.join(format_ for format_, _ in run))}({arguments})"

    def flush(self) -> None:
        if (packed := self.packed()) is not None:
            self.line(f"{self.out} += {packed}")
        self.run = []

    def put_uvarint(self, name: str, slow: str = "uvarint") -> None:
        """Write the varint `name`, a local, joined to the run when it takes one byte."""
        before = self.packed()
        with self.block(f"if {name} < 128:"):
            if before is None:
                self.line(f"{self.out}.append({name})")
            else:
                self.line(f"{self.out} += {self.packed(('B', name))}")
        with self.block("else:"):
            self.line(f"{self.out} += {f'{before} + ' if before else ''}{slow}({name})")
        self.run = []

    def struct(self, struct: type[Struct], owner: str) -> None:
        fields = describe(struct)
        for field in fields:
            if not field.exists(self.version) and not field.presence.ignorable:
                held = f"{owner}.{field.name}"
                with self.block(f"if {self.differs(field, held)}:"):
                    self.line("raise Malformed")
        for field in fields:
            if field.exists(self.version) and not field.tagged(self.version):
                self.value(field.type, f"{owner}.{field.name}", field.nullable(self.version), field.presence.compact)
        if self.flexible:
            self.tagged_fields([field for field in fields if field.tagged(self.version)], owner)

    def differs(self, field: Field, held: str) -> str:
        """The test whether a field holds something else than its default."""
        default = field.default
        if default is None:
            if field.optional_by_tag:
                assert isinstance(field.type, Nested), "only structs are optional by tag"
                return f"{held} is not None and {held} != {self.constant('blank', field.type.struct())}"
            return f"{held} is not None"
        if isinstance(field.type, Array):
            return f"{held} or {held} is None" if field.optional else held
        if isinstance(field.type, Scalar) and field.type.name == "uuid":
            zero = self.constant("uuid", default)
            return f"{held} is not {zero} and {held} != {zero}"
        return f"{held} != {self.constant('default', default)}"

    def tagged_fields(self, fields: list[Field], owner: str) -> None:
        if not fields:
            self.put("x", "")
            return
        fields = sorted(fields, key=lambda field: field.presence.tag or 0)
        held = {field.name: self.fresh("held") for field in fields}
        tests = {field.name: f"({self.differs(field, held[field.name])})" for field in fields}
        for field in fields:
            self.line(f"{held[field.name]} = {owner}.{field.name}")
        before, with_none = self.packed(), self.packed(("x", ""))
        self.run = []
        with self.block(f"if {' or '.join(tests.values())}:"):
            if before is not None:
                self.line(f"{self.out} += {before}")
            self.line(f"{self.out}.append({' + '.join(f'bool{test}' for test in tests.values())})")
            for field in fields:
                with self.block(f"if {tests[field.name]}:"):
                    outer, self.out = self.out, self.fresh("tagged")
                    self.line(f"{self.out} = bytearray()")
                    self.tagged_value(field, held[field.name])
                    self.flush()
                    tag = uvarint(field.presence.tag or 0)
                    self.line(f"{outer} += {tag!r} + uvarint(len({self.out}))")
                    self.line(f"{outer} += {self.out}")
                    self.out = outer
        with self.block("else:"):
            self.line(f"{self.out} += {with_none}")

    def tagged_value(self, field: Field, held: str) -> None:
        if isinstance(field.type, Nested):
            self.nested(field.type, held, field.nullable(self.version), null=0)
        else:
            self.value(field.type, held, field.nullable(self.version))

    def value(self, type_: WireType, held: str, nullable: bool, compact: bool = True) -> None:
        compact = compact and self.flexible
        match type_:
            case Scalar("uuid"):
                self.put("16s", f"{held}.bytes")
            case Scalar():
                self.put(type_.format, held)
            case Blob("string"):
                self.string(held, nullable, compact)
            case Blob():
                self.blob(type_.name, held, nullable, compact)
            case Array():
                self.array(type_.element, held, nullable, compact)
            case Nested():
                self.nested(type_, held, nullable)

    def string(self, held: str, nullable: bool, compact: bool) -> None:
        text, length = self.fresh("text"), self.fresh("length")
        plus_1 = " + 1" if compact else ""
        if nullable:
            self.line(f"{text} = {held}")
            with self.block(f"if {text} is None:"):
                self.line(f"{text}, {length} = b'', {0 if compact else -1}")
            with self.block("else:"):
                self.line(f"{text} = {text}.encode()")
                self.line(f"{length} = len({text}){plus_1}")
        else:
            self.line(f"{text} = {held}.encode()")
            self.line(f"{length} = len({text}){plus_1}")
        if compact:
            self.put_uvarint(length, "string_length")
        else:
            self.put("h", length)
            self.flush()
        self.line(f"{self.out} += {text}")

    def blob(self, kind: str, held: str, nullable: bool, compact: bool) -> None:
        content, length = self.fresh("content"), self.fresh("length")
        plus_1 = " + 1" if compact else ""
        self.line(f"{content} = {held}")
        if nullable:
            self.line(f"{length} = {0 if compact else -1} if {content} is None else len({content}){plus_1}")
        else:
            self.line(f"{length} = len({content}){plus_1}")
        if compact:
            self.put_uvarint(length)
        else:
            self.put("i", length)
            self.flush()
        with self.block(f"if {content}:"):
            if kind == "records":
                assert self.out == "out", "records never travel in a tagged field"
                with self.block("if parts is None:"):
                    self.line(f"{self.out} += {content}")
                with self.block("else:"):
                    self.line(f"parts += ({self.out}, {content})")
                    self.line(f"{self.out} = bytearray()")
            else:
                self.line(f"{self.out} += {content}")

    def array(self, element: WireType, held: str, nullable: bool, compact: bool) -> None:
        elements, length = self.fresh("elements"), self.fresh("length")
        plus_1 = " + 1" if compact else ""
        self.line(f"{elements} = {held}")
        if nullable:
            self.line(f"{length} = {0 if compact else -1} if {elements} is None else len({elements}){plus_1}")
        else:
            self.line(f"{length} = len({elements}){plus_1}")
        if compact:
            self.put_uvarint(length)
        else:
            self.put("i", length)
            self.flush()
        if isinstance(element, Scalar) and element.name != "uuid":
            with self.block(f"if {elements}:"):
                count = f"{length} - 1" if compact else length
                short = self.packers(element.format)
                self.line(f"n = {count}")
                self.line(
                    f"{self.out} += ({short}[n] if n < {len(SHORT)} else packer(n, {element.format!r}))(*{elements})"
                )
            return
        item = self.fresh("item")
        with self.block(f"for {item} in {f'{elements} or ()' if nullable else elements}:"):
            self.value(element, item, nullable=False)
            self.flush()

    def nested(self, type_: Nested, held: str, nullable: bool, null: int = 255) -> None:
        """A struct that can be null has a byte in front: 1, or `null`, which is -1 and among tagged fields 0."""
        inner = self.fresh("inner")
        self.line(f"{inner} = {held}")
        if not nullable:
            self.struct(type_.struct, inner)
            return
        self.flush()
        with self.block(f"if {inner} is None:"):
            self.line(f"{self.out}.append({null})")
        with self.block("else:"):
            self.put("b", "1")
            self.struct(type_.struct, inner)
            self.flush()


def _encoder_code(struct: type[Struct], version: int, flexible: bool) -> _EncoderCode:
    code = _EncoderCode(version, flexible)
    with code.block("try:"):
        code.struct(struct, "message")
        code.flush()
        if len(code.lines) == 1:
            code.line("pass")  # a message of no fields
    with code.block("except Exception as error:"):
        code.line("explain(message, error)")
    code.line("return out")

    def explain(message: Struct, error: Exception) -> NoReturn:
        """Raise what the interpreter has to say about a message that could not be encoded."""
        interpreter.encode(message, version, flexible)
        raise error

    code.names["explain"] = explain
    return code


# ---- decoders


class _DecoderCode(_Code):
    """`run` holds reads that have been decided but may still be joined by their neighbours."""

    def __init__(self, version: int, flexible: bool, views: bool) -> None:
        super().__init__(version, flexible)
        self.views = views  # data is a memoryview, because the message carries records; else it is bytes
        self.run: list[tuple[str, str]] = []
        self.afterwards: list[str] = []

    def take(self, format_: str, name: str, afterwards: str | None = None) -> None:
        self.run.append((format_, name))
        if afterwards is not None:
            self.afterwards.append(afterwards)

    def flush(self) -> None:
        if not self.run:
            return
        format_ = "".join(letter for letter, _ in self.run)
        if format_ == "B":
            self.line(f"{self.run[0][1]} = data[p]")
            self.line("p += 1")
        else:
            names = ", ".join(name for _, name in self.run)
            self.line(f"{names}{',' if len(self.run) == 1 else ''} = {self.unpacker(format_)}(data, p)")
            self.line(f"p += {fixed.calcsize('>' + format_)}")
        for text in self.afterwards:
            self.line(text)
        self.run, self.afterwards = [], []

    def refuse_if(self, condition: str) -> None:
        with self.block(f"if {condition}:"):
            self.line("raise Malformed")

    def struct(self, struct: type[Struct]) -> str:
        """Emit the reads of one struct. Returns the expression that makes it, to be used at once."""
        made: list[str] = []
        fields = [field for field in describe(struct) if field.exists(self.version)]
        for field in fields:
            if not field.tagged(self.version):
                nullable = field.nullable(self.version)
                made.append(f"{field.name}={self.value(field.type, nullable, field.presence.compact)}")
        if self.flexible:
            made += self.tagged_fields([field for field in fields if field.tagged(self.version)])
        self.flush()
        return f"{self.constant(struct.__name__, struct)}({', '.join(made)})"

    def tagged_fields(self, fields: list[Field]) -> list[str]:
        count = self.fresh("tags")
        self.take("B", count)
        self.flush()
        held = {field.name: self.fresh("held") for field in fields}
        for field in fields:
            self.line(f"{held[field.name]} = {self.fresh_default(field)}")
        with self.block(f"if {count}:"):
            with self.block(f"if {count} > 127:"):
                self.line(f"{count}, p = read_uvarint(data, p, {count})")
            self.line(f"budget -= {count} * {UNKNOWN_TAG_COST_BYTES}")
            self.refuse_if(f"2 * {count} > end - p or budget < 0")
            if not fields:
                self.line(f"p = skip_tagged_fields(data, p, {count})")
            else:
                self.known_tagged_fields(fields, count, held)
        return [f"{field.name}={held[field.name]}" for field in fields]

    def fresh_default(self, field: Field) -> str:
        """An expression for the field's default that no two messages share, if it can be changed."""
        if isinstance(field.default, list):
            assert not field.default, "the default of an array is empty or null"
            return "[]"
        if isinstance(field.default, Struct):
            return f"{self.constant('blank', type(field.default))}()"
        return self.constant("default", field.default)

    def known_tagged_fields(self, fields: list[Field], count: str, held: dict[str, str]) -> None:
        tag, stop = self.fresh("tag"), self.fresh("stop")
        with self.block(f"for _ in range({count}):"):
            for name in (tag, stop):
                self.line(f"{name} = data[p]")
                self.line("p += 1")
                with self.block(f"if {name} > 127:"):
                    self.line(f"{name}, p = read_uvarint(data, p, {name})")
            self.line(f"{stop} += p")
            self.refuse_if(f"{stop} > end")
            choice = "if"
            for field in fields:
                with self.block(f"{choice} {tag} == {field.presence.tag}:"):
                    value = self.tagged_value(field)
                    self.flush()
                    self.line(f"{held[field.name]} = {value}")
                    self.refuse_if(f"p != {stop}")
                choice = "elif"
            with self.block("else:"):
                self.line(f"p = {stop}")

    def tagged_value(self, field: Field) -> str:
        if isinstance(field.type, Nested):
            return self.nested(field.type, field.nullable(self.version), null="== 0")
        return self.value(field.type, field.nullable(self.version))

    def value(self, type_: WireType, nullable: bool, compact: bool = True) -> str:
        """Emit the reads of one value. Returns the local that holds it once the run is flushed."""
        compact = compact and self.flexible
        match type_:
            case Scalar("uuid"):
                name = self.fresh("uuid")
                self.take("16s", name, f"{name} = known_uuid({name}) or remember_uuid({name})")
                return name
            case Scalar():
                name = self.fresh("value")
                self.take(type_.format, name)
                return name
            case Blob():
                return self.blob(type_.name, nullable, compact)
            case Array():
                return self.array(type_.element, nullable, compact)
            case Nested():
                return self.nested(type_, nullable)

    def length(self, format_: str, compact: bool, reader: str = "read_uvarint") -> str:
        """Read a length into a local: as it is, or plus one in the compact encoding."""
        name = self.fresh("length")
        self.take("B" if compact else format_, name)
        self.flush()
        if compact:
            with self.block(f"if {name} > 127:"):
                self.line(f"{name}, p = {reader}(data, p, {name})")
        return name

    def blob(self, kind: str, nullable: bool, compact: bool) -> str:
        name = self.fresh(kind)
        if kind == "string":
            length = self.length("h", compact, "read_string_length")
            content = "str(data[p:stop], 'utf-8')" if self.views else "data[p:stop].decode()"
        else:
            length = self.length("i", compact)
            content = "bytes(data[p:stop])" if self.views and kind == "bytes" else "data[p:stop]"
        present = f"if {length}:" if compact else f"if {length} >= 0:"
        with self.block(present):
            self.line(f"stop = p + {length}{' - 1' if compact else ''}")
            self.line(f"{name} = {content}")
            self.line("p = stop")
        self.null(name, length, nullable, compact)
        return name

    def null(self, name: str, length: str, nullable: bool, compact: bool) -> None:
        if nullable and not compact:
            with self.block(f"elif {length} == -1:"):
                self.line(f"{name} = None")
        with self.block("else:"):
            self.line(f"{name} = None" if nullable and compact else "raise Malformed")

    def array(self, element: WireType, nullable: bool, compact: bool) -> str:
        name = self.fresh("elements")
        length = self.length("i", compact)
        with self.block(f"if {length}:" if compact else f"if {length} >= 0:"):
            if compact:
                self.line(f"{length} -= 1")
            self.line(f"budget -= {length} * {decoded_cost(element)}")
            size_min = encoded_size_min(element, self.version, self.flexible)
            needed = length if size_min == 1 else f"{length} * {size_min}"
            self.refuse_if(f"{needed} > end - p or budget < 0")
            self.elements(element, name, length)
        self.null(name, length, nullable, compact)
        return name

    def elements(self, element: WireType, name: str, length: str) -> None:
        if isinstance(element, Scalar) and element.name != "uuid":
            short = self.unpackers(element.format)
            unpack = f"({short}[{length}] if {length} < {len(SHORT)} else unpacker({length}, {element.format!r}))"
            self.line(f"{name} = list({unpack}(data, p)) if {length} else []")
            self.line(f"p += {length}{f' * {element.size}' if element.size > 1 else ''}")
            return
        self.line(f"{name} = []")
        with self.block(f"for _ in range({length}):"):
            made = self.struct(element.struct) if isinstance(element, Nested) else self.value(element, nullable=False)
            self.flush()
            self.line(f"{name}.append({made})")

    def nested(self, type_: Nested, nullable: bool, null: str = "< 0") -> str:
        name = self.fresh("inner")
        if not nullable:
            made = self.struct(type_.struct)
            self.line(f"{name} = {made}")
            return name
        self.take("b", name)
        self.flush()
        with self.block(f"if {name} {null}:"):
            self.line(f"{name} = None")
        with self.block("else:"):
            made = self.struct(type_.struct)
            self.line(f"{name} = {made}")
        return name


def has_records(struct: type[Struct]) -> bool:
    """Whether a message carries record batches, which are not copied out of the frame."""

    def inside(type_: WireType) -> bool:
        match type_:
            case Array():
                return inside(type_.element)
            case Nested():
                return has_records(type_.struct)
            case _:
                return type_ == Blob("records")

    return any(inside(field.type) for field in describe(struct))


def _decoder_code(
    struct: type[Struct], version: int, flexible: bool, budget_floor: int, budget_per_byte: int
) -> _DecoderCode:
    views = has_records(struct)
    code = _DecoderCode(version, flexible, views)
    if views:
        code.line("if type(data) is not memoryview: data = memoryview(data)")
    else:
        code.line("if type(data) is not bytes: data = bytes(data)")
    code.line("p, end = position, len(data)")
    code.line(f"budget = {budget_floor} + {budget_per_byte} * end")
    with code.block("try:"):
        made = code.struct(struct)
        code.line(f"message = {made}")
    with code.block("except (IndexError, StructError, UnicodeDecodeError, Malformed) as error:"):
        code.line("explain(data, position, p, error)")
    with code.block("if p > end:"):
        code.line("explain(data, position, p, None)")
    code.line("return message, p")

    def explain(data: Buffer, position: int, p: int, error: Exception | None) -> NoReturn:
        """Raise what the interpreter has to say about bytes that could not be decoded."""
        if len(data) <= EXPLAINED_BYTES_MAX:
            budget = budget_floor + budget_per_byte * len(data)
            interpreter.decode(struct, data, version, flexible, position, budget)
        raise RemoteProtocolError(f"{struct.__name__} version {version} is malformed near byte {p}") from error

    code.names["explain"] = explain
    return code


ENCODER_SIGNATURE = "encode(message, out, parts=None)"
DECODER_SIGNATURE = "decode(data, position=0)"


def compile_encoder(struct: type[Struct], version: int, flexible: bool) -> Encode:
    """A function that appends a message to `out` and returns the buffer to go on with.

    With a list as `parts`, record batches are not copied: each goes into the list, preceded by what was
    written before it, and the buffer that comes back holds the rest.
    """
    code = _encoder_code(struct, version, flexible)
    function: Encode = code.function(ENCODER_SIGNATURE, f"{struct.__name__} v{version} encoder")
    return function


def compile_decoder(
    struct: type[Struct], version: int, flexible: bool, budget_floor: int, budget_per_byte: int
) -> Decode:
    """A function from (data, position) to (message, position behind it)."""
    code = _decoder_code(struct, version, flexible, budget_floor, budget_per_byte)
    function: Decode = code.function(DECODER_SIGNATURE, f"{struct.__name__} v{version} decoder")
    return function


def source_of(struct: type[Struct], version: int, flexible: bool) -> str:
    """The Python text that a message compiles to, for people."""
    encoder = _encoder_code(struct, version, flexible).source(ENCODER_SIGNATURE)
    decoder = _decoder_code(struct, version, flexible, 0, 0).source(DECODER_SIGNATURE)
    return f"{encoder}\n\n{decoder}"
