"""What encoding and decoding of the hot messages costs. `python bench/wire_messages.py`

A broker's share of one small produce (header, request, response) is asked to stay below 8 us.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from uuid import UUID

from streamlog.wire.apis import ApiKey
from streamlog.wire.compiler import Buffer
from streamlog.wire.frames import decode_request_header, decode_response, encode_request, encode_response_parts
from streamlog.wire.messages import (
    FetchRequest,
    FetchResponse,
    MetadataResponse,
    ProduceRequest,
    ProduceResponse,
)
from streamlog.wire.messages.fetch import FetchableTopicResponse, FetchPartition, FetchTopic, PartitionData
from streamlog.wire.messages.metadata import (
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from streamlog.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
RECORDS = bytes(1000)


def measure(name: str, work: Callable[[], object], calls: int = 20_000) -> None:
    best_s = min(timeit.repeat(work, number=calls, repeat=5)) / calls
    print(f"{name:50s} {best_s * 1e6:8.2f} us")


def produce(version: int) -> None:
    partition = PartitionProduceData(index=0, records=RECORDS)
    topic = TopicProduceData(name="events", topic_id=TOPIC_ID, partition_data=[partition])
    request = ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[topic])
    frame = memoryview(bytearray(encode_request(request, version, 5, "client")[4:]))

    def read() -> ProduceRequest:
        header, position = decode_request_header(frame)
        return ProduceRequest.decode(frame, header.request_api_version, position)

    def answer() -> list[Buffer]:
        result = PartitionProduceResponse(index=0, base_offset=55, log_start_offset=0)
        response = TopicProduceResponse(name="events", topic_id=TOPIC_ID, partition_responses=[result])
        return encode_response_parts(ApiKey.PRODUCE, version, 5, ProduceResponse(responses=[response]))

    measure(f"produce v{version}: header and request", read)
    measure(f"produce v{version}: response", answer)


def fetch(version: int, partitions: int) -> None:
    asked = [FetchPartition(partition=i, fetch_offset=100, partition_max_bytes=1 << 20) for i in range(partitions)]
    topics = [FetchTopic(topic="events", topic_id=TOPIC_ID, partitions=asked)]
    frame = memoryview(bytearray(encode_request(FetchRequest(topics=topics), version, 5, "client")[4:]))

    def read() -> FetchRequest:
        header, position = decode_request_header(frame)
        return FetchRequest.decode(frame, header.request_api_version, position)

    def answer() -> list[Buffer]:
        data = [
            PartitionData(
                partition_index=i, high_watermark=9, last_stable_offset=9, log_start_offset=0, records=RECORDS
            )
            for i in range(partitions)
        ]
        response = FetchableTopicResponse(topic="events", topic_id=TOPIC_ID, partitions=data)
        return encode_response_parts(ApiKey.FETCH, version, 5, FetchResponse(responses=[response]))

    answered = b"".join(answer())[4:]
    calls = 20_000 // partitions
    measure(f"fetch v{version}, {partitions} partitions: header and request", read, calls)
    measure(f"fetch v{version}, {partitions} partitions: response", answer, calls)
    measure(
        f"fetch v{version}, {partitions} partitions: client reads it",
        lambda: decode_response(FetchResponse, version, answered),
        calls,
    )


def metadata(version: int, partitions: int) -> None:
    described = [
        MetadataResponsePartition(
            partition_index=i, leader_id=1, leader_epoch=1, replica_nodes=[1, 2, 3], isr_nodes=[1]
        )
        for i in range(partitions)
    ]
    response = MetadataResponse(
        brokers=[MetadataResponseBroker(node_id=i, host="localhost", port=9092) for i in range(3)],
        topics=[MetadataResponseTopic(name="events", topic_id=TOPIC_ID, partitions=described)],
    )
    encoded = response.encode(version)
    measure(f"metadata v{version}, {partitions} partitions: response", lambda: response.encode(version), 1000)
    measure(
        f"metadata v{version}, {partitions} partitions: client reads it",
        lambda: MetadataResponse.decode(encoded, version),
        1000,
    )


if __name__ == "__main__":
    for version in (9, 13):
        produce(version)
    for version in (11, 17):
        fetch(version, 1)
        fetch(version, 100)
    metadata(12, 100)
