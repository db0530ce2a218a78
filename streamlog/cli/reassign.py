"""`streamlog reassign`: move partitions to other brokers, with the files of Kafka's own tool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from streamlog.cli.invocation import Invocation, broker_option, json_option, run
from streamlog.cli.output import plural, print_json, print_rows
from streamlog.cli.placement import plan
from streamlog.cli.reassignment_file import parse_reassignment, parse_topics, reassignment
from streamlog.cli.topics import admin_of
from streamlog.client.admin import BROKER_RESOURCE, TOPIC_RESOURCE, Admin, Reassignment, SomeFailed
from streamlog.client.values import TopicPartition
from streamlog.errors import UserError
from streamlog.wire.error_codes import ErrorCode

F = TypeVar("F", bound=Callable[..., Any])

Replicas = Mapping[TopicPartition, Sequence[int]]

POLL_S = 0.3
ASKED_MAX = 4

RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
"""Of brokers, bytes a second."""
LEADERS, FOLLOWERS = "leader.replication.throttled.replicas", "follower.replication.throttled.replicas"
"""Of topics: which replicas these rates are about, PARTITION:BROKER."""


def file_option(function: F) -> F:
    return click.option(
        "--file",
        "path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        required=True,
        help="What is to be where, as `reassign generate` and Kafka's tool write it.",
    )(function)


@click.group()
def reassign() -> None:
    """Move partitions to other brokers.

    \b
      streamlog reassign generate --topic orders --brokers 1,2,4 > move.json
      streamlog reassign execute --file move.json --wait
      streamlog reassign verify --file move.json
      streamlog reassign cancel --file move.json
      streamlog reassign list
    """


@reassign.command(short_help="Print where replicas should be, moving as few as can be.")
@click.option("--topic", "topics", metavar="TOPIC", multiple=True, help="Which topic; may be repeated.")
@click.option("--topics-file", type=click.Path(path_type=Path), metavar="FILE", help="Topics, as Kafka writes them.")
@click.option("--all", "everything", is_flag=True, help="All topics, internal ones too.")
@click.option("--brokers", "brokers_text", metavar="ID,ID,...", help="Where they may be. [all brokers]")
@click.option("-r", "--replication-factor", type=click.IntRange(1), metavar="N", help="Copies of each. [as now]")
@click.option("--no-racks", is_flag=True, help="Do not spread replicas over racks.")
@json_option
@broker_option
@click.pass_obj
def generate(
    invocation: Invocation,
    topics: Sequence[str],
    topics_file: Path | None,
    everything: bool,
    brokers_text: str | None,
    replication_factor: int | None,
    no_racks: bool,
    as_json: bool,
) -> None:
    """Print where replicas should be: evenly, moving as few as that takes. Changes nothing.

    Standard output is the file for `execute`; with --json it also has what is now.
    """
    named = [*topics, *(parse_topics(topics_file) if topics_file is not None else ())]
    if bool(named) == everything:
        raise click.UsageError("say --topic, --topics-file or --all")
    allowed = None if brokers_text is None else _numbers(brokers_text)

    async def work() -> tuple[Replicas, dict[TopicPartition, tuple[int, ...]]]:
        async with admin_of(invocation) as admin:
            names = await admin.list_topics(internal=True) if everything else named
            current = await _replicas(admin, names)
            racks = {one.node_id: one.rack for one in (await admin.describe_cluster()).brokers}
            if allowed is not None:
                missing = [one for one in allowed if one not in racks]
                if missing:
                    raise UserError(f"there is no broker {missing[0]}; there are {', '.join(map(str, sorted(racks)))}")
                racks = {one: racks[one] for one in allowed}
            most = replication_factor or max(map(len, current.values()), default=1)
            if most > len(racks):
                raise UserError(
                    f"{most} replicas of a partition need as many brokers, and there are {len(racks)}: name more with "
                    "--brokers, or fewer replicas with --replication-factor"
                )
            return current, plan(current, dict.fromkeys(racks) if no_racks else racks, replication_factor)

    current, proposed = run(work())
    if as_json:
        print_json({"current": reassignment(current), "proposed": reassignment(proposed)})
        return
    print_json(reassignment(proposed))
    copied = sum(len(set(proposed[one]) - set(current[one])) for one in proposed)
    led = sum(proposed[one][0] != current[one][0] for one in proposed)
    click.echo(
        f"{plural(copied, 'replica')} of {plural(len(proposed), 'partition')} would be copied, {led:,} get another "
        "preferred leader",
        err=True,
    )


@reassign.command()
@file_option
@click.option("--throttle", type=click.IntRange(1), metavar="BYTES", help="At most so many a second for each broker.")
@click.option("--same-replication-factor", is_flag=True, help="Refuse to have more or fewer replicas than now.")
@click.option("--before", type=click.Path(path_type=Path), metavar="FILE", help="Write down what is now, to go back.")
@click.option("--wait", is_flag=True, help="Until it is done.")
@json_option
@broker_option
@click.pass_obj
def execute(
    invocation: Invocation,
    path: Path,
    throttle: int | None,
    same_replication_factor: bool,
    before: Path | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Begin to move partitions. `verify` says how far it is, and takes a throttle off when all is done."""
    target = parse_reassignment(path)

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            current = await _replicas(admin, {one.topic for one in target})
            _check_known(target, current)
            if before is not None:
                _save(before, {one: current[one] for one in target})
            if throttle is not None:
                await _throttle(admin, target, current, throttle)
            await admin.alter_partition_reassignments(
                target, allow_replication_factor_change=not same_replication_factor
            )
            while True:
                rows = await _states(admin, target)
                if not wait or not any(one["state"] == "moving" for one in rows):
                    break
                await asyncio.sleep(POLL_S)
            if wait:
                await _unthrottle(admin, target)
            return rows

    _show(run(work()), as_json)


