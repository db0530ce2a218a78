"""Finds the partition of each record: the caller's, its key's, or one in turn; topics in the making are waited for.

Records of a topic that is not known yet wait here, in order, and what comes later waits behind them.
"""

from __future__ import annotations

import asyncio
from collections import deque

from streamlog.client.accumulator import Accumulator, check_size, negative_timestamp
from streamlog.client.cluster import Cluster, topic_error
from streamlog.client.metadata import is_topic_name
from streamlog.client.partitioner import StickyPartitioner, partition_for_key
from streamlog.client.producer_queue import PartitionKey
from streamlog.client.values import RecordMetadata
from streamlog.errors import StreamlogError
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.records import RecordHeaders


class Unrouted:
    """A record and nothing about where it goes."""

    __slots__ = ("headers", "key", "timestamp_ms", "value")

    def __init__(self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: RecordHeaders) -> None:
        self.key = key
        self.value = value
        self.timestamp_ms = timestamp_ms
        self.headers = headers


class Routing:
    """See the module's essay. Owned by a producer."""

    def __init__(self, cluster: Cluster, accumulator: Accumulator, max_block_ms: int) -> None:
        self._cluster = cluster
        self._accumulator = accumulator
        self._max_block_ms = max_block_ms
        self._sticky = StickyPartitioner(accumulator.limits.batch_size_bytes, cluster.env.entropy.randrange)
        self._unrouted: dict[str, deque[tuple[asyncio.Future[RecordMetadata], Unrouted]]] = {}
        self._finding: dict[str, asyncio.Task[None]] = {}  # the tasks that wait for the topics of _unrouted

    def send(self, topic: str, partition: int | None, record: Unrouted) -> asyncio.Future[RecordMetadata]:
        """Append a record, now or when its topic is known. Raises what no record or topic can be; nothing was taken."""
        done: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        if partition is not None:
            self._append_with_waiter((topic, partition), record, done)
        elif topic not in self._unrouted and self._cluster.metadata.partition_count(topic):
            self._append_with_waiter((topic, self.choose(topic, record)), record, done)
        else:
            self._check_unrouted(topic, record)
            if topic not in self._unrouted:
                self._unrouted[topic] = deque()
                self._finding[topic] = self._cluster.scope.spawn(f"find {topic}", self._route(topic))
            self._unrouted[topic].append((done, record))
        return done

    async def all_routed(self) -> None:
        """Return when no record waits for its topic."""
        while self._unrouted:
            await asyncio.wait([self._finding[topic] for topic in self._unrouted])

    def choose(self, topic: str, record: Unrouted) -> int:
        """The partition of a record, whose topic is known."""
        metadata = self._cluster.metadata
        if record.key is not None:
            return partition_for_key(record.key, metadata.partition_count(topic))
        partitions = metadata.topics[topic].partitions
        led = [one.partition for one in partitions if one.leader in metadata.brokers]
        return self._sticky.partition(topic, len(record.value or b""), led or range(len(partitions)))

    def _append_with_waiter(self, key: PartitionKey, record: Unrouted, done: asyncio.Future[RecordMetadata]) -> None:
        batch = self._accumulator.append(key, record.key, record.value, record.timestamp_ms, record.headers)
        assert batch.builder is not None, "a batch that just took a record is not encoded yet"
        batch.waiters.append((len(batch.builder) - 1, record.timestamp_ms, done))

    async def _route(self, topic: str) -> None:
        """Wait for a topic to appear, then append what waited for it, in order."""
        try:
            await self._cluster.partition_count(topic, timeout_ms=self._max_block_ms)
        except StreamlogError as failure:
            self.fail(topic, failure)
            return
        for done, record in self._unrouted.pop(topic, ()):  # empty when all was given up meanwhile
            if done.done():
                continue  # cancelled by its caller before there was a partition for it
            try:
                self._append_with_waiter((topic, self.choose(topic, record)), record, done)
            except Exception as failure:  # that record's, not the others'
                done.set_exception(failure)

    def fail(self, topic: str | None, failure: StreamlogError) -> None:
        """Give up what waits for a topic, or for any."""
        for name in [topic] if topic is not None else list(self._unrouted):
            for done, _ in self._unrouted.pop(name, ()):
                if not done.done():
                    done.set_exception(failure)

    def _check_unrouted(self, topic: str, record: Unrouted) -> None:
        """What `append` would refuse is refused at once, not when the partitions are known."""
        if not is_topic_name(topic):
            raise topic_error(topic, ErrorCode.INVALID_TOPIC_EXCEPTION)
        if record.timestamp_ms < 0:
            raise negative_timestamp(record.timestamp_ms)
        limit = self._accumulator.limits.request_size_bytes_max
        check_size((topic, None), record.key, record.value, record.timestamp_ms, record.headers, limit)
