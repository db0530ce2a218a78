"""Three of our nodes beside three of Apache Kafka's: throughput, latency, leaders that die, idle replicas.

    python -m bench.cluster [--scale X] [--rounds N] [--rows produce,consume,...] [--side kafka] [--json PATH]

Three replicas, of which two have to be in sync, acks=all, flushed when the system likes: Kafka's defaults for what is
meant to be safe, and ours. Both clusters run at once, only one has work at a time, and they take turns in each round.
Six nodes and a client share the machine, so read the CPU first: it counts all three nodes of a side.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable

from confluent_kafka import Producer

from bench.broker import Sides, consume, latencies_us, produce, timed
from bench.clusters import REPLICAS, Cluster, apache_kafka, streamlog
from bench.load import create_topic, delete_topic
from bench.nodes import have_kafka
from bench.report import Report, percentile, say
from streamlog.client.admin import Admin
from streamlog.client.metadata import PartitionInfo
from streamlog.env import real_env
from streamlog.errors import StreamlogError

PARTITIONS = 3
"""One leader on each node."""

MANY = 1000
"""Partitions for the rows about idle replicas, and with them replicas of each node."""

SETTLE_S, IDLE_S = 5.0, 5.0
TIMEOUT_S = 120.0
POLL_S = 0.01
EVERY_S = 0.005

ASKED_CPU = 2.0  # as for one node: every record is written three times, and each time it costs what it costs
ASKED_RATE = 1.0  # on two processors with six nodes the throughput says little
ASKED_LATENCY = 1.0  # no worse
ASKED_LEADERLESS = 4.0  # 2 s, where Kafka waits for the end of a session of 9
ASKED_REPLICA = 2.0
ASKED_START = 4.0

NO_PATIENCE = {
    "acks": "all",
    "linger.ms": 0,
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 50,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 50,
    "topic.metadata.refresh.fast.interval.ms": 20,
    "topic.metadata.refresh.interval.ms": 50,  # else it looks for partitions without a leader once a second
    "message.timeout.ms": 120_000,
    "log_level": 0,
}
"""A client that finds a new leader within milliseconds, so that what is measured is the cluster."""

_names = itertools.count()


def fresh_topic(cluster: Cluster, partitions: int = PARTITIONS) -> str:
    topic = f"bench-{next(_names)}"
    create_topic(cluster.bootstrap, topic, partitions=partitions, replicas=REPLICAS)
    until_in_sync(cluster, topic)
    return topic


def partitions_of(cluster: Cluster, topic: str) -> list[PartitionInfo]:
    async def ask() -> list[PartitionInfo]:
        env = real_env()
        async with Admin(cluster.bootstrap, env=env, timeout_ms=10_000) as admin:
            found = list((await admin.describe_topics([topic]))[topic].partitions)
        env.offload.close()
        return found

    return asyncio.run(ask())


def until_in_sync(cluster: Cluster, topic: str) -> None:
    give_up_at_s = time.monotonic() + TIMEOUT_S
    while True:
        with contextlib.suppress(StreamlogError):
            if all(len(one.isr) == REPLICAS and one.leader >= 0 for one in partitions_of(cluster, topic)):
                return
        assert time.monotonic() < give_up_at_s, f"{cluster.name}: {topic} is not in sync"
        time.sleep(POLL_S)


def bench_produce(sides: Sides[Cluster], scale: float) -> None:
    for size_bytes, count in ((100, int(600_000 * scale)), (1000, int(120_000 * scale))):

        def run(cluster: Cluster, count: int = count, size_bytes: int = size_bytes) -> float:
            topic = fresh_topic(cluster)
            took_s = timed(lambda: produce(cluster, topic, count, size_bytes, partitions=PARTITIONS))
            delete_topic(cluster.bootstrap, topic)
            return took_s

        sides.rate(f"produce {size_bytes} B, batched", count, ASKED_RATE, ASKED_CPU, run)


def bench_consume(sides: Sides[Cluster], scale: float) -> None:
    for size_bytes, count in ((100, int(600_000 * scale)), (1000, int(150_000 * scale))):
        topics = {}
        for cluster in sides.nodes:
            topics[cluster.name] = fresh_topic(cluster)
            produce(cluster, topics[cluster.name], count, size_bytes, partitions=PARTITIONS)

        def run(cluster: Cluster, count: int = count, topics: dict[str, str] = topics) -> float:
            return timed(lambda: consume(cluster, topics[cluster.name], count, PARTITIONS))

        sides.rate(f"consume {size_bytes} B", count, ASKED_RATE, ASKED_CPU, run)
        for cluster in sides.nodes:
            delete_topic(cluster.bootstrap, topics[cluster.name])


def bench_latency(sides: Sides[Cluster], scale: float) -> None:
    shares = {"p50": 0.5, "p99": 0.99}
    rows = {
        share: sides.row(f"synchronous produce, {share}", "us", ASKED_LATENCY, smaller_is_better=True)
        for share in shares
    }
    for number in range(sides.rounds + 1):
        for cluster in sides.nodes:
            topic = fresh_topic(cluster, 1)
            found = latencies_us(cluster, topic, int(2_000 * scale))
            delete_topic(cluster.bootstrap, topic)
            say(f"  synchronous produce, {cluster.name}: p50 {found[len(found) // 2]:.0f} us")
            for share, level in shares.items():
                if number:
                    sides.put(rows[share], cluster, percentile(found, level))


def leaderless_s(cluster: Cluster, topic: str) -> float:
    """Kill the partition's leader; the seconds until a message that was handed over afterwards is acknowledged."""
    killed_at_s = 0.0
    written_at_s: list[float] = []

    def on_delivery(handed_over_s: float) -> Callable[[object, object], None]:
        def delivered(error: object, _: object) -> None:
            assert error is None, f"{cluster.name} refused a record: {error}"
            if 0 < killed_at_s < handed_over_s:
                written_at_s.append(time.monotonic())

        return delivered

    producer = Producer({"bootstrap.servers": cluster.bootstrap, **NO_PATIENCE})
    leader = cluster.members[partitions_of(cluster, topic)[0].leader]
    began_s = time.monotonic()
    while not written_at_s:
        now_s = time.monotonic()
        if not killed_at_s and now_s > began_s + 1.0:
            leader.stop(kill=True)
            killed_at_s = now_s
        assert now_s < began_s + TIMEOUT_S, f"{cluster.name}: nothing is written any more"
        producer.produce(topic, b"x", partition=0, on_delivery=on_delivery(now_s))
        producer.poll(EVERY_S)
    assert producer.flush(TIMEOUT_S) == 0, f"{cluster.name} left records behind"
    leader.start()
    until_in_sync(cluster, topic)
    return written_at_s[0] - killed_at_s


