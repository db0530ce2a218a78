"""Telling again what follows from the batches: producer state, and transaction indexes that were lost.

Both begin with the newest sound producer snapshot before them, so the batches behind it are all that has to be read.
"""

from __future__ import annotations

from collections.abc import Iterator

from streamlog.broker.log.file_names import SNAPSHOT_SUFFIX, file_name, offsets_in
from streamlog.broker.log.producer_state import DamagedSnapshot, ProducerState, TransactionMarker, read_marker
from streamlog.broker.log.segment import DamagedLog
from streamlog.broker.log.segments import SegmentList
from streamlog.broker.log.transaction_index import AbortedTransaction
from streamlog.broker.log.walk import walk_headers
from streamlog.env import Storage
from streamlog.wire.records import BatchHeader, CorruptBatch

RECALLED_INDEX_ENTRIES = 64
"""How far behind a snapshot of Kafka's batches are looked for: 256 KiB of small batches, 64 large ones. What a producer
may still retry are the last five it wrote. A few milliseconds, once for each partition that was Kafka's."""


def rebuild_producers(
    storage: Storage,
    directory: str,
    segments: SegmentList,
    end_offset: int,
    *,
    stop_offset: int | None = None,
    snapshots: list[int] | None = None,
) -> ProducerState:
    """Producer state from the newest usable snapshot at or below `end_offset` and the batches behind it.

    The batches are folded in up to `stop_offset`, by default `end_offset`. Damaged snapshots are removed. `snapshots`
    are those in the directory, for who has just listed it.
    """
    if snapshots is None:
        snapshots = snapshot_offsets(storage, directory)
    producers = _newest_snapshot(storage, directory, snapshots, end_offset)
    if producers is None:
        producers = ProducerState()
        producers.end_offset = segments[0].base_offset
    if producers.lacks_earlier_batches:
        producers.recall(_headers_before(segments, producers.end_offset))
    stop_offset = end_offset if stop_offset is None else stop_offset
    start_offset = producers.end_offset
    for segment in segments.between(start_offset, stop_offset) if start_offset < stop_offset else []:
        for _, header, batch in segment.batches_from(start_offset):
            if header.base_offset >= stop_offset:
                break
            producers.apply(header, marker_in(batch, header))
    return producers


def _headers_before(segments: SegmentList, end_offset: int) -> Iterator[BatchHeader]:
    """Headers of the last batches below `end_offset`, in order.

    Nothing depends on them: they end early where the log cannot be read, which others will find and tell.
    """
    first = last = segments.number_at(end_offset - 1)
    try:
        surplus = segments[last].offset_index.count_below(end_offset) - RECALLED_INDEX_ENTRIES
        while surplus < 0 and first > 0:
            first -= 1
            surplus += len(segments[first].offset_index)
        start_offset, position = segments[first].offset_index.entry(surplus) if surplus > 0 else (-1, 0)
        for segment in list(segments)[first : last + 1]:
            for at, header in walk_headers(segment.file, position, segment.file.size()):
                if header.base_offset >= end_offset or (0 < at == position and header.last_offset != start_offset):
                    return
                yield header
            position = 0
    except (CorruptBatch, DamagedLog):
        return


def _newest_snapshot(storage: Storage, directory: str, snapshots: list[int], end_offset: int) -> ProducerState | None:
    for offset in reversed(snapshots):
        if offset > end_offset:
            continue
        path = f"{directory}/{file_name(offset, SNAPSHOT_SUFFIX)}"
        try:
            return ProducerState.decode_snapshot(storage.read_bytes(path), offset)
        except DamagedSnapshot:
            storage.remove(path)
    return None


def snapshot_offsets(storage: Storage, directory: str) -> list[int]:
    """Offsets of the producer snapshots in a directory, rising."""
    return offsets_in(storage.list(directory), SNAPSHOT_SUFFIX)


def remove_snapshots(storage: Storage, directory: str, *, above: int) -> None:
    """Snapshots of a future that was cut away, or that a crash has left unproven."""
    for offset in snapshot_offsets(storage, directory):
        if offset > above:
            storage.remove(f"{directory}/{file_name(offset, SNAPSHOT_SUFFIX)}")


def aborted_of(storage: Storage, directory: str, segments: SegmentList, number: int) -> list[AbortedTransaction]:
    """The transaction index of one segment, rebuilt if its file is missing or damaged. Raises DamagedLog, OSError."""
    try:
        return segments[number].aborted
    except LookupError:
        rebuild_aborted(storage, directory, segments, number)
        return segments[number].aborted


def rebuild_aborted(storage: Storage, directory: str, segments: SegmentList, number: int) -> None:
    """Derive the transaction index of one closed segment again: replay it from the snapshot before it."""
    segment = segments[number]
    producers = rebuild_producers(storage, directory, segments, segment.base_offset)
    entries: list[AbortedTransaction] = []
    for _, header, batch in segment.batches_from(segment.base_offset):
        entry = producers.apply(header, marker_in(batch, header))
        if entry is not None:
            entries.append(entry)
    segment.replace_aborted(entries)


def marker_in(batch: memoryview, header: BatchHeader) -> TransactionMarker | None:
    """The marker in a batch, if it is one."""
    return read_marker(batch, header) if header.is_control else None
