"""Listings, for people and for programs: columns of text, or JSON with --json."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print a listing. `empty` is said instead when there are no rows, to people only."""
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(empty, err=True)
    else:
        for line in columns(rows):
            click.echo(line)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as aligned columns with a heading; numbers to the right. All rows have the keys of the first."""
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    headings = [name.replace("_", " ").upper() for name in names]
    right = [all(_is_number(row[name]) for row in rows) for name in names]
    widths = [max(len(heading), *(len(line[index]) for line in cells)) for index, heading in enumerate(headings)]

    def render(line: Sequence[str]) -> str:
        parts = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    heading = render(headings)
    return [click.style(heading, dim=True) if sys.stdout.isatty() else heading, *(render(line) for line in cells)]


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}".rstrip("0").rstrip(".")
        case list() | tuple():
            return ",".join(str(one) for one in value) or "-"
        case _:
            return str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def plural(count: int, word: str) -> str:
    """`1 record`, `2 records`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