@reassign.command(short_help="Say which partitions of a file are where they should be.")
@file_option
@click.option("--preserve-throttles", is_flag=True, help="Leave throttles as they are.")
@json_option
@broker_option
@click.pass_obj
def verify(invocation: Invocation, path: Path, preserve_throttles: bool, as_json: bool) -> None:
    """Say which partitions of a file are where they should be; once all are done, take throttles off."""
    target = parse_reassignment(path)

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            rows = await _states(admin, target)
            if not preserve_throttles and not any(one["state"] == "moving" for one in rows):
                await _unthrottle(admin, target)
            return rows

    _show(run(work()), as_json)


@reassign.command(short_help="Go back to the replicas of before.")
@click.option("--file", "path", type=click.Path(path_type=Path), metavar="FILE", help="Those of this file...")
@click.option("--all", "everything", is_flag=True, help="...or all there are.")
@json_option
@broker_option
@click.pass_obj
def cancel(invocation: Invocation, path: Path | None, everything: bool, as_json: bool) -> None:
    """Go back to the replicas of before, for partitions that are on their way."""
    if (path is None) == (not everything):
        raise click.UsageError("say --file FILE or --all")
    named = None if path is None else parse_reassignment(path)

    async def work() -> list[TopicPartition]:
        async with admin_of(invocation) as admin:
            moving = sorted(await admin.list_partition_reassignments(named))
            try:
                await admin.alter_partition_reassignments(dict.fromkeys(moving))
            except SomeFailed as refused:
                if any(one.code is not ErrorCode.NO_REASSIGNMENT_IN_PROGRESS for one in refused.errors.values()):
                    raise  # the others were faster than we
            if named is not None:
                await _unthrottle(admin, named)
            return moving

    cancelled = run(work())
    if as_json:
        print_json([{"topic": one.topic, "partition": one.partition} for one in cancelled])
    else:
        click.echo(f"Cancelled the move of {plural(len(cancelled), 'partition')}." if cancelled else "Nothing moves.")


