"""When the active segment is full, and the next batch begins a new one."""

from __future__ import annotations

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.offset_index import RELATIVE_OFFSET_MAX
from streamlog.broker.log.segment import POSITION_MAX, Segment
from streamlog.env import Entropy


class RollPolicy:
    """A topic's segment.bytes, segment.ms and their kin, and what the file formats bound."""

    __slots__ = ("_config", "_entropy", "_roll_after_ms")

    def __init__(self, config: LogConfig, entropy: Entropy) -> None:
        self._entropy = entropy
        self.set_config(config)

    def set_config(self, config: LogConfig) -> None:
        self._config = config
        self.draw_age()

    def draw_age(self) -> None:
        """Decide how old the segment that begins now may become: less than segment.ms by a jitter."""
        config = self._config
        segment_ms = config.segment_ms
        if config.compact:
            # Only closed segments are compacted: one that stays open would break max.compaction.lag.ms.
            segment_ms = min(segment_ms, config.max_compaction_lag_ms)
        jitter_ms = min(config.segment_jitter_ms, segment_ms)
        self._roll_after_ms = segment_ms - (self._entropy.randrange(jitter_ms) if jitter_ms > 0 else 0)

    def has_room(self, active: Segment, size_bytes: int, last_offset: int, max_timestamp_ms: int, now_ms: int) -> bool:
        """Whether a batch goes into the active segment. An empty one takes any whose offsets it can express."""
        if last_offset - active.base_offset > RELATIVE_OFFSET_MAX:
            return False
        used_bytes = active.size_bytes
        if used_bytes == 0:
            return True
        # How far the batch is from the segment's first one in record time; in our own where records have none.
        first_ms = active.first_timestamp_ms
        age_ms = max_timestamp_ms - first_ms if first_ms >= 0 else now_ms - active.opened_at_ms
        return (
            used_bytes + size_bytes <= self._config.segment_bytes
            and used_bytes <= POSITION_MAX - size_bytes
            and age_ms <= self._roll_after_ms
            and len(active.offset_index) * 8 < self._config.segment_index_bytes
        )
