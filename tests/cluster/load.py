"""What clients do to a cluster while it is mistreated, and what has to be true of it afterwards.

One idempotent librdkafka producer writes numbered messages to every partition all the time, in a thread. For every
message it remembers when it was handed over, when it was acknowledged, and at which offset. A committing consumer in
another thread keeps a group's offsets moving.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka as ck

PATIENCE_S = 90.0
PAUSE_S = 0.01

STUBBORN: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 2,
    "message.timeout.ms": 300_000,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "topic.metadata.refresh.fast.interval.ms": 50,
    "topic.metadata.refresh.interval.ms": 1_000,
    # A node that is frozen or cut off answers nothing: a producer looks elsewhere after this long, by default 30 s.
    "request.timeout.ms": 750,
    "socket.timeout.ms": 1_000,
    "socket.connection.setup.timeout.ms": 1_000,
    "log_level": 0,
}
"""A producer that gives up nothing and looks for a new leader often."""


@dataclass(slots=True)
class Sent:
    """What became of the messages of one partition; message n is at index n."""

    handed_over_s: list[float] = field(default_factory=list)
    acknowledged: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When, and at which offset (-1: the broker had it already and did not say)."""


class Load:
    """See the module's essay. `stop` hands everything over that is under way."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        settings: dict[str, Any] | None = None,
        *,
        stubborn: bool = True,
    ) -> None:
        """`settings` go before those of a stubborn producer, or before librdkafka's defaults."""
        self.topic = topic
        self.sent = [Sent() for _ in range(partitions)]
        self.failed: list[str] = []
        self.errors: list[ck.KafkaError] = []
        """What the client was told besides, such as that all brokers are down."""
        options = (STUBBORN if stubborn else {}) | (settings or {})
        self._producer = ck.Producer(options | {"bootstrap.servers": bootstrap, "error_cb": self._on_error})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def _on_error(self, error: ck.KafkaError) -> None:
        self.errors.append(error)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for partition in range(len(self.sent)):
                self._send(partition)
            self._producer.poll(PAUSE_S)

    def _send(self, partition: int) -> None:
        sent = self.sent[partition]
        number = len(sent.handed_over_s)

        def on_delivery(error: ck.KafkaError | None, message: ck.Message) -> None:
            if error is not None:
                self.failed.append(f"{partition}: {error}")
            else:
                offset = message.offset()
                sent.acknowledged[number] = (time.monotonic(), -1 if offset is None else offset)

        try:
            self._producer.produce(self.topic, b"%d" % number, partition=partition, on_delivery=on_delivery)
        except BufferError:
            return
        sent.handed_over_s.append(time.monotonic())

    def written_again_s(self, since_s: float, patience_s: float = PATIENCE_S) -> list[float]:
        """For each partition, how long after `since_s` a message that was handed over later was acknowledged."""
        found = []
        for sent in self.sent:
            first = next(number for number, at in _later(sent.handed_over_s, since_s))
            give_up_at = since_s + patience_s
            while first not in sent.acknowledged:
                assert time.monotonic() < give_up_at, f"nothing written for {patience_s:g} s"
                time.sleep(0.005)
            found.append(sent.acknowledged[first][0] - since_s)
        return found

    def slowest_s(self, since_s: float) -> list[float]:
        """For each partition, how long the slowest message took that was handed over between an instant and now."""
        until_s = time.monotonic()
        self.written_again_s(until_s)
        return [
            max(
                sent.acknowledged[number][0] - at
                for number, at in enumerate(sent.handed_over_s)
                if since_s <= at <= until_s and number in sent.acknowledged
            )
            for sent in self.sent
        ]

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        left = self._producer.flush(PATIENCE_S)
        assert left == 0, f"{left} messages are neither written nor refused after {PATIENCE_S:g} s"


