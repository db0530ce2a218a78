"""Finds the positions of partitions that have none, or none that is certain: committed offsets, resets, epoch checks.

One task looks at everything that is unsettled, asks about all of it at once, and looks again when something changed or
a pause is over. An answer counts only for the life of the partition in which it was asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from streamlog.client.cluster import Cluster
from streamlog.client.failures import BrokerUnreachable
from streamlog.client.fetched import FetchSettings
from streamlog.client.offsets import OffsetAnswer, end_of_epochs, list_offsets
from streamlog.client.positions import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, Phase, Position, Positions
from streamlog.client.values import NO_EPOCH, OffsetAndMetadata, TopicPartition
from streamlog.errors import RemoteProtocolError, StreamlogError
from streamlog.wire.error_codes import KafkaError

log = logging.getLogger(__name__)

Committed = Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, OffsetAndMetadata | None]]]


class Partitions(Protocol):
    """What settling asks of the fetcher about one partition."""

    def place(self, one: Position, offset: int, leader_epoch: int) -> None:
        """Go on from `offset`."""
        ...

    def lose(self, one: Position, why: str) -> None:
        """There is no such position: do what the reset policy says."""
        ...

    def fail(self, one: Position, failure: StreamlogError) -> bool:
        """The application has to know."""
        ...

    def back_off(self, one: Position) -> None:
        """Leave it alone for a moment."""
        ...

    def update(self, partition: TopicPartition) -> None:
        """Its state changed: fetch, or stop."""
        ...

    def drop_from_ready(self, partition: TopicPartition) -> None:
        """What was buffered of it is gone."""
        ...


class Settling:
    """See the module's essay. Owned by a fetcher."""

    def __init__(
        self,
        cluster: Cluster,
        positions: Positions,
        settings: FetchSettings,
        committed: Committed | None,
        partitions: Partitions,
    ) -> None:
        self.wanted = asyncio.Event()  # the task has to look
        self._cluster = cluster
        self._clock = cluster.env.clock
        self._positions = positions
        self._settings = settings
        self._committed = committed
        self._partitions = partitions

    async def settle_forever(self) -> None:
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            now_ms = self._clock.mono_ms()
            positions = self._positions
            committed = positions.in_phase(Phase.COMMITTED, now_ms)
            reset = positions.in_phase(Phase.RESET, now_ms)
            check = positions.in_phase(Phase.CHECK, now_ms)
            if committed:
                await self._find_committed(committed)
            if reset:
                await self._reset(reset)
            if check:
                await self._check(check)
            self._wake_settling()

    def _wake_settling(self) -> None:
        """Look again when the next of the unsettled partitions may be asked about."""
        times = [
            one.retry_at_ms
            for partition in self._positions.unsettled
            if (one := self._positions.by_partition.get(partition)) is not None
            and one.phase in (Phase.COMMITTED, Phase.RESET, Phase.CHECK)
            and one.error is None
        ]
        if times:
            delay_ms = max(min(times) - self._clock.mono_ms(), 1)
            asyncio.get_running_loop().call_later(delay_ms / 1000, self.wanted.set)

    async def _find_committed(self, wanted: list[Position]) -> None:
        assert self._committed is not None, "only members of a group look for committed offsets"
        epochs = {one.partition: one.epoch for one in wanted}
        try:
            found = await self._committed(list(epochs))
        except StreamlogError as failure:
            self._retry_settling(epochs, failure)
            return
        for partition, epoch in epochs.items():
            one = self._positions.current(partition, epoch)
            if one is None or one.phase is not Phase.COMMITTED:
                continue
            answer = found.get(partition)
            if answer is not None and answer.offset >= 0:
                self._partitions.place(one, answer.offset, answer.leader_epoch)
            elif self._settings.offset_reset == "none":
                why = f"the group has no committed offset for {partition}"
                self._partitions.lose(one, why)
            else:
                self._positions.lose(one)
                self.wanted.set()

    async def _reset(self, wanted: list[Position]) -> None:
        timestamps: dict[TopicPartition, int] = {}
        epochs: dict[TopicPartition, int] = {}
        for one in wanted:
            timestamp = one.reset_timestamp
            if timestamp is None:
                if self._settings.offset_reset == "none":
                    self._partitions.lose(one, f"{one.partition} has no position")
                    continue
                timestamp = EARLIEST_TIMESTAMP if self._settings.offset_reset == "earliest" else LATEST_TIMESTAMP
            timestamps[one.partition] = timestamp
            epochs[one.partition] = one.epoch
        answers = await list_offsets(self._cluster, timestamps, read_committed=self._settings.read_committed)
        for partition, answer in answers.items():
            current = self._positions.current(partition, epochs[partition])
            if current is None or current.phase is not Phase.RESET:
                continue
            if isinstance(answer, OffsetAnswer):
                log.info("partition=%s offset=%d reset", partition, answer.offset)
                self._partitions.place(current, answer.offset, NO_EPOCH)
            else:
                self._retry_settling({partition: current.epoch}, answer)

    async def _check(self, wanted: list[Position]) -> None:
        """Ask new leaders where the epoch of our last record ends (KIP-320)."""
        epochs = {one.partition: (one.epoch, one.leader_epoch, one.position) for one in wanted}
        answers = await end_of_epochs(
            self._cluster, {one.partition: (one.leader_epoch, one.offset_epoch) for one in wanted}
        )
        for partition, answer in answers.items():
            epoch, leader_epoch, position = epochs[partition]
            one = self._positions.current(partition, epoch)
            if one is None or one.phase is not Phase.CHECK or one.leader_epoch != leader_epoch:
                continue
            if one.position != position:
                continue  # the application has taken more meanwhile, of another epoch perhaps: ask again
            if not isinstance(answer, OffsetAnswer):
                self._retry_settling({partition: epoch}, answer)
            elif answer.offset < 0 or answer.leader_epoch < 0:
                self._partitions.lose(one, f"{partition} knows nothing of leader epoch {one.offset_epoch}")
            elif answer.offset < one.fetch_offset:
                self._on_truncated(one, answer)
            else:
                one.phase = Phase.FETCHING
                self._partitions.update(partition)

    def _on_truncated(self, one: Position, answer: OffsetAnswer) -> None:
        """The log behind `answer.offset` is not the one we read: an unclean election lost it."""
        partition = one.partition
        log.warning("partition=%s offset=%d was truncated to %d", partition, one.position, answer.offset)
        if answer.offset >= one.position:
            one.drop_chunks()
            one.fetch_offset = one.position
            self._partitions.drop_from_ready(partition)
            one.phase = Phase.FETCHING
            self._partitions.update(partition)
        elif self._settings.offset_reset == "none":
            self._partitions.lose(
                one, f"{partition} was truncated to offset {answer.offset} after {one.position} had been read"
            )
        else:
            self._partitions.place(one, answer.offset, answer.leader_epoch)

    def _retry_settling(self, epochs: Mapping[TopicPartition, int], failure: Exception) -> None:
        """A passing failure: again after a pause. Others go to the application."""
        passing = isinstance(failure, BrokerUnreachable | RemoteProtocolError) or (
            isinstance(failure, KafkaError) and failure.retriable
        )
        if not isinstance(failure, KafkaError) or failure.refresh_metadata:
            self._cluster.refresh_nowait()
        for partition, epoch in epochs.items():
            one = self._positions.current(partition, epoch)
            if one is None:
                continue
            if passing or not isinstance(failure, StreamlogError):
                self._partitions.back_off(one)
            else:
                self._partitions.fail(one, failure)
        self.wanted.set()
