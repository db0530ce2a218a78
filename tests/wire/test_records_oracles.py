"""Record batches against other people's codecs: kafka-python and kio in process, librdkafka through its mock broker.

None of them shares code with us, except that kafka-python's snappy stands on the same compressor.
"""

from __future__ import annotations

import socket
from typing import Any, TypeVar

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kio.records.readers import read_batch

from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData
from streamlog.wire.records import (
    HEADER_BYTES,
    Compression,
    RecordHeaders,
    decode_records,
    encode_batch,
    iter_batch_headers,
    set_max_timestamp,
    validate_records,
)
from tests.wire.batch_rows import Rows, kafka_batch, kafka_rows

Answer = TypeVar("Answer", bound=Response)

names = st.text(max_size=6)
fields = st.none() | st.binary(max_size=20) | st.integers(60, 70).map(bytes)
record_headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=8)), max_size=3).map(tuple)
rows = st.lists(st.tuples(fields, fields, st.integers(0, 2**45), record_headers), min_size=1, max_size=12)


def kafka_python_reads(batch: bytes | bytearray) -> list[tuple[object, ...]]:
    read = DefaultRecordBatch(bytes(batch))
    assert read.validate_crc()
    return [
        (record.offset, record.timestamp, record.key, record.value, tuple(tuple(h) for h in record.headers))
        for record in read
    ]


def we_read(batch: bytes | bytearray) -> list[tuple[object, ...]]:
    return [tuple(record) for record in decode_records(batch).rows()]


@given(rows)
def test_kafka_python_reads_what_we_write_and_writes_what_we_read(
    batch: list[tuple[bytes | None, bytes | None, int, RecordHeaders]],
) -> None:
    """Uncompressed batches are the same bytes, whoever writes them."""
    keys, values, timestamps_ms, headers = (list(column) for column in zip(*batch, strict=True))
    ours = encode_batch(keys=keys, values=values, timestamps_ms=timestamps_ms, headers=headers)
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    for offset, (key, value, timestamp_ms, record_headers) in enumerate(batch):
        builder.append(offset, timestamp_ms, key, value, list(record_headers))
    theirs = bytes(builder.build())
    assert kafka_python_reads(ours) == we_read(theirs) == we_read(ours)
    # The leader epoch, which is the broker's, is the only byte range left to taste.
    assert ours[:12] + ours[16:] == theirs[:12] + theirs[16:]


@pytest.mark.parametrize("compression", list(Compression))
def test_kafka_python_agrees_on_compressed_batches(compression: Compression) -> None:
    """Both directions, over several compressed blocks."""
    assert kafka_python_reads(kafka_batch(1000, compression)) == we_read(kafka_batch(1000, Compression.NONE))
    builder = DefaultRecordBatchBuilder(2, int(compression), False, -1, -1, -1, 1 << 20)
    rows: Rows = kafka_rows(1000)
    for offset, (key, value, timestamp_ms, headers) in enumerate(zip(*rows, strict=True)):
        builder.append(offset, timestamp_ms, key, value, list(headers))
    read = decode_records(bytes(builder.build()))
    assert (read.keys, read.values, read.timestamps_ms, read.headers) == rows


@given(rows, st.data(), st.sampled_from([Compression.NONE, Compression.GZIP]))
def test_kafka_python_reads_every_batch_that_a_broker_would_store(
    batch: list[tuple[bytes | None, bytes | None, int, RecordHeaders]], data: st.DataObject, compression: Compression
) -> None:
    """Bytes changed at random under a right checksum: what passes validation, an independent parser reads whole."""
    keys, values, timestamps_ms, headers = (list(column) for column in zip(*batch, strict=True))
    damaged = encode_batch(
        keys=keys, values=values, timestamps_ms=timestamps_ms, headers=headers, compression=compression
    )
    for _ in range(data.draw(st.integers(1, 3))):
        # Below 128: kafka-python takes varints of more than 32 bits for what they say, Kafka and we cut them off.
        damaged[data.draw(st.integers(HEADER_BYTES, len(damaged) - 1))] = data.draw(st.integers(0, 127))
    set_max_timestamp(damaged, 0, max(timestamps_ms))
    if validate_records(damaged) is None:
        try:
            read = kafka_python_reads(damaged)
        except CorruptRecordError as error:
            if "UnicodeDecodeError" in str(error):
                return  # a header's name may be any bytes, to Kafka and to us
            raise
        assert [row[0] for row in read] == list(range(len(batch)))


