"""The input: JSON events of about 100 bytes, the same for every side, written by librdkafka."""

from __future__ import annotations

import random

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

BASE_MS = 1_700_000_000_000


def create_topic(
    bootstrap: str, topic: str, *, partitions: int = 1, replicas: int = 1, configs: dict[str, str] | None = None
) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = NewTopic(topic, partitions, replicas, config=configs or {})
    for future in admin.create_topics([wanted], operation_timeout=60, request_timeout=60).values():
        future.result(60)


def delete_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_topics([topic]).values():
        future.result(30)


def event(number: int, key: str) -> bytes:
    return b'{"n":%d,"user":"%s","amount":%d.25,"country":"NL","device":"mobile","note":"%010d"}' % (
        1_000_000 + number,
        key.encode(),
        number % 90 + 10,
        number,
    )


def write_events(bootstrap: str, topic: str, count: int, keys: int, *, shuffled: bool = False) -> None:
    """`count` events, one per ms of event time, over `keys` keys: drawn at random, or each once in random order."""
    create_topic(bootstrap, topic, configs={"retention.ms": "-1", "message.timestamp.type": "CreateTime"})
    rng = random.Random(1)
    names = [f"user{number:08d}" for number in range(keys)]
    if shuffled:
        rng.shuffle(names)
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 200_000, "queue.buffering.max.messages": 10**6}
    )
    for number in range(count):
        key = names[number % keys] if shuffled else names[int(rng.random() * keys)]
        while True:
            try:
                producer.produce(topic, event(number, key), key, timestamp=BASE_MS + number)
                break
            except BufferError:
                producer.poll(0.05)
    left = producer.flush(120)
    assert left == 0, f"{left} events were not written"
