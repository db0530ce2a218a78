"""One partition's records on their way to the broker: the order of batches and the sequence numbers that keep it.

The problem. Up to five batches of a partition travel at once, connections break, leaders move, and still every record
has to be written once and in order. An idempotent producer (KIP-98) numbers the records of each partition; the
broker takes a batch only if it continues the numbers, and recognises one that it already has.

A batch is OPEN (records may be added) -> WAITING (closed, in order) -> IN FLIGHT -> done. It gets its sequence when
it is first sent and keeps it through retries, which go back to their place among the waiting ones. A retry is sent
only when nothing older is unresolved, so the broker sees the numbers in order.

Sequences break when a batch that has numbers ends without being written (refused, or given up): the numbers behind it
can then never continue. The queue is `broken` until everything that has numbers is resolved or `refused`: batches that
were written after all are acknowledged as duplicates, all others come back as OUT_OF_ORDER_SEQUENCE_NUMBER. Only then
those lose their numbers, and the queue starts over from 0 under a new producer epoch (KIP-360). Waiting for certainty
is what Java's client does not do; it may write a batch twice when a lost response meets a refusal.

One refusal as out of order proves nothing yet. A broker that was killed has the log, but it knows each producer from
a snapshot again, and that has only its last batch: it refuses the ones before, which it has. They are proven to be
missing when nothing numbered behind them is acknowledged either, because the last batch in the log is always
recognised; where one behind them was given up without certainty, there is none about them.

An acknowledgement proves that everything numbered lower is in the log as well. A batch whose own answer was lost is
then `written`, whatever later attempts say: the broker recognises duplicates only among the last five batches.

A broker that knows nothing of a producer takes any first sequence. So until the first batch under an epoch is
acknowledged it travels alone; else its retry could come to lie behind its successors, which Java's client allows.

Without idempotence only one batch of a partition is in flight, because a retry would otherwise overtake.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol, TypeAlias

from streamlog.client.values import RecordMetadata
from streamlog.wire.records import (
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    BatchBuilder,
    Compression,
    decode_records,
    set_producer,
)

IN_FLIGHT_MAX = 5
"""Batches of one partition in flight. Brokers remember the last five of a producer to recognise duplicates."""

SEQUENCE_MASK = 0x7FFF_FFFF
"""Sequences wrap from 2^31 - 1 to 0."""

PartitionKey: TypeAlias = tuple[str, int]
"""Topic and partition; a plain tuple, because the hot path builds one for every record."""


class ProducerIdentity(NamedTuple):
    """Who writes: assigned by a broker, the epoch raised by us whenever sequences start over."""

    producer_id: int
    producer_epoch: int


NO_IDENTITY = ProducerIdentity(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)


class Waiter(Protocol):
    """Who waits for one record; an asyncio future."""

    def done(self) -> bool: ...
    def set_result(self, result: RecordMetadata, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Batch:
    """Records of one partition that travel, succeed and fail together."""

    __slots__ = (
        "append",
        "attempts",
        "builder",
        "created_at_ms",
        "encoded",
        "final",
        "identity",
        "maybe_written",
        "order",
        "record_count",
        "refused",
        "resolved",
        "retry_at_ms",
        "sequence",
        "size_bytes",
        "ticket",
        "waiters",
        "width",
        "written",
    )

    def __init__(self, created_at_ms: int, order: float, ticket: int) -> None:
        builder = BatchBuilder()
        self.builder: BatchBuilder | None = builder  # None once encoded
        self.append = builder.append  # used while the batch is open
        self.encoded: bytearray | None = None  # the bytes on the wire, from the first sending on
        self.record_count = 0  # set when the batch is closed
        self.size_bytes = 0  # upper bound of the uncompressed size: what it weighs in the buffer
        self.created_at_ms = created_at_ms  # linger and delivery timeout count from here
        self.order = order  # place among the partition's batches; parts of a split batch lie between
        self.width = 1.0  # distance to the next batch's order
        self.ticket = ticket  # flush waits for tickets
        self.identity = NO_IDENTITY  # valid with sequence
        self.sequence = NO_SEQUENCE  # of the first record; assigned at the first sending
        self.attempts = 0
        self.retry_at_ms = 0
        self.final = False  # if this attempt fails there is no other
        self.maybe_written = False  # some attempt ended without a word whether it was written
        self.refused = False  # as out of order: not in the log, unless a later sequence is acknowledged
        self.written = False  # a later sequence was acknowledged, which proves that this one is in the log
        self.resolved = False  # its callers have their answer, though its request may still be under way
        self.waiters: list[tuple[int, int, Waiter]] = []  # record index, its timestamp, and who waits for it

    def encode(
        self,
        compression: Compression,
        level: int | None,
        identity: ProducerIdentity,
        sequence: int,
        *,
        transactional: bool = False,
    ) -> None:
        """Turn records into wire bytes under `identity` and `sequence`; later calls only renumber."""
        if self.builder is not None:
            self.encoded = self.builder.build(
                compression=compression,
                level=level,
                producer_id=identity.producer_id,
                producer_epoch=identity.producer_epoch,
                base_sequence=sequence,
                is_transactional=transactional,
            )
            self.builder = None
        elif (self.identity, self.sequence) != (identity, sequence):
            assert self.encoded is not None, "a batch has a builder or bytes"
            # A fresh copy: a connection that is being closed may still hold the old buffer.
            self.encoded = bytearray(self.encoded)
            set_producer(self.encoded, 0, identity.producer_id, identity.producer_epoch, sequence)
        self.identity, self.sequence = identity, sequence

    @property
    def is_undecided(self) -> bool:
        """Whether a broker has to be asked under these numbers: then it is there already, or refused."""
        return self.sequence != NO_SEQUENCE and (self.written or not self.refused)

    def drop_last(self) -> None:
        """Forget the record that was appended last; nobody waits for it yet."""
        assert self.builder is not None, "an open batch still collects"
        builder = BatchBuilder()
        count = len(self.builder) - 1
        if count:
            columns = decode_records(self.builder.build())
            for index in range(count):
                builder.append(
                    columns.keys[index], columns.values[index], columns.timestamps_ms[index], columns.headers[index]
                )
        self.builder, self.append = builder, builder.append

    def split(self) -> list[Batch]:
        """Two halves with this batch's numbers, in its place: for a broker that finds it too large."""
        assert self.encoded is not None, "only sent batches are split"
        assert self.record_count > 1, "one record has no halves"
        columns = decode_records(self.encoded)
        middle = self.record_count // 2
        halves = []
        for start, end in ((0, middle), (middle, self.record_count)):
            half = Batch(self.created_at_ms, self.order + (self.width / 2 if start else 0), self.ticket)
            half.width = self.width / 2
            for index in range(start, end):
                half.size_bytes = half.append(
                    columns.keys[index], columns.values[index], columns.timestamps_ms[index], columns.headers[index]
                )
            half.record_count = end - start
            if self.sequence != NO_SEQUENCE:
                half.identity, half.sequence = self.identity, (self.sequence + start) & SEQUENCE_MASK
            half.waiters = [(index - start, at, who) for index, at, who in self.waiters if start <= index < end]
            halves.append(half)
        return halves


