"""Keeps a consumer's buffers filled: positions found, leaders checked, one fetch under way per broker.

`positions.py` knows the states, `fetch_session.py` what a broker was told, `fetch_chunk.py` what came back and
`fetch_answers.py` what it means; this driver carries requests and answers between them. A partition is fetched again as
soon as its answer has arrived, before the application took it, up to a bound: so the broker works while we decode.

Fetches live in callbacks of the connection, everything rarer (committed offsets, resets, epoch checks) in one task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from streamlog.client.cluster import Cluster
from streamlog.client.connection import Connection
from streamlog.client.failures import one_line
from streamlog.client.fetch_answers import FetchAnswers
from streamlog.client.fetch_session import FetchSession, FetchSpec, fetch_once
from streamlog.client.fetched import FetchedBatch, FetchSettings, IsolationLevel, OffsetReset
from streamlog.client.links import Lane
from streamlog.client.positions import Phase, Position, Positions
from streamlog.client.settling import Committed, Settling
from streamlog.client.values import NO_EPOCH, OffsetAndMetadata, TopicPartition
from streamlog.errors import RemoteProtocolError, StreamlogError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import FetchRequest, FetchResponse
from streamlog.wire.schema import ZERO_UUID

__all__ = ["FetchSettings", "FetchedBatch", "Fetcher", "IsolationLevel", "OffsetReset"]

log = logging.getLogger(__name__)

TAKE_BYTES_MAX = 4 << 20
"""Raw bytes decoded for one call of `fetch`: a millisecond or so of the event loop's time per MiB."""

VERSION_WITHOUT_TOPIC_IDS = 12


class _Node:
    """Fetching from one broker."""

    __slots__ = ("aside", "aside_under_way", "changed", "full", "hurried", "session", "under_way", "waiting")

    def __init__(self) -> None:
        self.session = FetchSession()
        self.under_way = False  # a request without its answer, or a connection being made
        self.waiting = False  # the request under way waits at the broker until there is data
        self.aside: dict[TopicPartition, FetchSpec] = {}  # what was asked aside since that request left
        self.aside_under_way = False
        self.full: set[TopicPartition] = set()  # partitions left out because their buffers are full
        self.changed = False  # something else is wanted than the last request asks for
        self.hurried = False  # the last request did not wait, brought nothing, and would bring nothing again

    def on_change(self) -> None:
        self.changed = True
        self.hurried = False


