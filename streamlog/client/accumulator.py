"""Every record that was handed to the producer and is not yet resolved; decides what is sent when.

The driver (producer.py) asks `drain` for the batches of one request to one broker, and tells what became of them.
Batches leave when they are full, when their linger is over, when somebody flushes, or along with nothing: a batch that
has to wait keeps the partition's order but never another partition's. All sums are kept as things move, so
that a producer with ten thousand idle partitions pays for none of them.

An answer about a batch is one of three, and its callers get it exactly once: written; not written (the broker refused
it, or it was never sent); unknown, when the last word of the broker did not arrive in time. `DEFINITE` lists the
refusals that prove a batch is not in the log.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from streamlog.client.producer_queue import NO_IDENTITY, Batch, PartitionKey, PartitionQueue, ProducerIdentity
from streamlog.errors import LocalProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.records import NO_SEQUENCE, BatchBuilder, Compression, RecordHeaders

PRODUCER_EPOCH_MAX = 32_767

DEFINITE = frozenset(
    {
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.RECORD_LIST_TOO_LARGE,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.INVALID_REQUIRED_ACKS,
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        ErrorCode.POLICY_VIOLATION,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode.INVALID_RECORD,
        ErrorCode.THROTTLING_QUOTA_EXCEEDED,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INCONSISTENT_TOPIC_ID,
        ErrorCode.TRANSACTION_ABORTABLE,
        ErrorCode.CONCURRENT_TRANSACTIONS,
    }
)
"""A broker answers these before it appends. NOT_LEADER_OR_FOLLOWER is not among them: a leader that is deposed
while followers copy the batch says it too."""

CONCURRENT_TRANSACTIONS_BACKOFF_MS = 10
"""The markers of the transaction before are still being written, which takes milliseconds; a usual back-off of a
hundred would be the price of every commit."""

KEY_BYTES_SHOWN = 60
"""Of a key in a message: keys can be as large as values."""

GONE_SEQUENCES = frozenset({ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.UNKNOWN_PRODUCER_ID})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a batch. Without an error it was written."""

    key: PartitionKey
    batch: Batch
    error_code: int = 0
    definite: bool = True
    """With an error: whether the records are certainly not in the log."""
    base_offset: int = -1
    append_time_ms: int = -1
    timed_out: bool = False
    message: str | None = None
    cause: Exception | None = None
    """With an error: what kept the batch from being built or sent, when that was no broker."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The producer's settings that its core needs."""

    batch_size_bytes: int
    request_size_bytes_max: int
    linger_ms: int
    delivery_timeout_ms: int
    retry_backoff_ms: int
    retry_backoff_ms_max: int
    idempotent: bool
    compression: Compression
    compression_level: int | None
    transactional: bool = False


class Port(Protocol):
    """What the accumulator asks of its driver. None of it waits."""

    def opening_batch(self) -> int:
        """A batch is opened: what monotonic time is it, in ms? May raise to refuse the record."""
        ...

    def check_partition(self, key: PartitionKey) -> None:
        """A record for a partition that had none before. Raises when there can be no such partition."""
        ...

    def batch_ready(self) -> None:
        """A batch is full and may be sent before its linger is over."""
        ...

    def leader(self, key: PartitionKey) -> int | None:
        """The broker that leads a partition, as far as is known."""
        ...

    def draw(self) -> float:
        """Uniform in [0, 1), for jitter."""
        ...

    def may_send(self, key: PartitionKey) -> bool:
        """In a transaction: whether a partition is part of it. If not, the driver sees to it and wakes up."""
        ...

    def on_gap(self, key: PartitionKey) -> None:
        """In a transaction: sequences of a partition are broken, so the transaction cannot be completed."""
        ...


