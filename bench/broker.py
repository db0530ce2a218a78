"""One broker beside one Apache Kafka node, through librdkafka: throughput, latency, CPU, start and memory.

    python -m bench.broker [--scale X] [--rounds N] [--rows produce,consume,...] [--json PATH]

Both run at once, only one of them has work at a time, and they take turns within each round. Client and broker share
the machine, so where the client is the limit the throughputs meet, and the broker's CPU seconds tell the difference.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.load import create_topic, delete_topic
from bench.nodes import Node, Served, apache_kafka, cpu_s, have_kafka, resident_mb, streamlog
from bench.report import Report, Row, percentile, say

PRODUCE_BATCH = 10_000
IDLE_S = 3.0
TIMEOUT_S = 120.0

ASKED_RATE = {
    # Ratio of throughput, ratio of broker CPU. The client uses most of the machine, so more is not to be had.
    "produce": (1.5, 2.0),
    "consume": (1.0, 2.0),
    # Here the broker is the limit, not librdkafka: the whole difference between the request paths shows.
    "pipelined": (5.0, None),
}
ASKED_LATENCY = 1.0  # no worse: a round trip is mostly the kernel's and librdkafka's
ASKED_START = 10.0  # a JVM's start and heap are what a laptop feels first

OS_FLUSH = {"streamlog": {"streamlog.flush": "os"}, "kafka": {}}
"""Kafka's default: acknowledged when written, flushed when the system likes."""
FLUSH_FIRST = {"streamlog": {"streamlog.flush": "before-ack"}, "kafka": {"flush.messages": "1"}}

PRODUCE = {
    "acks": "all",
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 2_000_000,
    "queue.buffering.max.kbytes": 1_000_000,
}
CONSUME = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "check.crcs": False,
    "queued.min.messages": 10_000_000,
    "queued.max.messages.kbytes": 2_000_000,
    "fetch.queue.backoff.ms": 1,  # else librdkafka rests for a second once its queue was full
}

_names = itertools.count()


def fresh_topic(node: Node, configs: dict[str, dict[str, str]]) -> str:
    topic = f"bench-{next(_names)}"
    create_topic(node.bootstrap, topic, configs=configs[node.name])
    return topic


def produce(
    node: Served, topic: str, count: int, size_bytes: int, settings: dict[str, Any] | None = None, partitions: int = 1
) -> None:
    """Write to all partitions by turns."""
    producer = Producer({"bootstrap.servers": node.bootstrap, **PRODUCE, **(settings or {})})
    value = bytes(index % 251 for index in range(size_bytes))
    left, turns = count, itertools.cycle(range(partitions))
    while left:
        messages = [{"value": value}] * min(PRODUCE_BATCH, left)
        sent = producer.produce_batch(topic, messages, partition=next(turns))
        left -= sent
        if sent < len(messages):
            producer.poll(0.005)
    assert producer.flush(TIMEOUT_S) == 0, f"{node.name} did not take {count} records"


def consume(node: Served, topic: str, count: int, partitions: int = 1) -> None:
    consumer = Consumer({"bootstrap.servers": node.bootstrap, "group.id": "bench", **CONSUME})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    seen = 0
    give_up_at_s = time.monotonic() + TIMEOUT_S
    while seen < count:
        seen += len(consumer.consume(100_000, timeout=0.1))
        assert time.monotonic() < give_up_at_s, f"{node.name} gave {seen} of {count} records"
    consumer.close()


S = TypeVar("S", bound=Served)


class Sides(Generic[S]):
    """Alternating measurements of one piece of work on both brokers, into rows."""

    def __init__(self, report: Report, nodes: Sequence[S], rounds: int) -> None:
        self.report, self.nodes, self.rounds = report, nodes, rounds

    def row(self, work: str, unit: str, asked: float | None, *, smaller_is_better: bool = False) -> Row:
        row = Row(work, unit, "Apache Kafka", asked, smaller_is_better)
        self.report.rows.append(row)
        return row

    def put(self, row: Row, node: Served, value: float) -> None:
        (row.ours if node.name == "streamlog" else row.theirs).append(value)

    def rate(
        self, work: str, count: int, asked: float | None, asked_cpu: float | None, run: Callable[[S], float]
    ) -> None:
        """`run` gives the seconds that `count` records took."""
        rates = self.row(work, "records/s", asked)
        cpus = self.row(f"{work}: broker CPU", "us/record", asked_cpu, smaller_is_better=True)
        for number in range(self.rounds + 1):
            for node in self.nodes:
                before_s = node.cpu_s()
                took_s = run(node)
                used_s = node.cpu_s() - before_s
                if number:  # the first round warms the JVM up
                    self.put(rates, node, count / took_s)
                    self.put(cpus, node, used_s / count * 1e6)
                say(f"  {work} {node.name}: {count / took_s:,.0f}/s, {used_s:.2f} s CPU")


