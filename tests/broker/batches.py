"""Record batches for tests."""

from __future__ import annotations

import time

from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from streamlog.wire.records import Compression, encode_batch


def new_batch(
    *values: bytes,
    key: bytes | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    is_transactional: bool = False,
    compression: Compression = Compression.NONE,
    timestamp_ms: int | None = None,
) -> bytes:
    now_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    return bytes(
        encode_batch(
            keys=[key] * len(values),
            values=list(values),
            timestamps_ms=[now_ms] * len(values),
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            is_transactional=is_transactional,
            compression=compression,
        )
    )


def produce_request(topic: str, records: bytes | None, *, partition: int = 0, acks: int = -1) -> ProduceRequest:
    return ProduceRequest(
        acks=acks,
        timeout_ms=10_000,
        topic_data=[
            TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=partition, records=records)])
        ],
    )
