"""What waits to be processed: the partitions a task consumes, and the queue of each lane that reads one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from streamlog.state.freshness import Freshness
from streamlog.streams.batches import Batch, Reader, Readings
from streamlog.streams.tracker import OffsetTracker

NEVER_MS = 1 << 64
"""A timestamp after every other, those included that a producer made up: records have 64 bits with a sign."""


@dataclass(frozen=True, slots=True)
class LaneTopic:
    """One input of a lane."""

    name: str
    reader: Reader
    key_decode: Callable[[Any], Any]


class Source:
    """One partition of one topic, as its task consumes it."""

    __slots__ = ("after", "end_offset", "fresh", "on_used", "partition", "position", "stopped", "topic", "topic_id")

    def __init__(
        self,
        topic: str,
        partition: int,
        position: int,
        end_offset: int | None = None,
        on_used: Callable[[], None] = lambda: None,
        topic_id: UUID | None = None,
        after: str = "",
    ) -> None:
        """`on_used`: called when a lane has used up a batch. `after`: whose commit the group had; see `Progress`."""
        self.topic = topic
        self.partition = partition
        self.position = position  # next offset the consumer will bring; everything below was fed
        self.end_offset = end_offset  # exclusive; latest known; None until heard of
        self.on_used = on_used
        self.topic_id = topic_id  # of the topic that the position belongs to
        self.after = after
        self.fresh: Freshness | None = None  # of what was fed, if a table follows the topic
        self.stopped = False  # an agent gave up on an event here: nobody reads on

    @property
    def lagging(self) -> bool:
        """Whether there may be records that have not been fed."""
        return self.end_offset is None or self.position < self.end_offset


class Feed:
    """One source as one lane reads it."""

    __slots__ = ("batches", "begin", "buffered", "head", "key_decode", "readings", "source", "tracker")

    def __init__(self, source: Source, topic: LaneTopic, begin: int, *, only_looks: bool = False) -> None:
        """`only_looks`: see `Readings`."""
        self.source = source
        self.readings = Readings(topic.reader, only_looks=only_looks)
        self.key_decode = topic.key_decode
        self.batches: deque[Batch] = deque()
        self.begin = begin  # offsets below it are not ours
        self.head = 0  # index of the next event in batches[0]
        self.buffered = 0  # events in `batches`
        self.tracker = OffsetTracker(begin)

    def append(self, batch: Batch) -> None:
        if batch.columns.offsets and batch.columns.offsets[0] < self.begin:
            batch = batch.since(self.begin)
        self.batches.append(batch)
        self.readings.expect(batch)
        self.buffered += batch.count

    def clear(self) -> None:
        """Nobody will read on here: let go of what waits."""
        self.batches.clear()
        self.readings.clear()
        self.buffered = 0
        self.source.on_used()

    def batch(self) -> Batch | None:
        """The batch of the next event; used up ones are dropped on the way."""
        while self.batches:
            batch = self.batches[0]
            if self.head < batch.count:
                return batch
            self.tracker.pass_to(batch.next_offset)
            self.buffered -= batch.count
            self.batches.popleft()
            self.readings.forget(batch)
            self.head = 0
            self.source.on_used()
        return None

    def head_ms(self) -> int | None:
        """Event time of the next event; None when it is not known yet; NEVER_MS when there is none for now."""
        if self.source.stopped:
            return NEVER_MS
        head = self.head
        for batch in self.batches:
            if head < batch.count:
                reading = self.readings.of(batch)
                reading.ensure(head + 1)
                return reading.timestamps_ms[head]
            head = 0
        return None if self.source.lagging else NEVER_MS
