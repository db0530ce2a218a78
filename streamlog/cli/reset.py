"""`streamlog -A ... reset`: have an app begin again, with nothing left of what it had worked out.

Done in an order that can be repeated after being interrupted anywhere: an app that was reset half-way is reset by the
same command. Offsets are set, not forgotten: state of this app on other machines would go on at its own, otherwise.
Rows there are of changelogs that are gone, which the workers see by their topics' ids.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from streamlog.cli.apps import load_app
from streamlog.cli.groups import milliseconds
from streamlog.cli.invocation import TIMEOUT_MS, Invocation, app_option, broker_option, json_option, run
from streamlog.cli.output import columns, plural, print_json
from streamlog.cli.topics import EARLIEST, LATEST
from streamlog.client.admin import Admin
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import Env, real_env
from streamlog.errors import EnvironmentFailure, UserError
from streamlog.state.directory import remove_tasks, tasks_kept
from streamlog.streams.app import App
from streamlog.streams.resetting import Reset, reset_of

GONE_POLL_S = 0.1
GONE_S_MAX = 30.0
"""How long deleted topics may take to be gone: a worker that starts earlier would find them, and then not."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the app's inputs begin afterwards; exactly one is chosen."""

    to_latest: bool
    at_ms: int | None
    keep_offsets: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to do, as of now."""

    offsets: dict[TopicPartition, tuple[int | None, int]]
    """Before and after, of what changes."""
    whys: dict[str, str]
    """Topic -> where it begins, in words."""
    forget: list[TopicPartition]
    """Committed offsets of topics that go, or that the app does not read."""
    topics: list[str]
    state: list[str]


@click.command()
@click.option("--to-earliest", is_flag=True, help="Process inputs from their first record. This is the default.")
@click.option("--to-latest", is_flag=True, help="Process only what comes from now on.")
@click.option("--to-datetime", metavar="ISO8601", help="From the first record at or after this time.")
@click.option("--keep-offsets", is_flag=True, help="Go on where the app was, with empty tables.")
@click.option("--input", "inputs", metavar="TOPIC", multiple=True, help="An input, although the app writes to it.")
@click.option(
    "--intermediate", "refilled", metavar="TOPIC", multiple=True, help="Filled again by the app: begin at its end."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@app_option
@broker_option
@click.pass_obj
def reset(
    invocation: Invocation,
    to_earliest: bool,
    to_latest: bool,
    to_datetime: str | None,
    keep_offsets: bool,
    inputs: Sequence[str],
    refilled: Sequence[str],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Empty the app's tables and have it process its topics again.

    Deletes the app's own topics (changelogs and repartitioned events) and its state in the data directory, and sets the
    offsets of the topics it reads. All its workers have to be stopped. State on other machines is seen to be old there.
    """
    if sum([to_earliest, to_latest, to_datetime is not None, keep_offsets]) > 1:
        raise click.UsageError("say only one of --to-earliest, --to-latest, --to-datetime and --keep-offsets")
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json does not ask: add --yes, or --dry-run to see what would be done")
    target = Target(to_latest, None if to_datetime is None else milliseconds(to_datetime), keep_offsets)
    app = load_app(invocation.app_target(), debug=invocation.debug)
    what = _chosen(app, inputs, refilled)
    env = real_env()
    data_dir = os.path.abspath(invocation.data_directory(app.settings.data_dir))

    async def look() -> Found:
        async with _admin_of(app, invocation, env) as admin:
            return await _look(admin, env, app, what, target, data_dir)

    async def act() -> Found:
        async with _admin_of(app, invocation, env) as admin:
            found = await _look(admin, env, app, what, target, data_dir)  # again: a person took their time to answer
            await _act(admin, env, app, found, data_dir)
            return found

    found = run(look()) if dry_run or not yes else None
    if found is not None and not as_json:
        _show(app, found)
    if found is None or not dry_run:
        if not yes and not click.confirm(f"Reset app {app.id}?"):
            click.echo("Nothing was changed.", err=True)
            raise SystemExit(1)  # so that `streamlog reset && streamlog worker` does not go on
        found = run(act())
    if as_json:
        print_json(_as_json(app, found, changed=not dry_run))
    else:
        click.echo("Nothing was changed (--dry-run)." if dry_run else f"App {app.id} was reset.", err=dry_run)


def _chosen(app: App, inputs: Sequence[str], refilled: Sequence[str]) -> Reset:
    """What the program shows, corrected by what the operator knows."""
    what = reset_of(app.topology(), app.agents)
    reads = {*what.inputs, *what.refilled}
    for name in (*inputs, *refilled):
        if name not in reads:
            raise UserError(
                f"app {app.id} does not read topic {name!r}. It reads: {', '.join(sorted(reads)) or 'none'}"
            )
    both = set(inputs) & set(refilled)
    if both:
        raise click.UsageError(f"topic {min(both)} is either an --input or --intermediate")
    kept = {**what.refilled, **dict.fromkeys(refilled, "--intermediate")}
    kept = {name: why for name, why in kept.items() if name not in inputs}
    return Reset(what.delete, tuple(sorted(reads - set(kept))), kept)


@asynccontextmanager
async def _admin_of(app: App, invocation: Invocation, env: Env) -> AsyncIterator[Admin]:
    if invocation.broker is None and app.settings.broker is not None:
        invocation.broker = app.settings.broker
    if invocation.data_dir is None and app.settings.data_dir is not None:
        invocation.data_dir = app.settings.data_dir
    async with (
        invocation.brokers(env) as bootstrap,
        Admin(bootstrap, env=env, client_id="streamlog-cli", timeout_ms=TIMEOUT_MS) as admin,
    ):
        yield admin


