"""Deletes from an app's repartition topics, and from its agents' own topics, what has been processed.

These topics are created without a retention time, since nothing in them may go before it was processed; so somebody has
to say when it was. The owner of a partition does, now and then: everything below the offset that the group has taken
from the task that still runs. No life of the task, here or elsewhere, begins below that offset, and nobody else reads
there; in topics of agents others may, and what they have not read is left (`channels.py`). The store's offset would
not do: it may be ahead of the group, and another machine begins at the group's.

Topics that an app only reads or writes are their owners' affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from streamlog.client.values import TopicPartition
from streamlog.errors import StreamlogError
from streamlog.streams.channels import own_topics
from streamlog.streams.task import Task
from streamlog.streams.topology import Topology

log = logging.getLogger(__name__)

PURGE_INTERVAL_S = 30.0
"""Kafka Streams' repartition.purge.interval.ms: seldom enough to cost nothing, often enough for small disks."""


class Purge:
    """Of one worker."""

    def __init__(
        self,
        topology: Topology,
        running: Callable[[], Sequence[Task]],
        in_group: Mapping[TopicPartition, tuple[str, int]],
        delete: Callable[[Mapping[TopicPartition, int]], Awaitable[object]],
        allowed: Callable[[dict[TopicPartition, int]], Awaitable[dict[TopicPartition, int]]],
    ) -> None:
        """
        Args: running: the tasks that are ours now.
              in_group: which life of the task had which offset taken by the group last, exclusive.
              delete: deletes records before offsets.
              allowed: how much of that may be deleted from topics of agents, as others read them.
        """
        self._own = own_topics(topology)
        self._topics = [*(node.name for node in topology.topics if node.kind == "repartition"), *self._own]
        self._allowed = allowed
        self._running, self._in_group, self._delete = running, in_group, delete
        self._done: dict[TopicPartition, tuple[str, int]] = {}  # what of `in_group` was deleted

    async def forever(self) -> None:
        if not self._topics:
            return
        while True:
            await asyncio.sleep(PURGE_INTERVAL_S)
            await self.once()

    async def once(self) -> None:
        """Delete what can be deleted now. A refusal is logged; the next round tries again."""
        due: dict[TopicPartition, tuple[str, int]] = {}
        for task in self._running():
            for topic in self._topics:
                partition = TopicPartition(topic, task.number)
                taken = self._in_group.get(partition)
                # Of this very life: a topic that was made again has another, whose offsets start over.
                if taken is not None and taken[0] == task.life and taken != self._done.get(partition):
                    due[partition] = taken
        if not due:
            return
        wanted = {partition: offset for partition, (_, offset) in due.items()}
        try:
            own = {partition: offset for partition, offset in wanted.items() if partition.topic in self._own}
            offsets = {partition: offset for partition, offset in wanted.items() if partition not in own}
            if own:
                offsets |= await self._allowed(own)
            if offsets:
                await self._delete(offsets)
        except StreamlogError as error:
            log.warning("processed records were not deleted from topics inside the app: %s", error)
        else:  # where others hold something back, the next round looks again
            self._done |= {one: taken for one, taken in due.items() if offsets.get(one) == taken[1]}
