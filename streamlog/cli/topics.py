"""`streamlog topics`: list, create, describe, alter and delete topics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import click

from streamlog.cli.invocation import TIMEOUT_MS, Invocation, broker_option, json_option, run
from streamlog.cli.output import plural, print_json, print_rows
from streamlog.client.admin import Admin, NewTopic
from streamlog.client.metadata import TopicInfo
from streamlog.client.values import TopicPartition
from streamlog.env import Env, real_env
from streamlog.errors import UserError

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
    partitions = [TopicPartition(name, one.partition) for name, info in infos.items() for one in info.partitions]
    begins = await admin.list_offsets(dict.fromkeys(partitions, EARLIEST))
    ends = await admin.list_offsets(dict.fromkeys(partitions, LATEST))
    counts = dict.fromkeys(infos, 0)
    for one in partitions:
        counts[one.topic] += max(0, ends[one].offset - begins[one].offset)
    return counts


@topics.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-p", "--partitions", type=click.IntRange(1), metavar="N", help="How many. [the broker's num.partitions]")
@click.option(
    "-r", "--replication-factor", type=click.IntRange(1), metavar="N", help="Copies of each. [the broker's default]"
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


@topics.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@broker_option
@click.pass_obj
def describe(invocation: Invocation, names: Sequence[str], as_json: bool) -> None:
    """Show partitions, offsets and settings of topics."""

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            infos = await admin.describe_topics(names)
            partitions = [TopicPartition(name, one.partition) for name in names for one in infos[name].partitions]
            begins = await admin.list_offsets(dict.fromkeys(partitions, EARLIEST))
            ends = await admin.list_offsets(dict.fromkeys(partitions, LATEST))
            described = []
            for name in names:
                configs = await admin.describe_configs(name)
                described.append(
                    {
                        "name": name,
                        "topic_id": str(infos[name].topic_id),
                        "configs": {one.name: one.value for one in configs.values() if one.source == 1},
                        "partitions": [
                            {
                                "partition": one.partition,
                                "leader": one.leader,
                                "replicas": list(one.replicas),
                                "isr": list(one.isr),
                                "start_offset": begins[TopicPartition(name, one.partition)].offset,
                                "end_offset": ends[TopicPartition(name, one.partition)].offset,
                            }
                            for one in infos[name].partitions
                        ],
                    }
                )
            return described

    described = run(work())
    if as_json:
        print_json(described)
        return
    for number, topic in enumerate(described):
        if number:
            click.echo()
        click.echo(f"{topic['name']}  id {topic['topic_id']}")
        for name, value in sorted(topic["configs"].items()):
            click.echo(f"  {name}={value}")
        print_rows(topic["partitions"], as_json=False, empty="(no partitions)")


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
