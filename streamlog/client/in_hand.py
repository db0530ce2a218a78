"""What a loop over single records has fetched and not handed out yet.

A fetch gives batches and a loop gives records, so a loop that is left in the middle of a batch leaves records behind.
They are handed out by whatever asks next, and until then no commit covers them. A seek, a reset or a new assignment
ends the life of the position they belong to, and they are dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from streamlog.client.fetched import FetchedBatch
from streamlog.client.positions import Positions
from streamlog.client.values import ConsumerRecord, OffsetAndMetadata, TopicPartition


class InHand:
    """See the module's essay."""

    def __init__(self, positions: Positions) -> None:
        self._positions = positions
        self._batches: deque[FetchedBatch] = deque()  # of the first one `_given` records are handed out
        self._given = 0

    def put(self, batches: Sequence[FetchedBatch]) -> None:
        """These were fetched for a loop."""
        self._batches.extend(batches)

    def records(self) -> Iterator[ConsumerRecord]:
        """Hand out one record after the other. May be left at any of them."""
        while self._drop_old():
            batch = self._batches[0]
            columns, index = batch.columns, self._given
            if index == len(columns):
                self._next_batch()
                continue
            self._given = index + 1
            yield ConsumerRecord(
                batch.topic,
                batch.partition,
                columns.offsets[index],
                columns.timestamps_ms[index],
                columns.keys[index],
                columns.values[index],
                columns.headers[index],
                batch.leader_epoch,
            )

    def take(self, records_max: int | None) -> list[FetchedBatch]:
        """Hand out the next batch, at most so many records of it; nothing when none are left."""
        while self._drop_old():
            batch, start = self._batches[0], self._given
            end = len(batch.columns) if records_max is None else min(start + records_max, len(batch.columns))
            if start == end:
                self._next_batch()
                continue
            start_offset = self._offset()
            self._given = end
            next_offset = self._offset()
            if end == len(batch.columns):
                self._next_batch()
            part = batch.columns.part(start, end)
            return [
                FetchedBatch(
                    batch.topic,
                    batch.partition,
                    part,
                    start_offset,
                    next_offset,
                    batch.leader_epoch,
                    batch.high_watermark,
                    batch.assignment_epoch,
                )
            ]
        return []

    def offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Where handing out stands, of the partitions whose position is further."""
        found: dict[TopicPartition, OffsetAndMetadata] = {}
        for index, batch in enumerate(self._batches):
            offset = self._offset() if index == 0 else batch.start_offset
            if self._is_current(batch) and offset < batch.next_offset:
                found[_partition(batch)] = OffsetAndMetadata(offset, batch.leader_epoch)
        return found

    def _offset(self) -> int:
        """The first offset of the first batch that is not handed out."""
        batch = self._batches[0]
        if self._given == 0:
            return batch.start_offset
        if self._given == len(batch.columns):
            return batch.next_offset
        return batch.columns.offsets[self._given - 1] + 1

    def _drop_old(self) -> bool:
        """Drop what belongs to another life. Whether something is left."""
        while self._batches and not self._is_current(self._batches[0]):
            self._next_batch()
        return bool(self._batches)

    def _is_current(self, batch: FetchedBatch) -> bool:
        return self._positions.current(_partition(batch), batch.assignment_epoch) is not None

    def _next_batch(self) -> None:
        self._batches.popleft()
        self._given = 0


def _partition(batch: FetchedBatch) -> TopicPartition:
    return TopicPartition(batch.topic, batch.partition)
