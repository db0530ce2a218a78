"""Which of a partition's oldest segments may go: too old, too much, or below the log start.

Deletion is always a run from the start, so it stops at the first segment that has to stay. Nothing above the
high watermark is touched. When even the active segment is too old it is closed first, so that a topic that nobody
writes to any more becomes empty.
"""

from __future__ import annotations

from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.segment import Segment


def delete_old_segments(log: PartitionLog, now_ms: int) -> int:
    """Apply the topic's retention; returns how many segments were deleted. Raises PartitionOffline, OSError."""
    segments = [*_expired(log, now_ms)] if log.config.delete else []
    if len(segments) == len(log.segments):
        log.roll(now_ms)
    deleted = len(segments)
    log.delete_segments(segments, now_ms)
    if log.config.delete:
        oversized = _oversized(log)
        log.delete_segments(oversized, now_ms)
        deleted += len(oversized)
    passed = _below_log_start(log)
    log.delete_segments(passed, now_ms)
    return deleted + len(passed)


def _expired(log: PartitionLog, now_ms: int) -> list[Segment]:
    """By retention.ms. The active segment can be among them, if it has records."""
    retention_ms = log.config.retention_ms
    found: list[Segment] = []
    for number, segment in enumerate(log.segments):
        is_empty_active = segment is log.active and segment.size_bytes == 0
        if retention_ms < 0 or is_empty_active or log.segments.end_of(number) > log.high_watermark:
            break
        newest_ms = segment.largest_timestamp_ms
        if now_ms - (newest_ms if newest_ms >= 0 else segment.opened_at_ms) <= retention_ms:
            break
        found.append(segment)
    return found


def _oversized(log: PartitionLog) -> list[Segment]:
    """By retention.bytes: what is left must still be at least that much."""
    if log.config.retention_bytes < 0:
        return []
    surplus_bytes = log.size_bytes - log.config.retention_bytes
    found: list[Segment] = []
    for number in range(len(log.segments) - 1):
        segment = log.segments[number]
        surplus_bytes -= segment.size_bytes
        if surplus_bytes < 0 or log.segments.end_of(number) > log.high_watermark:
            break
        found.append(segment)
    return found


def _below_log_start(log: PartitionLog) -> list[Segment]:
    """By DeleteRecords, or because the leader's log starts later."""
    found: list[Segment] = []
    for number in range(len(log.segments) - 1):
        if log.segments.end_of(number) > log.log_start_offset:
            break
        found.append(log.segments[number])
    return found