def timed(work: Callable[[], None]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def bench_produce(sides: Sides[Node], scale: float) -> None:
    for size_bytes, count in ((100, int(2_000_000 * scale)), (1000, int(300_000 * scale))):

        def run(node: Node, count: int = count, size_bytes: int = size_bytes) -> float:
            topic = fresh_topic(node, OS_FLUSH)
            took_s = timed(lambda: produce(node, topic, count, size_bytes))
            delete_topic(node.bootstrap, topic)
            return took_s

        sides.rate(f"produce {size_bytes} B, batched", count, *ASKED_RATE["produce"], run)


def bench_consume(sides: Sides[Node], scale: float) -> None:
    for size_bytes, count in ((100, int(2_000_000 * scale)), (1000, int(500_000 * scale))):
        topics = {}
        for node in sides.nodes:
            topics[node.name] = fresh_topic(node, OS_FLUSH)
            produce(node, topics[node.name], count, size_bytes)

        def run(node: Node, count: int = count, topics: dict[str, str] = topics) -> float:
            return timed(lambda: consume(node, topics[node.name], count))

        sides.rate(f"consume {size_bytes} B", count, *ASKED_RATE["consume"], run)
        for node in sides.nodes:
            delete_topic(node.bootstrap, topics[node.name])


def bench_pipelined(sides: Sides[Node], scale: float) -> None:
    count = int(60_000 * scale)
    settings = {
        "linger.ms": 0,
        "batch.num.messages": 1,
        "max.in.flight.requests.per.connection": 1000,
        "acks": 1,
    }

    def run(node: Node) -> float:
        topic = fresh_topic(node, OS_FLUSH)
        took_s = timed(lambda: produce(node, topic, count, 100, settings))
        delete_topic(node.bootstrap, topic)
        return took_s

    sides.rate("1 record per request, pipelined", count, *ASKED_RATE["pipelined"], run)


def latencies_us(node: Served, topic: str, count: int) -> list[float]:
    producer = Producer({"bootstrap.servers": node.bootstrap, "acks": "all", "linger.ms": 0})
    acked: list[object] = []
    found: list[float] = []
    value = b"x" * 100

    def on_delivery(error: object, _: object) -> None:
        assert error is None, f"{node.name} refused a record: {error}"
        acked.append(error)

    for number in range(count + count // 5):
        acked.clear()
        started_ns = time.perf_counter_ns()
        producer.produce(topic, value, partition=0, on_delivery=on_delivery)
        while not acked:
            producer.poll(1.0)
        if number >= count // 5:
            found.append((time.perf_counter_ns() - started_ns) / 1000)
    return sorted(found)


def bench_latency(sides: Sides[Node], scale: float) -> None:
    for name, configs, count in (
        ("os flush", OS_FLUSH, int(5_000 * scale)),
        ("flush before ack", FLUSH_FIRST, int(2_000 * scale)),
    ):
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        rows = {
            share: sides.row(f"synchronous produce, {name}, {share}", "us", ASKED_LATENCY, smaller_is_better=True)
            for share in shares
        }
        for number in range(sides.rounds + 1):
            for node in sides.nodes:
                topic = fresh_topic(node, configs)
                found = latencies_us(node, topic, count)
                delete_topic(node.bootstrap, topic)
                say(f"  synchronous produce, {name}, {node.name}: p50 {found[len(found) // 2]:.0f} us")
                for share, level in shares.items():
                    if number:
                        sides.put(rows[share], node, percentile(found, level))


def bench_start(sides: Sides[Node]) -> None:
    ready = sides.row("ready after", "s", ASKED_START, smaller_is_better=True)
    memory = sides.row("memory when idle", "MB", ASKED_START, smaller_is_better=True)
    idle = sides.row("CPU when idle", "ms/s", None, smaller_is_better=True)
    for _ in range(sides.rounds):
        for make in (streamlog, apache_kafka) if have_kafka() else (streamlog,):
            with make() as node:
                sides.put(ready, node, node.ready_s)
                before_s = cpu_s(node.pid)
                time.sleep(IDLE_S)
                sides.put(memory, node, resident_mb(node.pid))
                sides.put(idle, node, (cpu_s(node.pid) - before_s) / IDLE_S * 1000)
                say(f"  start {node.name}: ready after {node.ready_s:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default="start,produce,consume,pipelined,latency")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    report = Report("broker")
    if not have_kafka():
        report.remarks.append("no Apache Kafka here (make interop-java fetches it): our figures stand alone")
    if "start" in rows:
        bench_start(Sides(report, (), arguments.rounds))
    with contextlib.ExitStack() as stack:
        nodes: list[Node] = [stack.enter_context(streamlog())]
        if have_kafka():
            nodes.append(stack.enter_context(apache_kafka()))
        sides = Sides(report, nodes, arguments.rounds)
        for name, bench in (
            ("produce", bench_produce),
            ("consume", bench_consume),
            ("pipelined", bench_pipelined),
            ("latency", bench_latency),
        ):
            if name in rows:
                bench(sides, arguments.scale)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