def bench_leader(sides: Sides[Cluster], scale: float) -> None:
    row = sides.row("no leader after kill -9", "s", ASKED_LEADERLESS, smaller_is_better=True)
    topics = {cluster.name: fresh_topic(cluster, 1) for cluster in sides.nodes}
    for _ in range(sides.rounds):
        for cluster in sides.nodes:
            found_s = leaderless_s(cluster, topics[cluster.name])
            sides.put(row, cluster, found_s)
            say(f"  no leader after kill -9, {cluster.name}: {found_s:.2f} s")
    for cluster in sides.nodes:
        delete_topic(cluster.bootstrap, topics[cluster.name])


def idle_ms_per_s(cluster: Cluster) -> float:
    before_s = cluster.cpu_s()
    time.sleep(IDLE_S)
    return (cluster.cpu_s() - before_s) / IDLE_S * 1000


def bench_idle(sides: Sides[Cluster], scale: float) -> None:
    """What a replica costs when nothing happens, and how long a node with many of them takes to start."""
    partitions = int(MANY * scale)
    empty = sides.row("idle CPU of three empty nodes", "ms/s", None, smaller_is_better=True)
    memory = sides.row("memory of an idle replica", "KB", ASKED_REPLICA, smaller_is_better=True)
    cpu = sides.row("CPU of an idle replica", "us/s", ASKED_REPLICA, smaller_is_better=True)
    ready = sides.row(f"start of a node with {partitions} replicas, ready", "s", ASKED_START, smaller_is_better=True)
    in_sync = sides.row("... and all in sync", "s", ASKED_START, smaller_is_better=True)
    replicas = partitions * REPLICAS
    topics = {}
    for cluster in sides.nodes:
        before_mb, before_ms = cluster.resident_mb(), idle_ms_per_s(cluster)
        topics[cluster.name] = fresh_topic(cluster, partitions)
        time.sleep(SETTLE_S)
        after_ms = idle_ms_per_s(cluster)
        sides.put(empty, cluster, before_ms)
        sides.put(memory, cluster, (cluster.resident_mb() - before_mb) / replicas * 1024)
        sides.put(cpu, cluster, max(0.0, after_ms - before_ms) / replicas * 1000)
        say(f"  idle, {cluster.name}: {before_ms:.0f} ms/s empty, {after_ms:.0f} ms/s with {replicas} replicas")
    for number in range(sides.rounds):
        for cluster in sides.nodes:
            member = cluster.members[number % REPLICAS + 1]
            member.stop()
            ready_s = timed(member.start)
            sides.put(ready, cluster, ready_s)
            waited_from_s = time.perf_counter()
            until_in_sync(cluster, topics[cluster.name])
            sides.put(in_sync, cluster, ready_s + time.perf_counter() - waited_from_s)
            say(f"  start of node {member.node_id}, {cluster.name}: ready after {ready_s:.2f} s")
    for cluster in sides.nodes:
        delete_topic(cluster.bootstrap, topics[cluster.name])


BENCHES: dict[str, Callable[[Sides[Cluster], float], None]] = {
    "produce": bench_produce,
    "consume": bench_consume,
    "latency": bench_latency,
    "leader": bench_leader,
    "idle": bench_idle,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default=",".join(BENCHES))
    parser.add_argument("--side", choices=("both", "streamlog", "kafka"), default="both")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    report = Report("cluster")
    makers = {"streamlog": streamlog, "kafka": apache_kafka}
    if not have_kafka():
        report.remarks.append("no Apache Kafka here (make interop-java fetches it): our figures stand alone")
        del makers["kafka"]
    with contextlib.ExitStack() as stack:
        wanted = [make for name, make in makers.items() if arguments.side in ("both", name)]
        clusters = [stack.enter_context(make()) for make in wanted]
        sides = Sides(report, clusters, arguments.rounds)
        start = sides.row("three nodes ready after", "s", None, smaller_is_better=True)
        for cluster in clusters:
            sides.put(start, cluster, cluster.ready_s)
        for name in arguments.rows.split(","):
            BENCHES[name](sides, arguments.scale)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
