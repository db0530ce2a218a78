"""Producer: hands records to the accumulator, sends what it decides, and tells callers what became of them.

One task pumps: it closes batches whose linger is over, fills the requests of every broker that has room for one, and
sleeps until a batch, an answer, new metadata or a deadline wakes it. Answers arrive in the connection's own callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from streamlog.client.accumulator import Accumulator, Limits, Verdict, check_size, negative_timestamp
from streamlog.client.cluster import Cluster, topic_error
from streamlog.client.config import Address, ConnectionSettings
from streamlog.client.connection import Connection
from streamlog.client.failures import BrokerUnreachable, BufferFull, DeliveryUnknown, NotDelivered, one_line
from streamlog.client.links import Lane
from streamlog.client.metadata import Broker, is_topic_name
from streamlog.client.partitioner import StickyPartitioner, partition_for_key
from streamlog.client.producer_queue import Batch, PartitionKey, ProducerIdentity
from streamlog.client.refusals import RefusalWatch
from streamlog.client.transactions import PRODUCE_VERSION_1_MAX, VERSION_2, Transactions
from streamlog.client.values import GroupMetadata, Headers, OffsetAndMetadata, RecordMetadata, TopicPartition
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure, LocalProtocolError, StreamlogError, UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.compression import LEVELS
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceRequest,
    ProduceResponse,
)
from streamlog.wire.messages.produce import PartitionProduceData, PartitionProduceResponse, TopicProduceData
from streamlog.wire.records import Compression, RecordHeaders
from streamlog.wire.schema import ZERO_UUID

log = logging.getLogger(__name__)

BATCH_SIZE_BYTES = 128 << 10
"""Eight times Java's: the work per batch is Python, the work per record is not."""

REQUEST_SIZE_BYTES_MAX = 1 << 20
BUFFER_BYTES_MAX = 32 << 20

IN_FLIGHT_REQUESTS_MAX = 5
"""Per broker, as in Java."""

PRODUCE_VERSION_WITHOUT_IDS = 12

TRANSACTION_TIMEOUT_NONE_MS = 0x7FFF_FFFF

CompressionName = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Acks = Literal["all", 0, 1, -1]


