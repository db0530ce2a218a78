"""Producing to a broker that is killed in the middle of it."""

from __future__ import annotations

import time
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.broker.running import BrokerProcess

LOAD_SECONDS = 0.4
"""Time under load before the kill, plus a little that differs from round to round."""


def produce_until_killed(data_dir: Path, number: int) -> list[bytes]:
    """Start, produce to a new topic with acks=all, kill -9 under load; the values that were acknowledged, in order."""
    topic = f"round-{number}"
    acknowledged: dict[int, bytes] = {}

    def on_delivery(error: ck.KafkaError | None, message: ck.Message) -> None:
        offset = message.offset()
        if error is None and offset is not None:
            acknowledged[offset] = message.value() or b""

    with BrokerProcess(data_dir) as broker:
        AdminClient({"bootstrap.servers": broker.address}).create_topics([NewTopic(topic, 1, 1)])
        producer = ck.Producer(
            {
                "bootstrap.servers": broker.address,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 1,
                "batch.num.messages": 50,
                "message.timeout.ms": 3_000,
                "queue.buffering.max.messages": 1_000,
                "log_level": 0,
            }
        )
        sent = 0
        deadline = time.monotonic() + LOAD_SECONDS + number % 10 / 50
        while time.monotonic() < deadline or not acknowledged:
            try:
                producer.produce(topic, b"%d" % sent, on_delivery=on_delivery)
                sent += 1
            except BufferError:
                producer.poll(0.01)
            producer.poll(0)
        broker.kill()
        producer.poll(0.1)
        producer.purge()
        producer.flush(5)
    assert sorted(acknowledged) == list(range(len(acknowledged))), "acknowledged offsets have no gaps"
    return [acknowledged[offset] for offset in range(len(acknowledged))]


def read_values(address: str, topic: str, partition: int, count: int | None = None) -> list[bytes]:
    """All values of a partition, or the first `count`."""
    consumer = ck.Consumer({"bootstrap.servers": address, "group.id": "unused", "enable.auto.commit": False})
    try:
        end = consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), 10)
        assert end is not None
        wanted = end[1] if count is None else count
        consumer.assign([ck.TopicPartition(topic, partition, 0)])
        values: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(values) < wanted and time.monotonic() < deadline:
            values += [m.value() or b"" for m in consumer.consume(10_000, 0.2) if m.error() is None]
        return values
    finally:
        consumer.close()
