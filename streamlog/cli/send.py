"""`streamlog send`: one value to an agent or a topic of an app."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from streamlog.cli.apps import load_app
from streamlog.cli.invocation import Invocation, app_option, broker_option, run
from streamlog.cli.sender import sending
from streamlog.errors import UserError
from streamlog.serde import Serde, SerdeError, type_name
from streamlog.streams.agents import Agent
from streamlog.streams.app import App
from streamlog.streams.topic import Topic
from streamlog.web.shown import builtins_of


@click.command()
@click.argument("target", metavar="AGENT_OR_TOPIC")
@click.argument("value")
@click.option("-k", "--key", metavar="KEY", help="The record's key; JSON where keys are not text or numbers.")
@click.option("--no-key", is_flag=True, help="Send without a key to an agent whose tables are kept by key.")
@click.option("--ask", is_flag=True, help="Wait for the agent's answer and print it.")
@app_option
@broker_option
@click.pass_obj
def send(invocation: Invocation, target: str, value: str, key: str | None, no_key: bool, ask: bool) -> None:
    """Send VALUE to an agent or a topic of the app: JSON, or plain text where values are text."""
    app = load_app(invocation.app_target(), debug=invocation.debug)
    agent = app.agents.get(target)
    topic = agent.topic if agent is not None else app.topics.get(target)
    if topic is None:
        agents, topics = ", ".join(sorted(app.agents)) or "none", ", ".join(sorted(app.topics)) or "none"
        raise UserError(f"app {app.id} has no agent and no topic {target!r}. Agents: {agents}. Topics: {topics}")
    if ask and agent is None:
        raise UserError(f"{target} is a topic: only agents answer")
    if key is not None and no_key:
        raise click.UsageError("say --key or --no-key")
    answer = run(_send(app, invocation, topic, agent if ask else None, value, key, no_key=no_key))
    if ask:
        click.echo(msgspec.json.encode(builtins_of(answer)).decode())
    else:
        click.echo(f"Sent to {topic.name}.")


def _check_key(app: App, topic: Topic[Any, Any]) -> None:
    """Refuse what would stop a partition: rows are kept where the record's key belongs."""
    for lane in app.topology().lanes:
        if topic.name in lane.sources and lane.tables:
            raise click.UsageError(
                f"agent {lane.name} keeps rows by the keys of topic {topic.name} (table {lane.tables[0]}): give the "
                "value's key with --key, or say --no-key if it needs none"
            )


async def _send(
    app: App,
    invocation: Invocation,
    topic: Topic[Any, Any],
    agent: Agent[Any, Any, Any] | None,
    value: str,
    key: str | None,
    *,
    no_key: bool,
) -> Any:
    decoded = parse_value(topic.value_serde, value, f"values of topic {topic.name}")
    decoded_key = None if key is None else parse_value(topic.key_serde, key, f"keys of topic {topic.name}")
    if key is None and not no_key:
        _check_key(app, topic)
    async with sending(app, invocation):
        if agent is not None:
            return await agent.ask(decoded, key=decoded_key)
        await topic.send(decoded, key=decoded_key)
        return None


def parse_value(serde: Serde[Any], text: str, what: str) -> Any:
    """A value of the serde's type out of what somebody typed: JSON, or the text itself where the type is text.

    Raises UserError.
    """
    kind = serde.type
    if kind is str:
        return text
    if kind is bytes:
        return text.encode()
    try:
        if serde.name.startswith(("raw", "json")):
            return serde.decode(text.encode())
        return msgspec.json.decode(text, type=kind)
    except SerdeError as error:
        raise UserError(f"{what} are {type_name(kind)}: {error}") from None
    except msgspec.MsgspecError as error:
        if kind is Any:
            return text
        raise UserError(f"{what} are {type_name(kind)}, written as JSON: {error}") from None
