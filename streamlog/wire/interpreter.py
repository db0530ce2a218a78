"""The plain codec: walks the declarations field by field, checks everything, and says what is wrong and where.

It is the second implementation beside the compiler's. Tests hold the two equal for every message and version; at
run time it is called only when the compiled code has already failed, to name the field that did it.
"""

from __future__ import annotations

import struct as fixed
from collections.abc import Container, Sequence
from typing import cast
from uuid import UUID

from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.bounds import UNKNOWN_TAG_COST_BYTES, decoded_cost, encoded_size_min
from streamlog.wire.schema import STRING_BYTES_MAX, Array, Blob, Field, Nested, Scalar, Struct, WireType, describe

LENGTH_MAX = 0x7FFF_FFFF
UVARINT_BYTES_MAX = 5


class Encoder:
    """Appends values to `out` in one version."""

    def __init__(self, version: int, flexible: bool, out: bytearray) -> None:
        self.version, self.flexible, self.out = version, flexible, out

    def struct(self, value: Struct, path: str) -> None:
        tagged = []
        for field in describe(type(value)):
            held = getattr(value, field.name)
            place = f"{path}.{field.name}"
            if field.tagged(self.version):
                if not field.is_default(held):
                    tagged.append((field, held, place))
            elif field.exists(self.version):
                self.value(field.type, held, place, field.nullable(self.version), field.presence.compact)
            elif not field.presence.ignorable and not field.is_default(held):
                raise LocalProtocolError(
                    f"{place} = {held!r:.80} cannot be sent: version {self.version} has no such field"
                )
        if self.flexible:
            self.tagged_fields(tagged)

    def tagged_fields(self, tagged: list[tuple[Field, object, str]]) -> None:
        self.uvarint(len(tagged))
        for field, held, place in sorted(tagged, key=lambda entry: cast(int, entry[0].presence.tag)):
            inner = Encoder(self.version, self.flexible, bytearray())
            inner.value(field.type, held, place, field.nullable(self.version), null_struct=b"\x00")
            self.uvarint(cast(int, field.presence.tag))
            self.uvarint(len(inner.out))
            self.out += inner.out

    def value(
        self,
        type_: WireType,
        value: object,
        path: str,
        nullable: bool,
        compact: bool = True,
        null_struct: bytes = b"\xff",
    ) -> None:
        if value is None and not nullable:
            raise LocalProtocolError(f"{path} is None, and version {self.version} cannot say null")
        match type_:
            case Scalar():
                self.scalar(type_, value, path)
            case Blob():
                self.blob(type_.name, value, path, self.flexible and compact)
            case Array():
                if not (value is None or isinstance(value, list | tuple)):
                    raise LocalProtocolError(f"{path} is {type(value).__name__}, not a list")
                self.length(None if value is None else len(value), 4, self.flexible and compact, path)
                for index, element in enumerate(value or ()):
                    self.value(type_.element, element, f"{path}[{index}]", nullable=False)
            case Nested():
                if nullable:
                    self.out += null_struct if value is None else b"\x01"
                if value is not None:
                    if not isinstance(value, type_.struct):
                        raise LocalProtocolError(f"{path} is {type(value).__name__}, not {type_.struct.__name__}")
                    self.struct(value, path)

    def scalar(self, type_: Scalar, value: object, path: str) -> None:
        packed = value
        if type_.name == "uuid":
            packed = value.bytes if isinstance(value, UUID) else None
        try:
            self.out += fixed.pack(">" + type_.format, packed)
        except fixed.error:
            raise LocalProtocolError(f"{path} = {value!r:.80} is not of type {type_.name}") from None

    def blob(self, kind: str, value: object, path: str, compact: bool) -> None:
        prefix_bytes = 2 if kind == "string" else 4
        if value is None:
            self.length(None, prefix_bytes, compact, path)
            return
        if kind == "string":
            if not isinstance(value, str):
                raise LocalProtocolError(f"{path} is {type(value).__name__}, not str")
            try:
                value = value.encode()
            except UnicodeEncodeError:
                raise LocalProtocolError(f"{path} holds a lone surrogate, which UTF-8 cannot say") from None
        elif not isinstance(value, bytes | bytearray | memoryview):
            raise LocalProtocolError(f"{path} is {type(value).__name__}, not bytes")
        if kind == "string" and len(value) > STRING_BYTES_MAX:
            raise LocalProtocolError(f"{path} is {len(value)} bytes of UTF-8; a string has at most {STRING_BYTES_MAX}")
        self.length(len(value), prefix_bytes, compact, path)
        self.out += value

    def length(self, length: int | None, prefix_bytes: int, compact: bool, path: str) -> None:
        if length is not None and length > LENGTH_MAX:
            raise LocalProtocolError(f"{path} is too long: {length}")
        if compact:
            self.uvarint(0 if length is None else length + 1)
        else:
            self.out += (-1 if length is None else length).to_bytes(prefix_bytes, "big", signed=True)

    def uvarint(self, value: int) -> None:
        while value > 0x7F:
            self.out.append(value & 0x7F | 0x80)
            value >>= 7
        self.out.append(value)


