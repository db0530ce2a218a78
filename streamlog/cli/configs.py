"""`streamlog configs`: settings of brokers. Those of topics are under `streamlog topics`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from streamlog.cli.invocation import Invocation, broker_option, json_option, run
from streamlog.cli.output import print_rows
from streamlog.cli.topics import admin_of, parse_settings
from streamlog.client.admin import BROKER_RESOURCE

SOURCES = {1: "topic", 2: "broker", 3: "cluster", 4: "file", 5: "default", 8: "group"}


ALL_BROKERS = "all"


def resource_of(broker_id: str) -> str:
    """What the protocol calls a broker, or all of them."""
    return "" if broker_id == ALL_BROKERS else broker_id


@click.group()
def configs() -> None:
    """Show and change settings of brokers: of one by its id, or of `all`."""


@configs.command()
@click.argument("broker_id", metavar="BROKER_ID")
@click.option("--all", "everything", is_flag=True, help="Also those that have their default value.")
@json_option
@broker_option
@click.pass_obj
def describe(invocation: Invocation, broker_id: str, everything: bool, as_json: bool) -> None:
    """Show the settings of one broker, or what was set for all."""

    async def work() -> list[dict[str, Any]]:
        async with admin_of(invocation) as admin:
            entries = await admin.describe_configs(resource_of(broker_id), kind=BROKER_RESOURCE)
        return [
            {"name": one.name, "value": "(hidden)" if one.is_sensitive else one.value, "from": SOURCES.get(one.source)}
            for one in sorted(entries.values(), key=lambda one: one.name)
            if everything or not one.is_default
        ]

    print_rows(run(work()), as_json=as_json, empty="Every setting has its default value; --all shows them.")


@configs.command()
@click.argument("broker_id", metavar="BROKER_ID")
@click.option("-c", "--config", "settings", metavar="NAME=VALUE", multiple=True, help="A setting; may be repeated.")
@click.option("--unset", metavar="NAME", multiple=True, help="Back to the default; may be repeated.")
@broker_option
@click.pass_obj
def alter(invocation: Invocation, broker_id: str, settings: Sequence[str], unset: Sequence[str]) -> None:
    """Change settings of one broker, or of all, while they run."""
    values = parse_settings(settings)
    if not values and not unset:
        raise click.UsageError("nothing to change: say --config or --unset")

    async def work() -> None:
        async with admin_of(invocation) as admin:
            await admin.incremental_alter_configs(
                resource_of(broker_id), set=values, delete=unset, kind=BROKER_RESOURCE
            )

    run(work())
    changes = [f"{key}={value}" for key, value in values.items()] + [f"{key} back to its default" for key in unset]
    whose = "all brokers" if broker_id == ALL_BROKERS else f"broker {broker_id}"
    click.echo(f"Changed {whose}: {', '.join(changes)}.")