class PartitionQueue:
    """All unresolved batches of one partition. See the module's essay for the states."""

    __slots__ = (
        "acked_until",
        "batches_made",
        "broken",
        "doubted_until",
        "idempotent",
        "identity",
        "in_flight",
        "key",
        "leader",
        "next_sequence",
        "open",
        "proven",
        "size_bytes_max",
        "transactional",
        "waiting",
    )

    def __init__(
        self, key: PartitionKey, *, size_bytes_max: int = SEQUENCE_MASK, idempotent: bool, transactional: bool = False
    ) -> None:
        self.key = key
        self.size_bytes_max = size_bytes_max  # of a batch
        self.idempotent = idempotent
        self.transactional = transactional
        self.leader: int | None = None  # broker that takes our requests, as far as we know
        self.open: Batch | None = None
        self.waiting: deque[Batch] = deque()  # ordered by Batch.order
        self.in_flight: list[Batch] = []  # ordered by Batch.order
        self.batches_made = 0
        self.identity = NO_IDENTITY  # under which next_sequence counts
        self.next_sequence = 0
        self.acked_until = 0  # sequence after the last acknowledged record, same identity
        self.broken = False  # numbers were given out that will never be written
        self.doubted_until = -1.0  # order of the last batch under `identity` that was given up and may be in the log
        self.proven = False  # the broker has acknowledged something under `identity`, so it refuses gaps

    def close_open(self) -> Batch | None:
        """Move the open batch to the waiting ones. Returns it, or None if there was none."""
        batch = self.open
        if batch is not None:
            assert batch.builder is not None, "an open batch still collects"
            batch.record_count = len(batch.builder)
            self.waiting.append(batch)
            self.open = None
        return batch

    def next_to_send(self, now_ms: int) -> Batch | None:
        """The waiting batch that may be sent now, which stays where it is until `start`."""
        if not self.waiting:
            return None
        head = self.waiting[0]
        if self.broken:
            # What has numbers goes first and alone: it is there already, or it is refused, and then all is known.
            head = next((batch for batch in self.waiting if batch.is_undecided), head)
        if head.retry_at_ms > now_ms:
            return None
        if not self.in_flight:
            return head
        if not self.proven or self.broken or len(self.in_flight) >= IN_FLIGHT_MAX:
            return None
        if head.attempts > 0 and self.in_flight[0].order < head.order:
            return None
        return head

    def needs_new_epoch(self) -> bool:
        """Whether everything numbered is resolved and sequences have to start over under a higher epoch.

        What was refused is then certainly not in the log, and has lost its numbers.
        """
        if not self.broken or self.in_flight or any(batch.is_undecided for batch in self.waiting):
            return False
        for batch in self.waiting:
            if batch.refused:
                batch.sequence = NO_SEQUENCE
                batch.refused = batch.maybe_written = False
        if self.acked_until == self.next_sequence:
            self.broken = False  # what was given up had been written after all
        return self.broken

    def undecidable(self) -> list[Batch]:
        """Refused batches that nothing can prove to be missing any more, nor to be there."""
        if self.doubted_until < 0 or self.in_flight or any(batch.is_undecided for batch in self.waiting):
            return []
        return [one for one in self.waiting if one.refused and one.maybe_written and one.order < self.doubted_until]

    def start(self, batch: Batch, identity: ProducerIdentity, compression: Compression, level: int | None) -> None:
        """Number the waiting `batch` if it has no numbers, and count it as in flight.

        Raises whatever building its bytes raises; it still waits then, and no number was given out.
        """
        numbers = (batch.identity, batch.sequence)
        fresh = self.idempotent and batch.sequence == NO_SEQUENCE
        if fresh:
            if self.identity != identity and not self.in_flight:
                self.identity, self.next_sequence, self.acked_until = identity, 0, 0
                self.broken = self.proven = False
                self.doubted_until = -1.0
            assert not self.broken, "a broken queue got no new epoch"
            numbers = (self.identity, self.next_sequence)
        batch.encode(compression, level, *numbers, transactional=self.transactional)
        if fresh:
            self.next_sequence = (self.next_sequence + batch.record_count) & SEQUENCE_MASK
        if self.waiting[0] is batch:
            self.waiting.popleft()
        else:
            self.waiting.remove(batch)
        batch.attempts += 1
        index = len(self.in_flight)
        while index and self.in_flight[index - 1].order > batch.order:
            index -= 1
        self.in_flight.insert(index, batch)

    def succeed(self, batch: Batch) -> None:
        """The broker has the batch."""
        self.in_flight.remove(batch)
        if batch.sequence != NO_SEQUENCE and batch.identity == self.identity and not batch.written:
            self.acked_until = (batch.sequence + batch.record_count) & SEQUENCE_MASK
            self.proven = True
            for other in self.in_flight:
                other.written = other.written or other.order < batch.order
            for other in self.waiting:
                if other.order > batch.order:
                    break
                other.written = other.sequence != NO_SEQUENCE

    def retry(self, batch: Batch, retry_at_ms: int) -> None:
        """The attempt failed: back to its place among the waiting ones."""
        self.in_flight.remove(batch)
        batch.retry_at_ms = retry_at_ms
        self._insert([batch])

    def out_of_order(self, batch: Batch, retry_at_ms: int) -> None:
        """The broker says that numbers before the batch's are missing, hence that it hardly has the batch."""
        if any(other.order < batch.order for other in self.in_flight) or any(
            other.order < batch.order and other.is_undecided for other in self.waiting
        ):
            self.retry(batch, retry_at_ms)  # an older one is unresolved: it will fill the gap, or prove it
            return
        self.in_flight.remove(batch)
        self.broken = batch.refused = True
        batch.retry_at_ms = 0
        self._insert([batch])

    def give_up(self, batch: Batch) -> None:
        """The batch is over and not acknowledged; it may be in flight, waiting or open."""
        if batch in self.in_flight:
            self.in_flight.remove(batch)
        elif batch is self.open:
            self.open = None
        else:
            self.waiting.remove(batch)
        if batch.sequence != NO_SEQUENCE and not batch.written:
            self.broken = True
            if batch.maybe_written:
                self.doubted_until = max(self.doubted_until, batch.order)

    def take_back(self, batch: Batch) -> None:
        """The batch in flight was never written to a connection and never will be: its numbers go to the next one."""
        end = (batch.sequence + batch.record_count) & SEQUENCE_MASK
        unused = batch.sequence != NO_SEQUENCE and batch.attempts == 1 and batch.identity == self.identity
        if unused and end == self.next_sequence:
            self.next_sequence, batch.sequence = batch.sequence, NO_SEQUENCE
        self.give_up(batch)

    def replace(self, batch: Batch, parts: list[Batch]) -> None:
        """Put `parts`, which have its numbers, in the place of a batch in flight that is not written as it is."""
        self.in_flight.remove(batch)
        self._insert(parts)

    def _insert(self, batches: list[Batch]) -> None:
        index = 0
        while index < len(self.waiting) and self.waiting[index].order < batches[0].order:
            index += 1
        for position, batch in enumerate(batches):
            self.waiting.insert(index + position, batch)