class Decoder:
    """Reads values from `data`, starting at `position`, in one version."""

    def __init__(self, version: int, flexible: bool, data: memoryview, position: int, budget: int) -> None:
        self.version, self.flexible = version, flexible
        self.data, self.position = data, position
        self.budget = budget  # bytes of memory that elements of arrays may still cost

    def struct(self, struct: type[Struct], path: str) -> Struct:
        fields = [field for field in describe(struct) if field.exists(self.version)]
        values = {
            field.name: self.value(
                field.type, f"{path}.{field.name}", field.nullable(self.version), field.presence.compact
            )
            for field in fields
            if not field.tagged(self.version)
        }
        if self.flexible:
            known = {field.presence.tag: field for field in fields if field.tagged(self.version)}
            self.tagged_fields(known, values, path)
        return struct(**values)

    def tagged_fields(self, known: dict[int | None, Field], values: dict[str, object], path: str) -> None:
        count = self.uvarint(path)
        if 2 * count > len(self.data) - self.position:
            raise RemoteProtocolError(f"{path} announces {count} tagged fields; fewer bytes are left")
        self.spend(count * UNKNOWN_TAG_COST_BYTES, path)
        for _ in range(count):
            tag = self.uvarint(path)
            size = self.uvarint(path)
            end = self.position + size
            if end > len(self.data):
                raise RemoteProtocolError(f"{path}: tagged field {tag} announces {size} bytes; fewer are left")
            field = known.get(tag)
            if field is None:
                self.position = end
                continue
            place = f"{path}.{field.name}"
            values[field.name] = self.value(field.type, place, field.nullable(self.version), null_structs=(0,))
            if self.position != end:
                raise RemoteProtocolError(f"{place} is not as long as its tag says")

    def value(
        self,
        type_: WireType,
        path: str,
        nullable: bool,
        compact: bool = True,
        null_structs: Container[int] = range(0x80, 0x100),
    ) -> object:
        match type_:
            case Scalar():
                (value,) = fixed.unpack(">" + type_.format, self.take(type_.size, path))
                return UUID(bytes=value) if type_.name == "uuid" else value
            case Blob():
                return self.blob(type_.name, path, nullable, self.flexible and compact)
            case Array():
                return self.array(type_.element, path, nullable, self.flexible and compact)
            case Nested():
                if nullable and self.take(1, path)[0] in null_structs:
                    return None
                return self.struct(type_.struct, path)

    def blob(self, kind: str, path: str, nullable: bool, compact: bool) -> object:
        length = self.length(2 if kind == "string" else 4, compact, nullable, path)
        if length is None:
            return None
        if kind == "string" and length > STRING_BYTES_MAX:
            raise RemoteProtocolError(f"{path} announces {length} bytes; a string has at most {STRING_BYTES_MAX}")
        content = self.take(length, path)
        if kind == "records":
            return content
        if kind == "bytes":
            return bytes(content)
        try:
            return str(content, "utf-8")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(f"{path} is not UTF-8: {error}") from None

    def array(self, element: WireType, path: str, nullable: bool, compact: bool) -> object:
        count = self.length(4, compact, nullable, path)
        if count is None:
            return None
        if count * encoded_size_min(element, self.version, self.flexible) > len(self.data) - self.position:
            raise RemoteProtocolError(f"{path} announces {count} elements; fewer bytes are left")
        self.spend(count * decoded_cost(element), path)
        return [self.value(element, f"{path}[{index}]", nullable=False) for index in range(count)]

    def length(self, prefix_bytes: int, compact: bool, nullable: bool, path: str) -> int | None:
        if compact:
            length = self.uvarint(path) - 1
        else:
            length = int.from_bytes(self.take(prefix_bytes, path), "big", signed=True)
        if length == -1 and nullable:
            return None
        if length < 0:
            raise RemoteProtocolError(f"{path} {'is null' if length == -1 else f'has length {length}'}")
        return length

    def spend(self, cost: int, path: str) -> None:
        self.budget -= cost
        if self.budget < 0:
            raise RemoteProtocolError(f"{path} would cost more memory than a message of this size may")

    def uvarint(self, path: str) -> int:
        value = 0
        for shift in range(0, 7 * UVARINT_BYTES_MAX, 7):
            byte = self.take(1, path)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise RemoteProtocolError(f"{path}: a varint of more than {UVARINT_BYTES_MAX} bytes")

    def take(self, size: int, path: str) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise RemoteProtocolError(f"{path} needs {size} bytes; {len(self.data) - self.position} are left")
        content = self.data[self.position : end]
        self.position = end
        return content


def encode(value: Struct, version: int, flexible: bool) -> bytes:
    """Encode `value`. Raises LocalProtocolError that names the field."""
    out = bytearray()
    Encoder(version, flexible, out).struct(value, type(value).__name__)
    return bytes(out)


def decode(
    struct: type[Struct], data: Sequence[int], version: int, flexible: bool, position: int, budget: int
) -> tuple[Struct, int]:
    """Decode one `struct`. Returns it and the position behind it. Raises RemoteProtocolError that names the field."""
    decoder = Decoder(version, flexible, memoryview(cast(bytes, data)), position, budget)
    return decoder.struct(struct, struct.__name__), decoder.position