def check_size(
    key: tuple[str, int | None],
    record_key: bytes | None,
    value: bytes | None,
    timestamp_ms: int,
    headers: RecordHeaders,
    size_bytes_max: int,
    *,
    of_topic: bool = False,
) -> None:
    """Raises KafkaError MESSAGE_TOO_LARGE for a record that is larger, alone in its batch; LocalProtocolError for what
    is no record. `of_topic`: the limit is the topic's."""
    builder = BatchBuilder()
    if builder.append(record_key, value, timestamp_ms, headers) <= size_bytes_max:
        return
    size_bytes = len(builder.build())  # to the byte, as the broker counts
    if size_bytes <= size_bytes_max:
        return
    topic, partition = key
    where = topic if partition is None else f"{topic}-{partition}"
    name = "" if record_key is None else f" with the key {shown(record_key)}"
    limit = (
        f"than the topic's max.message.bytes of {size_bytes_max}; raise that "
        f"(streamlog topics alter {topic} --config max.message.bytes=N), or send less"
        if of_topic
        else f"than the producer's request_size_bytes_max of {size_bytes_max}; raise it along with the topic's "
        "max.message.bytes, or send less"
    )
    raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE, f"a record of {size_bytes} bytes for {where}{name} is larger {limit}")


def shown(key: bytes) -> str:
    """A record's key for a message: short, and readable if it can be."""
    short = key[:KEY_BYTES_SHOWN]
    return repr(short.decode(errors="backslashreplace")) + ("..." if len(key) > KEY_BYTES_SHOWN else "")


def negative_timestamp(timestamp_ms: int) -> LocalProtocolError:
    """Java's client refuses these as well: -1 stands for no timestamp, and the rest means nothing."""
    return LocalProtocolError(f"the record's timestamp {timestamp_ms} ms is before 1970; Kafka's begin at 0")


