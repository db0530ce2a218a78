"""Answers as JSON, for browsers, curl and people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from streamlog.errors import UserError
from streamlog.streams.record import TIME_MS_MAX
from streamlog.web.answers import Row, Staleness, TableInfo
from streamlog.web.local import LocalTables
from streamlog.web.watch import RawChange


def shown_row(tables: LocalTables, info: TableInfo, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"key": shown_key(tables, info, row.key)}
    if row.start_ms is not None:
        found["window"] = shown_window(info, row.start_ms)
    found["value"] = builtins_of(tables.decode_value(info.name, row.value))
    return found


def shown_change(tables: LocalTables, info: TableInfo, change: RawChange) -> dict[str, Any]:
    found: dict[str, Any] = {"key": shown_key(tables, info, change.key)}
    if change.start_ms is not None:
        found["window"] = shown_window(info, change.start_ms)
    serde = tables.table(info.name).value_serde
    found["value"] = None if change.value is None else builtins_of(serde.decode(change.value))
    found |= {"timestamp_ms": change.timestamp_ms, "partition": change.partition, "offset": change.offset}
    return found


def shown_key(tables: LocalTables, info: TableInfo, key: bytes) -> Any:
    return builtins_of(tables.table(info.name).key_serde.decode(key))


def shown_window(info: TableInfo, start_ms: int) -> dict[str, str]:
    return {"start": iso_of(start_ms), "end": iso_of(start_ms + (info.window_size_ms or 0))}


def shown_staleness(staleness: Staleness) -> dict[str, Any]:
    return dict(builtins_of(staleness))


def builtins_of(value: Any) -> Any:
    """What json.dumps can write."""

    def foreign(other: Any) -> Any:
        dump = getattr(other, "model_dump", None)  # pydantic's
        return dump() if dump is not None else str(other)

    return msgspec.to_builtins(value, str_keys=True, enc_hook=foreign)


def iso_of(time_ms: int) -> str:
    """ISO 8601 in UTC, or ms for years that no calendar has: both as `parse_time_ms` takes them."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    except (OverflowError, ValueError):
        return str(time_ms)
    return moment.isoformat(timespec="auto").replace("+00:00", "Z")


def parse_time_ms(text: str, what: str) -> int:
    """ms since the epoch, or ISO 8601 (UTC when it names no zone). Raises UserError."""
    try:
        time_ms = int(text)
    except ValueError:
        pass
    else:
        if abs(time_ms) > TIME_MS_MAX:
            raise UserError(f"{what}={text!r}: more than {TIME_MS_MAX} ms away from 1970")
        return time_ms
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{what}={text!r}: expected ISO 8601 such as 2026-11-23T06:40Z, or ms since 1970") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
