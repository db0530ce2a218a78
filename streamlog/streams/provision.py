"""Topics an app needs: those that exist are taken as they are, the others are created."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from streamlog.client.admin import Admin, NewTopic, SomeFailed
from streamlog.errors import UserError
from streamlog.state.changelog import ANY_TIME
from streamlog.streams.topology import TopicNode, Topology
from streamlog.wire.error_codes import ErrorCode

log = logging.getLogger(__name__)


async def provide_topics(
    admin: Admin,
    topology: Topology,
    *,
    partitions_default: int,
    replication_factor: int | None,
    create_declared: bool,
    embedded: bool,
) -> Topology:
    """The topology with every partition count known, and every topic of it in existence.

    Args:   create_declared: create declared topics even when they do not say partitions=; otherwise that is for
                operators to decide.
            embedded: the log belongs to this app; only for the wording of messages.
    Raises: UserError: a topic is missing, or counts contradict each other. KafkaError: the broker refused.
    """
    existing = await partition_counts(admin, [node.name for node in topology.topics])
    resolved = topology.resolve(existing, partitions_default)
    missing = [node for node in resolved.topics if node.name not in existing]
    if not create_declared and not embedded:
        _check_declared(topology, missing)
    if missing:
        await _create(admin, missing, replication_factor)
    return resolved


async def partition_counts(admin: Admin, names: Sequence[str]) -> dict[str, int]:
    """Of those that exist."""
    there = set(await admin.list_topics(internal=True))
    infos = await admin.describe_topics([name for name in names if name in there])
    return {name: len(info.partitions) for name, info in infos.items()}


def _check_declared(topology: Topology, missing: Sequence[TopicNode]) -> None:
    undecided = [
        node.name for node in missing if node.kind == "declared" and topology.topic(node.name).partitions is None
    ]
    if undecided:
        names = ", ".join(sorted(undecided))
        raise UserError(
            f"topic {names} does not exist on the broker, and the app does not say how many partitions it should have. "
            f"Create it with `streamlog topics create {min(undecided)} --partitions N`, or declare it with "
            f"partitions=N to have it created"
        )


async def _create(admin: Admin, missing: Sequence[TopicNode], replication_factor: int | None) -> None:
    wanted = [
        NewTopic(
            node.name,
            node.partitions or 1,
            -1 if replication_factor is None else replication_factor,
            {**ANY_TIME, **dict(node.configs)},  # an app's records carry event time, its outputs too
        )
        for node in missing
    ]
    try:
        await admin.create_topics(wanted)
    except SomeFailed as failed:
        refused: Mapping[str, Exception] = {
            name: error
            for name, error in failed.errors.items()
            if error.code is not ErrorCode.TOPIC_ALREADY_EXISTS  # another worker was faster
        }
        if refused:
            raise
    for node in missing:
        log.info("topic=%s created partitions=%s kind=%s", node.name, node.partitions, node.kind)