class Accumulator:
    """See the module's essay. Everything here is synchronous and owned by one event loop."""

    def __init__(self, limits: Limits, port: Port) -> None:
        self.limits = limits
        self._port = port
        self.buffered_bytes = 0  # sum of size_bytes over unresolved batches
        self.identity = NO_IDENTITY  # for sequences that start now; without idempotence always NO_IDENTITY
        self.queues: dict[PartitionKey, PartitionQueue] = {}
        self._topic_bytes_max: dict[str, int] = {}  # topics whose own limit is known; others have the request's
        self.leaderless: dict[PartitionKey, PartitionQueue] = {}  # queues with waiting batches and no known leader
        self._sendable: dict[int, dict[PartitionKey, PartitionQueue]] = {}  # leader -> queues with waiting batches
        self._lingering: deque[tuple[PartitionQueue, Batch]] = deque()  # by age; closed batches stay until they surface
        self._aging: deque[tuple[PartitionQueue, Batch]] = deque()  # by age; resolved batches stay until they surface
        self._retry_at_ms: int | None = None  # earliest retry among waiting batches, or too early; None: no retries
        self.final = False  # what fails now is not sent again: the transaction is being aborted
        self._unsent: list[Verdict] = []  # batches that `drain` could not build, for `take_unsent`
        self._ticket = 0  # raised by every flush
        self._unresolved: dict[int, int] = {}  # ticket -> batches without an answer; ascending

    # -- records in

    def append(
        self,
        key: PartitionKey,
        record_key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: RecordHeaders,
    ) -> Batch:
        """Add one record and return the batch it is in, as its last record so far.

        Raises: LocalProtocolError for a record the format cannot carry; KafkaError MESSAGE_TOO_LARGE; what the port
                raises. Nothing was added then.
        """
        if timestamp_ms < 0:
            raise negative_timestamp(timestamp_ms)
        queue = self.queues.get(key)
        if queue is None:
            queue = self._add_queue(key)
        batch = queue.open
        if batch is None:
            batch = self._open_batch(queue)
        size_bytes = batch.append(record_key, value, timestamp_ms, headers)
        if size_bytes > queue.size_bytes_max:
            batch.drop_last()
            of_topic = key[0] in self._topic_bytes_max
            check_size(key, record_key, value, timestamp_ms, headers, queue.size_bytes_max, of_topic=of_topic)
            self._close(queue)  # with the others the record is too large, alone it is not
            self._port.batch_ready()
            batch = self._open_batch(queue)
            size_bytes = batch.append(record_key, value, timestamp_ms, headers)
        self.buffered_bytes += size_bytes - batch.size_bytes
        batch.size_bytes = size_bytes
        if size_bytes >= self.limits.batch_size_bytes:
            self._close(queue)
            self._port.batch_ready()
        return batch

    def _add_queue(self, key: PartitionKey) -> PartitionQueue:
        self._port.check_partition(key)
        queue = self.queues[key] = PartitionQueue(
            key,
            size_bytes_max=self.size_bytes_max(key[0]),
            idempotent=self.limits.idempotent,
            transactional=self.limits.transactional,
        )
        queue.leader = self._port.leader(key)
        return queue

    def size_bytes_max(self, topic: str) -> int:
        """Of one batch, and so of a record."""
        return self._topic_bytes_max.get(topic, self.limits.request_size_bytes_max)

    def limit_topic(self, topic: str, size_bytes_max: int) -> None:
        """The topic's own limit: it goes before that of requests, in both directions."""
        self._topic_bytes_max[topic] = size_bytes_max
        for key, queue in self.queues.items():
            if key[0] == topic:
                queue.size_bytes_max = size_bytes_max

    def _open_batch(self, queue: PartitionQueue) -> Batch:
        batch = queue.open = Batch(self._port.opening_batch(), queue.batches_made, self._ticket)
        queue.batches_made += 1
        self._lingering.append((queue, batch))
        self._aging.append((queue, batch))
        self._unresolved[self._ticket] = self._unresolved.get(self._ticket, 0) + 1
        return batch

    def _close(self, queue: PartitionQueue) -> None:
        batch = queue.close_open()
        if batch is not None and batch.record_count == 0:
            queue.waiting.remove(batch)  # its only record was refused by the format
            self._resolve(Verdict(queue.key, batch))
        if queue.waiting:
            self._mark_sendable(queue)

    def _mark_sendable(self, queue: PartitionQueue) -> None:
        if queue.leader is None:
            self.leaderless[queue.key] = queue
        else:
            self._sendable.setdefault(queue.leader, {})[queue.key] = queue

    # -- who leads

    def set_leader(self, key: PartitionKey, leader: int | None) -> None:
        """Where the partition's batches go from now on. Batches in flight are not touched."""
        queue = self.queues.get(key)
        if queue is None or queue.leader == leader:
            return
        if queue.leader is None:
            self.leaderless.pop(key, None)
        else:
            self._sendable.get(queue.leader, {}).pop(key, None)
        queue.leader = leader
        if queue.waiting:
            self._mark_sendable(queue)

    # -- batches out

    def close_lingering(self, now_ms: int) -> None:
        """Close every batch whose linger is over."""
        while self._lingering:
            queue, batch = self._lingering[0]
            if queue.open is batch:
                if batch.created_at_ms + self.limits.linger_ms > now_ms:
                    return
                self._close(queue)
            self._lingering.popleft()

    def close_all(self) -> int:
        """Close every open batch. Returns the ticket that `flushed` wants to know."""
        while self._lingering:
            queue, batch = self._lingering.popleft()
            if queue.open is batch:
                self._close(queue)
        ticket = self._ticket
        self._ticket += 1
        return ticket

    def flushed(self, ticket: int) -> bool:
        """Whether everything appended before the `close_all` that gave `ticket` has its answer."""
        oldest = next(iter(self._unresolved), None)
        return oldest is None or oldest > ticket

    def nodes_with_work(self) -> list[int]:
        """Brokers for which batches wait, whether or not they may be sent yet."""
        return [node_id for node_id, queues in self._sendable.items() if queues]

    def drain(self, node_id: int, now_ms: int) -> list[tuple[PartitionKey, Batch]]:
        """The batches of the next request to `node_id`, at most one per partition; they count as in flight.

        A batch that cannot be built, or of which nobody will ever know more, is given up; `take_unsent` tells.
        """
        drained: list[tuple[PartitionKey, Batch]] = []
        size_bytes = 0
        queues = self._sendable.get(node_id, {})
        for queue in list(queues.values()):
            for undecidable in queue.undecidable():
                queue.give_up(undecidable)
                code = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
                self._unsent.append(self._resolve(Verdict(queue.key, undecidable, code, definite=False)))
            batch = queue.next_to_send(now_ms)
            if batch is None:
                if not queue.waiting:
                    del queues[queue.key]
                continue
            size_bytes += batch.size_bytes
            if drained and size_bytes > self.limits.request_size_bytes_max:
                break
            if queue.needs_new_epoch() and queue.identity == self.identity:
                if self.limits.transactional:
                    self._port.on_gap(queue.key)  # only the transaction's coordinator may raise its epoch
                    continue
                self._start_new_epoch()
            if self.limits.idempotent and self.identity == NO_IDENTITY and batch.sequence == NO_SEQUENCE:
                continue
            if self.limits.transactional and not self._port.may_send(queue.key):
                continue
            try:
                queue.start(batch, self.identity, self.limits.compression, self.limits.compression_level)
            except Exception as failure:  # memory ran out, or the compression's library: of no concern to others
                queue.give_up(batch)
                self._unsent.append(self._unsendable(queue, batch, failure))
                continue
            drained.append((queue.key, batch))
            del queues[queue.key]
            if queue.waiting:
                queues[queue.key] = queue  # to the end: every partition gets its turn
        return drained

    def take_unsent(self) -> list[Verdict]:
        """What became of the batches that `drain` gave up, since the last call."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def on_unsendable(self, key: PartitionKey, batch: Batch, failure: Exception) -> Verdict:
        """A drained batch could not be written to the connection, and trying again would end the same."""
        queue = self.queues[key]
        queue.take_back(batch)
        return self._unsendable(queue, batch, failure)

    def _unsendable(self, queue: PartitionQueue, batch: Batch, failure: Exception) -> Verdict:
        if batch.written:
            return self._resolve(Verdict(queue.key, batch))
        definite = not batch.maybe_written
        code = ErrorCode.UNKNOWN_SERVER_ERROR
        return self._resolve(Verdict(queue.key, batch, code, definite, message=repr(failure), cause=failure))

    def _start_new_epoch(self) -> None:
        identity = self.identity
        if identity == NO_IDENTITY:
            return
        if identity.producer_epoch >= PRODUCER_EPOCH_MAX:
            self.identity = NO_IDENTITY  # the driver asks the broker for a new producer id
        else:
            self.identity = ProducerIdentity(identity.producer_id, identity.producer_epoch + 1)

    @property
    def needs_identity(self) -> bool:
        return self.limits.idempotent and self.identity == NO_IDENTITY

    # -- answers

    def on_answer(
        self,
        key: PartitionKey,
        batch: Batch,
        error_code: int,
        now_ms: int,
        *,
        base_offset: int = -1,
        append_time_ms: int = -1,
        retriable: bool = False,
        message: str | None = None,
        at_once: bool = False,
    ) -> Verdict | None:
        """A broker's word on one batch in flight, or NETWORK_EXCEPTION when none will come.

        Args:    retriable: whether the same batch may succeed later. at_once: retry without backoff, because the
                 answer named the new leader.
        Returns: the verdict, or None when the batch will be sent again.
        """
        queue = self.queues[key]
        if error_code in (ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER) or batch.written:
            queue.succeed(batch)
            return self._resolve(Verdict(key, batch, base_offset=base_offset, append_time_ms=append_time_ms))
        if error_code not in DEFINITE:
            batch.maybe_written = True
        if batch.resolved:
            queue.give_up(batch)
            self._after(queue)
            return None
        final = self.final or batch.final
        if self.limits.idempotent and error_code in GONE_SEQUENCES and not final:
            queue.out_of_order(batch, self._retry_time(batch, now_ms))
            self._expect_retry(batch)
            self._after(queue)
            return None
        if (
            error_code == ErrorCode.MESSAGE_TOO_LARGE
            and batch.record_count > 1
            and not batch.maybe_written
            and not batch.final
        ):
            self._split(queue, batch)
            self._after(queue)
            return None
        if error_code == ErrorCode.INVALID_PRODUCER_EPOCH and not self.limits.transactional:
            self.identity = NO_IDENTITY  # somebody writes under our id: take another
        if retriable and not final and now_ms < batch.created_at_ms + self.limits.delivery_timeout_ms:
            if error_code == ErrorCode.CONCURRENT_TRANSACTIONS:
                at_ms = now_ms + CONCURRENT_TRANSACTIONS_BACKOFF_MS
            else:
                at_ms = 0 if at_once else self._retry_time(batch, now_ms)
            queue.retry(batch, at_ms)
            self._expect_retry(batch)
            self._after(queue)
            return None
        queue.give_up(batch)
        definite = error_code in DEFINITE and not batch.maybe_written
        self._after(queue)
        return self._resolve(Verdict(key, batch, error_code, definite, message=message))

    def expire(self, now_ms: int) -> list[Verdict]:
        """Answer for every batch older than the delivery timeout. Those in flight keep their place."""
        verdicts = []
        while self._aging:
            queue, batch = self._aging[0]
            if not batch.resolved:
                if batch.created_at_ms + self.limits.delivery_timeout_ms > now_ms:
                    break
                verdicts.append(self._resolve(self._expired(queue, batch)))
            self._aging.popleft()
        return verdicts

    def _expired(self, queue: PartitionQueue, batch: Batch) -> Verdict:
        in_flight = batch in queue.in_flight
        if not in_flight:
            queue.give_up(batch)
        if batch.written:
            return Verdict(queue.key, batch)
        definite = not in_flight and not batch.maybe_written
        return Verdict(queue.key, batch, ErrorCode.REQUEST_TIMED_OUT, definite, timed_out=True)

    def refuse(self, key: PartitionKey, error_code: int, message: str, *, numbered: bool = False) -> list[Verdict]:
        """Give up everything of a partition that has not been sent: the partition does not exist.

        Args: numbered: also what was sent and came back.
        """
        queue = self.queues[key]
        queue.close_open()
        verdicts = []
        for batch in list(queue.waiting):
            if numbered or batch.sequence == NO_SEQUENCE:
                queue.give_up(batch)
                definite = not batch.maybe_written
                verdicts.append(self._resolve(Verdict(key, batch, error_code, definite, message=message)))
        if not queue.waiting:
            self.leaderless.pop(key, None)
        return verdicts

    def drop_waiting(self, message: str) -> list[Verdict]:
        """Give up everything that is not in flight: the transaction is being aborted."""
        verdicts = []
        for queue in self.queues.values():
            queue.close_open()
            for batch in list(queue.waiting):
                queue.give_up(batch)
                code = ErrorCode.TRANSACTION_ABORTABLE
                verdicts.append(
                    self._resolve(Verdict(queue.key, batch, code, not batch.maybe_written, message=message))
                )
        return verdicts

    def drop_all(self, message: str) -> list[Verdict]:
        """Give up everything: whose records these are must not write any more. A batch in flight waits for the answer
        that is on its way, and is not sent again whatever it says."""
        verdicts = []
        for queue in self.queues.values():
            self._close(queue)
            for batch in list(queue.waiting):
                queue.give_up(batch)
                verdict = Verdict(queue.key, batch)
                if not batch.written:
                    code, definite = ErrorCode.REQUEST_TIMED_OUT, not batch.maybe_written
                    verdict = Verdict(queue.key, batch, code, definite, timed_out=True, message=message)
                verdicts.append(self._resolve(verdict))
            for batch in queue.in_flight:
                batch.final = True
            self.leaderless.pop(queue.key, None)
        return verdicts

    def abandon(self) -> list[Verdict]:
        """Answer for everything that is left: the producer closes."""
        verdicts = []
        for queue in self.queues.values():
            queue.close_open()
            for batch in [*queue.in_flight, *queue.waiting]:
                definite = batch.attempts == 0 or (batch not in queue.in_flight and not batch.maybe_written)
                if not batch.resolved:
                    verdict = Verdict(queue.key, batch, ErrorCode.NETWORK_EXCEPTION, definite, timed_out=True)
                    verdicts.append(self._resolve(verdict))
        self.queues.clear()
        self._sendable.clear()
        self.leaderless.clear()
        return verdicts

    def next_deadline_ms(self, *, sending: bool) -> int | None:
        """When the driver has to look again although nothing happened. `sending`: it could send if it had a batch."""
        deadlines = []
        while self._lingering and self._lingering[0][0].open is not self._lingering[0][1]:
            self._lingering.popleft()
        while self._aging and self._aging[0][1].resolved:
            self._aging.popleft()
        if self._lingering:
            deadlines.append(self._lingering[0][1].created_at_ms + self.limits.linger_ms)
        if self._aging:
            deadlines.append(self._aging[0][1].created_at_ms + self.limits.delivery_timeout_ms)
        if sending and self._retry_at_ms is not None:
            deadlines.append(self._retry_at_ms)
        return min(deadlines, default=None)

    def retries_due(self, now_ms: int) -> None:
        """Forget retry times that have passed, and find the next."""
        if self._retry_at_ms is not None and self._retry_at_ms <= now_ms:
            self._retry_at_ms = min(
                (
                    batch.retry_at_ms
                    for queues in [*self._sendable.values(), self.leaderless]
                    for queue in queues.values()
                    for batch in queue.waiting
                    if batch.retry_at_ms > now_ms
                ),
                default=None,
            )

    def _resolve(self, verdict: Verdict) -> Verdict:
        batch = verdict.batch
        if not batch.resolved:
            batch.resolved = True
            self.buffered_bytes -= batch.size_bytes
            self._count_resolved(batch.ticket)
        self._after(self.queues[verdict.key])
        return verdict

    def _count_resolved(self, ticket: int) -> None:
        left = self._unresolved[ticket] - 1
        if left:
            self._unresolved[ticket] = left
        else:
            del self._unresolved[ticket]

    def _after(self, queue: PartitionQueue) -> None:
        if queue.waiting:
            self._mark_sendable(queue)

    def _split(self, queue: PartitionQueue, batch: Batch) -> None:
        parts = batch.split()
        queue.replace(batch, parts)
        batch.resolved = True  # its callers wait for the parts now
        self.buffered_bytes += sum(part.size_bytes for part in parts) - batch.size_bytes
        self._unresolved[batch.ticket] += len(parts) - 1
        self._aging.extendleft((queue, part) for part in reversed(parts))

    def _retry_time(self, batch: Batch, now_ms: int) -> int:
        limits = self.limits
        backoff_ms = min(limits.retry_backoff_ms << min(batch.attempts - 1, 16), limits.retry_backoff_ms_max)
        return now_ms + int(backoff_ms * (0.8 + 0.4 * self._port.draw()))

    def _expect_retry(self, batch: Batch) -> None:
        if batch.retry_at_ms and (self._retry_at_ms is None or batch.retry_at_ms < self._retry_at_ms):
            self._retry_at_ms = batch.retry_at_ms