@reassign.command("list")
@json_option
@broker_option
@click.pass_obj
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the partitions that are on their way."""

    async def work() -> dict[TopicPartition, Reassignment]:
        async with admin_of(invocation) as admin:
            return await admin.list_partition_reassignments()

    rows = [
        {
            "topic": one.topic,
            "partition": one.partition,
            "replicas": list(move.replicas),
            "adding": list(move.adding),
            "removing": list(move.removing),
        }
        for one, move in sorted(run(work()).items())
    ]
    print_rows(rows, as_json=as_json, empty="Nothing moves.")


# -- what is, and what should be


async def _replicas(admin: Admin, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, ...]]:
    infos = await admin.describe_topics(sorted(set(topics)))
    return {
        TopicPartition(name, one.partition): one.replicas for name, info in infos.items() for one in info.partitions
    }


def _check_known(target: Replicas, current: Replicas) -> None:
    for one in target:
        if one not in current:
            raise UserError(f"topic '{one.topic}' has no partition {one.partition}")


async def _states(admin: Admin, target: Replicas) -> list[dict[str, Any]]:
    """Of each partition: done, moving, or elsewhere (somebody else moved it, or nobody began).

    The controller says what moves and a broker what is where, which hears of it later: elsewhere is asked about again.
    """
    asked = 0
    while True:
        moving = await admin.list_partition_reassignments(target)
        current = await _replicas(admin, {one.topic for one in target})
        _check_known(target, current)
        asked += 1
        if asked == ASKED_MAX or all(one in moving or current[one] == tuple(target[one]) for one in target):
            break
        await asyncio.sleep(POLL_S)
    return [
        {
            "topic": one.topic,
            "partition": one.partition,
            "state": "moving" if one in moving else "done" if current[one] == tuple(target[one]) else "elsewhere",
            "replicas": list(current[one]),
            "target": list(target[one]),
        }
        for one in sorted(target)
    ]


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    print_rows(rows, as_json=as_json, empty="Nothing to move.")
    if any(one["state"] == "elsewhere" for one in rows):
        raise click.exceptions.Exit(1)


def _save(path: Path, replicas: Replicas) -> None:
    try:
        path.write_text(json.dumps(reassignment(replicas), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; nothing was moved") from error


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise UserError(f"--brokers: {text!r} is not a list of broker numbers; 1,2,3 would be one")
    return sorted({int(part) for part in parts})


# -- throttles


async def _throttle(admin: Admin, target: Replicas, current: Replicas, rate_bytes: int) -> None:
    """As Kafka's tool: rates on every broker that takes part, lists of the replicas that are copied on topics."""
    for topic in sorted({one.topic for one in target}):
        mine = [one for one in sorted(target) if one.topic == topic]
        leaders = [f"{one.partition}:{broker}" for one in mine for broker in current[one]]
        followers = [
            f"{one.partition}:{broker}" for one in mine for broker in target[one] if broker not in current[one]
        ]
        lists = {LEADERS: ",".join(leaders), FOLLOWERS: ",".join(followers)}
        await admin.incremental_alter_configs(topic, set=lists, kind=TOPIC_RESOURCE)
    for broker in sorted({broker for one in target for broker in (*target[one], *current[one])}):
        await admin.incremental_alter_configs(
            str(broker), set=dict.fromkeys(RATES, str(rate_bytes)), kind=BROKER_RESOURCE
        )


async def _unthrottle(admin: Admin, target: Replicas) -> None:
    """Take off what a throttle set, where it is set."""
    for topic in sorted({one.topic for one in target}):
        entries = await admin.describe_configs(topic, kind=TOPIC_RESOURCE)
        lists = [name for name in (LEADERS, FOLLOWERS) if name in entries and not entries[name].is_default]
        if lists:
            await admin.incremental_alter_configs(topic, delete=lists, kind=TOPIC_RESOURCE)
    for broker in (await admin.describe_cluster()).brokers:
        entries = await admin.describe_configs(str(broker.node_id), kind=BROKER_RESOURCE)
        rates = [name for name in RATES if name in entries and entries[name].source == 2]
        if rates:
            await admin.incremental_alter_configs(str(broker.node_id), delete=rates, kind=BROKER_RESOURCE)
