"""`streamlog format`: the data directory of one node of a new cluster, before it is started for the first time.

A single broker needs no formatting. Nodes of a quorum have to agree about their cluster, and the first voters about
each other, before any of them can talk.

Nobody can tell here whether a directory is new or takes the place of one that was lost. Formatted as a voter, it would
vote without knowing what that promised, and a majority may forget what was committed (as with Kafka's tool). So whoever
makes a voter is told.
"""

from __future__ import annotations

import os
from typing import Final

import click

from streamlog.broker.config import parse_address
from streamlog.broker.format import format_directory
from streamlog.broker.raft.messages import Endpoint, ReplicaKey
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.env import Env, real_env
from streamlog.errors import UserError
from streamlog.wire.uuids import uuid_from_text, uuid_to_text

LOSS_OF_VOTER: Final = (
    "This directory has a vote. If it is ever lost, format the new one without --voters: it must not vote for what the "
    "old one promised; see `streamlog format --help`"
)
LOSS: Final = (
    "If this is in the place of a lost directory, of a controller that controller.quorum.voters names: it will vote "
    "without knowing what the old one promised. Start it only while all other voters run; see `streamlog format --help`"
)


@click.command("format")
@click.option("--data-dir", metavar="DIR", required=True, help="Where the node will keep its log.")
@click.option("--node-id", type=click.IntRange(0), required=True, help="The node's number in its cluster.")
@click.option("--cluster-id", metavar="ID", help="The same for all nodes. A new one is made up and printed without it.")
@click.option(
    "--voters",
    metavar="ID@HOST:PORT:DIRECTORY,...",
    help="The first voters, the same for all of them: number, controller listener, directory id (22 characters).",
)
@click.option("--listener", default="CONTROLLER", show_default=True, help="Name of that listener.")
def format_(data_dir: str, node_id: int, cluster_id: str | None, voters: str | None, listener: str) -> None:
    """Make the data directory of a node of a new cluster.

    In the place of a directory that was lost: with the cluster's --cluster-id and without --voters, so that it promises
    nothing that it does not know. A controller then follows the quorum, and gets its vote back with

    \b
      streamlog quorum remove NODE
      streamlog quorum add --config NODE's server.properties

    With controller.quorum.voters in the settings every directory of a voter's number votes: after a loss start that
    node only while all the others run and are up to date.
    """
    env = real_env()
    cluster_id = cluster_id or new_cluster_id(env)
    first = None if voters is None else parse_voters(voters, listener)
    directory_id = format_directory(
        env, os.path.abspath(data_dir), cluster_id=cluster_id, node_id=node_id, voters=first
    )
    click.echo(f"{data_dir}: cluster {cluster_id}, node {node_id}, directory {uuid_to_text(directory_id)}")
    click.echo(LOSS_OF_VOTER if first is not None else LOSS, err=True)


def new_cluster_id(env: Env) -> str:
    """One that no command line takes for an option."""
    while True:
        text = uuid_to_text(env.entropy.uuid4())
        if not text.startswith("-"):
            return text


def parse_voters(text: str, listener: str) -> VoterSet:
    """`1@host:9093:directory,...`, as Kafka's --initial-controllers has it. Raises UserError."""
    found: list[VoterNode] = []
    for part in text.split(","):
        number, _, rest = part.strip().partition("@")
        address, _, directory = rest.rpartition(":")
        host, port = parse_address(address, "--voters")
        try:
            key = ReplicaKey(int(number), uuid_from_text(directory))
        except ValueError as error:
            raise UserError(f"--voters: {part!r} is not ID@HOST:PORT:DIRECTORY: {error}") from error
        found.append(VoterNode(key, (Endpoint(listener, host, port),)))
    return VoterSet(found)
