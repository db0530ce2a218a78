"""Listings and help on the terminals that people have."""

from __future__ import annotations

from importlib import import_module

import click
import pytest

from streamlog.cli.main import SUBCOMMANDS, SUMMARIES
from tests.cli.shell import Shell
from tests.cli.terminal import Terminal

WIDTH = 78
"""What click leaves of 80 columns."""


def shown(shell: Shell, columns: int, *arguments: str) -> list[str]:
    with Terminal(shell, *arguments, columns=columns, environment={"NO_COLOR": "1"}) as terminal:
        assert terminal.ends() == 0
        return terminal.text.splitlines()


def test_a_listing_wider_than_the_terminal_is_one_line_for_each_cell(on_broker: Shell) -> None:
    """Wrapped columns cannot be read. What is piped stays as it is."""
    name = "a-name-of-some-length"
    on_broker.ok("topics", "create", name, "other", "-p", "2")
    narrow = shown(on_broker, 40, "topics", "list")
    at = narrow.index(f"NAME        {name}")
    assert narrow[at : at + 5] == [f"NAME        {name}", "PARTITIONS  2", "REPLICAS    1", "OFFSETS     0", ""]
    wide = shown(on_broker, 80, "topics", "list")
    assert wide[0].split() == ["NAME", "PARTITIONS", "REPLICAS", "OFFSETS"]
    on_broker.env["COLUMNS"] = "40"
    assert on_broker.ok("topics", "list").splitlines() == wide


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_summaries_fit_80_columns(name: str) -> None:
    """Whoever looks for a command reads what it does, and not how that begins."""
    assert len(SUMMARIES[name]) + max(map(len, SUMMARIES)) + 4 <= WIDTH
    module, _, attribute = SUBCOMMANDS[name].partition(":")
    command = getattr(import_module(module), attribute)
    if isinstance(command, click.Group):
        limit = WIDTH - 6 - max(map(len, command.commands))
        summaries = [one.get_short_help_str(limit) for one in command.commands.values()]
        assert not [one for one in summaries if one.endswith("...")]
