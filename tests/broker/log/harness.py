"""Domain verbs for tests of one partition's log, on real files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.partition import AppendResult, Origin, PartitionLog
from streamlog.env import Env, real_env
from streamlog.wire.records import (
    Compression,
    ControlType,
    decode_records,
    encode_batch,
    encode_control_batch,
    encode_end_transaction_marker,
    iter_batch_headers,
)

NOW_MS = 1_700_000_000_000

TINY = LogConfig(segment_bytes=600, index_interval_bytes=100, file_delete_delay_ms=0)
"""A few batches a segment, an index entry every second batch."""


def batch_of(
    *values: bytes | None,
    keys: list[bytes | None] | None = None,
    timestamp_ms: int = NOW_MS,
    timestamps_ms: list[int] | None = None,
    producer: tuple[int, int, int] | None = None,
    transactional: bool = False,
    compression: Compression = Compression.NONE,
) -> bytearray:
    """A producer's batch; `producer` is (id, epoch, base sequence)."""
    producer_id, producer_epoch, base_sequence = producer or (-1, -1, -1)
    return encode_batch(
        keys=keys if keys is not None else [None] * len(values),
        values=list(values),
        timestamps_ms=timestamps_ms or [timestamp_ms] * len(values),
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        is_transactional=transactional,
        compression=compression,
    )


def marker_of(kind: ControlType, producer_id: int, epoch: int, coordinator_epoch: int = 0) -> bytearray:
    return encode_control_batch(
        kind,
        encode_end_transaction_marker(coordinator_epoch),
        timestamp_ms=NOW_MS,
        producer_id=producer_id,
        producer_epoch=epoch,
    )


def append(log: PartitionLog, batch: bytearray, *, epoch: int = 0, now_ms: int = NOW_MS) -> AppendResult:
    """Append one batch as a client."""
    return log.append(batch, leader_epoch=epoch, now_ms=now_ms)


def append_marker(log: PartitionLog, marker: bytearray) -> AppendResult:
    """End a transaction as the coordinator does."""
    return log.append(marker, leader_epoch=0, now_ms=NOW_MS, origin=Origin.COORDINATOR)


def values_of(
    log: PartitionLog, start: int | None = None, *, bytes_max: int = 1 << 20, end: int | None = None
) -> dict[int, bytes | None]:
    """offset -> value of every data record, read the way a consumer does."""
    position = log.log_start_offset if start is None else start
    limit = log.log_end_offset if end is None else end
    found: dict[int, bytes | None] = {}
    while position < limit:
        result = log.read(position, bytes_max, end_offset=limit)
        if not result.data:
            break
        for at, header in iter_batch_headers(result.data):
            if not header.is_control:
                columns = decode_records(result.data, at, header)
                found.update(
                    (offset, value)
                    for offset, value in zip(columns.offsets, columns.values, strict=True)
                    if offset >= position
                )
        assert result.next_offset > position, "a read that returns data goes forward"
        position = result.next_offset
    return found


@dataclass
class Bench:
    """A partition directory that can be opened, closed and crashed."""

    directory: Path
    config: LogConfig = TINY
    env: Env = field(default_factory=real_env)
    recovery_point: int = 0
    log_start_offset: int = 0

    def open(self, *, clean: bool = False, now_ms: int = NOW_MS) -> PartitionLog:
        self.directory.mkdir(parents=True, exist_ok=True)
        log = PartitionLog.open(
            self.env,
            str(self.directory),
            self.config,
            recovery_point=self.recovery_point,
            log_start_offset=self.log_start_offset,
            clean_shutdown=clean,
            now_ms=now_ms,
        )
        log.before_cut = self._lower
        return log

    def _lower(self, offset: int) -> None:
        self.recovery_point = min(self.recovery_point, offset)

    def checkpoint(self, log: PartitionLog) -> None:
        work = log.begin_checkpoint()
        if work is not None:
            work.run()
            log.end_checkpoint(work, None)
        self.save(log)

    def save(self, log: PartitionLog) -> None:
        self.recovery_point = log.recovery_point
        self.log_start_offset = log.log_start_offset

    def reopen(self, log: PartitionLog) -> PartitionLog:
        """Stop cleanly and start again."""
        log.close()
        self.save(log)
        return self.open(clean=True)

    def crash(self, log: PartitionLog) -> PartitionLog:
        """Kill the process: what was written is in the page cache, nothing else survives."""
        log.abandon()
        return self.open()
