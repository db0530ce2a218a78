"""Commits the offsets of one member of a group, through rebalances and topics that are made again.

A commit is tied to what was true when it began: the generation, the assignment of each partition, and the ids of the
topics that the offsets are of. A rebalance in between does not fail it as long as the member keeps the partitions all
along; what belonged to a topic that is gone is left out, because under its name there is another log now.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from streamlog.client.cluster import Cluster
from streamlog.client.failures import one_line
from streamlog.client.group_offsets import commit_offsets, fetch_offsets
from streamlog.client.member_effects import (
    LOST_GENERATION,
    NO_GENERATION,
)
from streamlog.client.membership import Membership
from streamlog.client.positions import Positions
from streamlog.client.values import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlog.errors import StreamlogError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.schema import ZERO_UUID

log = logging.getLogger(__name__)


class Committer:
    """See the module's essay. Owned by a group's driver."""

    def __init__(
        self,
        cluster: Cluster,
        positions: Positions,
        membership: Membership,
        settled: asyncio.Event,
        on_generation_lost: Callable[[int], None],
    ) -> None:
        """
        Args:    settled: set while commits are not refused for a rebalance, or when waiting for its end is no use.
                 on_generation_lost: told when a commit learns that the group goes on without a generation.
        """
        self._cluster = cluster
        self._clock = cluster.env.clock
        self._positions = positions
        self._membership = membership
        self._group_id = membership.settings.group_id
        self._settled = settled
        self._on_generation_lost = on_generation_lost

    async def commit_forever(self, interval_ms: int) -> None:
        """Auto commit: what the application is done with, every so often."""
        while True:
            await asyncio.sleep(interval_ms / 1000)
            await self.commit_processed(None)

    async def commit_processed(self, partitions: Sequence[TopicPartition] | None) -> None:
        """Auto commit now, of these partitions or of all. A failure is logged: the next time may work."""
        offsets = self._positions.processed(partitions)
        if offsets:
            try:
                await self.commit(offsets)
                self._positions.mark_committed(offsets)
            except StreamlogError as failure:
                log.warning("group=%s auto commit failed: %s", self._group_id, one_line(failure))

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit for the group. See Consumer.commit for what is raised."""
        lives = self._lives(offsets)
        topic_ids = self._topic_ids(offsets)
        deadline_ms = self._clock.mono_ms() + self._cluster.settings.api_timeout_ms
        while offsets:
            generation_id = self._membership.generation_id
            try:
                await self._cluster.retrying(
                    f"committing offsets of group '{self._group_id}'",
                    functools.partial(self._commit_once, offsets, topic_ids, generation_id),
                )
                return
            except KafkaError as refusal:
                if refusal.code not in LOST_GENERATION and refusal.code != ErrorCode.REBALANCE_IN_PROGRESS:
                    raise
                # The group is between generations, or went on while the request was under way. If this member goes
                # with it and keeps the partitions all along, they may be committed in the new generation.
                await self._settled.wait()
                mine = self._membership.generation_id
                moved = mine not in (generation_id, NO_GENERATION) or refusal.code == ErrorCode.REBALANCE_IN_PROGRESS
                if not moved or self._lives(offsets) != lives or self._clock.mono_ms() > deadline_ms:
                    raise

    def _lives(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> list[int | None]:
        """Which assignments these partitions have, to tell whether they were away in between."""
        found = [self._positions.by_partition.get(one) for one in offsets]
        return [one.assigned_epoch if one is not None else None for one in found]

    def _topic_ids(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> dict[str, UUID]:
        """The topics that the offsets are of, as far as they are known to have ids."""
        found: dict[str, UUID] = {}
        for partition in offsets:
            one = self._positions.by_partition.get(partition)
            topic_id = one.topic_id if one is not None else ZERO_UUID
            if topic_id == ZERO_UUID:
                topic_id = self._cluster.metadata.topic_id(partition.topic)
            if topic_id != ZERO_UUID:
                found.setdefault(partition.topic, topic_id)
        return found

    async def _commit_once(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        topic_ids: Mapping[str, UUID],
        generation_id: int,
    ) -> None:
        offsets = self._without_gone(offsets, topic_ids)
        if not offsets:
            return
        me = self._membership.metadata()
        if generation_id == NO_GENERATION and self._membership.topics:
            # The broker would take them from anybody, once nobody is a member: older ones than those who came after us
            # have committed.
            raise KafkaError(
                ErrorCode.UNKNOWN_MEMBER_ID,
                f"this consumer is no member of the group '{self._group_id}' any more, or not yet",
            )
        if generation_id == NO_GENERATION:
            me = GroupMetadata(self._group_id, NO_GENERATION, "", None)
        else:
            me = GroupMetadata(self._group_id, generation_id, me.member_id, me.group_instance_id)
        for partition, code in (await commit_offsets(self._cluster, me, offsets, topic_ids)).items():
            if code in LOST_GENERATION:
                self._on_generation_lost(generation_id)
                raise KafkaError(
                    code,
                    f"the group '{self._group_id}' has rebalanced without this consumer; {partition} may be "
                    "another's now",
                )
            if code:
                raise KafkaError(code, f"committing {partition} for group '{self._group_id}'")

    def _without_gone(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], topic_ids: Mapping[str, UUID]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]:
        """Without those whose topic was deleted and made again since the commit began."""
        now = self._cluster.metadata.topic_id
        gone = [topic for topic, was in topic_ids.items() if now(topic) not in (ZERO_UUID, was)]
        for topic in gone:
            log.warning("group=%s topic=%s was made again: its old offsets are not committed", self._group_id, topic)
        return {one: offset for one, offset in offsets.items() if one.topic not in gone} if gone else offsets

    async def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """The group's committed offsets, None where it has none. One attempt."""
        known = {one.topic: self._cluster.metadata.topic_id(one.topic) for one in partitions}
        found = await fetch_offsets(self._cluster, self._group_id, partitions, known)
        return {partition: found.get(partition) for partition in partitions}
