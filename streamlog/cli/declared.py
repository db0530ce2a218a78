"""`streamlog -A ... agents | topology`: what an app declares, without running it."""

from __future__ import annotations

from dataclasses import asdict

import click

from streamlog.cli.apps import load_app
from streamlog.cli.invocation import Invocation, app_option, json_option
from streamlog.cli.output import print_json, print_rows


@click.command()
@json_option
@app_option
@click.pass_obj
def agents(invocation: Invocation, as_json: bool) -> None:
    """List the agents of an app."""
    app = load_app(invocation.app_target(), debug=invocation.debug)
    lanes = {lane.name: lane for lane in app.topology().lanes}
    rows = [
        {
            "agent": name,
            "reads": [topic.name for topic in agent.topics],
            "tables": list(lanes[name].tables) if name in lanes else [],
            "sinks": list(lanes[name].sinks) if name in lanes else [],
            "concurrency": agent.concurrency,
            "on_error": lanes[name].on_error if name in lanes else None,
        }
        for name, agent in sorted(app.agents.items())
    ]
    print_rows(rows, as_json=as_json, empty=f"App {app.id} has no agents.")


@click.command()
@json_option
@app_option
@click.pass_obj
def topology(invocation: Invocation, as_json: bool) -> None:
    """Print what an app will do: agents, tables and topics, and how they hang together."""
    app = load_app(invocation.app_target(), debug=invocation.debug)
    found = app.topology()
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(str(found))
