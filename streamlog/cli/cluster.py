"""`streamlog cluster`: several nodes on this machine, each a process of its own."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from streamlog.cli.invocation import json_option, run
from streamlog.cli.local_cluster import LocalCluster, Node, check_settings, make_cluster, make_plan, open_cluster
from streamlog.cli.output import columns, plural, print_json
from streamlog.cli.topics import parse_settings
from streamlog.cli.votes import admin_of_local, give_votes_back, say_lost, without_majority
from streamlog.env import Env, real_env
from streamlog.errors import EnvironmentFailure, StreamlogError, UserError

F = TypeVar("F", bound=Callable[..., Any])

DIRECTORY_DEFAULT: Final = "./streamlog-cluster"
NODES_DEFAULT: Final = 3

POLL_S: Final = 0.05


def dir_option(function: F) -> F:
    return click.option(
        "--dir",
        "directory",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        default=DIRECTORY_DEFAULT,
        show_default=True,
        envvar="STREAMLOG_CLUSTER_DIR",
        help="The cluster's directory. [STREAMLOG_CLUSTER_DIR]",
    )(function)


def timeout_option(function: F) -> F:
    return click.option(
        "--timeout",
        "timeout_s",
        type=float,
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait.",
    )(function)


nodes_argument = click.argument("ids", metavar="[NODE]...", nargs=-1, type=int)


@click.group()
def cluster() -> None:
    """Start, stop, kill and describe a cluster of local nodes.

    \b
      streamlog cluster start 3                   three nodes, each broker and controller
      streamlog cluster start --brokers 3 --controllers 3 --dir big
      streamlog cluster describe
      streamlog cluster kill 2                    kill -9
      streamlog cluster start                     starts what does not run
      streamlog cluster restart                   one after another, clients go on
      streamlog cluster stop
    """
    # That brokers are down, or not up yet, is what these commands say in their own words.
    logging.basicConfig(level=logging.CRITICAL, format="streamlog: %(message)s")


@cluster.command(short_help="Make a cluster, or start the nodes of one that do not run.")
@click.argument("count", metavar="[N]", type=click.IntRange(1, 100), required=False)
@click.option("--brokers", type=click.IntRange(1, 100), metavar="N", help="Nodes that are only brokers...")
@click.option("--controllers", type=click.IntRange(1, 9), metavar="N", help="...and nodes that are only controllers.")
@click.option("--port-base", type=click.IntRange(1, 65_000), metavar="PORT", help="First of the ports. [free ones]")
@click.option("-c", "--config", "settings", metavar="NAME=VALUE", multiple=True, help="A setting of all nodes.")
@click.option("--node", "ids", metavar="NODE", type=int, multiple=True, help="Only this node; may be repeated.")
@click.option("--log-level", default="INFO", show_default=True, metavar="LEVEL", help="Of the nodes' logs.")
@timeout_option
@json_option
@dir_option
def start(
    count: int | None,
    brokers: int | None,
    controllers: int | None,
    port_base: int | None,
    settings: Sequence[str],
    ids: Sequence[int],
    log_level: str,
    timeout_s: float,
    as_json: bool,
    directory: Path,
) -> None:
    """Make a cluster of N nodes (3), or start the nodes of one that do not run; wait until it serves."""
    env = real_env()
    values = parse_settings(settings)
    directory = directory.absolute()
    if (directory / "cluster.json").exists():
        found = open_cluster(env, directory)
        _check_same(found, count, brokers, controllers, port_base, values)
    else:
        if (brokers is None) != (controllers is None):
            raise click.UsageError("say --brokers and --controllers, or how many nodes are both: start 3")
        if brokers is not None and count is not None:
            raise click.UsageError("nodes are both (start N), or brokers and controllers apart; not some of each")
        combined = 0 if brokers is not None else count or NODES_DEFAULT
        plan = make_plan(
            env, combined=combined, brokers=brokers or 0, controllers=controllers or 0, port_base=port_base
        )
        for warning in check_settings(plan, directory, values):
            click.echo(f"streamlog: {warning}", err=True)
        found = make_cluster(env, directory, plan)
    nodes = found.nodes(ids)
    with found.lock():
        say_lost(found, found.prepare(nodes, values), nodes)
        run(_start(env, found, nodes, log_level, timeout_s))
    _show(env, found, as_json)


def _check_same(
    found: LocalCluster,
    count: int | None,
    brokers: int | None,
    controllers: int | None,
    port_base: int | None,
    settings: Mapping[str, str],
) -> None:
    plan = found.plan
    wanted = count or (None if brokers is None else brokers + (controllers or 0))
    if wanted is not None and wanted != len(plan.nodes):
        raise UserError(
            f"{found.directory} has a cluster of {plural(len(plan.nodes), 'node')} already: start it without a "
            "number, or choose another --dir"
        )
    if port_base is not None and port_base != min(one.port or one.controller_port for one in plan.nodes):
        raise UserError(f"the cluster in {found.directory} has its ports already: leave --port-base out")
    if settings:
        raise UserError(
            f"the nodes in {found.directory} have their settings already: edit {found.config(plan.nodes[0])} and the "
            "others, then restart"
        )


@cluster.command()
@nodes_argument
@json_option
@dir_option
def stop(ids: Sequence[int], as_json: bool, directory: Path) -> None:
    """Stop nodes, all by default. They hand over their partitions and leave nothing to recover."""
    found = open_cluster(real_env(), directory.absolute())
    nodes = found.nodes(ids)
    with found.lock():
        _say_ended(run(_stop(found, nodes)), "Stopped", as_json)


async def _stop(found: LocalCluster, nodes: Sequence[Node]) -> list[Node]:
    """Brokers first: they hand over with the help of the controllers."""
    ended = await found.end([one for one in nodes if not one.is_controller])
    return ended + await found.end([one for one in nodes if one.is_controller])


@cluster.command()
@click.argument("ids", metavar="NODE...", nargs=-1, required=True, type=int)
@json_option
@dir_option
def kill(ids: Sequence[int], as_json: bool, directory: Path) -> None:
    """Kill nodes with SIGKILL, as a crash would."""
    found = open_cluster(real_env(), directory.absolute())
    nodes = found.nodes(ids)
    _say_ended(run(found.end(nodes, signal.SIGKILL)), "Killed", as_json)  # also while others wait: no lock


def _say_ended(ended: Sequence[Node], what: str, as_json: bool) -> None:
    if as_json:
        print_json([one.id for one in ended])
    elif ended:
        click.echo(f"{what} {'node' if len(ended) == 1 else 'nodes'} {', '.join(str(one.id) for one in ended)}.")
    else:
        click.echo("None of them was running.", err=True)


@cluster.command(short_help="Stop and start nodes one after another, all by default.")
@nodes_argument
@click.option("--log-level", default="INFO", show_default=True, metavar="LEVEL", help="Of the nodes' logs.")
@timeout_option
@json_option
@dir_option
def restart(ids: Sequence[int], log_level: str, timeout_s: float, as_json: bool, directory: Path) -> None:
    """Stop and start nodes one after another, all by default; those that are down are started first.

    The next one is stopped when every replica is in sync again, so that clients can go on all the while.
    """
    env = real_env()
    found = open_cluster(env, directory.absolute())
    nodes = found.nodes(ids)

    async def work() -> None:
        down = [one for one in nodes if found.process(one) is None]
        say_lost(found, found.prepare(down, {}), down)
        await _start(env, found, down, log_level, timeout_s)
        left = [one for one in nodes if one not in down]
        for one in [*(one for one in left if not one.is_broker), *(one for one in left if one.is_broker)]:
            await _until_in_sync(env, found, timeout_s)
            await found.end([one])
            await _start(env, found, [one], log_level, timeout_s)
        await _until_in_sync(env, found, timeout_s)

    with found.lock():
        run(work())
    _show(env, found, as_json)


@cluster.command()
@json_option
@dir_option
def describe(as_json: bool, directory: Path) -> None:
    """Show the nodes of a cluster and how it is reached."""
    env = real_env()
    _show(env, open_cluster(env, directory.absolute()), as_json)


# -- waiting


async def _start(env: Env, found: LocalCluster, nodes: Sequence[Node], loglevel: str, timeout_s: float) -> None:
    """Start nodes and wait until all that run take part. Raises UserError when one ends instead."""
    started = found.start(nodes, loglevel)
    waiting = {one.id for one in nodes if one.is_broker}
    try:
        async with asyncio.timeout(timeout_s):
            await _until_listening(found, nodes, started)
            while waiting and waiting - await _registered(env, found, nodes):
                found.check_alive(nodes, started)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        missing = sorted(waiting - await _registered(env, found, nodes))
        about = f"broker {', '.join(map(str, missing))} has" if missing else "the cluster has"
        log = found.log(found.nodes(missing)[0] if missing else nodes[0])
        raise EnvironmentFailure(
            f"{about} not come up within {timeout_s:g} s; see {log}{without_majority(found)}"
        ) from None
    found.check_alive(nodes, started)
    for one in await give_votes_back(env, found, timeout_s):
        click.echo(f"Node {one.id} has its vote back.", err=True)


async def _until_listening(found: LocalCluster, nodes: Iterable[Node], started: Mapping[int, int]) -> None:
    for one in nodes:
        host, _, port = one.address.rpartition(":")
        while True:
            found.check_alive([one], started)
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(POLL_S)
                continue
            writer.close()
            break


async def _registered(env: Env, found: LocalCluster, asked: Sequence[Node]) -> set[int]:
    """Brokers that every one of the brokers that run knows as part of the cluster: registered and not fenced."""
    running = [one for one in found.plan.brokers if found.process(one) is not None]
    known: set[int] | None = None
    for one in running:
        try:
            async with admin_of_local(env, one.address) as admin:
                brokers = {broker.node_id for broker in (await admin.describe_cluster()).brokers}
        except StreamlogError:
            return set()
        known = brokers if known is None else known & brokers
    return known or set()


async def _until_in_sync(env: Env, found: LocalCluster, timeout_s: float) -> None:
    behind: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    behind = await _out_of_sync(env, found)
                    if not behind:
                        return
                except StreamlogError as failure:
                    behind = [str(failure)]
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise EnvironmentFailure(
            f"{behind[0] if behind else 'a partition'} is not in sync again after {timeout_s:g} s; nothing more was "
            "restarted"
        ) from None


async def _out_of_sync(env: Env, found: LocalCluster) -> list[str]:
    """Partitions without a leader, and those that a node which runs has not caught up with."""
    running = {one.id for one in found.plan.brokers if found.process(one) is not None}
    if not running:
        return []
    async with admin_of_local(env, found.plan.bootstrap) as admin:
        described = await admin.describe_topics(await admin.list_topics(internal=True))
    return [
        f"{name}-{one.partition}"
        for name, topic in described.items()
        for one in topic.partitions
        if one.leader < 0 or running.intersection(one.replicas) - set(one.isr)
    ]


# -- showing


def _show(env: Env, found: LocalCluster, as_json: bool) -> None:
    part = run(_taking_part(env, found))
    rows = [_row(found, one, part) for one in found.plan.nodes]
    if as_json:
        print_json(
            {
                "dir": str(found.directory),
                "cluster_id": found.plan.cluster_id,
                "bootstrap": found.plan.bootstrap,
                "controllers": found.plan.quorum,
                "nodes": rows,
            }
        )
        return
    click.echo(f"Cluster {found.plan.cluster_id} in {found.directory}")
    click.echo(f"--broker {found.plan.bootstrap}")
    for line in columns([row | {"pid": row["pid"] and str(row["pid"]), "log": _short(row["log"])} for row in rows]):
        click.echo(line)


def _short(path: str) -> str:
    relative = Path(path)
    return str(relative.relative_to(Path.cwd())) if relative.is_relative_to(Path.cwd()) else path


def _row(found: LocalCluster, node: Node, part: Mapping[int, str]) -> dict[str, Any]:
    process = found.process(node)
    if process is None:
        state = "stopped"
    elif process.state == "frozen":
        state = "frozen"
    else:
        state = part.get(node.id, "starting" if node.is_broker else "running")
    return {
        "node": node.id,
        "roles": ",".join(node.roles),
        "state": state,
        "pid": None if process is None else process.pid,
        "listen": node.address if node.is_broker else None,
        "controller": f"127.0.0.1:{node.controller_port}" if node.is_controller else None,
        "log": str(found.log(node)),
    }


async def _taking_part(env: Env, found: LocalCluster) -> dict[int, str]:
    """What the cluster says of its nodes: "up", and "active controller" of the one that leads the quorum."""
    addresses = [one.address for one in found.plan.brokers if found.process(one) is not None]
    if not addresses:
        return {}
    part: dict[int, str] = {}
    try:
        async with admin_of_local(env, ",".join(addresses)) as admin:
            part |= {one.node_id: "up" for one in (await admin.describe_cluster()).brokers}
            leader_id = (await admin.describe_quorum()).leader_id
            part[leader_id] = "up, active" if leader_id in part else "active"
    except StreamlogError:
        return part
    return part
