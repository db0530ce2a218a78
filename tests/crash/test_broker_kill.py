"""kill -9 of a broker under load, many times on one data directory (make crash)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.broker.killing import read_values
from tests.broker.running import BrokerProcess
from tests.crash.load import PATIENCE_SECONDS, Load, TopicChurn, commit, spread
from tests.kafka_node import free_port

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

ROUNDS = 50
HOUSEKEEPING_ROUNDS = 15
PARTITIONS = 3
LOAD_SECONDS_MAX = 0.3
READY_SECONDS_MAX = 1.0


class Killable:
    """A broker on one port and one directory, and how long each of its starts took."""

    def __init__(self, data_dir: Path, *settings: str) -> None:
        self.data_dir, self.settings = data_dir, settings
        self.address = f"127.0.0.1:{free_port()}"
        self.ready_seconds: list[float] = []
        self.own_seconds: list[float] = []
        """Without the time that others had the processors."""
        self.cpu_seconds: list[float] = []
        self.process = self._start()

    def _start(self) -> BrokerProcess:
        process = BrokerProcess(self.data_dir, *self.settings, listen=self.address)
        self.ready_seconds.append(process.ready_seconds)
        self.own_seconds.append(process.ready_seconds - process.queued_seconds)
        self.cpu_seconds.append(process.cpu_seconds)
        return process

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.__exit__()
        self.process = self._start()

    def report(self) -> str:
        return (
            f"ready after {spread(self.ready_seconds[1:])}; without waiting for a processor "
            f"{spread(self.own_seconds[1:])}; CPU {spread(self.cpu_seconds[1:])}"
        )

    def check_starts(self) -> None:
        """Every start took less than a second by the clock on the wall.

        Not counted is the time in which the broker could have gone on and others had the processors: that is the whole
        spread on a busy machine, and the clients that wait for the broker are busy themselves.
        """
        assert max(self.own_seconds) < READY_SECONDS_MAX, self.report()


def test_fifty_kills_lose_repeat_and_reorder_nothing(tmp_path: Path) -> None:
    """One producer with acks=all goes on over all of them: each message is there once, where it was acknowledged."""
    broker = Killable(tmp_path)
    try:
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic("t", PARTITIONS, 1)])["t"].result(20)
        load = Load(broker.address, "t", PARTITIONS, seed=1)
        dice = random.Random(2)
        seen = 0
        for _ in range(ROUNDS):
            load.wait_for_acknowledgements(dice.randrange(1, 200))
            until = time.monotonic() + dice.random() * LOAD_SECONDS_MAX
            while time.monotonic() < until:
                load.send()
            assert load.acknowledged_count > seen
            seen = load.acknowledged_count
            broker.kill_and_start()
        load.finish()
        for partition in range(PARTITIONS):
            found = read_values(broker.address, "t", partition)
            assert found == [b"%d" % number for number in range(load.sent[partition])]
            # Offsets have no gaps, so the number of a message is its offset.
            assert all(number == offset for number, offset in load.acknowledged[partition].items())
        print(f"\n{ROUNDS} kills, {sum(load.sent)} messages: {broker.report()}")
        broker.check_starts()
    finally:
        broker.process.stop()
        broker.process.__exit__()


HOUSEKEEPING = (
    "log.cleaner.backoff.ms=20",
    "log.retention.check.interval.ms=50",
    "log.segment.delete.delay.ms=0",
    "offsets.topic.num.partitions=2",
    "group.initial.rebalance.delay.ms=0",
)


def test_kills_during_compaction_retention_deletion_and_commits(tmp_path: Path) -> None:
    """Latest values of keys, ends of short logs, acknowledged topics and committed offsets are all as they were."""
    broker = Killable(tmp_path, *HOUSEKEEPING)
    try:
        admin = AdminClient({"bootstrap.servers": broker.address})
        small = {"segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01", "file.delete.delay.ms": "0"}
        topics = [
            NewTopic("compact", 1, 1, config=small | {"cleanup.policy": "compact"}),
            NewTopic("short", 1, 1, config=small | {"retention.bytes": "2000000"}),
        ]
        for made in admin.create_topics(topics).values():
            made.result(20)
        dice = random.Random(3)
        padding = dice.randbytes(4000).hex().encode()
        compact, short = Load(broker.address, "compact", 1, seed=4), Load(broker.address, "short", 1, seed=5)
        churn = TopicChurn(broker.address)
        committed = 0
        for _ in range(HOUSEKEEPING_ROUNDS):
            consumer = ck.Consumer({"bootstrap.servers": broker.address, "group.id": "g", "log_level": 0})
            until = time.monotonic() + 0.3 + dice.random() * 0.4
            steps = 0
            while time.monotonic() < until:
                compact.send(lambda number: b"%d %s" % (number, padding), lambda number: b"k%d" % (number % 97))
                short.send(lambda number: b"%d %s" % (number, padding))
                steps += 1
                if steps % 10 == 1:
                    committed += commit(consumer, committed + 1, "short")
                if steps % 40 == 1:
                    churn.step()
            time.sleep(dice.random())  # the cleaner's turn; the kill comes at any point of its round
            broker.kill_and_start()
            churn.settle()
            churn.check()
            consumer.close()
            reader = ck.Consumer({"bootstrap.servers": broker.address, "group.id": "g", "log_level": 0})
            assert reader.committed([ck.TopicPartition("short", 0)], timeout=20)[0].offset == committed
            reader.close()
        compact.finish()
        short.finish()
        check_compacted(broker.address, compact)
        check_short(broker.address, short)
        print(f"\n{HOUSEKEEPING_ROUNDS} kills amid housekeeping: {broker.report()}")
        broker.check_starts()
    finally:
        broker.process.stop()
        broker.process.__exit__()


def check_compacted(address: str, load: Load) -> None:
    """The last value of every key, at its offset; fewer records than were written, so the cleaner did run."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found := read_messages(address, "compact")) == load.sent[0]:
        assert time.monotonic() < deadline, "nothing was compacted"
    latest: dict[bytes, int] = {}
    for offset, key, value in found:
        number = int(value.split()[0])
        assert number == offset == load.acknowledged[0][number]
        latest[key] = number
    written: dict[bytes, int] = {b"k%d" % (number % 97): number for number in range(load.sent[0])}
    assert latest == written


def check_short(address: str, load: Load) -> None:
    """Every record from the log start offset to the end."""
    found = read_messages(address, "short")
    assert 0 < len(found) < load.sent[0], "nothing was deleted"
    first = found[0][0]
    assert [int(value.split()[0]) for _, _, value in found] == list(range(first, load.sent[0]))


def read_messages(address: str, topic: str) -> list[tuple[int, bytes, bytes]]:
    """Offset, key and value of all that is left in partition 0."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    try:
        consumer.assign([ck.TopicPartition(topic, 0, ck.OFFSET_BEGINNING)])
        found: list[tuple[int, bytes, bytes]] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert time.monotonic() < deadline, "the end was not reached"
            for message in consumer.consume(1000, 1.0):
                error = message.error()
                if error is not None:
                    assert error.code() == ck.KafkaError._PARTITION_EOF, error
                    return found
                found.append((message.offset() or 0, message.key() or b"", message.value() or b""))
    finally:
        consumer.close()
