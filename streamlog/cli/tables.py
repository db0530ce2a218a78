"""`streamlog tables`: an app's tables, and their live rows."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from streamlog.cli.apps import load_app
from streamlog.cli.invocation import Invocation, app_option, broker_option, json_option, run
from streamlog.cli.keys import parse_key
from streamlog.cli.output import print_json, print_rows, while_it_is_read
from streamlog.env import real_env
from streamlog.errors import UserError
from streamlog.web.live import AsyncLiveTable, Change, connect_async
from streamlog.web.shown import builtins_of, iso_of, parse_time_ms, shown_window


@click.group(invoke_without_command=True)
@json_option
@app_option
@click.pass_context
def tables(ctx: click.Context, as_json: bool) -> None:
    """List the tables that -A declares; get, scan and watch the live rows of any app."""
    if ctx.invoked_subcommand is not None:
        return
    invocation = ctx.ensure_object(Invocation)
    app = load_app(invocation.app_target(), debug=invocation.debug)
    rows = [
        {
            "table": node.name,
            "kind": node.kind,
            "key": node.key.removeprefix("raw ").removeprefix("json "),
            "value": node.value.removeprefix("row ").removeprefix("json "),
            "changelog": node.changelog,
        }
        for node in app.topology().tables
    ]
    print_rows(rows, as_json=as_json, empty=f"App {app.id} has no tables.")


@tables.command()
@click.argument("app_id", metavar="APP")
@click.argument("table")
@click.argument("key")
@click.option("--at", metavar="TIME", help="The window at this time, in tables with windows. [all windows]")
@click.option("--committed", is_flag=True, help="Leave out what a crash could still take back.")
@click.option("--stale", is_flag=True, help="Take what is there of a partition that is still being restored.")
@json_option
@broker_option
@click.pass_obj
def get(
    invocation: Invocation,
    app_id: str,
    table: str,
    key: str,
    at: str | None,
    committed: bool,
    stale: bool,
    as_json: bool,
) -> None:
    """Print the value of one key. With --json, with how old it is."""

    async def work() -> dict[str, Any]:
        env = real_env()
        async with invocation.brokers(env) as bootstrap, connect_async(bootstrap, app=app_id, env=env) as live:
            info = await live.info(table)
            typed, kind = parse_key(info.key, key)
            rows: AsyncLiveTable[Any, Any] = live.table(table, key=kind)
            plain = builtins_of(typed)
            if info.window_step_ms is None:
                if at is not None:
                    raise UserError(f"table {table} has no windows: leave --at out")
                found = await rows.read(typed, committed=committed, stale=stale)
                if found.value is None:
                    raise UserError(f"table {table} of {app_id} has no key {plain!r}")
                return {"key": plain, "value": found.value, "staleness": builtins_of(found.staleness)}
            if at is not None:
                try:
                    return {"key": plain, "value": await rows.window(typed, parse_time_ms(at, "--at"))}
                except KeyError:
                    raise UserError(f"table {table} of {app_id} has no window of {plain!r} at {at}") from None
            windows = await rows.windows(typed, limit=1000)
            if not windows:
                raise UserError(f"table {table} of {app_id} has no windows of {plain!r}")
            return {
                "key": plain,
                "windows": [
                    {"start": iso_of(one.start_ms), "end": iso_of(one.end_ms), "value": builtins_of(one.value)}
                    for one in windows
                ],
            }

    answer = run(work())
    if as_json:
        print_json(builtins_of(answer))
    elif "windows" in answer:
        print_rows([{**one, "value": _shown(one["value"])} for one in answer["windows"]], as_json=False, empty="")
    else:
        click.echo(_shown(answer["value"]))


@tables.command()
@click.argument("app_id", metavar="APP")
@click.argument("table")
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="Stop after so many rows.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each row; no rows, no lines.")
@broker_option
@click.pass_obj
def scan(invocation: Invocation, app_id: str, table: str, prefix: str, limit: int | None, as_json: bool) -> None:
    """Print the rows of a table, from all workers, by key."""

    async def work() -> None:
        env = real_env()
        async with invocation.brokers(env) as bootstrap, connect_async(bootstrap, app=app_id, env=env) as live:
            info = await live.info(table)
            row: dict[str, Any] | None = None
            async for key, start_ms, value in live.table(table).entries(prefix=prefix, limit=limit):
                row = {"key": key}
                if start_ms is not None:
                    row["window"] = shown_window(info, start_ms)
                _print_row({**row, "value": value}, as_json)
            if row is None and not as_json:
                click.echo(f"Table {table} of {app_id} has no rows{' that begin so' if prefix else ''}.", err=True)

    run(work())


@tables.command(short_help="Print the changes of a table as they are committed.")
@click.argument("app_id", metavar="APP")
@click.argument("table")
@click.argument("key", required=False)
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after so many changes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each change.")
@broker_option
@click.pass_obj
def watch(
    invocation: Invocation, app_id: str, table: str, key: str | None, prefix: str, count: int | None, as_json: bool
) -> None:
    """Print the changes of a table as they are committed; of KEY, or of all keys."""

    async def work() -> None:
        env = real_env()
        left = count
        async with invocation.brokers(env) as bootstrap, connect_async(bootstrap, app=app_id, env=env) as live:
            info = await live.info(table)
            typed, kind = (None, None) if key is None else parse_key(info.key, key)
            async for change in live.table(table, key=kind).watch(typed, prefix=prefix):
                _print_row(_shown_change(change), as_json)
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    run(while_it_is_read(work()))


def _shown_change(change: Change[Any, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"key": change.key}
    if change.window_ms is not None:
        row["window"] = {"start": iso_of(change.window_ms[0]), "end": iso_of(change.window_ms[1])}
    return row | {"value": change.value, "timestamp_ms": change.timestamp_ms, "partition": change.partition}


def _print_row(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(builtins_of(row), ensure_ascii=False) + "\n")
    else:
        parts = [_shown(row["key"])]
        if "window" in row:
            parts.append(row["window"]["start"])
        parts.append("(deleted)" if row["value"] is None else _shown(row["value"]))
        sys.stdout.write("\t".join(parts) + "\n")
    sys.stdout.flush()


def _shown(value: Any) -> str:
    plain = builtins_of(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
