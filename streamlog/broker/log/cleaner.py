"""Compaction: of each key the last record stays, order and offsets unchanged.

A round has two passes. The first reads the dirty part (never compacted, from `first_dirty_offset`) and remembers for
each key its last offset, as far as memory allows; where that stops, the round stops, and the next one goes on there.
The second copies everything below that end into new segments, leaving out what a later record replaces, and swaps
them in.

What stays although a later record replaces it, or although it says "deleted":
    - a tombstone (null value), until delete.retention.ms after the round that first saw it: the batch is stamped with
      that moment, its delete horizon (KIP-534), and consumers in the middle of the topic get to see it
    - a transaction marker, until no batch of its transaction is left and its own horizon has passed
    - the last batch of every active producer, if need be without records: it carries the sequence number by which a
      retry is recognised
    - the last batch of the round, likewise: it carries the end offset
Records of aborted transactions go at once. Nothing is cleaned that is above the last stable offset, younger than
min.compaction.lag.ms, in the active segment, or not yet below the recovery point: a record may go because a later one
replaces it only when a power cut cannot take the later one. Whoever finds something to clean above the recovery
point makes a checkpoint first.

Swapping survives a crash at any point (recovery.py has the other half): the new files are complete and synced as
.cleaned, become .swap, which commits; then the old ones become .deleted and the new ones lose their suffix. The
directory is synced between these steps.

`clean` is a generator, so that it can run in slices between requests: it yields None after every slice of a millisecond
or two, and a callable where something has to be synced by a thread before it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from streamlog.broker.log.file_names import CLEANED_SUFFIX, DELETED_SUFFIX, SWAP_SUFFIX
from streamlog.broker.log.flush import sync_path
from streamlog.broker.log.offset_index import RELATIVE_OFFSET_MAX
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.producer_state import ProducerEntry, read_marker
from streamlog.broker.log.segment import Segment
from streamlog.broker.log.transaction_index import AbortedTransaction
from streamlog.env import Storage
from streamlog.wire.records import BatchHeader, RecordColumns, decode_batch_header, decode_records, encode_batch

MAP_BYTES_MAX = 128 * 1024 * 1024
"""log.cleaner.dedupe.buffer.size: what the keys of one round may occupy. More keys take more rounds."""

KEY_OVERHEAD_BYTES = 120
"""What a dict entry, an int and a bytes object cost in CPython besides the key's own bytes."""

COPY_BUFFER_BYTES = 1024 * 1024
"""Cleaned batches collected before they are written."""

SLICE_BYTES = 128 * 1024
"""Input between two pauses. With records of 100 bytes that is about one millisecond of work."""

Step: TypeAlias = Callable[[], None] | None


@dataclass(frozen=True, slots=True)
class Cleanable:
    """What a round could clean, and how urgent it is."""

    first_dirty_offset: int
    end_offset: int
    """Exclusive; the base offset of the first segment that must not be touched."""
    clean_bytes: int
    dirty_bytes: int
    is_overdue: bool
    """Some record is older than max.compaction.lag.ms."""

    @property
    def dirty_ratio(self) -> float:
        return self.dirty_bytes / max(self.clean_bytes + self.dirty_bytes, 1)


@dataclass(slots=True)
class CleanResult:
    end_offset: int
    """Everything below is clean now."""
    bytes_read: int = 0
    bytes_kept: int = 0
    was_interrupted: bool = False
    """The partition was truncated or its segments deleted meanwhile; nothing was replaced from there on."""


def find_cleanable(
    log: PartitionLog, clean_offset: int, now_ms: int, *, above_recovery_point: bool = False
) -> Cleanable | None:
    """What could be cleaned now, or None when that is nothing. `clean_offset` is where the last round ended.

    With `above_recovery_point`, what could be cleaned after a checkpoint.
    """
    first_dirty = max(clean_offset, log.log_start_offset)
    if first_dirty > log.log_end_offset:
        first_dirty = log.log_start_offset  # the log was truncated below what had been cleaned
    limit = min(log.last_stable_offset, log.active.base_offset)
    if not above_recovery_point:
        limit = min(limit, log.recovery_point)
    end_offset, clean_bytes, dirty_bytes = first_dirty, 0, 0
    oldest_dirty_ms: int | None = None
    for number in range(len(log.segments) - 1):
        segment = log.segments[number]
        segment_end = log.segments.end_of(number)
        if segment_end > limit or _is_too_young(log, segment, now_ms):
            break
        if segment_end <= first_dirty:
            clean_bytes += segment.size_bytes
            continue
        dirty_bytes += segment.size_bytes
        end_offset = segment_end
        if oldest_dirty_ms is None:
            oldest_dirty_ms = segment.first_timestamp_ms
    if end_offset <= first_dirty or dirty_bytes == 0:
        return None
    overdue = oldest_dirty_ms is not None and now_ms - oldest_dirty_ms > log.config.max_compaction_lag_ms
    return Cleanable(first_dirty, end_offset, clean_bytes, dirty_bytes, overdue)