async def _look(admin: Admin, env: Env, app: App, what: Reset, target: Target, data_dir: str) -> Found:
    """What there is to do. Raises: UserError: workers of the app run, or would lose something."""
    group = (await admin.describe_groups([app.id]))[app.id]
    if group.members:
        raise UserError(
            f"app {app.id} has {plural(len(group.members), 'running worker')}: stop them first. (One that was killed "
            f"counts until its session ends, after 45 seconds by default)"
        )
    committed = {} if group.state == "Dead" else await admin.list_group_offsets(app.id)
    existing = set(await admin.list_topics(internal=True))
    reads = sorted({*what.inputs, *what.refilled} & existing)
    infos = await admin.describe_topics(reads) if reads else {}
    partitions = [TopicPartition(name, one.partition) for name in reads for one in infos[name].partitions]
    if target.keep_offsets:
        await _check_nothing_on_its_way(admin, committed, set(what.delete) & existing)
        whys = dict.fromkeys(reads, "where the app was")
        offsets = {}
    else:
        whys = {name: f"its end: {what.refilled[name]} fills it" for name in what.refilled if name in infos}
        whys |= dict.fromkeys(set(what.inputs) & set(infos), _words(target))
        offsets = await _offsets(admin, partitions, what, target)
    cluster_id = (await admin.describe_cluster()).cluster_id
    state = await env.offload.run(partial(tasks_kept, env.storage, data_dir, app.id, cluster_id))
    return Found(
        {
            one: (committed[one].offset if one in committed else None, after)
            for one, after in sorted(offsets.items())
            if one not in committed or (committed[one].offset, committed[one].metadata) != (after, "")
        },
        whys,
        sorted(set(committed) - set(partitions)),
        sorted(set(what.delete) & existing),
        state,
    )


async def _check_nothing_on_its_way(
    admin: Admin, committed: Mapping[TopicPartition, OffsetAndMetadata], own: set[str]
) -> None:
    """Repartitioned events that nobody has processed are in no other topic before the kept offsets."""
    infos = await admin.describe_topics(sorted(own)) if own else {}
    partitions = [TopicPartition(name, one.partition) for name, info in infos.items() for one in info.partitions]
    ends = await admin.list_offsets(dict.fromkeys(partitions, LATEST))
    for one in partitions:
        if one.topic.endswith("-repartition"):
            left = ends[one].offset - (committed[one].offset if one in committed else 0)
            if left > 0:
                raise UserError(
                    f"{plural(left, 'record')} of {one} were not processed and would be lost: let the workers finish "
                    "them first, or leave out --keep-offsets"
                )


async def _offsets(
    admin: Admin, partitions: Sequence[TopicPartition], what: Reset, target: Target
) -> dict[TopicPartition, int]:
    if not partitions:
        return {}
    ends = await admin.list_offsets(dict.fromkeys(partitions, LATEST))
    inputs = [one for one in partitions if one.topic not in what.refilled and not target.to_latest]
    begins = await admin.list_offsets(dict.fromkeys(inputs, EARLIEST if target.at_ms is None else target.at_ms))
    wanted = {one: ends[one].offset for one in partitions}
    return wanted | {one: at.offset for one, at in begins.items() if at.offset >= 0}  # -1: nothing is that young


async def _act(admin: Admin, env: Env, app: App, found: Found, data_dir: str) -> None:
    cluster_id = (await admin.describe_cluster()).cluster_id
    await env.offload.run(partial(remove_tasks, env.storage, data_dir, app.id, cluster_id))
    if found.topics:
        await admin.delete_topics(found.topics)
        await _until_gone(admin, env, set(found.topics))
    if found.offsets:
        await admin.alter_group_offsets(
            app.id, {one: OffsetAndMetadata(after) for one, (_, after) in found.offsets.items()}
        )
    left = set(await admin.list_group_offsets(app.id)) if found.forget else set()  # deleted topics take theirs along
    if left & set(found.forget):
        await admin.delete_group_offsets(app.id, sorted(left & set(found.forget)))


async def _until_gone(admin: Admin, env: Env, names: set[str]) -> None:
    deadline_ms = env.clock.mono_ms() + int(GONE_S_MAX * 1000)
    while left := names & set(await admin.list_topics(internal=True)):
        if env.clock.mono_ms() >= deadline_ms:
            raise EnvironmentFailure(f"topic {min(left)} is being deleted and still there: run this command again")
        await asyncio.sleep(GONE_POLL_S)


def _words(target: Target) -> str:
    if target.to_latest:
        return "its end (--to-latest)"
    return "its first record" if target.at_ms is None else "the time of --to-datetime"


def _rows(found: Found) -> list[dict[str, Any]]:
    return [
        {
            "topic": one.topic,
            "partition": one.partition,
            "before": before,
            "after": after,
            "begins at": found.whys[one.topic],
        }
        for one, (before, after) in found.offsets.items()
    ]


def _show(app: App, found: Found) -> None:
    click.echo(f"Topics to delete: {', '.join(found.topics) or 'none'}")
    click.echo(f"State to delete: {', '.join(found.state) or 'none'}")
    if found.offsets:
        click.echo(f"Offsets of group {app.id}:")
        for line in columns(_rows(found)):
            click.echo(f"  {line}")
    else:
        click.echo(f"Offsets of group {app.id}: unchanged")


def _as_json(app: App, found: Found, *, changed: bool) -> dict[str, Any]:
    return {
        "app": app.id,
        "changed": changed,
        "topics": found.topics,
        "state": found.state,
        "offsets": [{name.replace(" ", "_"): value for name, value in row.items()} for row in _rows(found)],
    }