def _later(times: list[float], since_s: float) -> list[tuple[int, float]]:
    """Numbers and times of what was handed over after an instant; waits until there is one."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not times or times[-1] <= since_s:
        assert time.monotonic() < give_up_at, "the producer takes no more messages"
        time.sleep(0.005)
    at = next(index for index in range(len(times) - 1, -2, -1) if index < 0 or times[index] <= since_s)
    return [(at + 1, times[at + 1])]


EAGER: dict[str, Any] = {
    # The session is the client's default, 45 s. One of 6 s with heartbeats every 3 s may be over before a
    # frozen coordinator is replaced: the member joins anew, under another name, and the new coordinator
    # waits for the one with the old name for a whole session.
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "socket.timeout.ms": 1_500,
}
"""A consumer that looks for a new coordinator often."""


class Committer:
    """A consumer group with one member that commits where it is, several times a second."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, group: str, *, eager: bool = True) -> None:
        """`eager`: as EAGER; else with librdkafka's defaults."""
        self.committed: dict[int, int] = {}
        """By partition: the last offset that the broker acknowledged."""
        self.commits_at_s: list[float] = []
        self.problems: list[str] = []
        """Commits that failed, and errors in place of messages."""
        self.errors: list[ck.KafkaError] = []
        """What the client was told besides."""
        self._topic, self._partitions = topic, partitions
        self._consumer = ck.Consumer(
            (EAGER if eager else {})
            | {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "error_cb": self.errors.append,
                "log_level": 0,
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._consumer.subscribe([self._topic])
        seen: dict[int, int] = {}
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, 0.1):
                partition, offset, failed = message.partition(), message.offset(), message.error()
                if failed is not None:
                    self.problems.append(f"instead of a message: {failed}")
                elif partition is not None and offset is not None:
                    seen[partition] = offset + 1
            owned = {one.partition for one in self._consumer.assignment()}
            wanted = [ck.TopicPartition(self._topic, p, o) for p, o in seen.items() if p in owned]
            if not wanted:
                continue
            try:
                answers = self._consumer.commit(offsets=wanted, asynchronous=False)
            except ck.KafkaException as error:
                self.problems.append(f"commit: {error}")
                continue
            for one in answers or ():
                if one.error is None:
                    self.committed[one.partition] = one.offset
                else:
                    self.problems.append(f"commit of partition {one.partition}: {one.error}")
            self.commits_at_s.append(time.monotonic())
        self._consumer.close()

    def committed_again_s(self, since_s: float, patience_s: float) -> float | None:
        """How long after an instant a commit was acknowledged that began later; None: not in that time."""
        before = len(self.commits_at_s)
        give_up_at = since_s + patience_s
        while len(self.commits_at_s) < before + 2:
            if time.monotonic() > give_up_at:
                return None
            time.sleep(0.01)
        return round(self.commits_at_s[before + 1] - since_s, 3)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)


def read_all(bootstrap: str, topic: str, partition: int) -> list[tuple[int, bytes]]:
    """Offset and value of every message of a partition."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    found: list[tuple[int, bytes]] = []
    try:
        consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING)])
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < give_up_at, "the end was not reached"
            for message in consumer.consume(5000, 1.0):
                error = message.error()
                if error is not None:
                    if error.code() == ck.KafkaError._PARTITION_EOF:
                        return found
                    continue
                offset = message.offset()
                assert offset is not None, "a message has an offset"
                found.append((offset, message.value() or b""))
    finally:
        consumer.close()


def violations(sent: Sent, found: list[tuple[int, bytes]]) -> list[str]:
    """What is wrong with what a partition has, given what its producer was told."""
    numbers = [int(value) for _, value in found]
    at = {int(value): offset for offset, value in found}
    lost = [number for number in sent.acknowledged if number not in at]
    elsewhere = [n for n, (_, offset) in sent.acknowledged.items() if n in at and offset not in (-1, at[n])]
    wrong = []
    if lost:
        wrong.append(f"{len(lost)} acknowledged messages are lost, the first is {lost[0]}")
    if len(set(numbers)) < len(numbers):
        wrong.append(f"{len(numbers) - len(set(numbers))} messages are there more than once")
    if numbers != sorted(numbers):
        first = next(index for index in range(1, len(numbers)) if numbers[index] < numbers[index - 1])
        wrong.append(f"{numbers[first]} comes after {numbers[first - 1]}")
    if elsewhere:
        wrong.append(f"{len(elsewhere)} messages are not where the producer was told, the first is {elsewhere[0]}")
    return wrong
