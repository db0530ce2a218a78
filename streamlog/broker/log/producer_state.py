"""What a partition remembers of its idempotent and transactional producers: a fold over the partition's own log.

For each producer id: its epoch, its last five batches (to recognise a retry and answer it with the original
offset), and whether it has a transaction open here. `check` judges a batch that a client sends and changes
nothing; `apply` takes a batch that stands in the log and cannot fail. Restart, follower and truncation all
rebuild the state by applying from a snapshot on, so leader and followers agree.

Transactions: the last stable offset is the first offset of the oldest one that is open, or completed by a marker
that the high watermark has not passed. A marker (control batch) ends the producer's transaction; with KIP-890 it
carries a bumped epoch, which fences whatever that producer sent before and arrives later.

Snapshots (`.snapshot`) have Kafka's format, version 1, which keeps only the last batch of each producer. Ours
carry up to four more of each behind the part that Kafka reads, so that a retry across a crash is recognised too.
Where Kafka wrote the snapshot (a directory that was its own before), `recall` finds them in the log instead.

Sources: KIP-98, KIP-360 (any sequence starts an unknown producer), KIP-890. Left out: the verification of a
transaction's first batch with its coordinator, which is a conversation and not a fold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from streamlog.broker.log.refusal import AppendRefused
from streamlog.broker.log.transaction_index import AbortedTransaction
from streamlog.wire.crc import crc32c
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.records import (
    NO_PRODUCER_EPOCH,
    NO_SEQUENCE,
    BatchHeader,
    ControlType,
    ReadableBuffer,
    decode_control_key,
    decode_end_transaction_marker,
    decode_records,
)

BATCHES_KEPT = 5
"""Of each producer, as many as clients may have in flight (max.in.flight.requests.per.connection with idempotence)."""

PRODUCER_EXPIRATION_MS = 86_400_000
"""producer.id.expiration.ms: a producer that was silent for a day (`expire` says what that is) is forgotten."""

SEQUENCE_MASK = 0x7FFF_FFFF

_SNAPSHOT_VERSION = 1
_HEAD = struct.Struct(">hI")
_COUNT = struct.Struct(">i")
_ENTRY = struct.Struct(">qhiqiqiq")
_EARLIER = struct.Struct(">qiqi")


class ProducerBatch(NamedTuple):
    """One appended batch of a producer."""

    last_sequence: int
    last_offset: int
    offset_delta: int

    @property
    def base_sequence(self) -> int:
        return (self.last_sequence - self.offset_delta) & SEQUENCE_MASK if self.last_sequence >= 0 else NO_SEQUENCE

    @property
    def base_offset(self) -> int:
        return self.last_offset - self.offset_delta


class TransactionMarker(NamedTuple):
    """The end of a transaction in this partition, as a control batch tells it."""

    is_abort: bool
    coordinator_epoch: int
    timestamp_ms: int


class ProducerEntry:
    __slots__ = ("batches", "coordinator_epoch", "epoch", "last_timestamp_ms", "silent_since_ms", "transaction_offset")

    def __init__(self) -> None:
        self.epoch = NO_PRODUCER_EPOCH
        self.batches: list[ProducerBatch] = []  # oldest first, at most BATCHES_KEPT, all of the current epoch
        self.coordinator_epoch = -1  # of the last marker
        self.last_timestamp_ms = -1
        self.transaction_offset = -1  # first offset of the open transaction; -1: none
        # Monotonic time of the first sweep that found nothing new; None: heard of since the last sweep, or just read
        # from the disk. Decides expiry only and is not part of the folded state.
        self.silent_since_ms: int | None = None

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE


class DamagedSnapshot(Exception):
    """A `.snapshot` file is not one: an older one and a longer replay take its place."""


def read_marker(data: ReadableBuffer, header: BatchHeader, position: int = 0) -> TransactionMarker | None:
    """The marker in a control batch; None for other control records and for one that compaction emptied."""
    if header.record_count == 0:
        return None
    columns = decode_records(data, position, header, verify=False)
    kind = decode_control_key(columns.keys[0]).type
    if kind not in (ControlType.ABORT, ControlType.COMMIT):
        return None
    marker = decode_end_transaction_marker(columns.values[0])
    return TransactionMarker(kind is ControlType.ABORT, marker.coordinator_epoch, columns.timestamps_ms[0])


class ProducerState:
    def __init__(self) -> None:
        self.entries: dict[int, ProducerEntry] = {}
        self.end_offset = 0  # everything below is folded in
        self.lacks_earlier_batches = False  # read from a snapshot of Kafka's: only the last batch of each is known
        self.first_unstable_offset: int | None = None  # derived from the two below
        self._open: dict[int, int] = {}  # first offset of each open transaction -> producer id, rising
        self._completed: dict[int, int] = {}  # first -> marker offset, completed at or above the high watermark

    # --- deciding ---

    def check(self, header: BatchHeader) -> ProducerBatch | None:
        """Judge a client's batch. Returns the batch it repeats, or None if it is new and may be appended.

        Raises AppendRefused: INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE.
        """
        entry = self.entries.get(header.producer_id)
        if entry is None:
            return None  # KIP-360: the records of an unknown producer may have been deleted; any sequence will do
        self._check_epoch(header.producer_id, header.producer_epoch, entry)
        if entry.epoch == header.producer_epoch:
            base_sequence = header.base_sequence
            for batch in reversed(entry.batches):
                if batch.base_sequence == base_sequence and batch.last_sequence == header.last_sequence:
                    return batch
            if base_sequence != (entry.last_sequence + 1) & SEQUENCE_MASK:
                raise _out_of_order(header, entry)
        elif header.base_sequence != 0:
            raise _out_of_order(header, entry)
        if entry.transaction_offset >= 0 and not header.is_transactional:
            raise AppendRefused(
                ErrorCode.INVALID_TXN_STATE,
                f"producer {header.producer_id} has a transaction open here and sent a batch outside of it",
            )
        return None

    def check_coordinator(self, header: BatchHeader, marker: TransactionMarker | None) -> None:
        """Judge a batch of a coordinator: a data batch without sequences, or a marker.

        Raises AppendRefused: INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED.
        """
        entry = self.entries.get(header.producer_id)
        if entry is None:
            return
        self._check_epoch(header.producer_id, header.producer_epoch, entry)
        if marker is not None and marker.coordinator_epoch < entry.coordinator_epoch:
            raise AppendRefused(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"a marker of coordinator epoch {marker.coordinator_epoch}, after one of {entry.coordinator_epoch}",
            )

    def _check_epoch(self, producer_id: int, epoch: int, entry: ProducerEntry) -> None:
        if epoch < entry.epoch:
            raise AppendRefused(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {producer_id} sent epoch {epoch}, after epoch {entry.epoch}",
            )

    def has_open_transaction(self, producer_id: int, epoch: int) -> bool:
        """Whether this producer has a transaction open here in this epoch; then no verification is needed."""
        entry = self.entries.get(producer_id)
        return entry is not None and entry.transaction_offset >= 0 and entry.epoch == epoch

    def open_transactions(self) -> Iterable[tuple[int, int]]:
        """(first offset, producer id) of each open transaction, oldest first."""
        return self._open.items()

    # --- folding ---

    def apply(self, header: BatchHeader, marker: TransactionMarker | None) -> AbortedTransaction | None:
        """Fold in a batch of the log; `marker` is what `read_marker` says of a control batch.

        Returns the entry for the transaction index when the batch aborts a transaction.
        """
        self.end_offset = header.next_offset
        if header.producer_id < 0 or (header.is_control and marker is None):
            return None
        entry = self.entries.get(header.producer_id)
        if entry is None:
            entry = self.entries[header.producer_id] = ProducerEntry()
        entry.silent_since_ms = None
        if entry.epoch != header.producer_epoch:
            entry.epoch = header.producer_epoch
            entry.batches.clear()
        if marker is not None:
            return self._apply_marker(header, marker, entry)
        batches = entry.batches
        batches.append(ProducerBatch(header.last_sequence, header.last_offset, header.last_offset_delta))
        if len(batches) > BATCHES_KEPT:
            del batches[0]
        entry.last_timestamp_ms = header.max_timestamp_ms
        if header.is_transactional and entry.transaction_offset < 0:
            entry.transaction_offset = header.base_offset
            self._open[header.base_offset] = header.producer_id
            self._find_first_unstable()
        return None

    def _apply_marker(
        self, header: BatchHeader, marker: TransactionMarker, entry: ProducerEntry
    ) -> AbortedTransaction | None:
        first_offset = entry.transaction_offset
        entry.coordinator_epoch = marker.coordinator_epoch
        entry.last_timestamp_ms = marker.timestamp_ms
        entry.transaction_offset = -1
        if first_offset < 0:
            return None
        self._open.pop(first_offset, None)
        self._completed[first_offset] = header.last_offset
        self._find_first_unstable()
        if not marker.is_abort:
            return None
        stable_offset = next(iter(self._open), header.last_offset + 1)
        return AbortedTransaction(header.producer_id, first_offset, header.last_offset, stable_offset)

    def on_high_watermark(self, high_watermark: int) -> None:
        """Transactions whose marker lies below the high watermark no longer hold the last stable offset."""
        if self._completed:
            self._completed = {first: last for first, last in self._completed.items() if last >= high_watermark}
            self._find_first_unstable()

    def _find_first_unstable(self) -> None:
        first = next(iter(self._open), None)
        for completed in self._completed:
            if first is None or completed < first:
                first = completed
        self.first_unstable_offset = first

    def expire(self, mono_ms: int, high_watermark: int) -> int:
        """Forget producers that were silent too long and owe or await nothing; returns how many.

        To be called now and then: silence begins with the first call that finds nothing new, so no append looks at a
        clock. It does not begin before the producer's last batch is below the high watermark: until then nobody was
        told what became of it, and a retry has to be recognised. The clock is the monotonic one; an operator who sets
        the other one by a day must not make us store retries twice.
        """
        expired: list[int] = []
        for producer_id, entry in self.entries.items():
            is_under_way = entry.batches and entry.batches[-1].last_offset >= high_watermark
            if is_under_way or entry.transaction_offset >= 0:
                entry.silent_since_ms = None
            elif entry.silent_since_ms is None:
                entry.silent_since_ms = mono_ms
            elif mono_ms - entry.silent_since_ms >= PRODUCER_EXPIRATION_MS:
                expired.append(producer_id)
        for producer_id in expired:
            del self.entries[producer_id]
        return len(expired)

    # --- snapshots ---

    def encode_snapshot(self) -> bytes:
        """The state as a `.snapshot` file. Equal states give equal bytes."""
        entries: list[bytes] = []
        earlier: list[bytes] = []
        for producer_id, entry in sorted(self.entries.items()):
            last = entry.batches[-1] if entry.batches else ProducerBatch(NO_SEQUENCE, -1, 0)
            entries.append(
                _ENTRY.pack(
                    producer_id,
                    entry.epoch,
                    last.last_sequence,
                    last.last_offset,
                    last.offset_delta,
                    entry.last_timestamp_ms,
                    entry.coordinator_epoch,
                    entry.transaction_offset,
                )
            )
            earlier.extend(_EARLIER.pack(producer_id, *batch) for batch in entry.batches[:-1])
        body = b"".join([_COUNT.pack(len(entries)), *entries, _COUNT.pack(len(earlier)), *earlier])
        return _HEAD.pack(_SNAPSHOT_VERSION, crc32c(body)) + body

    @classmethod
    def decode_snapshot(cls, data: bytes, end_offset: int) -> ProducerState:
        """The state that `data`, the snapshot at `end_offset`, holds. Raises DamagedSnapshot."""
        state = cls()
        state.end_offset = end_offset
        try:
            version, crc = _HEAD.unpack_from(data)
            body = data[_HEAD.size :]
            if version != _SNAPSHOT_VERSION or crc32c(body) != crc:
                raise DamagedSnapshot(f"version {version}, checksum {crc}")
            position = state._decode_entries(body)
            state._decode_earlier(body, position)
        except struct.error as error:
            raise DamagedSnapshot(str(error)) from error
        return state

    def _decode_entries(self, body: bytes) -> int:
        (count,) = _COUNT.unpack_from(body)
        end: int = _COUNT.size + count * _ENTRY.size
        opened: list[tuple[int, int]] = []
        for fields in _ENTRY.iter_unpack(body[_COUNT.size : end]):
            producer_id, epoch, last_sequence, last_offset, delta, timestamp_ms, coordinator_epoch, first = fields
            entry = self.entries[producer_id] = ProducerEntry()
            entry.epoch, entry.coordinator_epoch, entry.last_timestamp_ms = epoch, coordinator_epoch, timestamp_ms
            entry.transaction_offset = first
            if last_offset >= 0:
                entry.batches.append(ProducerBatch(last_sequence, last_offset, delta))
            if first >= 0:
                opened.append((first, producer_id))
        if len(self.entries) != count:
            raise DamagedSnapshot(f"{count} producers announced, {len(self.entries)} found")
        self._open = dict(sorted(opened))
        self._find_first_unstable()
        return end

    def _decode_earlier(self, body: bytes, position: int) -> None:
        """The batches before the last one. A snapshot that Kafka wrote ends here."""
        if position == len(body):
            self.lacks_earlier_batches = bool(self.entries)
            return
        (count,) = _COUNT.unpack_from(body, position)
        start = position + _COUNT.size
        for producer_id, *fields in _EARLIER.iter_unpack(body[start : start + count * _EARLIER.size]):
            batches = self.entries[producer_id].batches
            batches.insert(len(batches) - 1, ProducerBatch(*fields))

    # --- completing a snapshot of Kafka's ---

    def recall(self, headers: Iterable[BatchHeader]) -> None:
        """Add the batches before each producer's last one, from `headers` of the log below `end_offset`, in order.

        Only those that lead up to the last one without a gap in their sequences: anything else may be of another life
        of the producer, and what is not known here is refused as out of order, never stored twice.
        """
        found: dict[int, list[ProducerBatch]] = {}
        for header in headers:
            entry = self.entries.get(header.producer_id)
            if entry is None or header.producer_epoch != entry.epoch or header.base_sequence < 0:
                continue
            batch = ProducerBatch(header.last_sequence, header.last_offset, header.last_offset_delta)
            run = found.setdefault(header.producer_id, [])
            if run and (run[-1].last_sequence + 1) & SEQUENCE_MASK != batch.base_sequence:
                run.clear()
            run.append(batch)
        for producer_id, run in found.items():
            entry = self.entries[producer_id]
            if entry.batches == run[-1:]:
                entry.batches = run[-BATCHES_KEPT:]
        self.lacks_earlier_batches = False


def _out_of_order(header: BatchHeader, entry: ProducerEntry) -> AppendRefused:
    return AppendRefused(
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        f"producer {header.producer_id} epoch {header.producer_epoch} sent sequence {header.base_sequence}, "
        f"after epoch {entry.epoch} sequence {entry.last_sequence}",
    )
