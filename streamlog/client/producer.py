"""Producer: the public face of sending.

`routing.py` finds each record's partition, `accumulator.py` decides what is sent when, `sender.py` sends it, and
`delivery.py` tells callers what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from streamlog.client.accumulator import Limits
from streamlog.client.cluster import Cluster
from streamlog.client.config import ConnectionSettings
from streamlog.client.delivery import OnAppendFailure
from streamlog.client.failures import BufferFull, NotDelivered, one_line
from streamlog.client.lease import Lease
from streamlog.client.producer_queue import PartitionKey
from streamlog.client.routing import Routing, Unrouted
from streamlog.client.sender import Sender
from streamlog.client.transactions import Transactions
from streamlog.client.values import GroupMetadata, Headers, OffsetAndMetadata, RecordMetadata, TopicPartition
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure, StreamlogError, UserError
from streamlog.wire.compression import LEVELS
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.records import Compression, RecordHeaders

BATCH_SIZE_BYTES = 128 << 10
"""Eight times Java's: the work per batch is Python, the work per record is not."""

REQUEST_SIZE_BYTES_MAX = 1 << 20
BUFFER_BYTES_MAX = 32 << 20

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
        missing_topic_timeout_ms: int | None = None,
        on_append_failure: OnAppendFailure | None = None,
        transactional_id: str | None = None,
        transaction_timeout_ms: int = 60_000,
        connection: ConnectionSettings | None = None,
        lease: Lease | None = None,
    ) -> None:
        """
        Args:    linger_ms: how long a batch waits for more records. delivery_timeout_ms: after this long a record has
                     its answer, whatever happens. max_block_ms: how long `send` waits for a topic to appear.
                 request_size_bytes_max: a larger record, before compression, is refused (Java's max.request.size).
                 missing_topic_timeout_ms: records for a topic that the brokers do not have, any more or yet, are
                     refused after so long; None: they wait for the delivery timeout.
                 on_append_failure: told of each batch of `append`ed records that failed, at once; `flush` does not
                     raise for them then.
                 transactional_id: send in transactions only. The id is this producer's alone: a newer producer
                     with the same id fences an older one.
                 transaction_timeout_ms: the broker aborts a transaction that takes longer.
                 lease: records leave only while it is held, also those that are sent again. When it has run out they
                     wait for it; when it is lost they fail (`NotDelivered`, or `DeliveryUnknown` when they were sent
                     before).
        """
        if compression.upper() not in Compression.__members__:
            raise UserError(f"compression '{compression}' is unknown; use none, gzip, snappy, lz4 or zstd")
        if acks not in ("all", -1, 0, 1):
            raise UserError(f"acks={acks!r} is not one of 'all', 1 and 0")
        acks_code = -1 if acks == "all" else acks
        if idempotent and acks_code != -1:
            raise UserError("an idempotent producer needs acks='all'; pass idempotent=False for less")
        if transactional_id is not None and not idempotent:
            raise UserError("a transactional producer is idempotent; leave idempotent alone")
        settings = connection or ConnectionSettings(client_id=client_id)
        self._env = env
        self._cluster = Cluster(bootstrap, env, settings, auto_create_topics=auto_create_topics)
        self._max_block_ms = max_block_ms
        algorithm = Compression[compression.upper()]
        if compression_level is not None and compression_level not in LEVELS[algorithm]:
            raise UserError(f"{compression} has no compression level {compression_level}")
        limits = Limits(
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
        )
        self._sender = Sender(
            self._cluster,
            limits,
            acks_code,
            buffer_bytes_max,
            check_open=self._check_open,
            on_end=lambda failure: self._routing.fail(None, failure),
            missing_topic_timeout_ms=missing_topic_timeout_ms,
            lease=lease,
        )
        self._accumulator = self._sender.accumulator
        self._delivery = self._sender.delivery
        self._delivery.on_append_failure = on_append_failure
        self._routing = Routing(self._cluster, self._accumulator, max_block_ms)
        self._transactions: Transactions | None = None
        if transactional_id is not None:
            self._transactions = Transactions(
                self._cluster, self._accumulator, transactional_id, transaction_timeout_ms, self._sender.wake.set
            )
            self._sender.use(self._transactions)
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
        self._cluster.scope.spawn("pump", self._sender.pump_forever())

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
            await self.abandon()

    async def abandon(self) -> None:
        """Disconnect at once; what has no answer yet is answered that nobody knows."""
        if self._state == "open":
            self._state = "closed"
            self._sender.close()
            self._routing.fail(None, NotDelivered("the producer was closed before the record was sent"))
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
        it is now. Cancelled while the buffer has no room, or while the topic is not known yet, the record is not sent;
        cancelled later, it is sent all the same.
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
        """Take one record and return at once; the future gets what `send` returns or raises. To cancel it does what
        cancelling `send` does.

        Raises: BufferFull, and what `send` raises at once: nothing was taken.
        """
        if self._delivery.full:
            raise BufferFull(f"{self._accumulator.buffered_bytes} bytes are waiting to be sent; await room() first")
        self._check_open()
        if timestamp_ms is None:
            timestamp_ms = self._env.clock.wall_ms()
        return self._routing.send(topic, partition, Unrouted(key, value, timestamp_ms, tuple(headers)))

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
        if self._delivery.fatal is None and self._transactions is not None:
            return self._transactions.fenced
        return self._delivery.fatal

    def end(self, failure: StreamlogError) -> None:
        """Send nothing any more: what waits is answered as when its time is up, and whatever is asked raises `failure`,
        which is `fatal` from now on. For who learned elsewhere that this producer must not go on; close it then."""
        self._check_open()
        self._sender.end(failure)

    @property
    def full(self) -> bool:
        """Whether the buffer has no room: who goes on appending should await `room` first."""
        return self._delivery.full

    async def room(self) -> None:
        """Return when the buffer has room. Raises what ended the producer, if something did."""
        while self._delivery.full:
            self._check_open()
            self.hurry()  # who lingers now lingers in everybody's way
            await self._delivery.room()

    async def flush(self) -> None:
        """Return when everything taken before has its answer.

        Raises: the first failure of an `append`ed record since the last flush, once. Records with futures tell theirs
                alone.
        """
        self._check_open()
        await self._routing.all_routed()
        ticket = self._accumulator.close_all()
        if not self._accumulator.flushed(ticket):
            self._sender.wake.set()
            await self._delivery.flushed(ticket)
        failure, self._delivery.append_failure = self._delivery.append_failure, None
        if failure is not None:
            raise failure

    def is_settled(self, topic: str, partition: int) -> bool:
        """Whether every record taken for the partition has its answer."""
        queue = self._accumulator.queues.get((topic, partition))
        return queue is None or not (queue.open or queue.waiting or queue.in_flight)

    def hurry(self) -> None:
        """Send what lingers."""
        self._accumulator.close_all()
        self._sender.wake.set()

    def limit_topic(self, topic: str, record_bytes_max: int) -> None:
        """Take records of a topic up to this size, whatever `request_size_bytes_max` says: its `max.message.bytes`."""
        self._accumulator.limit_topic(topic, record_bytes_max)

    def record_bytes_max(self, topic: str) -> int:
        """The largest record that is taken for a topic, alone in its batch."""
        return self._accumulator.size_bytes_max(topic)

    def acked_offset(self, partition: TopicPartition) -> int | None:
        """Exclusive end of what this producer wrote to a partition, as acknowledged; None when no answer said it."""
        return self._delivery.acked.get((partition.topic, partition.partition))

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
        self._routing.fail(None, why)
        accumulator.final = True
        try:
            self._delivery.settle(accumulator.drop_waiting(one_line(why)))
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

    def partition_count(self, topic: str) -> int:
        """The same as far as is known; 0 for topics that nothing is known of."""
        return self._cluster.metadata.partition_count(topic)

    def look_for(self, topic: str) -> int:
        """Have it asked whether a topic is there (again). Returns how many partitions it has, as of the last answer."""
        self._check_open()
        self._cluster.track([topic])
        self._cluster.refresh_nowait()
        return 0 if topic in self._cluster.metadata.errors else self._cluster.metadata.partition_count(topic)

    def partition_for(self, topic: str, key: bytes | None) -> int:
        """Where `send` would put a record with this key. The topic has to be known: await `partitions` once."""
        if not self._cluster.metadata.partition_count(topic):
            raise UserError(f"the partitions of '{topic}' are not known yet; await partitions('{topic}') first")
        return self._routing.choose(topic, Unrouted(key, b"", 0, ()))

    def _check_open(self) -> None:
        if self._state != "open":
            raise UserError("the producer is not open; use `async with Producer(...)` or await open()")
        self._cluster.check()
        if self._delivery.fatal is not None:
            raise self._delivery.fatal
