"""Power cuts of one node of three, and of all three at the same instant (make power)."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamlog.client.admin import Admin
from streamlog.client.metadata import TopicInfo
from streamlog.env import real_env
from streamlog.errors import StreamlogError
from tests.cluster.load import Committer, Load, read_all, violations
from tests.crash.disks import Disk, Rack
from tests.crash.load import TopicChurn
from tests.crash.power import MOUNTS, log_bytes, of, read_quorum, write_figures
from tests.streamlog_cluster import StreamlogCluster

pytestmark = [pytest.mark.power, pytest.mark.timeout(900)]

ROUNDS_OF_ONE = 15
ROUNDS_OF_ALL = 10
PARTITIONS = 3
LOAD_SECONDS_MAX = 1.0
DOWN_SECONDS_MAX = 1.5
PATIENCE_SECONDS = 60.0

TOPIC, GROUP, OFFSETS = "t", "g", "__consumer_offsets"
WAITS_FOR_DISK = {"streamlog.flush": "before-ack"}
"""Three replicas by default rely on each other, as Kafka's do: not enough when all lose their power together."""


class PoweredCluster:
    """Three nodes, each with its data on a disk of its own."""

    def __init__(self, rack: Rack, directory: Path) -> None:
        self._rack = rack
        self._disks: dict[int, Disk] = {number: rack.disk(f"node-{number}") for number in (1, 2, 3)}
        self._nodes = StreamlogCluster(directory=directory, data=self._data)
        self.bootstrap = self._nodes.bootstrap
        self.ready_seconds: list[float] = []
        self.lost_bytes: list[int] = []

    def _data(self, number: int) -> Path:
        return self._disks[number].path / "data"

    def cut(self, numbers: list[int], mount: str) -> None:
        """The power of these goes at one instant. They do not run, and their disks are what they were."""
        known = {number: read_quorum(self._data(number)) for number in numbers}
        with self._rack.frozen():
            for number in numbers:
                self._nodes.nodes[number].signal(signal.SIGKILL)
            copies = {number: self._disks[number].copy() for number in numbers}
        for number in numbers:
            self._nodes.nodes[number].stop(kill=True)
            written = log_bytes(self._data(number))
            self._disks[number].replace(copies[number], mount)
            self.lost_bytes.append(written - log_bytes(self._data(number)))
            known[number].check_kept(self._data(number))

    def start(self, numbers: list[int]) -> None:
        began_s = time.monotonic()
        sizes = {number: self._nodes.nodes[number].log.stat().st_size for number in numbers}
        for number in numbers:
            self._nodes.nodes[number].start(wait=False)
        for number in numbers:
            self._nodes.nodes[number].wait_until_started(sizes[number])
            self.ready_seconds.append(time.monotonic() - began_s)

    def until_in_sync(self) -> float:
        """Wait until every partition has a leader and all of its replicas; returns the seconds."""
        began_s = time.monotonic()
        problem = "nobody answers"
        while time.monotonic() < began_s + PATIENCE_SECONDS:
            try:
                infos = asyncio.run(self._describe())
            except StreamlogError as failure:
                problem = str(failure)
                continue
            behind = [
                f"{name}-{one.partition} leader={one.leader} isr={one.isr}"
                for name, info in infos.items()
                for one in info.partitions
                if one.leader < 0 or len(one.isr) < len(one.replicas)
            ]
            if not behind:
                return time.monotonic() - began_s
            problem = "; ".join(behind)
            time.sleep(0.05)
        raise AssertionError(f"not in sync after {PATIENCE_SECONDS:g} s: {problem}")

    async def configure(self, topic: str, configs: dict[str, str]) -> None:
        env = real_env()
        async with Admin(self.bootstrap, env=env) as admin:
            await admin.incremental_alter_configs(topic, set=configs)
        env.offload.close()

    async def _describe(self) -> dict[str, TopicInfo]:
        env = real_env()
        async with Admin(self.bootstrap, env=env, timeout_ms=8_000) as admin:
            found = await admin.describe_topics([TOPIC, OFFSETS])
        env.offload.close()
        return found

    def close(self) -> None:
        self._nodes.close()

    def figures(self) -> dict[str, object]:
        return {
            "cuts_of_nodes": len(self.lost_bytes),
            "ready_seconds": of(self.ready_seconds),
            "cuts_that_took_bytes_of_a_log": sum(1 for lost in self.lost_bytes if lost),
            "bytes_of_logs_written_and_not_on_the_disk": sum(self.lost_bytes),
        }


@pytest.fixture
def cluster(rack: Rack, tmp_path: Path) -> Iterator[PoweredCluster]:
    cluster = PoweredCluster(rack, tmp_path / "cluster")
    try:
        yield cluster
    finally:
        cluster.close()