def _is_too_young(log: PartitionLog, segment: Segment, now_ms: int) -> bool:
    lag_ms = log.config.min_compaction_lag_ms
    return lag_ms > 0 and segment.largest_timestamp_ms > now_ms - lag_ms


def is_due(log: PartitionLog, cleanable: Cleanable) -> bool:
    """Whether a round is worth its work, by min.cleanable.dirty.ratio and max.compaction.lag.ms."""
    return cleanable.is_overdue or cleanable.dirty_ratio >= log.config.min_cleanable_dirty_ratio


def clean(
    log: PartitionLog,
    storage: Storage,
    cleanable: Cleanable,
    now_ms: int,
    map_bytes_max: int = MAP_BYTES_MAX,
    slice_bytes: int = SLICE_BYTES,
) -> Generator[Step, None, CleanResult]:
    """One round. Yields steps (see above), returns what was done. Raises DamagedLog, OSError: nothing is lost."""
    generation = log.generation
    offsets_by_key, end_offset = yield from _map_keys(log, cleanable, map_bytes_max, slice_bytes)
    result = CleanResult(end_offset)
    # Up to the end of the last segment that is copied, not only to the end of what was mapped.
    transactions = _Transactions(log.aborted_transactions(log.segments[0].base_offset, cleanable.end_offset))
    decide = _Filter(log, offsets_by_key, end_offset, cleanable.end_offset, transactions, now_ms)
    for group in _groups(log, end_offset):
        if log.generation != generation or not _are_neighbours(log, group):
            result.was_interrupted = True
            break
        cleaned = yield from _copy(log, storage, group, decide, result, now_ms, slice_bytes)
        if log.generation != generation or not _are_neighbours(log, group):
            _remove(storage, cleaned)
            result.was_interrupted = True
            break
        yield from _swap(log, storage, group, cleaned, now_ms)
    return result


# --- first pass ---


def _map_keys(
    log: PartitionLog, cleanable: Cleanable, map_bytes_max: int, slice_bytes: int
) -> Generator[Step, None, tuple[dict[bytes, int], int]]:
    """(last offset of each key, the offset up to which that is complete)."""
    offsets: dict[bytes, int] = {}
    map_bytes = unpaused_bytes = 0
    start, end_offset = cleanable.first_dirty_offset, cleanable.first_dirty_offset
    transactions = _Transactions(log.aborted_transactions(start, cleanable.end_offset))
    for header, batch in _batches(log, start, cleanable.end_offset):
        if header.is_control:
            transactions.on_marker(header, batch)
        elif not transactions.on_data(header):
            columns = decode_records(batch, 0, header, verify=False)
            fresh = {
                key: offset
                for key, offset in zip(columns.keys, columns.offsets, strict=True)
                if key is not None and offset >= start
            }
            map_bytes += sum(len(key) + KEY_OVERHEAD_BYTES for key in fresh if key not in offsets)
            if map_bytes > map_bytes_max and offsets:
                return offsets, end_offset
            offsets.update(fresh)
        end_offset = header.next_offset
        unpaused_bytes += len(batch)
        if unpaused_bytes >= slice_bytes:
            unpaused_bytes = 0
            yield None
    return offsets, cleanable.end_offset


