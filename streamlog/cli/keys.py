"""Keys of tables as somebody types them: `1.50` is one where the keys are decimals, and text where they are text.

A worker says of its tables what their keys are, by the name of the type. Types of the standard library are known here;
of others, records for instance, only JSON is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import GenericAlias
from typing import Any
from uuid import UUID

import msgspec

from streamlog.errors import UserError

KINDS: dict[str, Any] = {
    one.__name__: one for one in (Decimal, UUID, bool, date, datetime, float, int, str, time, timedelta)
}


def parse_key(serde_name: str, text: str) -> tuple[Any, Any]:
    """The key that was typed, and its type; None where that is not known, and the key is a plain object.

    Args:    serde_name: what the worker says of the table's keys, such as "raw str", "json tuple[str, int]".
    Raises:  UserError: it is no such key.
    """
    if serde_name == "raw str":
        return text, None
    if serde_name == "raw bytes":
        return text.encode(), None
    encoding, _, kind = serde_name.partition(" ")
    known = None if encoding == "msgpack" else type_of(kind)
    if known is not None:
        try:
            return _parse_known(text, known), known
        except (msgspec.MsgspecError, ValueError):
            pass  # a type of the app may have such a name as well
    try:
        return json.loads(text), None
    except ValueError:
        raise UserError(f"keys of this table are {kind}, which {text!r} is not: write it as JSON") from None


def _parse_known(text: str, known: Any) -> Any:
    try:
        return msgspec.json.decode(text.encode(), type=known)
    except msgspec.MsgspecError:
        pass
    try:
        return msgspec.convert(text, known, strict=False)  # not strict: everything begins as text here
    except msgspec.ValidationError:
        if known is datetime:
            return datetime.fromisoformat(text)
        raise


def type_of(kind: str) -> Any:
    """The type that a serde's name ends with: `UUID`, `tuple[str, decimal.Decimal]`, `date | None`; None if unknown."""
    if kind.endswith(" | None"):
        one = type_of(kind.removesuffix(" | None"))
        return None if one is None else one | None
    if not kind.endswith("]"):
        return KINDS.get(kind.rpartition(".")[2])
    name, _, inner = kind[:-1].partition("[")
    if name != "tuple":
        return None
    parts = [... if part == "..." else type_of(part) for part in _split(inner)]
    return None if None in parts else GenericAlias(tuple, tuple(parts))


def _split(text: str) -> Iterator[str]:
    """The parts between commas that are in no brackets."""
    start = depth = 0
    for index, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            yield text[start:index].strip()
            start = index + 1
    yield text[start:].strip()
