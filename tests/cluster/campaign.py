"""Faults one after another, on a cluster under load: what each was, whom it hit, and how long it was felt.

    python -m tests.cluster.campaign --cluster streamlog --faults 100 --seed 7

A fault lasts until every partition has been written again, and a little longer; then the node comes back, and the next
fault waits until every replica is in sync. The figures are written as JSON; the histories are checked at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamlog.client.metadata import TopicInfo
from tests.cluster.load import STUBBORN, Committer, Load, read_all, violations
from tests.cluster.members import Cluster, kafka_cluster, streamlog_cluster
from tests.cluster.network import CLIENTS, Network, is_possible
from tests.kafka_node import REPOSITORY, kafka_libs

TOPIC, GROUP = "under-load", "committers"
OFFSETS = "__consumer_offsets"
PARTITIONS = 6
REPLICAS = 3
HOLD_S_MAX = 1.0
"""How much longer than until all is written again a fault may last."""

COMMIT_S_MAX = 20.0
"""How long to wait for a commit while a fault lasts. A client may stay with a coordinator that it
reaches and that cannot reach the others, whatever that one answers, until it is told of another."""

STARVED_S_MAX = 1.0
"""Most that is forgiven for a busy machine: a client that writes all the time waits for processors also while everybody
waits for a session to end."""

KILL, FREEZE, STOP = "kill -9", "freeze", "stop"
ISOLATE, PEERS, MUTE = "cut off", "cut off from nodes", "cannot be heard by nodes"
LOCAL = (KILL, FREEZE, STOP)
FAULTS = (KILL, KILL, FREEZE, ISOLATE, PEERS, MUTE, STOP)
"""Kills twice as often."""

TARGETS = ("leader", "follower", "controller", "coordinator")


@dataclass(slots=True)
class Felt:
    """One fault and how long it was felt, in seconds."""

    fault: str
    target: str
    node: int
    written_again_s: list[float]
    """By partition."""
    committed_again_s: float | None
    """None: not while it lasted."""
    starved_s: float
    """How much of the time until all was written again a thread that was needed for it was ready to run, and others had
    the processors: the largest such time of any one of the other nodes' main threads and of the client's threads."""

    @property
    def slowest_s(self) -> float:
        """Of the slowest partition, by the clock on the wall."""
        return max(self.written_again_s)

    @property
    def own_s(self) -> float:
        """Without the time that others had the processors, as far as that may count."""
        return self.slowest_s - min(self.starved_s, STARVED_S_MAX)


@dataclass(slots=True)
class Report:
    """A campaign."""

    cluster: str
    seed: int
    felt: list[Felt] = field(default_factory=list)
    acknowledged: int = 0
    violations: list[str] = field(default_factory=list)
    client: dict[str, Any] = field(default_factory=dict)
    """The producer's settings."""

    def summary(self) -> dict[str, dict[str, float]]:
        """By kind of fault: how many, and of the slowest partition of each the median and the maximum."""
        found: dict[str, dict[str, float]] = {}
        for kind in sorted({one.fault for one in self.felt}):
            worst = [one.slowest_s for one in self.felt if one.fault == kind]
            own = [one.own_s for one in self.felt if one.fault == kind]
            commits = [one.committed_again_s or COMMIT_S_MAX for one in self.felt if one.fault == kind]
            found[kind] = {
                "faults": len(worst),
                "written_again_s_median": round(statistics.median(worst), 3),
                "written_again_s_max": round(max(worst), 3),
                "without_waiting_for_a_processor_s_max": round(max(own), 3),
                "committed_again_s_median": round(statistics.median(commits), 3),
                "committed_again_s_max": round(max(commits), 3),
            }
        return found

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"summary": self.summary(), **asdict(self)}, indent=2) + "\n")