def make_topics(cluster: PoweredCluster, configs: dict[str, str]) -> None:
    """Our topic, and the one of committed offsets, which the first question for a coordinator makes."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    settings = {"min.insync.replicas": "2", **configs}
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 3, config=settings)], operation_timeout=30)[TOPIC].result(60)
    consumer = ck.Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": GROUP, "log_level": 0})
    consumer.committed([ck.TopicPartition(TOPIC, 0)], timeout=60)
    consumer.close()
    if configs:
        asyncio.run(cluster.configure(OFFSETS, configs))
    cluster.until_in_sync()


class Work:
    """A producer, a committing consumer, and topics that come and go."""

    def __init__(self, cluster: PoweredCluster) -> None:
        self._cluster = cluster
        self.load = Load(cluster.bootstrap, TOPIC, PARTITIONS)
        self.committer = Committer(cluster.bootstrap, TOPIC, PARTITIONS, GROUP)
        self.churn = TopicChurn(cluster.bootstrap)

    def stop_and_check(self) -> dict[str, object]:
        """Nothing acknowledged is lost, nothing is twice, all is in order, commits and topics are as they were."""
        self.load.stop()
        self.committer.stop()
        self.churn.settle()
        self.churn.check()
        wrong = list(self.load.failed)
        for partition, sent in enumerate(self.load.sent):
            found = read_all(self._cluster.bootstrap, TOPIC, partition)
            wrong += [f"partition {partition}: {one}" for one in violations(sent, found)]
        wrong += self._lost_commits()
        assert wrong == []
        return {
            "messages": sum(len(sent.acknowledged) for sent in self.load.sent),
            "commits": len(self.committer.commits_at_s),
            "topics_made_and_deleted": len(self.churn.exists),
        }

    def _lost_commits(self) -> list[str]:
        wanted = self.committer.committed
        assert wanted, "nothing was committed"
        consumer = ck.Consumer({"bootstrap.servers": self._cluster.bootstrap, "group.id": GROUP, "log_level": 0})
        found = consumer.committed([ck.TopicPartition(TOPIC, number) for number in wanted], timeout=60)
        consumer.close()
        return [
            f"committed {wanted[one.partition]} of partition {one.partition}, and found {one.offset}"
            for one in found
            if one.offset < wanted[one.partition]
        ]


def test_replicas_make_up_for_a_node_whose_page_cache_is_gone(cluster: PoweredCluster) -> None:
    """One node after another, and at times a second one before the first is in sync again; acks wait for no disk."""
    make_topics(cluster, {})
    work = Work(cluster)
    dice = random.Random(1)
    written_again: list[float] = []
    in_sync: list[float] = []
    for _ in range(ROUNDS_OF_ONE):
        work.churn.step()
        time.sleep(dice.random() * LOAD_SECONDS_MAX)
        for number in dice.sample([1, 2, 3], dice.choice([1, 2])):
            began_s = time.monotonic()
            cluster.cut([number], dice.choice(MOUNTS))
            time.sleep(dice.random() * DOWN_SECONDS_MAX)
            cluster.start([number])
            written_again.append(max(work.load.written_again_s(began_s)))
        in_sync.append(cluster.until_in_sync())
        work.churn.settle()
        work.churn.check()
    figures = {
        "written_again_seconds_after_a_cut": of(written_again),
        "in_sync_seconds_after_the_start": of(in_sync),
    }
    write_figures("one node of three at a time", cluster.figures() | figures | work.stop_and_check())


def test_disks_that_acks_waited_for_have_all_when_three_nodes_lose_power_at_once(cluster: PoweredCluster) -> None:
    """Nobody is left to copy from: each node has only its disk."""
    make_topics(cluster, WAITS_FOR_DISK)
    work = Work(cluster)
    dice = random.Random(2)
    written_again: list[float] = []
    for _ in range(ROUNDS_OF_ALL):
        work.churn.step()
        assert work.committer.committed_again_s(time.monotonic(), PATIENCE_SECONDS) is not None
        time.sleep(dice.random() * LOAD_SECONDS_MAX)
        cluster.cut([1, 2, 3], dice.choice(MOUNTS))
        began_s = time.monotonic()
        cluster.start([1, 2, 3])
        written_again.append(max(work.load.written_again_s(began_s)))
        cluster.until_in_sync()
        work.churn.settle()
        work.churn.check()
    figures = {"written_again_seconds_after_the_power_came_back": of(written_again)}
    write_figures("three nodes at once", cluster.figures() | figures | work.stop_and_check())
