"""Searching a partition by time, and for aborted transactions."""

from __future__ import annotations

from typing import NamedTuple

from streamlog.broker.log.replay import aborted_of
from streamlog.broker.log.segment import Segment
from streamlog.broker.log.segments import SegmentList
from streamlog.broker.log.transaction_index import AbortedTransaction
from streamlog.env import Storage
from streamlog.wire.records import decode_records


class TimestampOffset(NamedTuple):
    timestamp_ms: int
    offset: int
    leader_epoch: int


def first_at_or_after(segments: SegmentList, timestamp_ms: int, log_start_offset: int) -> TimestampOffset | None:
    """The first record that is at least as new as `timestamp_ms`. Raises DamagedLog, OSError."""
    for segment in list(segments):
        if segment.largest_timestamp_ms >= timestamp_ms:
            start_offset = max(segment.search_from(timestamp_ms), log_start_offset)
            found = _search_segment(segment, start_offset, timestamp_ms, log_start_offset)
            if found is not None:
                return found
    return None


def _search_segment(
    segment: Segment, start_offset: int, timestamp_ms: int, log_start_offset: int
) -> TimestampOffset | None:
    for _, header, batch in segment.batches_from(start_offset):
        if header.max_timestamp_ms < timestamp_ms:
            continue
        columns = decode_records(batch, 0, header, verify=False)
        for offset, record_ms in zip(columns.offsets, columns.timestamps_ms, strict=True):
            if record_ms >= timestamp_ms and offset >= log_start_offset:
                return TimestampOffset(record_ms, offset, header.leader_epoch)
    return None


def newest(segments: SegmentList, log_start_offset: int) -> TimestampOffset | None:
    """The newest record, the first of them if several are equally new; None in a log without timestamps."""
    newest_ms = max(segment.largest_timestamp_ms for segment in segments)
    found = None if newest_ms < 0 else first_at_or_after(segments, newest_ms, log_start_offset)
    if found is None and newest_ms >= 0:
        # The newest one lies below the log start, so the indexes say nothing about the others.
        newest_ms = max((_newest_ms(segment, log_start_offset) for segment in segments), default=-1)
        found = None if newest_ms < 0 else first_at_or_after(segments, newest_ms, log_start_offset)
    return found


def _newest_ms(segment: Segment, log_start_offset: int) -> int:
    newest_ms = -1
    for _, header, batch in segment.batches_from(log_start_offset):
        columns = decode_records(batch, 0, header, verify=False)
        rows = zip(columns.offsets, columns.timestamps_ms, strict=True)
        newest_ms = max([newest_ms, *(ms for offset, ms in rows if offset >= log_start_offset)])
    return newest_ms


def aborted_transactions(
    storage: Storage, directory: str, segments: SegmentList, start_offset: int, end_offset: int
) -> list[AbortedTransaction]:
    """Aborted transactions that have records in [start_offset, end_offset). Raises DamagedLog, OSError."""
    found: list[AbortedTransaction] = []
    for number in range(segments.number_at(start_offset), len(segments)):
        for entry in aborted_of(storage, directory, segments, number):
            if entry.last_offset >= start_offset and entry.first_offset < end_offset:
                found.append(entry)
            if entry.last_stable_offset >= end_offset:
                return found
    return found
