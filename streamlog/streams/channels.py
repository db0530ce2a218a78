"""Which topics are an app's own channels, and how far others have read them.

An agent without a source has a topic of its own, for `cast` and `ask`. The app made it to have no end of retention,
since nothing in it may go before it was processed; so it is the app that has to delete. But anybody can write to it,
and read it, and change its settings. It counts as a channel as long as it is as the app makes it; and what another
group of consumers has not read stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamlog.client.admin import Admin
from streamlog.client.admin_values import ConfigEntry
from streamlog.client.values import TopicPartition
from streamlog.streams.topology import Topology

OF_TOPIC = 1
"""Where a setting comes from: it was set for this topic."""


def own_topics(topology: Topology) -> list[str]:
    """Topics of agents. One that a table follows is that table's memory too."""
    followed = {table.changelog for table in topology.tables}
    return [node.name for node in topology.topics if node.kind == "agent" and node.name not in followed]


class Channels:
    """Of one app, asked by one worker."""

    def __init__(self, app_id: str, admin: Admin) -> None:
        self._app_id, self._admin = app_id, admin

    async def allowed(self, offsets: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Up to which offsets records may be deleted that the app has processed; partitions that are nobody else's
        business.

        Raises: StreamlogError: it cannot be seen.
        """
        topics = sorted({one.topic for one in offsets})
        settings = await asyncio.gather(*(self._admin.describe_configs(topic) for topic in topics))
        channels = {topic for topic, one in zip(topics, settings, strict=True) if _is_channel(one)}
        left = {one: offset for one, offset in offsets.items() if one.topic in channels}
        if left:
            for bound in await self._claims(sorted(channels), left):
                left = {one: min(offset, bound.get(one, offset)) for one, offset in left.items()}
        return {one: offset for one, offset in left.items() if offset > 0}

    async def _claims(
        self, channels: Sequence[str], partitions: dict[TopicPartition, int]
    ) -> list[dict[TopicPartition, int]]:
        """For each other group: where it is. One that reads a topic, and has committed nothing, is at its beginning."""
        others = [one for one in await self._admin.list_groups() if one.group_id != self._app_id]
        committed = await asyncio.gather(*(self._admin.list_group_offsets(one.group_id) for one in others))
        active = [one.group_id for one in others if one.state not in ("Empty", "Dead")]
        described = await self._admin.describe_groups(active)
        claims = []
        for group, offsets in zip(others, committed, strict=True):
            members = described[group.group_id].members if group.group_id in described else ()
            reads = {topic for member in members for topic in member.topics if topic in channels}
            claim = {one: 0 for one in partitions if one.topic in reads}
            claims.append(claim | {one: at.offset for one, at in offsets.items() if one in partitions})
        return claims


def _is_channel(settings: dict[str, ConfigEntry]) -> bool:
    """Whether a topic is still as the app makes it (`unprocessed_configs`)."""
    retention, policy = settings.get("retention.ms"), settings.get("cleanup.policy")
    return (
        retention is not None
        and policy is not None
        and (retention.value, retention.source, policy.value) == ("-1", OF_TOPIC, "delete")
    )
