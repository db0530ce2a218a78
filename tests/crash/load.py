"""What goes on while brokers are killed: numbered messages, commits, topics that come and go."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

PATIENCE_SECONDS = 60.0

STUBBORN: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 1,
    "batch.num.messages": 50,
    "message.timeout.ms": 300_000,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "queue.buffering.max.messages": 2_000,
    "log_level": 0,
}
"""A librdkafka producer that outlives every kill and gives up nothing."""


class Load:
    """Numbered messages of one idempotent producer; remembers the offset of each that was acknowledged."""

    def __init__(self, address: str, topic: str, partitions: int, seed: int) -> None:
        self.topic, self.partitions = topic, partitions
        self.sent = [0] * partitions
        self.acknowledged: list[dict[int, int]] = [{} for _ in range(partitions)]
        self.failed: list[ck.KafkaError] = []
        self._producer = ck.Producer(STUBBORN | {"bootstrap.servers": address})
        self._random = random.Random(seed)

    def send(self, value: Callable[[int], bytes] = b"%d".__mod__, key: Callable[[int], bytes] | None = None) -> None:
        partition = self._random.randrange(self.partitions)
        number = self.sent[partition]

        def on_delivery(error: ck.KafkaError | None, message: ck.Message) -> None:
            offset = message.offset()
            if error is not None:
                self.failed.append(error)
            elif offset is not None:
                self.acknowledged[partition][number] = offset

        try:
            self._producer.produce(
                self.topic,
                value(number),
                key=key(number) if key is not None else None,
                partition=partition,
                on_delivery=on_delivery,
            )
        except BufferError:
            self._producer.poll(0.01)
        else:
            self.sent[partition] += 1
        self._producer.poll(0)

    @property
    def acknowledged_count(self) -> int:
        return sum(map(len, self.acknowledged))

    def wait_for_acknowledgements(self, more: int) -> None:
        """Until the broker has said yes to `more` further messages."""
        wanted = self.acknowledged_count + more
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.acknowledged_count < wanted:
            assert time.monotonic() < deadline, "no acknowledgement"
            self.send()

    def give_up(self) -> None:
        """Forget what was not acknowledged."""
        self._producer.purge()
        self._producer.flush(PATIENCE_SECONDS)

    def finish(self) -> None:
        assert self._producer.flush(PATIENCE_SECONDS) == 0
        assert self.failed == []
        assert [len(one) for one in self.acknowledged] == self.sent


class TopicChurn:
    """Topics that come and go; what was acknowledged of it."""

    def __init__(self, address: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": address, "reconnect.backoff.max.ms": 100, "log_level": 0})
        self._numbers = count()
        self.pending: list[tuple[str, bool, Future[None]]] = []
        self.exists: dict[str, bool] = {}
        """By topic; one whose last change was never answered is not in it."""

    def step(self) -> None:
        """Make a topic, and delete an old one."""
        name = f"churn-{next(self._numbers)}"
        made = self._admin.create_topics([NewTopic(name, 4, 1)], operation_timeout=5, request_timeout=5)[name]
        self.pending.append((name, True, made))
        old = next((name for name, there in self.exists.items() if there), None)
        if old is not None:
            del self.exists[old]
            self.pending.append((old, False, self._admin.delete_topics([old], request_timeout=5)[old]))

    def settle(self) -> None:
        """Wait for every answer that is outstanding, and remember the good ones."""
        for name, there, answer in self.pending:
            try:
                answer.result(20)
            except ck.KafkaException:
                continue
            self.exists[name] = there
        self.pending = []

    def check(self) -> None:
        found = self._admin.list_topics(timeout=20).topics
        for name, there in self.exists.items():
            assert (name in found) is there, f"{name}: acknowledged as {there}"


def commit(consumer: ck.Consumer, offset: int, topic: str) -> bool:
    """Whether it was acknowledged; a client that looks for its coordinator says so instead of waiting."""
    try:
        consumer.commit(offsets=[ck.TopicPartition(topic, 0, offset)], asynchronous=False)
    except ck.KafkaException as error:
        if error.args[0].code() != ck.KafkaError._WAIT_COORD:
            raise
        return False
    return True


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    middle, high = ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10]
    return f"{ordered[0]:.2f} s min, {middle:.2f} s median, {high:.2f} s p90, {ordered[-1]:.2f} s max"
