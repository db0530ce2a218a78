"""The log under a shard: what the runtime needs of a partition, and records to batches and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol, TypeVar

from streamlog.broker.coordinator.shard import NO_PRODUCER_ID, Applied, Shard
from streamlog.wire.records import (
    BatchBuilder,
    BatchHeader,
    ControlType,
    decode_control_key,
    decode_records,
    iter_batch_headers,
)

RequestT = TypeVar("RequestT")
R = TypeVar("R")

BATCH_BYTES_MAX = 512 * 1024
"""Records of one decision beyond this go into another batch: half of what topics accept by default, so that no
decision is refused for its size. One record alone may still be larger."""


class ShardLog(Protocol):
    """One partition of an internal topic, led by this broker."""

    @property
    def leadership(self) -> object:
        """Equal for two logs exactly when they are the same log under the same leader epoch."""
        ...

    @property
    def end_offset(self) -> int:
        """The offset that the next record will get."""
        ...

    @property
    def committed_offset(self) -> int:
        """Records below this survive what the topic promises to survive."""
        ...

    @property
    def is_cut_off(self) -> bool:
        """Nothing is committed here any more, and another broker leads, most likely."""
        ...

    def append(self, batch: bytearray, now_ms: int) -> None:
        """Append one batch at the end. Raises: KafkaError; then nothing was appended, or nothing that counts."""
        ...

    async def wait_committed(self, offset: int) -> None:
        """Return when `committed_offset` has reached `offset`.

        Cancellation leaves nothing behind. Raises: KafkaError when it cannot happen here any more.
        """
        ...

    def read(self) -> AsyncIterator[bytes]:
        """All batches from the log's start to its end as of now, in chunks of whole batches.

        Whoever folds them gives other tasks their turn in between. Raises: KafkaError.
        """
        ...


class RecordCodec(Protocol[R]):
    """How records of one kind of shard become key and value."""

    def encode(self, record: R) -> tuple[bytes, bytes | None]: ...

    def decode(self, key: bytes, value: bytes | None) -> R | None:
        """None for records of a kind that is not the shard's. Raises: RemoteProtocolError."""
        ...


def encode_batches(records: Sequence[R], codec: RecordCodec[R], now_ms: int) -> Iterator[tuple[bytearray, int]]:
    """Batches with their record counts, in order."""
    builder = BatchBuilder()
    for record in records:
        key, value = codec.encode(record)
        if len(builder) and builder.size_bytes + len(key) + len(value or b"") > BATCH_BYTES_MAX:
            yield builder.build(), len(builder)
            builder = BatchBuilder()
        builder.append(key, value, now_ms)
    if len(builder):
        yield builder.build(), len(builder)


def fold_batches(data: bytes, codec: RecordCodec[R], shard: Shard[RequestT, R]) -> None:
    """Apply all records and transaction markers in `data`. Raises: CorruptBatch, RemoteProtocolError."""
    for position, header in iter_batch_headers(data):
        if header.is_control:
            _fold_control(data, position, header, shard)
            continue
        columns = decode_records(data, position, header)
        producer_id = header.producer_id if header.is_transactional else NO_PRODUCER_ID
        for offset, key, value in zip(columns.offsets, columns.keys, columns.values, strict=True):
            record = None if key is None else codec.decode(key, value)
            if record is not None:
                shard.apply(Applied(record, offset, producer_id))


def _fold_control(data: bytes, position: int, header: BatchHeader, shard: Shard[RequestT, R]) -> None:
    for key in decode_records(data, position, header).keys:
        if key is None:
            continue
        kind = decode_control_key(key).type
        if kind in (ControlType.COMMIT, ControlType.ABORT):
            shard.apply_marker(header.producer_id, kind is ControlType.COMMIT)
