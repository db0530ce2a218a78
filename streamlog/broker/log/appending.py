"""Who appends to a partition, what comes of it, and how many batches one write takes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from streamlog.broker.log.offset_index import RELATIVE_OFFSET_MAX
from streamlog.broker.log.segment import Segment
from streamlog.broker.log.validate import PlacedBatch


class Origin(Enum):
    """Who appends, and therefore what has to be checked."""

    CLIENT = "client"
    COORDINATOR = "coordinator"
    """This broker's own coordinators and controller: no sequences, and control batches are theirs to write."""
    REPLICA = "replica"
    """The leader, by way of a fetch: offsets and epochs are already assigned."""


class AppendResult(NamedTuple):
    base_offset: int
    """Of the first record; for a duplicate, the offset it got when it was first appended."""
    last_offset: int
    """Of the last record, inclusive."""
    log_append_time_ms: int
    """-1 unless the topic stamps records itself."""
    log_start_offset: int
    is_duplicate: bool


def run_that_fits(segment: Segment, placed: Sequence[PlacedBatch], start: int, segment_bytes: int) -> tuple[int, int]:
    """How many of the batches from `start` go into `segment` with one write: (next index, end position)."""
    position = placed[start].position
    room = segment_bytes - segment.size_bytes
    stop = start + 1
    while stop < len(placed):
        at, header, _ = placed[stop]
        too_far = header.last_offset - segment.base_offset > RELATIVE_OFFSET_MAX
        if at + header.size_bytes - position > room or too_far:
            break
        stop += 1
    last = placed[stop - 1]
    return stop, last.position + last.header.size_bytes
