"""The demo's results: read from outside through `streamlog.connect`, shown to a person, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

import streamlog
from examples.flights import AirlineDelay, Delay, app
from examples.flights_pandas import Mean, mean_of

Tables: TypeAlias = dict[str, dict[Any, Any]]


def read_tables(broker: str) -> Tables:
    """All rows of all tables that the app keeps, as {table: {key: value}}; windows have (key, start in ms) as key.

    This process runs no worker: it asks those that do, wherever they are.
    """
    with streamlog.connect(broker, app=app) as live:
        kept = [name for name, table in app.tables.items() if table.source is None]
        return {name: {_key(key): _plain(value) for key, value in live.table(name).items()} for name in kept}


def _key(key: Any) -> Any:
    if isinstance(key, tuple) and isinstance(key[1], datetime):
        return key[0], round(key[1].timestamp() * 1000)
    return key


def _plain(value: Any) -> Any:
    if isinstance(value, AirlineDelay):
        return value.name, mean_of(value.delay)
    return mean_of(value) if isinstance(value, Delay) else value


def differences(tables: Tables, expected: Tables) -> Iterator[str]:
    """One line for each row that is missing, too much, or not the same."""
    for name in sorted(tables.keys() | expected.keys()):
        have, want = tables.get(name, {}), expected.get(name, {})
        for key in sorted(have.keys() | want.keys(), key=str):
            if have.get(key) != want.get(key):
                yield f"{name}[{key!r}]: the table has {have.get(key, 'no row')}, pandas {want.get(key, 'no row')}"


# --- for a person -------------------------------------------------------------------------------------------------


def show(tables: Tables, console: Console) -> None:
    airlines = sorted(tables["delay_by_airline"].values(), key=lambda row: -(row[1].mean_min or 0))
    _means(console, "Mean departure delay by airline", "airline", airlines)
    makers = sorted(tables["delay_by_manufacturer"].items(), key=lambda row: -row[1].flights)
    _means(console, "... by plane manufacturer (the ten with most flights)", "manufacturer", makers[:10])
    _means(console, "... by weather at the origin", "sky", sorted(tables["delay_by_sky"].items()))
    _busiest(console, tables)
    _worst(console, tables["delay_last_3h"])


def _means(console: Console, title: str, what: str, rows: list[tuple[str, Mean]]) -> None:
    table = _table(title, what, "flights", "mean delay")
    for name, mean in rows:
        table.add_row(name, f"{mean.flights:,}", _minutes(mean))
    console.print(table)


def _busiest(console: Console, tables: Tables) -> None:
    table = _table("Busiest hour and day of each airport (UTC)", "origin", "hour", "flights", "day", "flights")
    for origin in sorted({key for key, _ in tables["flights_per_day"]}):
        hour_ms, in_hour = _largest(tables["flights_per_hour"], origin)
        day_ms, in_day = _largest(tables["flights_per_day"], origin)
        table.add_row(origin, f"{_at(hour_ms):%d %b %H:%M}", f"{in_hour:,}", f"{_at(day_ms):%d %b}", f"{in_day:,}")
    console.print(table)


def _largest(windows: dict[tuple[str, int], int], origin: str) -> tuple[int, int]:
    mine = [(start_ms, count) for (key, start_ms), count in windows.items() if key == origin]
    return max(mine, key=lambda window: (window[1], -window[0]))


def _worst(console: Console, windows: dict[tuple[str, int], Mean]) -> None:
    table = _table("Worst three hours (20 departures and more)", "origin", "from (UTC)", "flights", "mean delay")
    busy = [(key, mean) for key, mean in windows.items() if mean.departed >= 20]
    for (origin, start_ms), mean in sorted(busy, key=lambda row: -(row[1].mean_min or 0))[:5]:
        table.add_row(origin, f"{_at(start_ms):%d %b %H:%M}", f"{mean.flights:,}", _minutes(mean))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _minutes(mean: Mean) -> str:
    return "-" if mean.mean_min is None else f"{mean.mean_min:.1f} min"


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
