"""A streamlog observer follows the metadata log of a running Apache Kafka controller."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamlog.broker.format import format_directory
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.image import RESOURCE_TOPIC, MetadataImage
from streamlog.broker.raft.quorum import Quorum, QuorumSettings
from streamlog.client.admin import Admin, NewTopic
from streamlog.env import Scope, real_env
from tests.kafka_node import CLUSTER_ID, KafkaNode, run_java

pytestmark = pytest.mark.interop_kafka

OBSERVER_ID = 77


@asynccontextmanager
async def observer(path: Path, controller_port: int) -> AsyncIterator[Controller]:
    """What follows the metadata of the quorum behind that port."""
    env = real_env()
    if not path.exists():
        format_directory(env, str(path), cluster_id=CLUSTER_ID, node_id=OBSERVER_ID)
    logs = LogDirectory.open(env, str(path), node_id=OBSERVER_ID, now_ms=env.clock.wall_ms())
    async with Scope("observer") as scope:
        settings = QuorumSettings(OBSERVER_ID, bootstrap=(("127.0.0.1", controller_port),), is_controller=False)
        quorum = Quorum.open(env, logs, Flusher(env, scope), scope, settings, env.clock.wall_ms())
        found = Controller(env, quorum, 20_000_000)
        found.load()
        await quorum.start()
        try:
            yield found
        finally:
            quorum.close()
            await scope.close()
    logs.close(broker_epoch=-1)
    env.offload.close()


def described(text: str) -> dict[tuple[str, int], tuple[int, list[int], list[int]]]:
    """Leader, replicas and ISR by topic and partition, as kafka-topics prints them."""
    rows = re.findall(r"Topic: (\S+)\s+Partition: (\d+)\s+Leader: (\d+)\s+Replicas: (\S+)\s+Isr: (\S+)", text)
    return {
        (topic, int(partition)): (int(leader), [int(n) for n in replicas.split(",")], [int(n) for n in isr.split(",")])
        for topic, partition, leader, replicas, isr in rows
    }


def partitions_of(image: MetadataImage) -> dict[tuple[str, int], tuple[int, list[int], list[int]]]:
    return {
        (topic.name, index): (one.leader, list(one.replicas), list(one.isr))
        for topic in image.topics.values()
        for index, one in topic.partitions.items()
    }


async def test_an_observer_of_apache_kafka_arrives_at_the_same_image(kafka: KafkaNode, tmp_path: Path) -> None:
    """Topics, leaders, ISR and configs, as Kafka's own tools print them; also after a restart of the observer."""
    async with Admin(kafka.bootstrap, env=real_env()) as admin:
        await admin.create_topics([NewTopic("observed-a", 3, 1), NewTopic("observed-b", 5, 1)])
        await admin.create_topics([NewTopic("observed-gone", 1, 1)])
        configs = {"retention.ms": "12345", "cleanup.policy": "compact"}
        await admin.incremental_alter_configs("observed-b", set=configs)
        await admin.delete_topics(["observed-gone"])
    for _ in range(2):
        async with observer(tmp_path / "observer", kafka.controller_port) as found:
            assert await found.until(lambda image: "retention.ms" in image.config(RESOURCE_TOPIC, "observed-b"), 20_000)
            arguments = ["--bootstrap-server", kafka.bootstrap, "--describe"]
            text = await asyncio.to_thread(run_java, kafka.libs, "org.apache.kafka.tools.TopicCommand", arguments)
            assert partitions_of(found.image) == described(text)
            assert "observed-gone" not in found.image.topics
            told = {
                topic: dict(part.split("=", 1) for part in configs.split(",") if part)
                for topic, configs in re.findall(r"Topic: (\S+)\t.*\tConfigs: ?(\S*)", text)
            }
            for name, configs in told.items():
                assert configs.items() >= found.image.config(RESOURCE_TOPIC, name).items()
            assert found.image.brokers[1].endpoints[0].port == kafka.port
            assert not found.image.brokers[1].fenced
            assert found.image.features["metadata.version"] >= 30
