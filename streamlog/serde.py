"""Python values <-> the bytes of record keys, record values and table rows.

A `Serde` is a frozen pair of functions, made once per topic or table. Three makers, because the three places
want different bytes for the same type:

- `key_serde_for`: `str` is its UTF-8, `bytes` itself and `int` ASCII decimal, so that `kcat -k`, the console tools and
  Java's StringSerializer produce the very same keys, and so the same partitions. Everything else is JSON.
- `serde_for`: record values. JSON or msgpack by msgspec; `bytes` is always itself; "raw" is for `str`, `bytes`, `int`.
- `table_value_serde_for`: rows of tables and their changelogs. One byte says how the rest is encoded (today always
  msgpack), so that a later release can add an expiry or headers to rows and still read the old ones.

None never reaches a serde: it is a tombstone, or an absent key, and its meaning belongs to the caller.

What is written can be read. msgspec checks what it reads and not what it writes, so every value that is not plainly of
its type is read back before it is let out: a str in a field of type int would otherwise be found out by other agents,
or by the same one after a restart, when it is in the log for good. That costs a record some 150 ns.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

import msgspec

from streamlog.errors import UserError

T = TypeVar("T")

Format: TypeAlias = Literal["json", "msgpack", "raw"]
Data: TypeAlias = bytes | memoryview

VALUE_FORMAT_MSGPACK = 1
"""First byte of a table row: the rest is one msgpack value. 0 stays unused, so that a zeroed page is never taken
for a row; 2 to 15 are reserved for rows with an expiry, with headers, and for later encodings."""

SHOWN_BYTES_MAX = 64
"""How much of a value an error message quotes: enough to recognise it, not enough to fill a log."""


class SerdeError(UserError):
    """A value does not fit its declared type, on the way in or out; says the type, the field and the first bytes."""


@dataclass(frozen=True, slots=True)
class Serde(Generic[T]):
    """How one type is written and read.

    `encode` gives bytes; `decode` takes bytes or a memoryview and keeps no reference to it. Both raise `SerdeError`.
    """

    type: Any
    """The Python type, as it was declared: a class, or a generic alias such as `list[int]`."""
    name: str
    """For messages and listings, such as "json Flight"."""
    encode: Callable[[T], bytes]
    decode: Callable[[Data], T]
    read: Callable[[Data], T] | None = None
    """`decode` without a word about what went wrong: raises what the codec raises. For batches, whose bad values are
    decoded once more to learn the reason."""
    fit: Callable[[Any], T] | None = None
    """A value as it would be read back: itself, or its equal of the declared type (a record for a dict that reads as
    one). Raises `SerdeError` where `encode` would. For tables, which keep values for long before they write them."""


@overload
def serde_for(type: type[T], format: Format = ..., what: str = ...) -> Serde[T]: ...
@overload
def serde_for(type: Any, format: Format = ..., what: str = ...) -> Serde[Any]: ...
def serde_for(type: Any, format: Format = "json", what: str = "") -> Serde[Any]:  # noqa: A002
    """Serde of record values: `bytes` is itself in any format, everything else is written in `format`.

    Types are those of msgspec (Struct, dataclass, TypedDict, NamedTuple, datetime, UUID, Decimal, Enum, list, dict,
    tuple, set, Optional, unions it can tell apart) and pydantic models, at the top or nested.

    Args:   what: whose values they are, for the messages of `encode`, such as "topic flights".
    Raises: UserError: the type or the format is not supported.
    """
    if type is bytes or format == "raw":
        return _raw(type, what)
    if format == "json":
        return _json(type, what)
    if format == "msgpack":
        return _msgpack(type, what)
    raise UserError(f"unknown format {format!r}: use 'json', 'msgpack' or 'raw'")


@overload
def key_serde_for(type: type[T], format: Format = ..., what: str = ...) -> Serde[T]: ...
@overload
def key_serde_for(type: Any, format: Format = ..., what: str = ...) -> Serde[Any]: ...
def key_serde_for(type: Any, format: Format = "json", what: str = "") -> Serde[Any]:  # noqa: A002
    """Serde of record keys: `str`, `bytes` and `int` as other Kafka clients write them, everything else in `format`.

    Keys that compare equal have to be equal in bytes, or one key would live in two partitions. This serde sees to it:
    1 and 1.0 and 0.0 and -0.0 are one key of type `float`, sets are sorted, a datetime is in UTC; what does not equal
    itself when it is read back, such as NaN, is refused, and so is a type that is several kinds of numbers, such as
    `int | float`: 1 and 1.0 are equal, and would be written in two ways. Left to the caller: Decimals
    (1.0 and 1.00), keys of type `Any`, and inside of larger keys a -0.0 and the zone of a time.
    """
    if type in (str, bytes, int):
        return _raw(type, what)
    serde = _canonical_key(serde_for(type, format, what), what)
    if (numbers := _several_numbers(type)) is not None:
        raise UserError(
            f"{what or 'key'}: keys of type {type_name(type)} can be {' or '.join(numbers)}, and equal numbers would "
            f"be several keys, written in several ways: declare one kind, float for instance"
        )
    return _float_key(serde, what) if type is float else serde


def _canonical_key(serde: Serde[Any], what: str) -> Serde[Any]:
    write = msgspec.json.Encoder(enc_hook=_encode_foreign, order="deterministic").encode
    if serde.name.startswith("msgpack"):
        write = msgspec.msgpack.Encoder(enc_hook=_encode_foreign, order="deterministic").encode

    def encode(value: Any) -> bytes:
        try:
            if value.__class__ is datetime and value.tzinfo is not None:
                value = value.astimezone(UTC)
            back = serde.decode(serde.encode(value))
            if back == value:
                return write(back)
        except SerdeError:
            raise
        except Exception as error:
            raise _unfit(serde, value, error, what) from error
        raise _unfit(serde, value, f"read back it is {_shown(back)}, and a key has to equal itself", what)

    return Serde(serde.type, serde.name, encode, serde.decode)


def _float_key(serde: Serde[float], what: str) -> Serde[float]:
    def encode(value: float) -> bytes:
        try:
            number = operator.truediv(value, 1) + 0.0
        except (TypeError, OverflowError) as error:
            raise _unfit(serde, value, str(error), what) from None
        if not math.isfinite(number):
            raise _unfit(serde, value, "a key has to equal itself when it is read back", what)
        return serde.encode(number)

    return Serde(serde.type, serde.name, encode, serde.decode)


@overload
def table_value_serde_for(type: type[T], what: str = ...) -> Serde[T]: ...
@overload
def table_value_serde_for(type: Any, what: str = ...) -> Serde[Any]: ...
def table_value_serde_for(type: Any, what: str = "") -> Serde[Any]:  # noqa: A002
    """Serde of table rows, in the store and in the changelog: one format byte, then the value.

    An unknown format byte raises `SerdeError`: the row was written by a newer release, or is no row at all.
    """
    _check_supported(type)
    write = msgspec.msgpack.Encoder(enc_hook=_encode_foreign).encode
    read = _decoder(msgspec.msgpack.Decoder, type).decode
    name = f"row {type_name(type)}"
    prefix = bytes([VALUE_FORMAT_MSGPACK])
    scalar = type in _SCALARS
    plain = type if scalar else None

    # No serde inside a serde: rows are read and written a million times a second, and a call costs what msgpack does.
    def encode(value: Any) -> bytes:
        try:
            data = write(value)
            if value.__class__ is not plain:
                read(data)  # what `fit` let in may have been changed in place
        except Exception as error:  # see `_words`
            raise _unfit(serde, value, error, what) from error
        return prefix + data

    def fit(value: Any) -> Any:
        try:
            data = write(value)
            if value.__class__ is plain:
                return value
            kept = read(data)
            if scalar and kept != value:
                raise TypeError(f"it would be read as {kept!r}")
            return value if kept.__class__ is value.__class__ and kept == value else kept
        except Exception as error:
            raise _unfit(serde, value, error, what) from error

    def decode(data: Data) -> Any:
        if data[:1] == prefix:
            try:
                return read(data[1:])
            except Exception as error:
                raise SerdeError(
                    f"not {name}: {_words(error)}. {_quote(data)}. If the table's type was changed: a new field needs "
                    "a default; for any other change give the table another name, or have it made anew with "
                    "`streamlog -A MODULE reset`"
                ) from error
        raise SerdeError(
            f"table row of {type_name(type)} has format {data[0] if data else 'none'}, and this release reads "
            f"format {VALUE_FORMAT_MSGPACK} only; a newer streamlog wrote it, or it is no row. {_quote(data)}"
        )

    serde: Serde[Any] = Serde(type, name, encode, decode, fit=fit)
    return serde


def checked_when_set(serde: Serde[T]) -> Serde[T]:
    """The same, with a `fit` that encodes: what cannot be written again, though it was read, is refused by `set`."""
    if serde.type in _SCALARS:
        return serde

    def fit(value: Any) -> T:
        serde.encode(value)
        return cast(T, value)

    return replace(serde, fit=fit)


def type_name(kind: Any) -> str:
    """How messages call a type: `Flight`, `list[int]`."""
    return kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")


def check_key_of_dict(kind: Any, what: str) -> None:
    """Refuse types whose values cannot be keys of a dict, as far as a type tells. Raises: UserError."""
    if any(_cannot_be_hashed(one) for one in _parts(kind)):
        raise UserError(
            f"{what}: {type_name(kind)} cannot be a key, because it can change. Use a tuple instead of a list, a "
            f"frozenset instead of a set, records and dataclasses with frozen=True"
        )


def _several_numbers(kind: Any) -> list[str] | None:
    """Kinds of numbers of which the type, or a part of it, can be any; None if there is at most one."""
    for part in _parts(kind):
        if isinstance(part, msgspec.inspect.UnionType):
            numbers = [name for one in part.types for number, name in _NUMBERS if isinstance(one, number)]
            if len(numbers) > 1:
                return numbers
    return None


_NUMBERS = (
    (msgspec.inspect.BoolType, "bool"),  # True == 1
    (msgspec.inspect.IntType, "int"),
    (msgspec.inspect.FloatType, "float"),
    (msgspec.inspect.DecimalType, "Decimal"),
)


def _parts(kind: Any) -> Iterator[Any]:
    """A type and what values of it consist of, as msgspec describes them; nothing when it does not know the type."""
    try:
        waiting = [msgspec.inspect.type_info(kind)]
    except (TypeError, NameError):
        return
    seen: set[Any] = set()  # records may contain themselves
    while waiting:
        info = waiting.pop()
        yield info
        match info:
            case msgspec.inspect.UnionType(types=types) | msgspec.inspect.TupleType(item_types=types):
                waiting += types
            case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.FrozenSetType(item_type=item):
                waiting.append(item)
            case (
                msgspec.inspect.StructType(cls=cls, fields=fields)
                | msgspec.inspect.DataclassType(cls=cls, fields=fields)
                | msgspec.inspect.NamedTupleType(cls=cls, fields=fields)
            ) if cls not in seen:
                seen.add(cls)
                waiting += [field.type for field in fields]


def _cannot_be_hashed(info: Any) -> bool:
    """Whether values of this very type, whatever they consist of, have no hash."""
    match info:
        case msgspec.inspect.StructType(cls=cls):  # it has a __hash__, which raises unless frozen
            return not getattr(cls, "__origin__", cls).__struct_config__.frozen
        case msgspec.inspect.DataclassType(cls=cls) | msgspec.inspect.CustomType(cls=cls):
            return getattr(cls, "__origin__", cls).__hash__ is None
        case _:
            return isinstance(info, _CHANGING)


_CHANGING = (
    msgspec.inspect.ListType,
    msgspec.inspect.SetType,
    msgspec.inspect.DictType,
    msgspec.inspect.TypedDictType,
    msgspec.inspect.ByteArrayType,
)


def can_change(kind: Any) -> bool:
    """Whether values of this type can be changed in place, as far as anybody can tell: unknown types can."""
    try:
        return _changes(msgspec.inspect.type_info(kind), set())
    except (TypeError, NameError):
        return True


def _changes(info: Any, seen: set[Any]) -> bool:
    """`seen`: the records that this one is part of, which may contain themselves."""
    match info:
        case msgspec.inspect.UnionType(types=types) | msgspec.inspect.TupleType(item_types=types):
            return any(_changes(one, seen) for one in types)
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.FrozenSetType(item_type=item):
            return _changes(item, seen)
        case msgspec.inspect.StructType(cls=cls):
            frozen = getattr(cls, "__origin__", cls).__struct_config__.frozen
            return not frozen or _has_changing_field(info, seen)
        case msgspec.inspect.NamedTupleType():
            return _has_changing_field(info, seen)
        case _:
            return not isinstance(info, _CONSTANT)


def _has_changing_field(info: Any, seen: set[Any]) -> bool:
    if info.cls in seen:
        return False  # decided where it was met first
    seen.add(info.cls)
    return any(_changes(field.type, seen) for field in info.fields)


def separator(serde: Serde[T]) -> Callable[[T], T] | None:
    """Makes a value that shares nothing that can change with the one it is given; None if values cannot change.

    Raises, the function: SerdeError: the value was spoilt in place.
    """
    if not can_change(serde.type):
        return None
    return copier(serde.type) or (lambda value: serde.decode(serde.encode(value)))


def copier(kind: type[T]) -> Callable[[T], T] | None:
    """Copies records that can change and consist of what cannot, in 50 ns; None for all other types."""
    try:
        info = msgspec.inspect.type_info(kind)
    except (TypeError, NameError):
        return None
    if not isinstance(info, msgspec.inspect.StructType) or _has_changing_field(info, set()):
        return None
    cls: Any = getattr(info.cls, "__origin__", info.cls)
    return cast("Callable[[T], T]", cls.__copy__)


_CONSTANT = (
    msgspec.inspect.NoneType,
    msgspec.inspect.BoolType,
    msgspec.inspect.IntType,
    msgspec.inspect.FloatType,
    msgspec.inspect.StrType,
    msgspec.inspect.BytesType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.DateType,
    msgspec.inspect.TimeType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.UUIDType,
    msgspec.inspect.DecimalType,
    msgspec.inspect.EnumType,
    msgspec.inspect.LiteralType,
)


# --- raw ----------------------------------------------------------------------------------------------------------


def _decode_str(data: Data) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise SerdeError(f"not a str: not UTF-8 at byte {error.start}. {_quote(data)}") from None


def _decode_int(data: Data) -> int:
    """Only the canonical form: were "7", "+7" and "007" one key, one key would live in several partitions."""
    text = bytes(data)
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or b"%d" % value != text:
        raise SerdeError(f"not an int: expected ASCII decimal digits. {_quote(data)}")
    return value


def _raw_bytes(value: bytes | bytearray | memoryview) -> bytes:
    return bytes(memoryview(value))  # bytes(5) would be five zeros


def _raw_int(value: int) -> bytes:
    return b"%d" % operator.index(value)


_RAW: dict[Any, tuple[Callable[[Any], bytes], Callable[[Data], Any]]] = {
    bytes: (_raw_bytes, bytes),
    str: (str.encode, _decode_str),
    int: (_raw_int, _decode_int),
}


def _raw(kind: Any, what: str) -> Serde[Any]:
    if kind not in _RAW:
        raise UserError(
            f"format 'raw' is for bytes, str and int, not {type_name(kind)}: use format 'json' or 'msgpack'"
        )
    write, decode = _RAW[kind]

    def encode(value: Any) -> bytes:
        try:
            return write(value)
        except Exception as error:
            raise _unfit(serde, value, error, what) from None

    serde: Serde[Any] = Serde(kind, f"raw {type_name(kind)}", encode, decode)
    return serde


# --- msgspec ------------------------------------------------------------------------------------------------------

_SCALARS = (int, float, str, bool, bytes)


def _json(kind: Any, what: str) -> Serde[Any]:
    _check_supported(kind)
    if _is_pydantic(kind):
        return _pydantic_json(kind, what)
    encoder = msgspec.json.Encoder(enc_hook=_encode_foreign)
    decoder = _decoder(msgspec.json.Decoder, kind)
    return _guarded(kind, "json", encoder.encode, decoder.decode, what)


def _msgpack(kind: Any, what: str) -> Serde[Any]:
    _check_supported(kind)
    encoder = msgspec.msgpack.Encoder(enc_hook=_encode_foreign)
    decoder = _decoder(msgspec.msgpack.Decoder, kind)
    return _guarded(kind, "msgpack", encoder.encode, decoder.decode, what)


def _guarded(
    kind: Any, encoding: str, write: Callable[[Any], bytes], read: Callable[[Any], Any], what: str
) -> Serde[Any]:
    """`write` and `read` with every failure turned into a `SerdeError` that can stand alone."""
    name = f"{encoding} {type_name(kind)}"
    anything, scalar = kind is Any or kind is object, kind in _SCALARS
    plain = kind if scalar and not (kind is float and encoding == "json") else None  # JSON has no nan

    def encode(value: Any) -> bytes:
        try:
            data = write(value)
            if value.__class__ is not plain and not anything:
                back = read(data)
                if scalar and back != value:
                    raise TypeError(f"it would be read as {back!r}")  # bytes as the base64 of them
            return data
        except Exception as error:
            raise _unfit(serde, value, error, what) from error

    def decode(data: Data) -> Any:
        try:
            return read(data)
        except Exception as error:
            raise SerdeError(f"not {name}: {_words(error)}. {_quote(data)}") from error

    serde: Serde[Any] = Serde(kind, name, encode, decode, read)
    return serde


def _decoder(maker: Any, kind: Any) -> Any:
    target = Any if kind is object else kind
    try:
        return maker(target, dec_hook=_decode_foreign)
    except (TypeError, NameError) as error:
        raise UserError(f"cannot read or write {type_name(kind)}: {error}") from error


def _check_supported(kind: Any) -> None:
    """Refuse at start what would otherwise fail at the first record: a class nobody knows how to take apart."""
    if isinstance(kind, type) and not _is_pydantic(kind):
        try:
            info = msgspec.inspect.type_info(kind)
        except (TypeError, NameError) as error:
            raise UserError(f"cannot read or write {type_name(kind)}: {error}") from error
        if isinstance(info, msgspec.inspect.CustomType) and kind is not object:
            raise UserError(
                f"cannot read or write {type_name(kind)}: make it a streamlog.Record, a dataclass, a TypedDict "
                "or a pydantic model"
            )


# --- pydantic, when the user's types are its models: recognised by their methods, never imported -------------------


def _is_pydantic(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_validate_json") and hasattr(kind, "model_dump_json")


def _pydantic_json(model: Any, what: str) -> Serde[Any]:
    def write(value: Any) -> bytes:
        if not isinstance(value, model):
            raise TypeError(f"expected {type_name(model)}, got {type_name(type(value))}")
        return cast(str, value.model_dump_json()).encode()

    return _guarded(model, "json", write, lambda data: model.model_validate_json(bytes(data)), what)


def _encode_foreign(value: Any) -> Any:
    if _is_pydantic(type(value)):
        return value.model_dump()
    raise NotImplementedError(f"objects of {type_name(type(value))} cannot be written")


def _decode_foreign(kind: Any, value: Any) -> Any:
    if _is_pydantic(kind):
        return kind.model_validate(value)
    raise NotImplementedError(f"objects of {type_name(kind)} cannot be read")


# --- messages -----------------------------------------------------------------------------------------------------


def _unfit(serde: Serde[Any], value: object, reason: Exception | str, what: str) -> SerdeError:
    """`topic numbers: cannot write 'one' as json int: wanted int, got str`"""
    shown = _shown(value)
    wanted, given = type_name(serde.type), type_name(type(value))
    name = serde.name.removeprefix("raw ").removeprefix("row ")
    explained = reason if isinstance(reason, str) else _words(reason)
    if wanted != given and "`$" not in explained and serde.type in _SCALARS:
        explained = f"wanted {wanted}, got {given}"
    return SerdeError(
        f"{what + ': ' if what else ''}cannot write {shown} as {name}: {explained}. "
        "Convert it, or declare the type that it has"
    )


def _words(error: Exception) -> str:
    """What an encoder or a decoder says. It may be anything: `__post_init__`, validators and hooks are user code, and
    whatever they raise for a value means that the value cannot be written, or read."""
    try:
        said = str(error)
    except Exception:
        said = ""
    if isinstance(error, msgspec.MsgspecError | TypeError | ValueError | NotImplementedError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _shown(value: object) -> str:
    """A value as messages have it. It may be one that cannot be shown: __repr__ of a spoilt record may raise."""
    try:
        shown = repr(value)
    except Exception:
        return f"a {type_name(type(value))}"
    return shown if len(shown) <= SHOWN_BYTES_MAX else shown[:SHOWN_BYTES_MAX] + "..."


def _quote(data: Data) -> str:
    if len(data) <= SHOWN_BYTES_MAX:
        return f"The bytes are {bytes(data)!r}"
    return f"The first of {len(data)} bytes are {bytes(data[:SHOWN_BYTES_MAX])!r}"
