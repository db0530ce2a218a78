"""Listings, for people and for programs: columns of text, or JSON with --json."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import click

READER_POLL_S: Final = 0.5
"""How soon it is noticed that nobody reads."""


GAP: Final = "  "
"""Between two columns."""


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
    """Rows as aligned columns with a heading; numbers to the right. All rows have the keys of the first.

    On a terminal that is too narrow for them: a line for each cell, and an empty line between rows.
    """
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    headings = [name.replace("_", " ").upper() for name in names]
    right = [all(_is_number(row[name]) for row in rows) for name in names]
    widths = [max(len(heading), *(len(line[index]) for line in cells)) for index, heading in enumerate(headings)]

    if sys.stdout.isatty() and sum(widths) + len(GAP) * (len(widths) - 1) > shutil.get_terminal_size().columns:
        return _vertical(headings, cells)

    def render(line: Sequence[str]) -> str:
        parts = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        return GAP.join(parts).rstrip()

    heading = render(headings)
    return [styled(heading, dim=True), *(render(line) for line in cells)]


def _vertical(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    width = max(map(len, headings))
    lines: list[str] = []
    for row in cells:
        lines += [""] if lines else []
        lines += [
            f"{styled(heading.ljust(width), dim=True)}{GAP}{text}" for heading, text in zip(headings, row, strict=True)
        ]
    return lines


def styled(text: str, *, dim: bool | None = None, color: str | None = None) -> str:
    """Text for standard output, in colours where that is a terminal whose user has not said NO_COLOR."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain else click.style(text, dim=dim, fg=color)


def reader_is_gone() -> bool:
    """Whether the reader of our output has left (`| head`); a write would tell, but there may be nothing to write."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


async def while_it_is_read(work: Coroutine[Any, Any, None]) -> None:
    """Run what prints now and then, until it ends or nobody reads it any more."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done() and not reader_is_gone():
            await asyncio.wait([task], timeout=READER_POLL_S)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


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
