"""What becomes of an app when a topic that it reads gets more partitions while workers run.

The group's leader sees it first and asks here how many partitions of each topic to give out (`allowed`); the other
workers ask the same, to say so when something is wrong (`look`). Where nothing
depends on the old number, the new partitions are tasks like all others; a worker that is given one learns the sizes
before it makes the task (`follow`). Where something does, because rows or repartitioned events were placed by the old
number, the new partitions are left alone, the old ones go on, and the operator is told what to do. Nothing is lost
meanwhile: what nobody reads stays in the topic.

A worker that starts refuses by the same rule, `Topology.resolve`: it has nothing yet that could go on. (Kafka Streams
stops running applications as well.)
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from streamlog.client.values import TopicPartition
from streamlog.errors import UserError
from streamlog.streams.topology import Topology

log = logging.getLogger(__name__)

Sizes: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
"""Topics to their partition counts, asked of the brokers."""


class Growth:
    """See the module's essay. One per worker."""

    def __init__(self, app_id: str, declared: Topology, resolved: Topology, ask: Sizes) -> None:
        """
        Args: declared: as the app says it.
              resolved: as it was when the worker started.
              ask: how many partitions topics have now.
        """
        self.topology = resolved
        """With the partition counts that this worker goes by."""
        self.trouble: str | None = None
        """Why partitions of the app's topics are not given out."""
        self._seen: dict[str, int] = {}  # what `look` was shown last
        self._app_id, self._declared, self._ask = app_id, declared, ask

    def allowed(self, counts: Mapping[str, int]) -> dict[str, int]:
        """How many partitions of each topic the leader gives out, where there are `counts`."""
        known = set(self.topology.consumed)
        grown = {name: count for name, count in counts.items() if name in known and count > self._count(name)}
        try:
            if grown:
                self._grown(grown)
        except UserError as error:
            self._complain(grown, error)
            return {name: min(count, self._count(name)) if name in grown else count for name, count in counts.items()}
        self.trouble = None
        return dict(counts)

    def look(self, counts: Mapping[str, int]) -> None:
        """Have an opinion about these partition counts also where another worker leads the group and gives them out."""
        if counts != self._seen:
            self._seen = dict(counts)
            self.allowed(counts)

    async def follow(self, partitions: Sequence[TopicPartition]) -> None:
        """Know the sizes of the topics, when the group gave us partitions beyond what we know."""
        known = set(self.topology.consumed)
        new = [one for one in partitions if one.topic in known and one.partition >= self._count(one.topic)]
        if not new:
            return
        counts = dict(await self._ask(sorted(known)))
        for one in new:  # whoever was asked may have heard of it later than the group's leader
            counts[one.topic] = max(counts.get(one.topic, 0), one.partition + 1)
        grown = {name: count for name, count in counts.items() if count > self._count(name)}
        try:
            after = self._grown(grown)
        except UserError as error:  # the leader, of another version of the app, saw nothing wrong with it
            self._complain(grown, error)
            return
        for name, count in sorted(grown.items()):
            log.info("topic=%s grew: it had %d partitions and has %d", name, self._count(name), count)
        self.topology = after

    async def missing(self) -> frozenset[str]:
        """Topics that the app reads and that do not exist, asked of the brokers."""
        counts = await self._ask(self.topology.consumed)
        return frozenset(name for name in self.topology.consumed if name not in counts)

    def _count(self, topic: str) -> int:
        return self.topology.partitions(topic)

    def _grown(self, grown: Mapping[str, int]) -> Topology:
        """The topology with these topics at their new sizes. Raises: UserError: something depends on the old ones."""
        existing = {node.name: self._count(node.name) for node in self.topology.topics}
        after = self._declared.resolve({**existing, **grown}, partitions_default=1)
        for table in after.tables:
            if table.kind == "source" and table.changelog in grown:
                raise UserError(
                    f"table {table.name} follows the topic, and rows of keys that belong to a new partition now are "
                    f"still on an old one. Restart the workers and write these rows again, or make the topic anew"
                )
        return after

    def _complain(self, grown: Mapping[str, int], error: UserError) -> None:
        topics = ", ".join(
            f"topic {name} has {count} partitions now, and had {self._count(name)}"
            for name, count in sorted(grown.items())
        )
        trouble = f"{topics}: the new ones are not processed, the old ones go on. Why, and what to do: {error}"
        if trouble != self.trouble:
            log.error("app=%s %s", self._app_id, trouble)
        self.trouble = trouble
