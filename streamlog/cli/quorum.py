"""`streamlog quorum`: who keeps the metadata log, and who has a vote."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import click

from streamlog.broker.config import Listener, parse_address, parse_properties
from streamlog.cli.invocation import Invocation, broker_option, json_option, run
from streamlog.cli.output import columns, plural, print_json
from streamlog.cli.topics import admin_of
from streamlog.client.admin import ControllerEndpoint, QuorumDescription, QuorumReplica
from streamlog.env import Env, real_env
from streamlog.errors import UserError
from streamlog.wire.uuids import uuid_from_text, uuid_to_text


@click.group()
def quorum() -> None:
    """Describe the metadata quorum; give controllers a vote or take it away.

    \b
      streamlog quorum describe
      streamlog quorum add --config node-4/server.properties
      streamlog quorum remove 4
    """


@quorum.command(short_help="Show leader, voters and observers, and how far each is.")
@json_option
@broker_option
@click.pass_obj
def describe(invocation: Invocation, as_json: bool) -> None:
    """Show the leader, the voters and the observers of the metadata log, and how far each is."""
    env = real_env()

    async def work() -> QuorumDescription:
        async with admin_of(invocation, env) as admin:
            return await admin.describe_quorum()

    found = run(work())
    now_ms = env.clock.wall_ms()
    rows = [_row(found, one, "voter", now_ms) for one in sorted(found.voters, key=_number)]
    rows += [_row(found, one, "observer", now_ms) for one in sorted(found.observers, key=_number)]
    if as_json:
        print_json(
            {
                "leader": found.leader_id,
                "leader_epoch": found.leader_epoch,
                "high_watermark": found.high_watermark,
                "replicas": rows,
            }
        )
        return
    led = f"led by node {found.leader_id}" if found.leader_id >= 0 else "without a leader"
    click.echo(
        f"{plural(len(found.voters), 'voter')}, {led} in epoch {found.leader_epoch}; "
        f"high watermark {found.high_watermark:,}"
    )
    for line in columns(rows):
        click.echo(line)


def _number(one: QuorumReplica) -> int:
    return one.node_id


def _row(quorum: QuorumDescription, one: QuorumReplica, role: str, now_ms: int) -> dict[str, Any]:
    is_leader = one.node_id == quorum.leader_id and role == "voter"
    at = ", ".join(f"{at.host}:{at.port}" for at in quorum.endpoints.get(one.node_id, ())) or None
    return {
        "node": one.node_id,
        "role": "leader" if is_leader else role,
        "directory": uuid_to_text(one.directory_id) if one.directory_id.int else None,
        "log_end": one.log_end_offset,
        "lag": max(0, quorum.leader_end_offset - one.log_end_offset),
        "fetched_ms_ago": None if is_leader else _ago(one.last_fetch_at_ms, now_ms),
        "caught_up_ms_ago": None if is_leader else _ago(one.last_caught_up_at_ms, now_ms),
        "address": at,
    }


def _ago(at_ms: int, now_ms: int) -> int | None:
    return None if at_ms < 0 else max(0, now_ms - at_ms)


@quorum.command()
@click.argument("node_id", metavar="[NODE]", type=click.IntRange(0), required=False)
@click.option("--config", "config", type=click.Path(path_type=Path), metavar="FILE", help="Its server.properties.")
@click.option("--directory", metavar="ID", help="Its directory id, 22 characters. [what the quorum says]")
@click.option("--at", metavar="HOST:PORT", help="Where its controller listens, without --config.")
@click.option("--listener", default="CONTROLLER", show_default=True, help="Name of that listener.")
@broker_option
@click.pass_obj
def add(
    invocation: Invocation,
    node_id: int | None,
    config: Path | None,
    directory: str | None,
    at: str | None,
    listener: str,
) -> None:
    """Give a controller a vote. It has to run and to follow the quorum already.

    \b
      streamlog quorum add --config node-4/server.properties
      streamlog quorum add 4 --at 127.0.0.1:9094
    """
    env = real_env()
    directory_id = _directory_id(directory)
    if config is not None:
        node_id, endpoints, found_id = _from_config(env, config, directory_id)
        directory_id = found_id
    elif node_id is not None and at is not None:
        endpoints = [ControllerEndpoint(listener, *parse_address(at, "--at"))]
    else:
        raise click.UsageError("say --config FILE, or NODE and --at HOST:PORT")
    number = node_id

    async def work() -> int:
        async with admin_of(invocation, env) as admin:
            found = await admin.describe_quorum()
            wanted = directory_id or _directory_of(found.observers, number, "follows the quorum without a vote")
            await admin.add_raft_voter(number, wanted, endpoints)
            return len((await admin.describe_quorum()).voters)

    click.echo(f"Node {number} has a vote now; there are {plural(run(work()), 'voter')}.")


@quorum.command()
@click.argument("node_id", metavar="NODE", type=click.IntRange(0))
@click.option("--directory", metavar="ID", help="Its directory id, 22 characters. [what the quorum says]")
@broker_option
@click.pass_obj
def remove(invocation: Invocation, node_id: int, directory: str | None) -> None:
    """Take a controller's vote away. It may be down for good."""
    given = _directory_id(directory)

    async def work() -> int:
        async with admin_of(invocation) as admin:
            found = await admin.describe_quorum()
            wanted = given or _directory_of(found.voters, node_id, "has a vote")
            await admin.remove_raft_voter(node_id, wanted)
            return len((await admin.describe_quorum()).voters)

    click.echo(f"Node {node_id} has no vote any more; there are {plural(run(work()), 'voter')}.")


