"""What a consumer asks of fetching, and what it gets from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamlog.wire.records import RecordColumns

OffsetReset = Literal["earliest", "latest", "none"]
IsolationLevel = Literal["read_uncommitted", "read_committed"]


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """The consumer's settings that fetching needs."""

    max_bytes: int
    min_bytes: int
    max_wait_ms: int
    max_partition_bytes: int
    offset_reset: OffsetReset
    isolation_level: IsolationLevel
    rack_id: str
    retry_backoff_ms: int

    @property
    def read_committed(self) -> bool:
        return self.isolation_level == "read_committed"


@dataclass(slots=True)
class FetchedBatch:
    """Records of one partition, in order, and the range of offsets they are all there is of.

    The range is `start_offset` to `next_offset` (exclusive). Offsets in it without a record were compacted away,
    belong to aborted transactions or to control records; a batch may even have no records and still move the
    position.
    """

    topic: str
    partition: int
    columns: RecordColumns
    start_offset: int
    next_offset: int
    leader_epoch: int
    """Of the last batch in it; goes into the committed offset."""
    high_watermark: int
    assignment_epoch: int
    """Which life of the partition this belongs to: raised by every assignment, seek and reset."""