class Fetcher:
    """See the module's essay. Owned by a consumer; all of it on one event loop."""

    def __init__(self, cluster: Cluster, settings: FetchSettings, committed: Committed | None) -> None:
        self.positions = Positions()
        self._cluster = cluster
        self._clock = cluster.env.clock
        self._settings = settings
        self._with_group = committed is not None
        self._settling = Settling(cluster, self.positions, settings, committed, self)
        self._answers = FetchAnswers(cluster, self.positions, settings, self)
        self._nodes: dict[int, _Node] = {}
        self._node_of: dict[TopicPartition, int] = {}  # broker whose session wants the partition
        self._ready: dict[TopicPartition, None] = {}  # partitions with chunks, in the order of their turns
        self._news = asyncio.Event()  # there is something to hand out, or an error
        self._backing_off: dict[TopicPartition, None] = {}  # FETCHING with retry_at_ms in the future
        self._too_full: dict[int, None] = {}  # brokers not asked because the buffers of all partitions are full
        self._due: dict[int, None] = {}  # brokers to look at in the next turn of the loop
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        cluster.on_change(self._on_metadata)

    def start(self) -> None:
        self._cluster.scope.spawn("positions", self._settling.settle_forever())

    def close(self) -> None:
        """Stop asking. Answers that still arrive are dropped."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    # -- partitions

    def add(self, partitions: Iterable[TopicPartition]) -> None:
        """Take partitions over; they are fetched once `release` was called."""
        self.positions.add(partitions)

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """The application was told of these partitions."""
        self._cluster.track(dict.fromkeys(one.topic for one in partitions))
        self.positions.release(partitions, with_group=self._with_group)
        for partition in partitions:
            self.update(partition)
        self._settling.wanted.set()

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        """Give partitions up; nothing of them is handed out any more."""
        for one in self.positions.remove(partitions):
            self._unwant(one.partition)
            self._ready.pop(one.partition, None)
            self._backing_off.pop(one.partition, None)
        self._unblock()

    def hold(self, partitions: Iterable[TopicPartition], held: bool = True) -> None:
        """Hand nothing out of these partitions for now, or again: they are about to be revoked."""
        for partition in partitions:
            one = self.positions.by_partition.get(partition)
            if one is not None:
                one.held = held
                self.update(partition)

    def pause(self, partitions: Iterable[TopicPartition], paused: bool) -> None:
        for partition in partitions:
            self.positions.get(partition).paused = paused
            self.update(partition)
        self._unblock()

    def seek(self, partition: TopicPartition, offset: int, leader_epoch: int) -> None:
        self.positions.place(self.positions.get(partition), offset, leader_epoch)
        self.drop_from_ready(partition)
        self._check_leader(partition)
        self.update(partition)

    def seek_to_end_of_time(self, partition: TopicPartition, timestamp: int) -> None:
        """Go to the beginning or to the end of a partition, wherever that is when the broker is asked."""
        self.positions.lose(self.positions.get(partition), timestamp)
        self.drop_from_ready(partition)
        self.update(partition)
        self._settling.wanted.set()

    # -- handing out

    def mark_processed(self, less: Mapping[TopicPartition, OffsetAndMetadata] | None = None) -> None:
        """The application is done with what it has, but for what `less` says of a partition."""
        self.positions.mark_processed(less or {})

    def take(self, records_max: int | None) -> list[FetchedBatch]:
        """What is buffered, decoded, partition by partition in turn. Raises the error of a partition, once."""
        batches: list[FetchedBatch] = []
        size_bytes = 0
        for partition in list(self._ready):
            one = self.positions.by_partition[partition]
            if one.error is not None and not batches:
                failure, one.error = one.error, None
                self.back_off(one)
                self._refresh_ready(one)
                raise failure
            if one.error is not None or one.paused or one.held or not one.chunks:
                continue
            size_bytes += one.chunks[0].size_bytes
            batch = self._take_from(one, records_max)
            if batch is None:
                continue
            batches.append(batch)
            if records_max is not None:
                records_max -= len(batch.columns)
                if records_max <= 0:
                    break
            if size_bytes >= TAKE_BYTES_MAX:
                break
        return batches

    def _take_from(self, one: Position, records_max: int | None) -> FetchedBatch | None:
        chunk = one.chunks[0]
        start_offset = one.position
        try:
            columns, next_offset = chunk.take(records_max)
        except RemoteProtocolError as failure:
            where = f"{one.partition} at offset {one.position}"
            one.error = KafkaError(ErrorCode.CORRUPT_MESSAGE, f"what a broker sent of {where} is damaged: {failure}")
            one.drop_chunks()
            one.fetch_offset = one.position
            self.update(one.partition)
            return None
        self.positions.advance(one, chunk, next_offset)
        self._refresh_ready(one)
        self._unblock()
        self.update(one.partition)
        return FetchedBatch(
            one.partition.topic,
            one.partition.partition,
            columns,
            start_offset,
            next_offset,
            chunk.leader_epoch,
            one.high_watermark,
            one.epoch,
        )

    def drop_from_ready(self, partition: TopicPartition) -> None:
        """What was buffered of a partition is gone."""
        self._ready.pop(partition, None)
        self._unblock()

    def _unblock(self) -> None:
        """Ask the brokers again that were not asked while the buffers were full."""
        if self._too_full and self._buffered_bytes() < self._settings.max_bytes:
            blocked, self._too_full = self._too_full, {}
            for node_id in blocked:
                self._fetch_soon(node_id)

    def _refresh_ready(self, one: Position) -> None:
        """After a turn: to the end of the line, or out of it."""
        self._ready.pop(one.partition, None)
        if one.chunks or one.error is not None:
            self._ready[one.partition] = None

    async def news(self, timeout_s: float) -> None:
        """Return when `take` may find something, or when the time is up."""
        self._news.clear()
        timer = asyncio.get_running_loop().call_later(timeout_s, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    def wake(self) -> None:
        """Make `news` return."""
        self._news.set()

    # -- whom to ask for what

    def _on_metadata(self) -> None:
        for partition in self.positions.unsettled:
            self.positions.by_partition[partition].retry_at_ms = 0  # its leader may be known now
        for partition in list(self.positions.by_partition):
            self._check_leader(partition)
            self.update(partition)
        self._settling.wanted.set()
        self._news.set()

    def _check_leader(self, partition: TopicPartition) -> None:
        """Notice a new leader epoch, and a topic that was deleted and made again."""
        metadata = self._cluster.metadata
        one = self.positions.by_partition[partition]
        info = metadata.partition(partition)
        if info is None or one.phase not in (Phase.FETCHING, Phase.CHECK):
            return
        topic_id = metadata.topic_id(partition.topic)
        if int(one.topic_id) == 0:
            one.topic_id = topic_id
        elif one.topic_id != topic_id:
            log.warning("partition=%s was made again (topic id %s): its offsets start over", partition, topic_id)
            self.positions.move_to(one, topic_id)
            self.drop_from_ready(partition)
            self._settling.wanted.set()
            return
        if one.leader_epoch != info.leader_epoch:
            one.leader_epoch = info.leader_epoch
            one.read_replica = None
            one.retry_at_ms = 0
            if one.offset_epoch != NO_EPOCH and info.leader_epoch != NO_EPOCH and one.offset_epoch < info.leader_epoch:
                self.positions.check(one)
                self._settling.wanted.set()

    def update(self, partition: TopicPartition) -> None:
        """Bring the sessions in line with one partition's state, and fetch if there is reason to."""
        one = self.positions.by_partition.get(partition)
        if one is None or self._closed:
            return
        now_ms = self._clock.mono_ms()
        if one.phase is Phase.FETCHING and one.retry_at_ms > now_ms:
            self._backing_off[partition] = None
            self._wake_at(one.retry_at_ms, now_ms)
        node_id = self._node_for(one, now_ms)
        if node_id is None and one.phase is Phase.FETCHING:
            self._cluster.refresh_nowait()
        if node_id is None or not one.fetchable(now_ms, self._settings.max_partition_bytes):
            full = node_id is not None and one.buffered_bytes > 0 and not one.paused and not one.held
            self._unwant(partition)
            if full and node_id is not None:
                self._node(node_id).full.add(partition)
                self._node_of[partition] = node_id
            return
        before = self._node_of.get(partition)
        if before is not None and before != node_id:
            self._unwant(partition)
        self._node_of[partition] = node_id
        node = self._node(node_id)
        node.full.discard(partition)
        spec = FetchSpec(one.topic_id, one.fetch_offset, one.leader_epoch, self._settings.max_partition_bytes)
        if node.session.want(partition, spec):
            node.on_change()
        self._fetch_soon(node_id)

    def _node(self, node_id: int) -> _Node:
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = _Node()
        return node

    def _node_for(self, one: Position, now_ms: int) -> int | None:
        if one.read_replica is not None:
            if now_ms < one.read_replica_until_ms and one.read_replica in self._cluster.metadata.brokers:
                return one.read_replica
            one.read_replica = None
        return self._cluster.metadata.leader(one.partition.topic, one.partition.partition)

    def _unwant(self, partition: TopicPartition) -> None:
        node_id = self._node_of.pop(partition, None)
        if node_id is not None:
            node = self._nodes[node_id]
            node.session.unwant(partition)
            node.full.discard(partition)
            node.on_change()
            self._fetch_soon(node_id)

    def _fetch_soon(self, node_id: int) -> None:
        """Fetch once the current callback is through: it may change more partitions of this broker."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._fetch_due)
        self._due[node_id] = None

    def _fetch_due(self) -> None:
        due, self._due = self._due, {}
        for node_id in due:
            self._fetch(node_id, self._nodes[node_id])

    def _wake_at(self, at_ms: int, now_ms: int) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(max(at_ms - now_ms, 1) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        waiting, self._backing_off = self._backing_off, {}
        for partition in waiting:
            self.update(partition)

    def back_off(self, one: Position) -> None:
        """Leave a partition alone for a moment."""
        jitter = 0.8 + 0.4 * self._cluster.env.entropy.random()
        one.retry_at_ms = self._clock.mono_ms() + int(self._settings.retry_backoff_ms * jitter)
        self.update(one.partition)

    # -- fetch requests

    def _fetch(self, node_id: int, node: _Node) -> None:
        """Send the next request to a broker, unless one is under way or there is nothing to ask for."""
        if self._closed:
            return
        if node.under_way:
            if node.waiting:
                self._fetch_aside(node_id, node)
            return
        if node.hurried or not node.session.wanted:
            return
        if self._buffered_bytes() >= self._settings.max_bytes:
            self._too_full[node_id] = None
            return
        connection = self._cluster.open_connection(node_id, Lane.FETCH)
        node.under_way = True
        if connection is None:
            self._cluster.scope.spawn(f"reach {node_id}", self._reach(node_id, node))
            return
        # With a full buffer somewhere, a long wait for the others would starve its owner once it has drained.
        waiting = not node.full
        request = node.session.build()
        node.changed = False
        node.waiting = waiting
        node.aside.clear()
        self._send(
            connection,
            request,
            self._settings.max_wait_ms if waiting else 0,
            lambda answer: self._on_response(node_id, node, waiting, answer),
            with_ids=not node.session.without_ids,
        )

    def _buffered_bytes(self) -> int:
        """What waits to be taken, over all partitions; bounded, however many there are.

        Paused partitions do not count: their buffers would stop the others until they are resumed.
        """
        ready = [self.positions.by_partition[one] for one in self._ready]
        return sum(one.buffered_bytes for one in ready if not one.paused)

    def _fetch_aside(self, node_id: int, node: _Node) -> None:
        """While a request waits for data, ask on another connection for what became wanted since.

        Else a partition that was just assigned, sought or resumed would stand still until somebody else has data.
        """
        if node.aside_under_way:
            return
        fresh = {one: spec for one, spec in node.session.changes().items() if node.aside.get(one) != spec}
        if not fresh:
            return
        node.aside_under_way = True
        connection = self._cluster.open_connection(node_id, Lane.FETCH_ASIDE)
        if connection is None:
            self._cluster.scope.spawn(f"reach {node_id} aside", self._reach_aside(node_id, node))
            return
        node.aside.update(fresh)
        self._send(
            connection,
            fetch_once(fresh),
            0,
            lambda answer: self._on_response_aside(node_id, node, fresh, answer),
            with_ids=not node.session.without_ids and all(spec.topic_id != ZERO_UUID for spec in fresh.values()),
        )

    def _send(
        self,
        connection: Connection,
        request: FetchRequest,
        max_wait_ms: int,
        on_done: Callable[[FetchResponse | Exception], None],
        *,
        with_ids: bool,
    ) -> None:
        settings = self._settings
        request.max_wait_ms = max_wait_ms
        request.min_bytes = settings.min_bytes
        request.max_bytes = settings.max_bytes
        request.isolation_level = 1 if settings.read_committed else 0
        request.rack_id = settings.rack_id
        timeout_ms = max_wait_ms + self._cluster.settings.request_timeout_ms
        try:
            version = connection.version_of(ApiKey.FETCH, None if with_ids else VERSION_WITHOUT_TOPIC_IDS)
            connection.send(request, FetchResponse, on_done, version=version, timeout_ms=timeout_ms)
        except StreamlogError as failure:
            on_done(failure)

    async def _reach_aside(self, node_id: int, node: _Node) -> None:
        try:
            await self._cluster.connection(node_id, Lane.FETCH_ASIDE)
        except StreamlogError as failure:
            log.info("node=%d unreachable for fetching aside: %s", node_id, one_line(failure))
            node.aside_under_way = False  # the waiting request goes on, or finds out the same
            return
        node.aside_under_way = False
        self._fetch(node_id, node)

    def _on_response_aside(
        self,
        node_id: int,
        node: _Node,
        asked: Mapping[TopicPartition, FetchSpec],
        answer: FetchResponse | Exception,
    ) -> None:
        node.aside_under_way = False
        if not self._closed and isinstance(answer, FetchResponse) and not answer.error_code:
            self._take_in(answer, asked.get)
            self._fetch(node_id, node)

    async def _reach(self, node_id: int, node: _Node) -> None:
        """Connect to a broker; without success its partitions rest for a moment and metadata is asked for."""
        try:
            await self._cluster.connection(node_id, Lane.FETCH)
        except StreamlogError as failure:
            node.under_way = False
            self._on_unreachable(node_id, node, failure)
            return
        node.under_way = False
        self._fetch(node_id, node)

    def _on_unreachable(self, node_id: int, node: _Node, failure: Exception) -> None:
        log.info("node=%d unreachable for fetching: %s", node_id, one_line(failure))
        node.session.reset()
        self._cluster.refresh_nowait()
        for partition in list(node.session.wanted):
            one = self.positions.by_partition[partition]
            one.read_replica = None
            self.back_off(one)

    def _on_response(
        self,
        node_id: int,
        node: _Node,
        waited: bool,
        answer: FetchResponse | Exception,
    ) -> None:
        node.under_way = node.waiting = False
        if self._closed:
            return
        if isinstance(answer, Exception):
            self._on_unreachable(node_id, node, answer)
            return
        if answer.error_code:
            log.info("node=%d fetch session starts over: %s", node_id, ErrorCode.of(answer.error_code).name)
            node.session.reset()
            if ErrorCode.of(answer.error_code).refresh_metadata:
                self._cluster.refresh_nowait()
            self._fetch(node_id, node)
            return
        brought = self._take_in(answer, node.session.sent)
        node.session.on_response(answer.session_id)
        node.hurried = not (brought or waited or node.changed)
        self._fetch(node_id, node)

    def _take_in(self, answer: FetchResponse, asked: Callable[[TopicPartition], FetchSpec | None]) -> bool:
        brought = self._answers.take_in(answer, asked)
        if brought:
            self._news.set()
        return brought

    def line_up(self, partition: TopicPartition) -> None:
        """There is something of this partition to hand out."""
        self._ready[partition] = None

    def lose(self, one: Position, why: str) -> None:
        """There is no such position: do what the reset policy says."""
        if self._settings.offset_reset == "none":
            hint = "seek to another offset, or set auto_offset_reset to earliest or latest"
            self.fail(one, KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"{why}; {hint}"))
        else:
            self.positions.lose(one)
            self.update(one.partition)
            self._settling.wanted.set()

    def fail(self, one: Position, failure: StreamlogError) -> bool:
        """The application gets `failure` at its next fetch. Returns True: there is something new for it."""
        one.error = failure
        self._ready[one.partition] = None
        self.update(one.partition)
        self._news.set()
        return True

    def place(self, one: Position, offset: int, leader_epoch: int) -> None:
        """Go on from `offset`."""
        self.positions.place(one, offset, leader_epoch)
        self.drop_from_ready(one.partition)
        self._check_leader(one.partition)
        self.update(one.partition)
        self._news.set()