def _batches(log: PartitionLog, start_offset: int, end_offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
    for segment in log.segments.between(start_offset, end_offset):
        for _, header, batch in segment.batches_from(start_offset):
            if header.base_offset >= end_offset:
                return
            yield header, batch


# --- what may go ---


class _Transactions:
    """Which batches belong to aborted transactions, and which markers have outlived their transaction."""

    def __init__(self, aborted: list[AbortedTransaction]) -> None:
        self._coming = sorted(aborted, key=lambda entry: entry.first_offset, reverse=True)  # next one last
        self._open_aborted: dict[int, tuple[AbortedTransaction, bool]] = {}  # producer id -> (entry, has batches)
        self._open_committed: dict[int, None] = {}  # producers with batches of a transaction that commits
        self.retained: list[AbortedTransaction] = []
        """Aborted transactions that still have batches or a marker, for the cleaned segment's index."""

    def on_data(self, header: BatchHeader) -> bool:
        """Whether the batch belongs to an aborted transaction."""
        self._reach(header.last_offset)
        if not header.is_transactional:
            return False
        entry = self._open_aborted.get(header.producer_id)
        if entry is None:
            self._open_committed[header.producer_id] = None
            return False
        self._open_aborted[header.producer_id] = (entry[0], True)
        return True

    def on_marker(self, header: BatchHeader, batch: memoryview) -> bool:
        """Whether the control batch marks the end of nothing that is still there."""
        self._reach(header.last_offset)
        if header.record_count == 0:
            return True
        marker = read_marker(batch, header)
        if marker is None:
            return False
        if not marker.is_abort:
            return self._open_committed.pop(header.producer_id, _ABSENT) is _ABSENT
        entry, has_batches = self._open_aborted.pop(header.producer_id, (None, False))
        if entry is not None and has_batches:
            self.retained.append(entry)
            return False
        return True

    def _reach(self, offset: int) -> None:
        while self._coming and self._coming[-1].first_offset <= offset:
            entry = self._coming.pop()
            self._open_aborted.setdefault(entry.producer_id, (entry, False))


_ABSENT = object()


class _Filter:
    """Decides for one batch what is left of it."""

    def __init__(
        self,
        log: PartitionLog,
        offsets_by_key: dict[bytes, int],
        mapped_end_offset: int,
        round_end_offset: int,
        transactions: _Transactions,
        now_ms: int,
    ) -> None:
        self._offsets_by_key = offsets_by_key
        self._mapped_end_offset = mapped_end_offset
        self._round_end_offset = round_end_offset
        self._last_batches = {producer_id: _LastBatch(entry) for producer_id, entry in log.producers.entries.items()}
        self._delete_retention_ms = log.config.delete_retention_ms
        self._now_ms = now_ms
        self.transactions = transactions

    def __call__(self, header: BatchHeader, batch: memoryview) -> bytes | bytearray | memoryview | None:
        """The batch as it is, a smaller one, or None: nothing is left of it."""
        horizon_ms = header.delete_horizon_ms
        if header.is_control:
            is_over = self.transactions.on_marker(header, batch)
            if is_over and horizon_ms is None and header.record_count:
                return self._stamped(header, batch)
            discarded = is_over and (horizon_ms is None or horizon_ms <= self._now_ms)
            return batch if not discarded else self._emptied(header)
        if self.transactions.on_data(header):
            return self._emptied(header)
        if header.record_count == 0:
            return batch if self._must_stay(header) else None
        columns = decode_records(batch, 0, header, verify=False)
        kept = self._kept(header, columns)
        if not kept:
            return self._emptied(header)
        needs_horizon = horizon_ms is None and any(columns.values[index] is None for index in kept)
        if len(kept) == header.record_count and not needs_horizon:
            return batch
        return _rebuilt(header, columns, kept, self._horizon_ms if needs_horizon else horizon_ms)

    def _kept(self, header: BatchHeader, columns: RecordColumns) -> list[int]:
        """Which records of a batch stay."""
        horizon_ms = header.delete_horizon_ms
        tombstones_stay = horizon_ms is None or self._now_ms < horizon_ms
        latest = self._offsets_by_key
        mapped_end = self._mapped_end_offset
        return [
            index
            for index, (offset, key, value) in enumerate(
                zip(columns.offsets, columns.keys, columns.values, strict=True)
            )
            if offset >= mapped_end
            or (key is not None and offset >= latest.get(key, -1) and (value is not None or tombstones_stay))
        ]

    @property
    def _horizon_ms(self) -> int:
        return self._now_ms + self._delete_retention_ms

    def _stamped(self, header: BatchHeader, batch: memoryview) -> bytearray:
        columns = decode_records(batch, 0, header, verify=False)
        return _rebuilt(header, columns, list(range(len(columns))), self._horizon_ms)

    def _emptied(self, header: BatchHeader) -> bytearray | None:
        """The batch without its records, where its header still tells something; None otherwise."""
        return _rebuilt(header, RecordColumns([], [], [], [], []), [], None) if self._must_stay(header) else None

    def _must_stay(self, header: BatchHeader) -> bool:
        if header.next_offset in (self._round_end_offset, self._mapped_end_offset):
            return True
        last = self._last_batches.get(header.producer_id) if header.producer_id >= 0 else None
        return last is not None and last.is_in(header)


class _LastBatch:
    """How to recognise the batch that holds what is known of an active producer."""

    __slots__ = ("_epoch", "_last_offset")

    def __init__(self, entry: ProducerEntry) -> None:
        self._last_offset = entry.batches[-1].last_offset if entry.batches else -1
        self._epoch = entry.epoch

    def is_in(self, header: BatchHeader) -> bool:
        if self._last_offset >= 0:
            return header.last_offset == self._last_offset
        return header.is_control and header.producer_epoch == self._epoch


def _rebuilt(header: BatchHeader, columns: RecordColumns, kept: list[int], horizon_ms: int | None) -> bytearray:
    """The batch with only the records in `kept`; offsets, producer and epoch as they were."""
    timestamps_ms = [columns.timestamps_ms[index] for index in kept]
    appended = header.is_log_append_time or not kept
    return encode_batch(
        keys=[columns.keys[index] for index in kept],
        values=[columns.values[index] for index in kept],
        timestamps_ms=timestamps_ms,
        headers=[columns.headers[index] for index in kept],
        base_offset=header.base_offset,
        compression=header.compression,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        leader_epoch=header.leader_epoch,
        is_transactional=header.is_transactional,
        is_control=header.is_control,
        log_append_time=header.is_log_append_time,
        offset_deltas=[columns.offsets[index] - header.base_offset for index in kept],
        last_offset_delta=header.last_offset_delta,
        max_timestamp_ms=header.max_timestamp_ms if appended else max(timestamps_ms),
        delete_horizon_ms=horizon_ms,
    )


# --- second pass ---


def _groups(log: PartitionLog, end_offset: int) -> list[list[Segment]]:
    """Runs of neighbours that become one segment each, so that segments do not shrink to nothing."""
    groups: list[list[Segment]] = []
    size_bytes = 0
    segments = [segment for segment in log.segments if segment is not log.active and segment.base_offset < end_offset]
    for segment in segments:
        fits = bool(groups) and size_bytes + segment.size_bytes <= log.config.segment_bytes
        if fits and segment.next_offset - groups[-1][0].base_offset <= RELATIVE_OFFSET_MAX:
            groups[-1].append(segment)
            size_bytes += segment.size_bytes
        else:
            groups.append([segment])
            size_bytes = segment.size_bytes
    return groups


def _are_neighbours(log: PartitionLog, group: list[Segment]) -> bool:
    """Whether the segments are all still there. Retention may have deleted some while the round was paused."""
    present = [segment for segment in log.segments if segment in group]
    return present == group


def _copy(
    log: PartitionLog,
    storage: Storage,
    group: list[Segment],
    decide: _Filter,
    result: CleanResult,
    now_ms: int,
    slice_bytes: int,
) -> Generator[Step, None, Segment]:
    """Write what is left of `group` into a new .cleaned segment and sync it."""
    cleaned = _new_cleaned(log, storage, group[0].base_offset, now_ms)
    decide.transactions.retained = []
    buffer, unpaused_bytes = bytearray(), 0
    noted: list[tuple[int, int, int]] = []
    for segment in group:
        for _, header, batch in segment.batches_from(segment.base_offset):
            left = decide(header, batch)
            result.bytes_read += len(batch)
            if left is not None:
                left_header = header if left is batch else decode_batch_header(left)
                noted.append((len(left), header.last_offset, left_header.max_timestamp_ms))
                buffer += left
            if len(buffer) >= COPY_BUFFER_BYTES:
                _write(cleaned, buffer, noted, result)
            unpaused_bytes += len(batch)
            if unpaused_bytes >= slice_bytes:
                unpaused_bytes = 0
                yield None
    _write(cleaned, buffer, noted, result)
    cleaned.finish()
    cleaned.replace_aborted(decide.transactions.retained)
    paths = cleaned.existing_paths()

    def sync() -> None:
        for path in paths:
            sync_path(storage, path)

    yield sync
    return cleaned


def _new_cleaned(log: PartitionLog, storage: Storage, base_offset: int, now_ms: int) -> Segment:
    for name in storage.list(log.directory):
        if name.endswith(CLEANED_SUFFIX):
            storage.remove(f"{log.directory}/{name}")  # of a round that failed
    return Segment(
        storage,
        log.directory,
        base_offset,
        index_interval_bytes=log.config.index_interval_bytes,
        now_ms=now_ms,
        create=True,
        suffix=CLEANED_SUFFIX,
    )


def _write(cleaned: Segment, buffer: bytearray, noted: list[tuple[int, int, int]], result: CleanResult) -> None:
    if buffer:
        cleaned.write(buffer)
        for size_bytes, last_offset, max_timestamp_ms in noted:
            cleaned.note_batch(size_bytes, last_offset, max_timestamp_ms)
        result.bytes_kept += len(buffer)
        buffer.clear()
        noted.clear()


def _swap(
    log: PartitionLog, storage: Storage, group: list[Segment], cleaned: Segment, now_ms: int
) -> Generator[Step, None, None]:
    """Put `cleaned` in the place of `group`. Whatever is done to the partition meanwhile, `cleaned` is part of it."""

    def sync() -> None:
        storage.sync_directory(log.directory)

    cleaned.rename_files(SWAP_SUFFIX)
    log.replace_segments(group, cleaned)
    yield sync
    for segment in group:
        segment.close()
        log.doom(segment.rename_files(DELETED_SUFFIX), now_ms)
    yield sync
    if cleaned in list(log.segments):
        cleaned.rename_files("")
    yield sync


def _remove(storage: Storage, cleaned: Segment) -> None:
    cleaned.close()
    for path in cleaned.existing_paths():
        storage.remove(path)
