"""The LogReader over the client's consumer."""

from __future__ import annotations

from collections.abc import Sequence

from streamlog.client.consumer import Consumer
from streamlog.client.values import TopicPartition
from streamlog.env import Env
from streamlog.state.logs import LogState, Records


class ConsumerReader:
    """Reads committed records with a consumer that belongs to no group. Open it, and close it when nobody follows."""

    def __init__(self, bootstrap: str | Sequence[str], env: Env, *, client_id: str = "streamlog-restore") -> None:
        self._consumer = Consumer(
            bootstrap,
            env=env,
            client_id=client_id,
            # Out of range means that the log is not the one we knew. The reader goes on somewhere, and whoever follows
            # the partition sees by the offset that it is somewhere else.
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    async def open(self) -> None:
        await self._consumer.open()

    async def close(self) -> None:
        await self._consumer.close()

    async def describe(self, topic: str, partition: int, leader_epoch: int = -1) -> LogState:
        one = TopicPartition(topic, partition)
        start = (await self._consumer.beginning_offsets([one]))[one]
        epoch_end = None
        if leader_epoch >= 0:
            epoch_end = (await self._consumer.epoch_end_offsets({one: leader_epoch}))[one]
        # The end last: everything asked before is true of a log that reaches at least this far.
        end = (await self._consumer.end_offsets([one]))[one]
        return LogState(start, end, self._consumer.topic_id(topic), epoch_end)

    async def ends(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        found = await self._consumer.end_offsets([TopicPartition(topic, number) for number in partitions])
        return {one.partition: end for one, end in found.items()}

    async def partition_count(self, topic: str) -> int:
        return len(await self._consumer.partitions_for(topic))

    def follow(self, topic: str, partition: int, offset: int) -> None:
        one = TopicPartition(topic, partition)
        self._consumer.assign([*self._consumer.assignment(), one])
        self._consumer.seek(one, offset)

    def unfollow(self, topic: str, partition: int) -> None:
        gone = TopicPartition(topic, partition)
        self._consumer.assign([one for one in self._consumer.assignment() if one != gone])

    def pause(self, topic: str, partition: int) -> None:
        self._consumer.pause([TopicPartition(topic, partition)])

    def resume(self, topic: str, partition: int) -> None:
        self._consumer.resume([TopicPartition(topic, partition)])

    async def fetch(self, timeout_ms: int) -> Sequence[Records]:
        return await self._consumer.fetch(timeout_ms=timeout_ms)
