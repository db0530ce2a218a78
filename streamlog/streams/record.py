"""Typed values, and references to their fields.

A `Record` is a msgspec Struct, so decoding one costs a fifth of a microsecond. Its class attributes are slot
descriptors, which is what makes `Flight.origin` both an attribute of a flight and, on the class, a reference to the
field that `group_by`, `join` and `timestamp=` accept. Type checkers see the attribute's type either way.
"""

from __future__ import annotations

import inspect
import math
import operator
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from streamlog.errors import UserError

if typing.TYPE_CHECKING:

    @typing.dataclass_transform(field_specifiers=(msgspec.field,))
    class _RecordMeta(msgspec.StructMeta):
        """For type checkers: a class that names such a metaclass is neither frozen nor not, so that subclasses may be
        either. What merely inherits from Struct counts as not frozen."""

else:
    _RecordMeta = type(msgspec.Struct)


class Record(msgspec.Struct, metaclass=_RecordMeta):
    """Base of typed record values: fields are annotations, JSON in and out by default.

    Struct's keywords work on subclasses: `class Flight(Record, frozen=True, rename="camel", tag=True)`.
    """


@dataclass(frozen=True, slots=True)
class Selector:
    """How to take one thing (a key, a timestamp) out of a value."""

    name: str
    """For names of internal topics and for messages: the field's, or the function's."""
    select: Callable[[Any], Any]
    type: Any
    """Type of what is selected, without its None; None when nobody said."""
    owner: type | None
    """The class the field was referenced on; None for functions."""


def selector(by: object, what: str) -> Selector:
    """`by` as a Selector: a reference to a field (`Flight.origin`) or a function of the value.

    Raises: UserError: neither; `what` says where, for the message.
    """
    if isinstance(by, types.MemberDescriptorType):
        owner, name = by.__objclass__, by.__name__
        return Selector(name, operator.attrgetter(name), without_none(_hints(owner, what).get(name)), owner)
    if callable(by) and not isinstance(by, type):
        name = getattr(by, "__name__", type(by).__name__)
        return Selector("key" if name == "<lambda>" else name, by, without_none(returned_type(by)), None)
    raise UserError(
        f"{what}: {by!r} is neither a field reference nor a function of the value. Write Flight.origin for a "
        f"streamlog.Record "
        f"(or a dataclass with slots=True), and lambda flight: flight.origin for any other value"
    )


def returned_type(function: Callable[..., Any]) -> Any:
    """The annotated return type, or None."""
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return None


def parameter_type(function: Callable[..., Any]) -> Any:
    """The annotated type of the first parameter, or None; names defined inside other functions cannot be resolved."""
    try:
        hints = typing.get_type_hints(function)
        first = next(iter(inspect.signature(function).parameters), None)
    except (NameError, TypeError, ValueError):
        return None
    return None if first is None else hints.get(first)


def without_none(annotation: Any) -> Any:
    """`str | None` as `str`; other annotations unchanged."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [one for one in typing.get_args(annotation) if one is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return annotation


def allows_none(annotation: Any) -> bool:
    """Whether None is a value of the annotated type."""
    if annotation is None or annotation is Any or annotation is object or annotation is type(None):
        return True
    return typing.get_origin(annotation) in (typing.Union, types.UnionType) and type(None) in typing.get_args(
        annotation
    )


TIME_MS_MAX = 2**62 - 1
"""Largest distance of a time from 1970: 146 million years, and still no overflow when a window is added."""


MOMENT_MIN = datetime.min.replace(tzinfo=UTC)
MOMENT_MAX = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
"""The last millisecond."""
_MOMENT_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


def to_moment(time_ms: int) -> datetime:
    """The time in UTC; MOMENT_MIN or MOMENT_MAX when it is beyond them.

    Events may be of any time, and one of a year that datetime does not have must not keep a program from all others.
    """
    try:
        return _MOMENT_ZERO + timedelta(milliseconds=time_ms)
    except OverflowError:
        return MOMENT_MIN if time_ms < 0 else MOMENT_MAX


def to_timestamp_ms(moment: object) -> int:
    """Milliseconds since the epoch of what a `timestamp=` gave; negative before 1970.

    A datetime without a zone counts as UTC, so that a program means the same on every machine; an int is milliseconds
    already, a float is seconds as time.time() counts them.
    Raises: TypeError: anything else. ValueError: no time there is.
    """
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1000)
    if isinstance(moment, bool):
        raise TypeError("a timestamp cannot be a bool")
    if isinstance(moment, int):
        time_ms = moment
    elif isinstance(moment, float):
        if not math.isfinite(moment):
            raise ValueError(f"{moment} is no timestamp")
        time_ms = round(moment * 1000)
    else:
        raise TypeError(f"a timestamp is a datetime, an int (ms) or a float (s), not {type(moment).__name__}")
    if not -TIME_MS_MAX <= time_ms <= TIME_MS_MAX:
        raise ValueError(f"{moment} is no timestamp: more than {TIME_MS_MAX} ms away from 1970")
    return time_ms


def _hints(owner: type, what: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner)
    except (NameError, TypeError) as error:
        raise UserError(f"{what}: the annotations of {owner.__name__} cannot be resolved: {error}") from error
