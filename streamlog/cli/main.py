"""The `streamlog` command. Subcommands are imported when they are run, so that each starts as fast as it can."""

from __future__ import annotations

from importlib import import_module

import click

SUBCOMMANDS = {"broker": "streamlog.cli.broker:broker"}
"""Name -> module:attribute of a click command."""


class LazyGroup(click.Group):
    """Imports a subcommand when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = SUBCOMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command), f"{target} is not a command"
        return command


@click.group(cls=LazyGroup)
def main() -> None:
    """Kafka and Kafka Streams for Python."""
