"""Controllers of a local cluster whose data directory was lost: what is said about them, and how they vote again.

A quorum relies on what its voters remember: whom they voted for, and what they have acknowledged. A directory that
was made anew remembers nothing, so it has another id and no vote (KIP-853). Its controller follows the others. They,
and only a majority of those that do remember, take the vote from the old directory and give it to the new one, in two
changes that are committed like everything else. So nothing here has to be careful: it asks, again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import click

from streamlog.cli.local_cluster import HOST, QUORUM, LocalCluster, Node
from streamlog.client.admin import Admin, ControllerEndpoint
from streamlog.client.config import ConnectionSettings
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure, StreamlogError

ASK_MS: Final = 2_000
"""How long brokers are waited for that may all be down."""

POLL_S: Final = 0.1


def admin_of_local(env: Env, bootstrap: str) -> Admin:
    settings = ConnectionSettings(client_id="streamlog-cli", question_timeout_ms=ASK_MS // 4)
    return Admin(bootstrap, env=env, timeout_ms=ASK_MS, connection=settings)


def say_lost(found: LocalCluster, lost: Sequence[Node], starting: Sequence[Node]) -> None:
    """Say what was done about these nodes, which are about to start with others."""
    for one in lost:
        text = f"node {one.id}: its data directory was lost; it has a new, empty one, which the others fill."
        if one.is_controller:
            text += " It votes again when they have taken the vote from the old one and given it to the new one."
        click.echo(text, err=True)
    if lost and (warning := without_majority(found, starting)):
        click.echo(f"{warning.removeprefix('. ')}.", err=True)


def without_majority(found: LocalCluster, starting: Sequence[Node] = ()) -> str:
    """The beginning of a sentence about why nobody leads, "" where that has other reasons.

    Who votes is known from when the cluster was made: a guess, for people.
    """
    controllers = found.plan.controllers
    silent = [one for one in controllers if found.vote_lost(one).exists()]
    there = [one for one in controllers if one in starting or found.process(one) is not None]
    voting = [one for one in there if one not in silent]
    majority = len(controllers) // 2 + 1
    if not silent or len(voting) >= majority:
        return ""
    text = (
        f". Of {len(controllers)} controllers {majority} have to run that have kept their data directories, and "
        f"{_names(silent)} lost it"
    )
    idle = [one for one in controllers if one not in there and one not in silent]
    if len(voting) + len(idle) >= majority:
        return f"{text}: start {_names(idle)} too"
    return f"{text}: put a lost one back, or start a new cluster in another directory"


def _names(nodes: Sequence[Node]) -> str:
    return f"{'node' if len(nodes) == 1 else 'nodes'} {', '.join(str(one.id) for one in nodes)}"


async def give_votes_back(env: Env, found: LocalCluster, timeout_s: float) -> list[Node]:
    """Have the quorum give their vote back to the nodes that run and lost it. Returns those that have it now.

    Raises EnvironmentFailure, with what to do, when the quorum has not done it in time.
    """
    nodes = [one for one in found.plan.controllers if found.vote_lost(one).exists() and found.process(one) is not None]
    if not nodes or not any(found.process(one) is not None for one in found.plan.brokers):
        return []
    for one in nodes:
        reason = "nobody leads the quorum"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        if await _is_voter_after(env, found, one):
                            break
                    except StreamlogError as error:
                        reason = str(error)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise EnvironmentFailure(
                f"node {one.id} follows the quorum, and has not got its vote back within {timeout_s:g} s: {reason}. "
                f"`streamlog cluster start` tries again; by hand it is `streamlog quorum remove {one.id}`, then "
                f"`streamlog quorum add --config {found.config(one)}`"
            ) from None
        found.vote_lost(one).unlink(missing_ok=True)
    return nodes


async def _is_voter_after(env: Env, found: LocalCluster, node: Node) -> bool:
    """Whether the node votes. If not, the next step is asked for."""
    directory_id = found.directory_id(node)
    async with admin_of_local(env, found.plan.bootstrap) as admin:
        quorum = await admin.describe_quorum()
        known = {one.directory_id for one in quorum.voters if one.node_id == node.id}
        if directory_id in known:
            return True
        for old in known:
            await admin.remove_raft_voter(node.id, old)
        listener = ControllerEndpoint(QUORUM, HOST, node.controller_port)
        await admin.add_raft_voter(node.id, directory_id, [listener])
    return False
