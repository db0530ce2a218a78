"""What one partition's log needs to know of its topic's configs, parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamlog.broker.topic_configs import (
    FLUSH,
    FLUSH_AUTO,
    FLUSH_BEFORE_ACK,
    HOUR_MS,
    INT_MAX,
    LONG_MAX,
    effective_values,
    parse_list,
)
from streamlog.wire.records import Compression

DAY_MS = 24 * HOUR_MS

_COMPRESSIONS = {
    "uncompressed": Compression.NONE,
    "gzip": Compression.GZIP,
    "snappy": Compression.SNAPPY,
    "lz4": Compression.LZ4,
    "zstd": Compression.ZSTD,
}


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Kafka's defaults. Built from a topic with `from_topic`; tests set small numbers directly."""

    segment_bytes: int = 1024 * 1024 * 1024
    segment_ms: int = 7 * DAY_MS
    segment_jitter_ms: int = 0
    segment_index_bytes: int = 10 * 1024 * 1024
    index_interval_bytes: int = 4096
    retention_ms: int = 7 * DAY_MS
    """-1: no limit."""
    retention_bytes: int = -1
    """-1: no limit."""
    delete: bool = True
    """cleanup.policy has delete."""
    compact: bool = False
    """cleanup.policy has compact."""
    delete_retention_ms: int = DAY_MS
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = LONG_MAX
    max_message_bytes: int = 1048588
    log_append_time: bool = False
    """message.timestamp.type is LogAppendTime."""
    message_timestamp_before_max_ms: int = LONG_MAX
    message_timestamp_after_max_ms: int = HOUR_MS
    compression: Compression | None = None
    """None: keep what the producer chose."""
    compression_level: int | None = None
    """Of `compression`; None: the library's default."""
    flush: str = FLUSH_AUTO
    flush_messages: int = LONG_MAX
    flush_ms: int = LONG_MAX
    file_delete_delay_ms: int = 60_000
    min_insync_replicas: int = 1
    unclean_leader_election: bool = False

    @classmethod
    def from_topic(cls, overrides: Mapping[str, str], defaults: Mapping[str, str]) -> LogConfig:
        """From a topic's validated configs and, for what they leave open, a broker's settings (Kafka's names)."""
        values = {name: found.value.strip() for name, found in effective_values(overrides, defaults).items()}
        policy = parse_list(values["cleanup.policy"])
        compression = _COMPRESSIONS.get(values["compression.type"])
        return cls(
            segment_bytes=int(values["segment.bytes"]),
            segment_ms=int(values["segment.ms"]),
            segment_jitter_ms=int(values["segment.jitter.ms"]),
            segment_index_bytes=int(values["segment.index.bytes"]),
            index_interval_bytes=int(values["index.interval.bytes"]),
            retention_ms=int(values["retention.ms"]),
            retention_bytes=int(values["retention.bytes"]),
            delete="delete" in policy,
            compact="compact" in policy,
            delete_retention_ms=int(values["delete.retention.ms"]),
            min_cleanable_dirty_ratio=float(values["min.cleanable.dirty.ratio"]),
            min_compaction_lag_ms=int(values["min.compaction.lag.ms"]),
            max_compaction_lag_ms=int(values["max.compaction.lag.ms"]),
            max_message_bytes=int(values["max.message.bytes"]),
            log_append_time=values["message.timestamp.type"] == "LogAppendTime",
            message_timestamp_before_max_ms=int(values["message.timestamp.before.max.ms"]),
            message_timestamp_after_max_ms=int(values["message.timestamp.after.max.ms"]),
            compression=compression,
            compression_level=_level(values, compression),
            flush=values[FLUSH],
            flush_messages=int(values["flush.messages"]),
            flush_ms=int(values["flush.ms"]),
            file_delete_delay_ms=int(values["file.delete.delay.ms"]),
            min_insync_replicas=int(values["min.insync.replicas"]),
            unclean_leader_election=values["unclean.leader.election.enable"].lower() == "true",
        )

    def flushes_before_ack(self, replica_count: int) -> bool:
        """Whether a produce response waits for the disk (docs/decisions: flush before ack)."""
        if self.flush == FLUSH_AUTO:
            return replica_count == 1
        return self.flush == FLUSH_BEFORE_ACK or self.flush_messages == 1

    @property
    def is_compacted_only(self) -> bool:
        return self.compact and not self.delete


def _level(values: Mapping[str, str], compression: Compression | None) -> int | None:
    match compression:
        case Compression.GZIP:
            level = int(values["compression.gzip.level"])
            return None if level < 0 else level
        case Compression.LZ4:
            return int(values["compression.lz4.level"])
        case Compression.ZSTD:
            return int(values["compression.zstd.level"])
        case _:
            return None


assert LogConfig().segment_bytes <= INT_MAX, "positions in a segment are 32-bit"