def _directory_of(replicas: tuple[QuorumReplica, ...], node_id: int, what: str) -> UUID:
    found = [one.directory_id for one in replicas if one.node_id == node_id]
    if not found:
        known = ", ".join(str(one.node_id) for one in sorted(replicas, key=_number)) or "none"
        raise UserError(f"no node {node_id} {what} (those that do: {known}); see `streamlog quorum describe`")
    if len(found) > 1:
        ids = ", ".join(map(uuid_to_text, found))
        raise UserError(f"node {node_id} is there more than once; say which with --directory: {ids}")
    return found[0]


def _directory_id(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return uuid_from_text(text)
    except ValueError as error:
        raise UserError(f"--directory: {error}") from error


def _from_config(env: Env, path: Path, given: UUID | None) -> tuple[int, list[ControllerEndpoint], UUID]:
    """Number, controller listeners and directory id, out of a controller's configuration and its data directory."""
    try:
        values = parse_properties(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    node_id = values.get("node.id", "")
    if not node_id.isdigit():
        raise UserError(f"{path} has no node.id")
    names = [name.strip() for name in values.get("controller.listener.names", "").split(",") if name.strip()]
    told = {one.name: one for key in ("listeners", "advertised.listeners") for one in _listeners(values, key)}
    missing = [name for name in names if name not in told]
    if not names or missing:
        raise UserError(f"{path} has no listener {missing[0] if missing else 'in controller.listener.names'}")
    endpoints = [ControllerEndpoint(name, told[name].host or "127.0.0.1", told[name].port) for name in names]
    data = values.get("metadata.log.dir") or values.get("log.dirs") or values.get("log.dir") or ""
    return int(node_id), endpoints, given or _formatted_id(env, f"{data.split(',')[0].strip()}/meta.properties")


def _formatted_id(env: Env, path: str) -> UUID:
    try:
        return uuid_from_text(parse_properties(env.storage.read_bytes(path).decode()).get("directory.id", ""))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} does not say the directory's id ({error}); say it with --directory") from error


def _listeners(values: dict[str, str], key: str) -> list[Listener]:
    found = []
    for part in (part.strip() for part in values.get(key, "").split(",")):
        name, separator, address = part.partition("://")
        if separator:
            found.append(Listener(name, *parse_address(address, key)))
    return found