class Producer:
    """Sends records. Idempotent by default: written once and in order, whatever breaks on the way (KIP-98).

    `send` waits for the answer; `send_nowait` gives a future; `append` is for callers that send much and ask once, with
    `flush`. All of one producer belong to one event loop.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        env: Env,
        client_id: str = "streamlog",
        acks: Acks = "all",
        idempotent: bool = True,
        linger_ms: int = 5,
        batch_size_bytes: int = BATCH_SIZE_BYTES,
        request_size_bytes_max: int = REQUEST_SIZE_BYTES_MAX,
        compression: CompressionName = "none",
        compression_level: int | None = None,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
        delivery_timeout_ms: int = 120_000,
        max_block_ms: int = 60_000,
        auto_create_topics: bool = True,
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 60_000,
        connection: ConnectionSettings | None = None,
    ) -> None:
        """
        Args:    linger_ms: how long a batch waits for more records. delivery_timeout_ms: after this long a record has
                     its answer, whatever happens. max_block_ms: how long `send` waits for a topic to appear.
                 request_size_bytes_max: a larger record, before compression, is refused (Java's max.request.size).
                 transactional_id: send in transactions only. The id is this producer's alone: a newer producer
                     with the same id fences an older one.
                 transaction_timeout_ms: the broker aborts a transaction that takes longer.
        """
        if compression.upper() not in Compression.__members__:
            raise UserError(f"compression '{compression}' is unknown; use none, gzip, snappy, lz4 or zstd")
        if acks not in ("all", -1, 0, 1):
            raise UserError(f"acks={acks!r} is not one of 'all', 1 and 0")
        self._acks = -1 if acks == "all" else acks
        if idempotent and self._acks != -1:
            raise UserError("an idempotent producer needs acks='all'; pass idempotent=False for less")
        if transactional_id is not None and not idempotent:
            raise UserError("a transactional producer is idempotent; leave idempotent alone")
        settings = connection or ConnectionSettings(client_id=client_id)
        self._env = env
        self._settings = settings
        self._cluster = Cluster(bootstrap, env, settings, auto_create_topics=auto_create_topics)
        self._cluster.on_change(self._on_change)
        self._buffer_bytes_max = buffer_bytes_max
        self._max_block_ms = max_block_ms
        algorithm = Compression[compression.upper()]
        if compression_level is not None and compression_level not in LEVELS[algorithm]:
            raise UserError(f"{compression} has no compression level {compression_level}")
        self._accumulator = Accumulator(
            Limits(
                min(batch_size_bytes, request_size_bytes_max),
                request_size_bytes_max,
                linger_ms,
                delivery_timeout_ms,
                settings.retry_backoff_ms,
                settings.retry_backoff_ms_max,
                idempotent,
                algorithm,
                compression_level,
                transactional_id is not None,
            ),
            self,
        )
        self._sticky = StickyPartitioner(batch_size_bytes, env.entropy.randrange)
        self._wake = asyncio.Event()
        self._transactions: Transactions | None = None
        if transactional_id is not None:
            self._transactions = Transactions(
                self._cluster, self._accumulator, transactional_id, transaction_timeout_ms, self._wake.set
            )
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight: dict[int, int] = {}  # node id -> unanswered requests
        self._connecting: set[int] = set()  # brokers that a task is connecting to
        self._acquiring = False  # a task is asking for a producer id
        self._doubted: dict[PartitionKey, int] = {}  # partitions that are not in the metadata -> refresh that decides
        self._unrouted: dict[str, deque[tuple[asyncio.Future[RecordMetadata], _Unrouted]]] = {}  # topics not known yet
        self._flushes: deque[tuple[int, asyncio.Future[None]]] = deque()  # tickets ascending
        self._room_waiters: deque[asyncio.Future[None]] = deque()
        self._acked: dict[PartitionKey, int] = {}  # exclusive end offset of the last acknowledged batch
        self._append_failure: StreamlogError | None = None  # first failure of a record without a future
        self._refusals = RefusalWatch()
        self._fatal: StreamlogError | None = None  # nothing can be sent any more
        self._state: Literal["new", "open", "closed"] = "new"

    # -- life

    async def open(self) -> None:
        """Reach the cluster. Raises BrokerUnreachable naming the addresses when nobody answers for a minute."""
        if self._state != "new":
            raise UserError("this producer was opened before; make a new one")
        self._state = "open"
        try:
            await self._cluster.open()
        except BaseException:
            self._state = "closed"
            await self._cluster.close()
            raise
        self._cluster.scope.spawn("pump", self._pump_forever())

    async def close(self) -> None:
        """Send what is buffered, wait for the answers (the delivery timeout bounds it), disconnect.

        An open transaction is aborted. Raises what `flush` raises. Cancelled, it answers what is left and disconnects
        at once.
        """
        if self._state != "open":
            return
        try:
            if self._transactions is not None and self._transactions.unfinished:
                await self.abort_transaction()
            else:
                await self.flush()
        finally:
            self._state = "closed"
            self._settle(self._accumulator.abandon())
            self._fail_unrouted(None, NotDelivered("the producer was closed before the record was sent"))
            if self._timer is not None:
                self._timer.cancel()
            await self._cluster.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except StreamlogError:
            if error is None:
                raise

    # -- records in

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> RecordMetadata:
        """Send one record and wait for the broker's answer.

        Without a partition the key decides, as in Java; without either, the producer does. Without a timestamp
        it is now. Cancelled, the record is sent all the same.
        Raises: at once, LocalProtocolError: it cannot be a record (a time before 1970, a value that is not bytes);
                UserError: nor that a topic or a partition; KafkaError MESSAGE_TOO_LARGE.
                KafkaError: the broker refused it. NotDelivered: it was not sent in time. DeliveryUnknown: it was sent,
                and no answer came in time. The record is in the log only in the last case, perhaps.
        """
        await self.room()
        return await self.send_nowait(
            topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers
        )

    def send_nowait(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[RecordMetadata]:
        """Take one record and return at once; the future gets what `send` returns or raises.

        Raises: BufferFull, and what `send` raises at once: nothing was taken.
        """
        if self._accumulator.buffered_bytes >= self._buffer_bytes_max:
            raise BufferFull(f"{self._accumulator.buffered_bytes} bytes are waiting to be sent; await room() first")
        self._check_open()
        if timestamp_ms is None:
            timestamp_ms = self._env.clock.wall_ms()
        record = _Unrouted(key, value, timestamp_ms, tuple(headers))
        done: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        if partition is not None:
            self._append_with_waiter((topic, partition), record, done)
        elif topic not in self._unrouted and self._cluster.metadata.partition_count(topic):
            self._append_with_waiter((topic, self._choose(topic, record)), record, done)
        else:
            self._check_unrouted(topic, record)
            if topic not in self._unrouted:
                self._unrouted[topic] = deque()
                self._cluster.scope.spawn(f"find {topic}", self._route(topic))
            self._unrouted[topic].append((done, record))
        return done

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: RecordHeaders = (),
    ) -> None:
        """Take one record for a known partition; what becomes of it is known through `flush`.

        For who sends much: no future, no check of the buffer. Await `room()` every so many records.
        Raises: what `send` raises at once, and then nothing was taken.
        """
        self._accumulator.append((topic, partition), key, value, timestamp_ms, headers)

    @property
    def appender(self) -> Callable[[PartitionKey, bytes | None, bytes | None, int, RecordHeaders], object]:
        """`append` with topic and partition as one pair, for callers that make each pair once and send millions."""
        return self._accumulator.append

    @property
    def fatal(self) -> StreamlogError | None:
        """Why this producer can send nothing any more, however long one waits: close it and make another.

        Refused by the cluster, fenced by a newer producer with its transactional id, or a bug. None: nothing is wrong
        that would not pass.
        """
        if self._fatal is None and self._transactions is not None:
            return self._transactions.fenced
        return self._fatal

    @property
    def full(self) -> bool:
        """Whether the buffer has no room: who goes on appending should await `room` first."""
        return self._accumulator.buffered_bytes >= self._buffer_bytes_max

    async def room(self) -> None:
        """Return when the buffer has room. Raises what ended the producer, if something did."""
        while self._accumulator.buffered_bytes >= self._buffer_bytes_max:
            self._check_open()
            self._accumulator.close_all()  # who lingers now lingers in everybody's way
            self._wake.set()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room_waiters.append(waiter)
            await waiter

    async def flush(self) -> None:
        """Return when everything taken before has its answer.

        Raises: the first failure of an `append`ed record since the last flush, once. Records with futures tell theirs
                alone.
        """
        self._check_open()
        while self._unrouted:
            routed = [done for waiting in self._unrouted.values() for done, _ in waiting]
            await asyncio.wait(routed)
        ticket = self._accumulator.close_all()
        if not self._accumulator.flushed(ticket):
            self._wake.set()
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._flushes.append((ticket, done))
            await done
        failure, self._append_failure = self._append_failure, None
        if failure is not None:
            raise failure

    def acked_offset(self, partition: TopicPartition) -> int | None:
        """Exclusive end of what this producer wrote to a partition, as acknowledged; None when no answer said it."""
        return self._acked.get((partition.topic, partition.partition))

    # -- transactions

    async def init_transactions(self) -> None:
        """Take over the transactional id: older producers with it are fenced, their open transaction is aborted.

        Raises: KafkaError when the id is refused; BrokerUnreachable.
        """
        self._check_open()
        await self._need_transactions().init()

    def begin_transaction(self) -> None:
        """From here on, what is sent becomes visible to read_committed consumers together, or never."""
        self._check_open()
        self._need_transactions().begin()

    async def send_offsets(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: GroupMetadata) -> None:
        """Commit a consumer group's offsets with the transaction (`consumer.group_metadata()`, KIP-447).

        Raises: KafkaError: the group went on without that member, or another refusal; the transaction must be aborted.
        """
        self._check_open()
        await self._need_transactions().send_offsets(offsets, group)

    async def commit_transaction(self) -> None:
        """Flush, then make records and offsets visible.

        Raises: KafkaError TRANSACTION_ABORTABLE: something failed, nothing will be visible; abort. ProducerFenced.
                BrokerUnreachable: nobody knows yet; call it again.
        """
        self._check_open()
        await self._need_transactions().commit(self._flush_all)

    async def abort_transaction(self) -> None:
        """Nothing of the transaction becomes visible. Raises ProducerFenced; BrokerUnreachable: call it again."""
        self._check_open()
        await self._need_transactions().abort(self._drop_all)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Begin; commit at the end of the block, or abort when it raises."""
        self.begin_transaction()
        try:
            yield self
        except BaseException:
            with contextlib.suppress(StreamlogError):
                await self.abort_transaction()
            raise
        try:
            await self.commit_transaction()
        except KafkaError as refusal:
            if refusal.code is ErrorCode.TRANSACTION_ABORTABLE:
                await self.abort_transaction()
            raise

    async def _flush_all(self) -> None:
        """Flush; a record that failed, with or without a future, fails the transaction (see _settle_failure)."""
        with contextlib.suppress(KafkaError, EnvironmentFailure):
            await self.flush()

    async def _drop_all(self) -> None:
        """Give up what was not sent, and wait for the answers to what was."""
        accumulator = self._accumulator
        why = NotDelivered("the transaction was aborted before the record was sent")
        self._fail_unrouted(None, why)
        accumulator.final = True
        try:
            self._settle(accumulator.drop_waiting(one_line(why)))
            with contextlib.suppress(KafkaError, EnvironmentFailure):
                await self.flush()
        finally:
            accumulator.final = False

    def _need_transactions(self) -> Transactions:
        if self._transactions is None:
            raise UserError("this producer has no transactional_id")
        return self._transactions

    # -- partitions

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises KafkaError when it does not appear within max_block_ms."""
        self._check_open()
        return await self._cluster.partition_count(topic, timeout_ms=self._max_block_ms)

    def partition_for(self, topic: str, key: bytes | None) -> int:
        """Where `send` would put a record with this key. The topic has to be known: await `partitions` once."""
        if not self._cluster.metadata.partition_count(topic):
            raise UserError(f"the partitions of '{topic}' are not known yet; await partitions('{topic}') first")
        return self._choose(topic, _Unrouted(key, b"", 0, ()))

    def _choose(self, topic: str, record: _Unrouted) -> int:
        metadata = self._cluster.metadata
        if record.key is not None:
            return partition_for_key(record.key, metadata.partition_count(topic))
        partitions = metadata.topics[topic].partitions
        led = [one.partition for one in partitions if one.leader in metadata.brokers]
        return self._sticky.partition(topic, len(record.value or b""), led or range(len(partitions)))

    def _append_with_waiter(self, key: PartitionKey, record: _Unrouted, done: asyncio.Future[RecordMetadata]) -> None:
        batch = self._accumulator.append(key, record.key, record.value, record.timestamp_ms, record.headers)
        assert batch.builder is not None, "a batch that just took a record is not encoded yet"
        batch.waiters.append((len(batch.builder) - 1, record.timestamp_ms, done))

    async def _route(self, topic: str) -> None:
        """Wait for a topic to appear, then append what waited for it, in order."""
        try:
            await self._cluster.partition_count(topic, timeout_ms=self._max_block_ms)
        except StreamlogError as failure:
            self._fail_unrouted(topic, failure)
            return
        for done, record in self._unrouted.pop(topic, ()):  # empty when all was given up meanwhile
            if done.done():
                continue  # cancelled by its caller before there was a partition for it
            try:
                self._append_with_waiter((topic, self._choose(topic, record)), record, done)
            except Exception as failure:  # that record's, not the others'
                done.set_exception(failure)

    def _check_unrouted(self, topic: str, record: _Unrouted) -> None:
        """What `append` would refuse is refused at once, not when the partitions are known."""
        if not is_topic_name(topic):
            raise topic_error(topic, ErrorCode.INVALID_TOPIC_EXCEPTION)
        if record.timestamp_ms < 0:
            raise negative_timestamp(record.timestamp_ms)
        limit = self._accumulator.limits.request_size_bytes_max
        check_size((topic, None), record.key, record.value, record.timestamp_ms, record.headers, limit)

    def _fail_unrouted(self, topic: str | None, failure: StreamlogError) -> None:
        for name in [topic] if topic is not None else list(self._unrouted):
            for done, _ in self._unrouted.pop(name, ()):
                if not done.done():
                    done.set_exception(failure)

    def _check_open(self) -> None:
        if self._state != "open":
            raise UserError("the producer is not open; use `async with Producer(...)` or await open()")
        self._cluster.check()
        if self._fatal is not None:
            raise self._fatal

    # -- what the accumulator asks (accumulator.Port)

    def opening_batch(self) -> int:
        self._check_open()
        if self._transactions is not None:
            self._transactions.check_may_send()
        if self._accumulator.limits.linger_ms == 0:
            self._wake.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self._accumulator.limits.linger_ms / 1000, self._on_timer
            )
        return self._env.clock.mono_ms()

    def check_partition(self, key: PartitionKey) -> None:
        topic = key[0]
        partition: object = key[1]  # what callers without a type checker pass would else be found out by the pump
        if not is_topic_name(topic):
            raise topic_error(topic, ErrorCode.INVALID_TOPIC_EXCEPTION)
        if not isinstance(partition, int) or partition < 0:
            raise UserError(f"partition {partition!r} of '{topic}' is no number from 0 upwards")

    def batch_ready(self) -> None:
        self._wake.set()

    def leader(self, key: PartitionKey) -> int | None:
        return self._cluster.metadata.leader(*key)

    def draw(self) -> float:
        return self._env.entropy.random()

    def may_send(self, key: PartitionKey) -> bool:
        return self._transactions is None or self._transactions.may_send(key)

    def on_gap(self, key: PartitionKey) -> None:
        assert self._transactions is not None, "only asked in transactions"
        self._transactions.fail(DeliveryUnknown(f"records for {key[0]}-{key[1]} may have been lost"))

    # -- the pump

    def _on_timer(self) -> None:
        self._timer = None
        self._wake.set()

    def _on_change(self) -> None:
        metadata = self._cluster.metadata
        for key in self._accumulator.queues:
            self._accumulator.set_leader(key, metadata.leader(*key))
        if self._cluster.crashed is not None:
            self._end(EnvironmentFailure(f"the producer stopped after an internal error: {self._cluster.crashed!r}"))
        self._wake.set()

    def _end(self, failure: StreamlogError) -> None:
        """Nothing can be sent any more: answer everybody."""
        if self._fatal is None:
            self._fatal = failure
        self._settle(self._accumulator.abandon())
        self._fail_unrouted(None, failure)

    async def _pump_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            now_ms = self._env.clock.mono_ms()
            self._pump(now_ms)
            self._sleep_until(self._accumulator.next_deadline_ms(sending=True), now_ms)

    def _sleep_until(self, deadline_ms: int | None, now_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline_ms is not None:
            self._timer = asyncio.get_running_loop().call_later(max(deadline_ms - now_ms, 1) / 1000, self._on_timer)

    def _pump(self, now_ms: int) -> None:
        accumulator = self._accumulator
        accumulator.close_lingering(now_ms)
        accumulator.retries_due(now_ms)
        self._settle(accumulator.expire(now_ms))
        if accumulator.leaderless:
            self._find_leaders()
        nodes = accumulator.nodes_with_work()
        if nodes and accumulator.needs_identity and not self._acquiring and self._transactions is None:
            self._acquiring = True
            self._cluster.scope.spawn("producer id", self._acquire_identity())
        for node_id in nodes:
            while self._in_flight.get(node_id, 0) < IN_FLIGHT_REQUESTS_MAX:
                connection = self._cluster.open_connection(node_id, Lane.PRODUCE)
                if connection is None:
                    self._connect(node_id)
                    break
                batches = accumulator.drain(node_id, now_ms)
                self._settle(accumulator.take_unsent())
                if not batches:
                    break
                self._send(connection, node_id, batches)

    def _find_leaders(self) -> None:
        """Ask about partitions whose leader is not known; refuse those that do not exist."""
        metadata = self._cluster.metadata
        topics = dict.fromkeys(topic for topic, _ in self._accumulator.leaderless)
        known = self._cluster.track(topics)
        for topic, partition in list(self._accumulator.leaderless):
            count = metadata.partition_count(topic)
            code = metadata.errors.get(topic)
            if code is not None and not code.retriable:
                refusal = topic_error(topic, code)
                self._settle(self._accumulator.refuse((topic, partition), code, one_line(refusal)))
            elif not 0 <= partition < count and count:
                number = self._doubted.setdefault((topic, partition), self._cluster.refresh_nowait())
                if self._cluster.answered(number):
                    del self._doubted[topic, partition]
                    why = f"topic '{topic}' has {count} partitions, there is no partition {partition}"
                    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                    self._settle(self._accumulator.refuse((topic, partition), code, why))
        if known and self._accumulator.leaderless:
            self._cluster.refresh_nowait()

    def _connect(self, node_id: int) -> None:
        if node_id not in self._connecting:
            self._connecting.add(node_id)
            self._cluster.scope.spawn(f"reach {node_id}", self._reach(node_id))

    async def _reach(self, node_id: int) -> None:
        try:
            await self._cluster.connection(node_id, Lane.PRODUCE)
        except StreamlogError as failure:
            log.info("node=%d unreachable for producing: %s", node_id, one_line(failure))
            self._cluster.refresh_nowait()
        finally:
            self._connecting.discard(node_id)
            self._wake.set()

    async def _acquire_identity(self) -> None:
        """Get a producer id; until then nothing is sent. A refusal ends the producer."""

        async def attempt() -> InitProducerIdResponse:
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=TRANSACTION_TIMEOUT_NONE_MS)
            answer = await self._cluster.request_any(request, InitProducerIdResponse)
            if answer.error_code:
                raise KafkaError(ErrorCode.of(answer.error_code), "the broker gave no producer id")
            return answer

        try:
            while True:
                try:
                    answer = await self._cluster.retrying("getting a producer id", attempt)
                    break
                except BrokerUnreachable as failure:
                    log.warning("no producer id yet, trying again: %s", one_line(failure))
            self._accumulator.identity = ProducerIdentity(answer.producer_id, answer.producer_epoch)
        except KafkaError as refusal:
            self._end(refusal)
        finally:
            self._acquiring = False
            self._wake.set()

    # -- requests and answers

    def _send(self, connection: Connection, node_id: int, batches: list[tuple[PartitionKey, Batch]]) -> None:
        metadata = self._cluster.metadata
        topics: dict[str, TopicProduceData] = {}
        with_ids = True
        for (topic, partition), batch in batches:
            data = topics.get(topic)
            if data is None:
                topic_id = metadata.topic_id(topic)
                with_ids = with_ids and topic_id != ZERO_UUID
                data = topics[topic] = TopicProduceData(name=topic, topic_id=topic_id, partition_data=[])
            data.partition_data.append(PartitionProduceData(index=partition, records=batch.encoded))
        request = ProduceRequest(
            transactional_id=self._transactions.transactional_id if self._transactions is not None else None,
            acks=self._acks,
            timeout_ms=self._settings.request_timeout_ms,
            topic_data=list(topics.values()),
        )
        version_max = None if with_ids else PRODUCE_VERSION_WITHOUT_IDS
        if self._transactions is not None and self._transactions.version < VERSION_2:
            version_max = PRODUCE_VERSION_1_MAX
        try:
            version = connection.version_of(ApiKey.PRODUCE, version_max)
            if self._acks == 0:
                connection.send(request, ProduceResponse, None, version=version)
                self._answer_all(batches, ErrorCode.NONE)
                return
            connection.send(
                request,
                ProduceResponse,
                lambda answer: self._on_response(node_id, batches, answer),
                version=version,
            )
        except BrokerUnreachable:
            self._answer_all(batches, ErrorCode.LEADER_NOT_AVAILABLE)  # it did not leave this process
            return
        except KafkaError as refusal:
            self._answer_all(batches, refusal.code, one_line(refusal))
            return
        except Exception as failure:  # the request cannot be built: nothing was written
            if len(batches) > 1:
                for one in batches:
                    self._send(connection, node_id, [one])  # find out whose fault it is
            else:
                self._settle([self._accumulator.on_unsendable(*batches[0], failure)])
            return
        self._in_flight[node_id] = self._in_flight.get(node_id, 0) + 1

    def _answer_all(
        self, batches: Sequence[tuple[PartitionKey, Batch]], code: ErrorCode, message: str | None = None
    ) -> None:
        now_ms = self._env.clock.mono_ms()
        for key, batch in batches:
            verdict = self._accumulator.on_answer(key, batch, code, now_ms, retriable=code.retriable, message=message)
            if verdict is not None:
                self._settle([verdict])
        if code:
            self._cluster.refresh_nowait()

    def _on_response(
        self, node_id: int, batches: list[tuple[PartitionKey, Batch]], answer: ProduceResponse | Exception
    ) -> None:
        self._in_flight[node_id] -= 1
        self._wake.set()
        if self._state == "closed" or self._fatal is not None:
            return
        if isinstance(answer, Exception):
            self._answer_all(batches, ErrorCode.NETWORK_EXCEPTION, one_line(answer))
            return
        answers: dict[PartitionKey, PartitionProduceResponse] = {}
        for topic in answer.responses:
            name = topic.name or self._cluster.metadata.topic_name(topic.topic_id)
            for one in topic.partition_responses:
                if name is not None:
                    answers[name, one.index] = one
        endpoints = {
            one.node_id: Broker(one.node_id, Address(one.host, one.port), one.rack) for one in answer.node_endpoints
        }
        now_ms = self._env.clock.mono_ms()
        verdicts = []
        for key, batch in batches:
            verdict = self._on_partition(key, batch, answers.get(key), endpoints, now_ms)
            if verdict is not None:
                verdicts.append(verdict)
        self._settle(verdicts)

    def _on_partition(
        self,
        key: PartitionKey,
        batch: Batch,
        answer: PartitionProduceResponse | None,
        endpoints: dict[int, Broker],
        now_ms: int,
    ) -> Verdict | None:
        if answer is None:
            message = "the broker's answer does not mention the partition"
            return self._accumulator.on_answer(
                key, batch, ErrorCode.NETWORK_EXCEPTION, now_ms, retriable=True, message=message
            )
        code = ErrorCode.of(answer.error_code)
        if code is ErrorCode.NONE:
            if self._refusals.is_refused:
                self._refusals.accepted(now_ms)
        elif code.retriable:
            why = f"{answer.error_message} ({code.name})" if answer.error_message else code.name
            self._refusals.refused(f"writing to {TopicPartition(*key)}", why, now_ms)
        at_once = False
        if code.refresh_metadata:
            leader = answer.current_leader
            if leader is not None:
                one = TopicPartition(*key)
                at_once = self._cluster.learn_leader(one, leader.leader_id, leader.leader_epoch, endpoints)
            else:
                self._cluster.refresh_nowait()
        return self._accumulator.on_answer(
            key,
            batch,
            code,
            now_ms,
            base_offset=answer.base_offset,
            append_time_ms=answer.log_append_time_ms,
            retriable=code.retriable,
            message=answer.error_message,
            at_once=at_once,
        )

    # -- verdicts

    def _settle(self, verdicts: Sequence[Verdict]) -> None:
        if not verdicts:
            return
        for verdict in verdicts:
            if verdict.error_code:
                self._settle_failure(verdict)
            else:
                topic, partition = verdict.key
                base_offset, append_time_ms = verdict.base_offset, verdict.append_time_ms
                if base_offset >= 0:  # not with acks=0, and not for a batch that a retry wrote before
                    self._acked[verdict.key] = base_offset + (verdict.batch.record_count or 0)
                for index, timestamp_ms, waiter in verdict.batch.waiters:
                    if not waiter.done():
                        offset = base_offset + index if base_offset >= 0 else -1
                        time_ms = append_time_ms if append_time_ms >= 0 else timestamp_ms
                        waiter.set_result(RecordMetadata(topic, partition, offset, time_ms))
        while self._flushes and self._accumulator.flushed(self._flushes[0][0]):
            _, done = self._flushes.popleft()
            if not done.done():
                done.set_result(None)
        if self._room_waiters and self._accumulator.buffered_bytes < self._buffer_bytes_max:
            waiters, self._room_waiters = self._room_waiters, deque()
            for room in waiters:
                if not room.done():
                    room.set_result(None)

    def _settle_failure(self, verdict: Verdict) -> None:
        failure = self._failure(verdict)
        log.log(logging.DEBUG if self._accumulator.final else logging.WARNING, "%s", one_line(failure))
        if self._transactions is not None:
            self._transactions.fail(failure)
        batch = verdict.batch
        if len(batch.waiters) < (batch.record_count or 1) and self._append_failure is None:
            self._append_failure = failure
        for _, _, waiter in batch.waiters:
            if not waiter.done():
                waiter.set_exception(failure)

    def _failure(self, verdict: Verdict) -> StreamlogError:
        topic, partition = verdict.key
        count = verdict.batch.record_count
        what = f"{count} record{'s' if count != 1 else ''} for {topic}-{partition}"
        why = f": {verdict.message}" if verdict.message else ""
        if self._fatal is not None:
            why = f": {one_line(self._fatal)}"
        if verdict.cause is not None and verdict.definite:
            failure = LocalProtocolError(f"{what} could not be sent{why}")
            failure.__cause__ = verdict.cause
            return failure
        if not verdict.definite:
            return DeliveryUnknown(f"{what} may or may not have been written; no answer came in time{why}")
        if verdict.timed_out:
            reason = self._why_not_sent(topic, partition)
            return NotDelivered(f"{what} were not sent in time{why or reason}")
        return KafkaError(ErrorCode.of(verdict.error_code), f"{what} were refused{why}")

    def _why_not_sent(self, topic: str, partition: int) -> str:
        metadata = self._cluster.metadata
        if topic in metadata.errors:
            return f": {one_line(topic_error(topic, metadata.errors[topic]))}"
        leader = metadata.leader(topic, partition)
        if leader is None:
            return ": the partition has no leader right now"
        return f": its leader is the broker at {metadata.brokers[leader].address}; check that it runs"


class _Unrouted:
    """A record and nothing about where it goes."""

    __slots__ = ("headers", "key", "timestamp_ms", "value")

    def __init__(self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: RecordHeaders) -> None:
        self.key = key
        self.value = value
        self.timestamp_ms = timestamp_ms
        self.headers = headers
