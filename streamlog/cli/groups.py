"""`streamlog groups`: what consumers have committed and how far behind they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from streamlog.cli.invocation import Invocation, broker_option, json_option, run
from streamlog.cli.output import plural, print_json, print_rows
from streamlog.cli.topics import EARLIEST, LATEST, admin_of
from streamlog.client.admin import Admin, GroupDescription
from streamlog.client.values import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from streamlog.errors import UserError
from streamlog.streams.assignor import NAME as TASK_ASSIGNOR
from streamlog.streams.progress import Progress, decode_progress, encode_progress


@click.group()
def groups() -> None:
    """List, describe and delete consumer groups; reset their offsets."""


@groups.command("list")
@json_option
@broker_option
@click.pass_obj
def list_groups(invocation: Invocation, as_json: bool) -> None:
    """List consumer groups."""

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            found = await admin.list_groups()
            described = await admin.describe_groups([one.group_id for one in found]) if found else {}
        return [
            {
                "group": one.group_id,
                "state": one.state or described[one.group_id].state,
                "members": len(described[one.group_id].members),
                "assignor": described[one.group_id].assignor or None,
                "type": one.type or "classic",
            }
            for one in found
        ]

    print_rows(run(work()), as_json=as_json, empty="No groups.")


@groups.command()
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@json_option
@broker_option
@click.pass_obj
def describe(invocation: Invocation, names: Sequence[str], as_json: bool) -> None:
    """Show members, committed offsets and lag of groups."""

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            found = await admin.describe_groups(names)
            return [await _described(admin, found[name]) for name in names]

    described = run(work())
    missing = [one["group"] for one in described if one["state"] == "Dead"]
    if missing:
        raise UserError(f"group '{missing[0]}' does not exist; `streamlog groups list` shows those that do")
    if as_json:
        print_json(described)
        return
    for number, group in enumerate(described):
        if number:
            click.echo()
        click.echo(_headline(group))
        print_rows(group["partitions"], as_json=False, empty="Nothing is assigned or committed.")


def _headline(group: dict[str, Any]) -> str:
    lag = sum(one["lag"] or 0 for one in group["partitions"])
    unknown = sum(one["lag"] is None and one["end"] is not None for one in group["partitions"])
    assignor = f", {group['assignor']}" if group["assignor"] else ""
    more = f", and {plural(unknown, 'partition')} without a committed offset" if unknown else ""
    members = plural(group["members"], "member")
    return f"{group['group']}: {group['state']}{assignor}, {members}, lag {lag:,}{more}"


async def _described(admin: Admin, group: GroupDescription) -> dict[str, Any]:
    """Every partition of the topics that the group reads or has read: one that nobody was given is behind as well."""
    committed = {} if group.state == "Dead" else await admin.list_group_offsets(group.group_id)
    owners = {one: member for member in group.members for one in member.partitions}
    topics = {one.topic for one in (*committed, *owners)} | {name for one in group.members for name in one.topics}
    existing = topics & set(await admin.list_topics(internal=True))
    infos = await admin.describe_topics(sorted(existing)) if existing else {}
    there = {TopicPartition(name, part.partition) for name, info in infos.items() for part in info.partitions}
    partitions = sorted({*committed, *owners, *there})
    ends = await admin.list_offsets(dict.fromkeys(sorted(there), LATEST))
    begins: Mapping[TopicPartition, OffsetAndTimestamp] = {}
    if group.assignor == TASK_ASSIGNOR:  # workers begin at the first record; where others begin, only they know
        begins = await admin.list_offsets(dict.fromkeys(sorted(there - set(committed)), EARLIEST))
    rows = []
    for one in partitions:
        offset = committed[one].offset if one in committed else None
        end = ends[one].offset if one in ends else None
        begin = begins[one].offset if one in begins else offset
        owner = owners.get(one)
        rows.append(
            {
                "topic": one.topic,
                "partition": one.partition,
                "committed": offset,
                "end": end,
                "lag": None if begin is None or end is None else max(0, end - begin),
                "client": None if owner is None else owner.client_id,
                "host": None if owner is None else owner.client_host.removeprefix("/"),
                "member": None if owner is None else owner.member_id[-8:],
            }
        )
    return {
        "group": group.group_id,
        "state": group.state,
        "assignor": group.assignor,
        "members": len(group.members),
        "partitions": rows,
    }


@groups.command(short_help="Delete groups without members and their offsets.")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@broker_option
@click.pass_obj
def delete(invocation: Invocation, names: Sequence[str]) -> None:
    """Delete groups that have no members, with their committed offsets."""

    async def work() -> None:
        async with admin_of(invocation) as admin:
            await admin.delete_groups(names)

    run(work())
    click.echo(f"Deleted {', '.join(names)}.")


@groups.command("reset-offsets")
@click.argument("group")
@click.option("--topic", "topics", metavar="TOPIC[:P,P...]", multiple=True, help="Which; may be repeated.")
@click.option("--all-topics", is_flag=True, help="All that the group has committed offsets of.")
@click.option("--to-earliest", is_flag=True, help="To the first record.")
@click.option("--to-latest", is_flag=True, help="To the end.")
@click.option("--to-offset", type=click.IntRange(0), metavar="N", help="To this offset.")
@click.option(
    "--to-datetime", metavar="ISO8601", help="To the first record at or after this time (UTC if it says none)."
)
@click.option("--shift-by", type=int, metavar="N", help="Forwards, or backwards if negative.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@json_option
@broker_option
@click.pass_obj
def reset_offsets(
    invocation: Invocation,
    group: str,
    topics: Sequence[str],
    all_topics: bool,
    to_earliest: bool,
    to_latest: bool,
    to_offset: int | None,
    to_datetime: str | None,
    shift_by: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change where a group that has no members begins next.

    All agents of an app are one group. An offset is a topic's, not an agent's: every agent that reads the topic begins
    there, and passes over what is before it, except those that are further already.
    """
    ways = [to_earliest, to_latest, to_offset is not None, to_datetime is not None, shift_by is not None]
    if sum(ways) != 1:
        raise click.UsageError(
            "say exactly one of --to-earliest, --to-latest, --to-offset, --to-datetime and --shift-by"
        )
    if bool(topics) == all_topics:
        raise click.UsageError("say --topic or --all-topics")
    at_ms = None if to_datetime is None else milliseconds(to_datetime)
    of_app = False
    skipped: list[str] = []

    async def work() -> list[dict[str, Any]]:
        nonlocal of_app
        async with admin_of(invocation) as admin:
            described = (await admin.describe_groups([group]))[group]
            if described.members:
                raise UserError(
                    f"group '{group}' has {plural(len(described.members), 'member')}, who would go on at their own "
                    "offsets: stop them first"
                )
            committed = await admin.list_group_offsets(group)
            of_app = any(decode_progress(one.metadata) != Progress() for one in committed.values())
            partitions = sorted(committed) if all_topics else await _named(admin, topics)
            if not partitions:
                raise UserError(f"group '{group}' has no committed offsets; name topics with --topic")
            begins = await admin.list_offsets(dict.fromkeys(partitions, EARLIEST))
            ends = await admin.list_offsets(dict.fromkeys(partitions, LATEST))
            times = await admin.list_offsets(dict.fromkeys(partitions, at_ms)) if at_ms is not None else {}
            wanted: dict[TopicPartition, int] = {}
            for one in partitions:
                first, end = begins[one].offset, ends[one].offset
                if to_earliest:
                    target = first
                elif to_latest:
                    target = end
                elif to_offset is not None:
                    target = to_offset
                elif shift_by is not None:
                    target = (committed[one].offset if one in committed else first) + shift_by
                else:
                    target = times[one].offset if times[one].offset >= 0 else end
                wanted[one] = min(max(target, first), end)
                before = max(committed[one].offset, first) if one in committed else first
                if wanted[one] > before:
                    skipped.append(f"{one}: {before} to {wanted[one] - 1}")
            if not dry_run:
                await admin.alter_group_offsets(
                    group,
                    {one: OffsetAndMetadata(at, metadata=_said(committed.get(one), at)) for one, at in wanted.items()},
                )
        return [
            {
                "topic": one.topic,
                "partition": one.partition,
                "before": committed[one].offset if one in committed else None,
                "after": offset,
            }
            for one, offset in wanted.items()
        ]

    rows = run(work())
    print_rows(rows, as_json=as_json, empty="Nothing to reset.")
    if of_app and not as_json:
        what = f", and none of them sees the records before ({', '.join(skipped)})" if skipped else ""
        click.echo(
            f"All agents of the app that read these topics begin there, if they are not further{what}.", err=True
        )
    if dry_run and not as_json:
        click.echo("Nothing was changed (--dry-run).", err=True)


def _said(before: OffsetAndMetadata | None, offset: int) -> str:
    """What goes beside the new offset. Agents of an app that were further than that still are."""
    if before is None or offset < before.offset:
        return ""
    said = decode_progress(before.metadata)
    ahead = {lane: at for lane, at in said.ahead.items() if at > offset}
    return encode_progress(Progress(topic=said.topic, ahead=ahead)) if ahead else ""


async def _named(admin: Admin, topics: Sequence[str]) -> list[TopicPartition]:
    found = []
    for text in topics:
        name, _, numbers = text.partition(":")
        if numbers:
            if not all(number.strip().isdigit() for number in numbers.split(",")):
                raise UserError(f"{text!r} is not TOPIC or TOPIC:PARTITION,PARTITION")
            found += [TopicPartition(name, int(number)) for number in numbers.split(",")]
        else:
            info = (await admin.describe_topics([name]))[name]
            found += [TopicPartition(name, one.partition) for one in info.partitions]
    return found


def milliseconds(text: str) -> int:
    """A time as somebody typed it, in ms since 1970. Raises: UserError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{text!r} is not a time; write it like 2026-11-23T06:40 or 2026-11-23T06:40:00+01:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
