"""Records as lines of text: what `produce` reads and `consume` writes.

The JSON form is one object a line. Keys and values are text; a value that is a JSON object or array is shown as such,
and bytes that are no UTF-8 come as base64 under `value_base64`. What `consume --format json` writes, `produce --json`
reads back.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamlog.client.values import Headers
from streamlog.errors import UserError


@dataclass(frozen=True, slots=True)
class OutRecord:
    """One record to be written."""

    key: bytes | None
    value: bytes | None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: Headers = ()


def parse_json_line(line: str, where: str) -> OutRecord:
    """One JSON object. Raises UserError naming `where`."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f'{where}: expected an object such as {{"key": "a", "value": {{"n": 1}}}}')
    known = {"key", "value", "key_base64", "value_base64", "headers", "partition", "timestamp_ms", "topic", "offset"}
    unknown = sorted(set(found) - known)
    if unknown:
        raise UserError(
            f"{where}: unknown field {unknown[0]!r}; records have key, value, headers, partition, timestamp_ms"
        )
    partition, timestamp_ms = found.get("partition"), found.get("timestamp_ms")
    if not isinstance(partition, int | None) or not isinstance(timestamp_ms, int | None):
        raise UserError(f"{where}: partition and timestamp_ms have to be whole numbers")
    headers = found.get("headers") or {}
    if not isinstance(headers, dict):
        raise UserError(f"{where}: headers have to be an object of names and texts")
    return OutRecord(
        key=_bytes_of(found, "key", where),
        value=_bytes_of(found, "value", where),
        partition=partition,
        timestamp_ms=timestamp_ms,
        headers=tuple((name, None if value is None else str(value).encode()) for name, value in headers.items()),
    )


def _bytes_of(found: dict[str, Any], name: str, where: str) -> bytes | None:
    encoded = found.get(f"{name}_base64")
    if encoded is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise UserError(f"{where}: {name}_base64 is not base64") from None
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def to_json_object(
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
) -> dict[str, Any]:
    found: dict[str, Any] = {"topic": topic, "partition": partition, "offset": offset, "timestamp_ms": timestamp_ms}
    _put(found, "key", key)
    _put(found, "value", value)
    if headers:
        found["headers"] = {name: None if one is None else as_text(one) for name, one in headers}
    return found


def _put(found: dict[str, Any], name: str, data: bytes | None) -> None:
    if data is None:
        found[name] = None
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        found[f"{name}_base64"] = base64.b64encode(data).decode()
        return
    found[name] = text
    if text[:1] in ("{", "["):
        try:
            found[name] = json.loads(text)
        except ValueError:
            return


def as_text(data: bytes | None) -> str:
    """For people: what is not UTF-8 is escaped."""
    return "" if data is None else data.decode(errors="backslashreplace")


def iso_time(timestamp_ms: int) -> str:
    """ISO 8601 in UTC; nothing for a record without a time, and ms for years that no calendar has."""
    if timestamp_ms < 0:
        return ""
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, tz=UTC)
    except (OverflowError, ValueError):
        return str(timestamp_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