class Starvation:
    """How long nodes and this process were ready to run while others had the processors, from now on."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = nodes
        self._before = self._waits()

    def _waits(self) -> dict[str, int]:
        """By thread, in nanoseconds; nothing where the kernel does not count it."""
        found: dict[str, int] = {}
        mains = [Path(f"/proc/{pid}/task/{pid}/schedstat") for pid in self._nodes]
        for path in (*mains, *Path("/proc/self/task").glob("*/schedstat")):
            try:
                found[str(path)] = int(path.read_text().split()[1])
            except OSError:
                continue  # it has just ended
        return found

    def seconds(self) -> float:
        """The largest wait of one thread: what came one after the other in several of them is not added up."""
        now = self._waits()
        return max((now[thread] - self._before.get(thread, 0) for thread in now), default=0) / 1e9


def coordinator_partition(group: str, partitions: int) -> int:
    """Where a group's offsets are: Java's hash of its name."""
    hashed = 0
    for char in group:
        hashed = (31 * hashed + ord(char)) & 0xFFFF_FFFF
    return (hashed & 0x7FFF_FFFF) % partitions


def pick(target: str, infos: dict[str, TopicInfo], controller: int, dice: random.Random) -> int:
    """The node that plays a part right now."""
    partition = infos[TOPIC].partitions[dice.randrange(PARTITIONS)]
    if target == "leader":
        return partition.leader
    if target == "follower":
        return dice.choice([one for one in partition.replicas if one != partition.leader])
    if target == "controller" and controller > 0:
        return controller
    offsets = infos[OFFSETS].partitions
    return offsets[coordinator_partition(GROUP, len(offsets))].leader


@contextmanager
def fault(cluster: Cluster, kind: str, node: int) -> Iterator[None]:
    """Something is wrong with a node inside the block."""
    member, others = cluster.members[node], [one for one in cluster.members if one != node]
    if kind in LOCAL:
        if kind == KILL:
            member.stop(kill=True)
        elif kind == STOP:
            member.stop()
        else:
            member.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if kind == FREEZE:
                member.signal(signal.SIGCONT)
            else:
                member.start()
        return
    assert cluster.network is not None, "cuts need a network of our own"
    if kind == ISOLATE:
        cluster.network.isolate(node, [*others, CLIENTS])
    elif kind == PEERS:
        cluster.network.isolate(node, others)
    else:
        for other in others:
            cluster.network.cut(node, other)
    try:
        yield
    finally:
        cluster.network.heal()


def run_campaign(
    cluster: Cluster, faults: int, seed: int, kinds: Sequence[str] = FAULTS, load_settings: dict[str, Any] | None = None
) -> Report:
    """Mistreat a running cluster; returns what was measured and what was wrong."""
    report = Report(cluster.name, seed, client=STUBBORN | (load_settings or {}))
    dice = random.Random(seed)
    allowed = [kind for kind in kinds if kind in LOCAL or cluster.network is not None]
    make_topic(cluster)
    load = Load(cluster.bootstrap, TOPIC, PARTITIONS, load_settings)
    committer = Committer(cluster.bootstrap, TOPIC, PARTITIONS, GROUP)
    assert committer.committed_again_s(time.monotonic(), 60) is not None, committer.problems
    kinds_now = deal(allowed, faults, dice)
    targets_now = deal(TARGETS, faults, dice)
    for number, (kind, target) in enumerate(zip(kinds_now, targets_now, strict=True), 1):
        cluster.until_in_sync(TOPIC, OFFSETS)
        time.sleep(0.3 + dice.random() * 0.5)
        infos, controller = cluster.describe(TOPIC, OFFSETS)
        node = pick(target, infos, controller, dice)
        began_s = time.monotonic()
        with fault(cluster, kind, node):
            if kind not in LOCAL:
                began_s = time.monotonic()  # the last link has just been cut
            starvation = Starvation([one.pid for one in cluster.members.values() if one.node_id != node])
            # A stop takes its time, and what is handed over at its beginning is written as ever.
            written = load.slowest_s(began_s) if kind == STOP else load.written_again_s(began_s)
            starved_s = starvation.seconds()
            committed = committer.committed_again_s(began_s, COMMIT_S_MAX)
            time.sleep(dice.random() * HOLD_S_MAX)
        again = [round(one, 3) for one in written]
        report.felt.append(Felt(kind, target, node, again, committed, round(min(starved_s, max(written)), 3)))
        told = f"no commit ({committer.problems[-1:]})" if committed is None else f"committed after {committed:6.2f} s"
        print(
            f"{number:4d}  {kind:26s} {target:12s} node {node}  written again after {max(written):6.2f} s "
            f"(waited {starved_s:.2f} s for a processor), {told}",
            flush=True,
        )
    cluster.until_in_sync(TOPIC, OFFSETS)
    load.stop()
    committer.stop()
    check(cluster, load, committer, report)
    return report


def deal(cards: Sequence[str], count: int, dice: random.Random) -> list[str]:
    """Each card as often as the others, in an order of chance."""
    dealt: list[str] = []
    while len(dealt) < count:
        pack = list(cards)
        dice.shuffle(pack)
        dealt += pack
    return dealt[:count]


def make_topic(cluster: Cluster) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    settings = {"min.insync.replicas": "2"}
    give_up_at = time.monotonic() + 60
    while len(admin.list_topics(timeout=30).brokers) < len(cluster.members):
        assert time.monotonic() < give_up_at, "not all nodes have joined"
        time.sleep(0.1)
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, REPLICAS, config=settings)], operation_timeout=30)[TOPIC].result(
        60
    )
    consumer = ck.Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": GROUP, "log_level": 0})
    give_up_at = time.monotonic() + 60
    while True:  # the first question for a coordinator makes its topic
        try:
            consumer.committed([_partition(0)], timeout=10)
            break
        except ck.KafkaException:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)
    consumer.close()
    cluster.until_in_sync(TOPIC, OFFSETS)


def _partition(number: int) -> ck.TopicPartition:
    return ck.TopicPartition(TOPIC, number)


def check(cluster: Cluster, load: Load, committer: Committer, report: Report) -> None:
    """Nothing acknowledged lost, none twice, all in order, and commits that were acknowledged still there."""
    report.violations += load.failed
    for partition, sent in enumerate(load.sent):
        report.acknowledged += len(sent.acknowledged)
        found = read_all(cluster.bootstrap, TOPIC, partition)
        report.violations += [f"partition {partition}: {wrong}" for wrong in violations(sent, found)]
        if len(sent.acknowledged) < len(sent.handed_over_s):
            report.violations.append(f"partition {partition}: not every message was acknowledged in the end")
    consumer = ck.Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": GROUP, "log_level": 0})
    for one in consumer.committed([_partition(number) for number in committer.committed], timeout=60):
        wanted = committer.committed[one.partition]
        if one.offset < wanted:
            report.violations.append(f"partition {one.partition}: committed {wanted}, and found {one.offset}")
    consumer.close()


@contextmanager
def cluster_under_test(name: str, path: Path, *, with_network: bool = True) -> Iterator[Cluster]:
    """Three nodes, in namespaces of their own where that is possible."""
    with ExitStack() as stack:
        network = stack.enter_context(Network(3)) if with_network and is_possible() else None
        if name == "streamlog":
            yield stack.enter_context(streamlog_cluster(path, network))
            return
        libs = kafka_libs()
        assert libs is not None, "Apache Kafka's jars: make kafka-libs"
        yield stack.enter_context(kafka_cluster(libs, network))


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults on three nodes under load.")
    parser.add_argument("--cluster", choices=("streamlog", "kafka"), default="streamlog")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--kind", action="append", choices=sorted(set(FAULTS)), help="Only these; may be repeated.")
    parser.add_argument("--keep", action="store_true", help="Keep the nodes' directories.")
    arguments = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="streamlog-cluster-"))
    print(f"seed {arguments.seed}, nodes in {path}", flush=True)
    with cluster_under_test(arguments.cluster, path) as cluster:
        if cluster.network is None:
            print("no network namespaces here (they take root and iproute2): nodes are killed and frozen, not cut off")
        report = run_campaign(cluster, arguments.faults, arguments.seed, arguments.kind or FAULTS)
    target = REPOSITORY / "target" / "cluster" / f"{report.cluster}.json"
    report.write(target)
    print(json.dumps(report.summary(), indent=2))
    print(f"{report.acknowledged} messages acknowledged; {len(report.violations)} violations; figures in {target}")
    for wrong in report.violations:
        print(f"VIOLATION {wrong}")
    if not arguments.keep and not report.violations:
        shutil.rmtree(path)
    sys.exit(bool(report.violations))


if __name__ == "__main__":
    main()