def test_kio_reads_what_we_write() -> None:
    """The third decoder: it has no compression."""
    batch = kafka_batch(100, Compression.NONE)
    read = read_batch(memoryview(bytes(batch)), 0)[0]
    keys, values, _, headers = kafka_rows(100)
    assert [record.offset for record in read.records] == list(range(42, 142))
    assert [record.key for record in read.records] == keys
    assert [record.value for record in read.records] == values
    assert [tuple(((h.key or b"").decode(), h.value) for h in record.headers) for record in read.records] == headers
    assert (read.base_offset, read.producer_id, read.base_sequence) == (42, 7, 11)


class MockBroker:
    """librdkafka's broker inside a producer's own process: what it was sent, it serves."""

    def __init__(self, compression: str) -> None:
        # A long linger and one flush put everything into one batch.
        self.producer = confluent_kafka.Producer(
            {"test.mock.num.brokers": 1, "compression.type": compression, "linger.ms": 5000, "log_level": 0}
        )
        broker = next(iter(self.producer.list_topics("t", timeout=10).brokers.values()))
        self.address = (broker.host, broker.port)

    def ask(self, request: Request, version: int, answer: type[Answer]) -> Answer:
        with socket.create_connection(self.address, timeout=10) as connection:
            connection.sendall(encode_request(request, version, 1, "oracle"))
            with connection.makefile("rb") as stream:
                frame = stream.read(int.from_bytes(stream.read(4), "big"))
        return decode_response(answer, version, frame)[1]

    def fetch(self) -> bytes:
        partition = FetchPartition(partition=0, partition_max_bytes=1 << 24)
        request = FetchRequest(max_wait_ms=100, topics=[FetchTopic(topic="t", partitions=[partition])])
        response = self.ask(request, 11, FetchResponse)
        return bytes(response.responses[0].partitions[0].records or b"")

    def produce(self, batch: bytearray) -> int:
        data = TopicProduceData(name="t", partition_data=[PartitionProduceData(index=0, records=batch)])
        response = self.ask(ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[data]), 7, ProduceResponse)
        return response.responses[0].partition_responses[0].error_code


@pytest.mark.parametrize("compression", list(Compression))
def test_librdkafka_writes_what_we_read(compression: Compression) -> None:
    """Its batches, fetched raw from its mock broker."""
    broker = MockBroker(compression.name.lower())
    keys, values, timestamps_ms, headers = kafka_rows(1000)
    for key, value, timestamp_ms, record_headers in zip(keys, values, timestamps_ms, headers, strict=True):
        broker.producer.produce("t", value, key, 0, timestamp=timestamp_ms, headers=list(record_headers))
    assert broker.producer.flush(10) == 0
    fetched = broker.fetch()
    batches = [(header, decode_records(fetched, at, header)) for at, header in iter_batch_headers(fetched)]
    assert {header.compression for header, _ in batches} == {compression}
    assert [key for _, batch in batches for key in batch.keys] == keys
    assert [value for _, batch in batches for value in batch.values] == values
    assert [timestamp_ms for _, batch in batches for timestamp_ms in batch.timestamps_ms] == timestamps_ms
    assert [names for _, batch in batches for names in batch.headers] == headers


@pytest.mark.parametrize("compression", list(Compression))
def test_librdkafka_reads_what_we_write(compression: Compression) -> None:
    """Our batches, put raw into its mock broker and read by its consumer."""
    broker = MockBroker("none")
    keys, values, timestamps_ms, headers = kafka_rows(1000)
    batch = encode_batch(
        keys=keys, values=values, timestamps_ms=timestamps_ms, headers=headers, compression=compression
    )
    assert broker.produce(batch) == 0
    host, port = broker.address
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": f"{host}:{port}", "group.id": "g", "check.crcs": True, "log_level": 0}
    )
    consumer.assign([confluent_kafka.TopicPartition("t", 0, 0)])
    read: list[Any] = []
    while len(read) < 1000:
        messages = consumer.consume(1000 - len(read), timeout=10)
        assert messages, f"the consumer stopped after {len(read)} records"
        read += messages
    consumer.close()
    assert [message.error() for message in read] == [None] * 1000
    assert [message.key() for message in read] == keys
    assert [message.value() for message in read] == values
    assert [message.timestamp()[1] for message in read] == timestamps_ms
    assert [tuple(message.headers() or ()) for message in read] == headers
