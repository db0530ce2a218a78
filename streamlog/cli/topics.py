"""`streamlog topics`: list, create, describe, alter and delete topics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import click

from streamlog.cli.invocation import TIMEOUT_MS, Invocation, broker_option, json_option, run
from streamlog.cli.output import plural, print_json, print_rows
from streamlog.client.admin import Admin, NewTopic, SomeFailed
from streamlog.client.failures import BrokerUnreachable
from streamlog.client.metadata import PartitionInfo, TopicInfo
from streamlog.client.values import TopicPartition
from streamlog.env import Env, real_env
from streamlog.errors import UserError
from streamlog.state.changelog import ANY_TIME
from streamlog.wire.error_codes import KafkaError

EARLIEST, LATEST = -2, -1


@asynccontextmanager
async def admin_of(invocation: Invocation, env: Env | None = None) -> AsyncIterator[Admin]:
    """An admin client of the brokers that the command line means."""
    env = env or real_env()
    async with (
        invocation.brokers(env) as bootstrap,
        Admin(bootstrap, env=env, client_id="streamlog-cli", timeout_ms=TIMEOUT_MS) as admin,
    ):
        yield admin


async def check_topics(bootstrap: str, env: Env, names: Sequence[str]) -> None:
    """Raises KafkaError when one is not there: somebody who mistyped a name should not wait for it to appear."""
    async with Admin(bootstrap, env=env, client_id="streamlog-cli", timeout_ms=TIMEOUT_MS) as admin:
        await admin.describe_topics(names)


@click.group()
def topics() -> None:
    """List, create, describe, alter and delete topics."""


@topics.command("list")
@click.option("--internal", is_flag=True, help="Also those that Kafka keeps for itself.")
@json_option
@broker_option
@click.pass_obj
def list_topics(invocation: Invocation, internal: bool, as_json: bool) -> None:
    """List topics."""

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            names = await admin.list_topics(internal=internal)
            infos = await admin.describe_topics(names) if names else {}
            counts = await _record_counts(admin, infos)
        return [
            {
                "name": name,
                "partitions": len(info.partitions),
                "replicas": len(info.partitions[0].replicas) if info.partitions else 0,
                "offsets": counts[name],
            }
            for name, info in sorted(infos.items())
        ]

    print_rows(run(work()), as_json=as_json, empty="No topics. Create one: streamlog topics create NAME")


async def _record_counts(admin: Admin, infos: Mapping[str, TopicInfo]) -> dict[str, int]:
    """Per topic, how many offsets its partitions span: records, deleted ones and transaction markers among them."""
    counts = dict.fromkeys(infos, 0)
    for one, (first, end) in (await _ends(admin, infos)).items():
        counts[one.topic] += max(0, end - first)
    return counts


@topics.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "-p", "--partitions", type=click.IntRange(1), metavar="N", help="How many. [the controllers' num.partitions]"
)
@click.option(
    "-r", "--replication-factor", type=click.IntRange(1), metavar="N", help="Copies of each. [the controllers' default]"
)
@click.option("-c", "--config", "settings", metavar="NAME=VALUE", multiple=True, help="A setting; may be repeated.")
@broker_option
@click.pass_obj
def create(
    invocation: Invocation,
    names: Sequence[str],
    partitions: int | None,
    replication_factor: int | None,
    settings: Sequence[str],
) -> None:
    """Create topics."""
    configs = parse_settings(settings)

    async def work() -> dict[str, TopicInfo]:
        async with admin_of(invocation) as admin:
            wanted = [NewTopic(name, partitions or -1, replication_factor or -1, configs) for name in names]
            await admin.create_topics(wanted)
            return await admin.describe_topics(names)

    for name, info in run(work()).items():
        click.echo(f"Created {name} with {plural(len(info.partitions), 'partition')}.")


@topics.command(short_help="Show partitions, replicas, offsets and settings.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--under-replicated", is_flag=True, help="Only partitions that have lost a replica or lag; of all topics."
)
@json_option
@broker_option
@click.pass_obj
def describe(invocation: Invocation, names: Sequence[str], under_replicated: bool, as_json: bool) -> None:
    """Show partitions, leaders, replicas in sync, offsets and settings of topics.

    \b
      streamlog topics describe orders
      streamlog topics describe --under-replicated
    """
    if not names and not under_replicated:
        raise click.UsageError("say which topics, or --under-replicated for what is wrong in all of them")

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            infos = await admin.describe_topics(names or await admin.list_topics(internal=True))
            if under_replicated:
                infos = {name: replace(info, partitions=_behind(info)) for name, info in infos.items()}
                infos = {name: info for name, info in infos.items() if info.partitions}
            ends = await _ends(admin, infos)
            return [await _described(admin, info, ends) for info in infos.values()]

    described = run(work())
    if as_json:
        print_json(described)
        return
    if under_replicated and not described:
        click.echo("Every replica is in sync.", err=True)
    for number, topic in enumerate(described):
        if number:
            click.echo()
        click.echo(f"{topic['name']}  id {topic['topic_id']}")
        for line in _settings_lines(topic["configs"]):
            click.echo(f"  {line}")
        rows = topic["partitions"]
        hidden = [name for name in ("offline", "eligible") if not any(one[name] for one in rows)]
        rows = [
            {name: value for name, value in one.items() if name not in hidden}
            | {"leader": one["leader"] if one["leader"] >= 0 else None}
            for one in rows
        ]
        print_rows(rows, as_json=False, empty="(no partitions)")


def _settings_lines(configs: Mapping[str, str]) -> list[str]:
    """Settings for people. Every topic that an app made has two numbers of 19 digits, which mean one thing."""
    left = dict(configs)
    any_time = all(left.get(name) == value for name, value in ANY_TIME.items())
    if any_time:
        left = {name: value for name, value in left.items() if name not in ANY_TIME}
    lines = [f"{name}={value}" for name, value in sorted(left.items())]
    return lines + (["takes records of any time (message.timestamp.*.max.ms)"] if any_time else [])


def _behind(info: TopicInfo) -> tuple[PartitionInfo, ...]:
    return tuple(one for one in info.partitions if one.leader < 0 or len(one.isr) < len(one.replicas))


Ends = Mapping[TopicPartition, tuple[int, int]]


async def _ends(admin: Admin, infos: Mapping[str, TopicInfo]) -> Ends:
    """First offset and end of partitions, as far as somebody leads them and answers."""
    led: dict[int, list[TopicPartition]] = {}
    for name, info in infos.items():
        for one in info.partitions:
            if one.leader >= 0:
                led.setdefault(one.leader, []).append(TopicPartition(name, one.partition))
    found: dict[TopicPartition, tuple[int, int]] = {}
    for leader, mine in led.items():  # by leader: one that is frozen must not hide what the others say
        try:
            begins = await admin.list_offsets(dict.fromkeys(mine, EARLIEST))
            ends = await admin.list_offsets(dict.fromkeys(mine, LATEST))
        except (KafkaError, BrokerUnreachable) as failure:
            why = failure.errors.popitem()[1] if isinstance(failure, SomeFailed) else failure
            click.echo(f"streamlog: offsets of what broker {leader} leads are missing: {why}", err=True)
            continue
        found |= {one: (begins[one].offset, ends[one].offset) for one in mine}
    return found


async def _described(admin: Admin, info: TopicInfo, ends: Ends) -> dict[str, Any]:
    configs = await admin.describe_configs(info.name)
    rows = []
    for one in info.partitions:
        first, end = ends.get(TopicPartition(info.name, one.partition), (None, None))
        rows.append(
            {
                "partition": one.partition,
                "leader": one.leader,
                "replicas": list(one.replicas),
                "isr": list(one.isr),
                "offline": list(one.offline_replicas),
                "eligible": list(one.eligible_leader_replicas),
                "start_offset": first,
                "end_offset": end,
            }
        )
    return {
        "name": info.name,
        "topic_id": str(info.topic_id),
        "configs": {one.name: one.value for one in configs.values() if one.source == 1},
        "partitions": rows,
    }


@topics.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@broker_option
@click.pass_obj
def delete(invocation: Invocation, names: Sequence[str]) -> None:
    """Delete topics and everything in them."""

    async def work() -> None:
        async with admin_of(invocation) as admin:
            await admin.delete_topics(names)

    run(work())
    click.echo(f"Deleted {', '.join(names)}.")


@topics.command()
@click.argument("name")
@click.option(
    "-p", "--partitions", type=click.IntRange(1), metavar="N", help="Grow to so many. Keys move: think of tables."
)
@click.option("-c", "--config", "settings", metavar="NAME=VALUE", multiple=True, help="A setting; may be repeated.")
@click.option("--unset", metavar="NAME", multiple=True, help="Back to the default; may be repeated.")
@broker_option
@click.pass_obj
def alter(
    invocation: Invocation, name: str, partitions: int | None, settings: Sequence[str], unset: Sequence[str]
) -> None:
    """Change settings of a topic, or add partitions."""
    configs = parse_settings(settings)
    if partitions is None and not configs and not unset:
        raise click.UsageError("nothing to change: say --partitions, --config or --unset")

    async def work() -> None:
        async with admin_of(invocation) as admin:
            await admin.describe_topics([name])  # what does not exist is said at once, not after tries
            if configs or unset:
                await admin.incremental_alter_configs(name, set=configs, delete=unset)
            if partitions is not None:
                await admin.create_partitions({name: partitions})

    run(work())
    changes = [f"{key}={value}" for key, value in configs.items()] + [f"{key} back to its default" for key in unset]
    if partitions is not None:
        changes.append(plural(partitions, "partition"))
    click.echo(f"Changed {name}: {', '.join(changes)}.")


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs. Raises UserError."""
    found: dict[str, str] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator or not name.strip():
            raise UserError(f"{setting!r} is not NAME=VALUE; for example: --config retention.ms=86400000")
        found[name.strip()] = value.strip()
    return found
