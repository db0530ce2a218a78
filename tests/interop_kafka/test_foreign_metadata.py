"""A broker of ours in a cluster of Apache Kafka that uses what streamlog does not have: it ends, and says why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamlog.broker.config import BrokerConfig, load_config
from streamlog.broker.format import format_directory
from streamlog.broker.node import start_node
from streamlog.env import real_env
from streamlog.errors import EnvironmentFailure
from tests.interop_kafka.test_mixed_cluster import OLD_PROTOCOLS
from tests.kafka_node import CLUSTER_ID, KafkaNode, run_java

pytestmark = pytest.mark.interop_kafka

AUTHORIZED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
ADD_ACL = ["--add", "--allow-principal", "User:a", "--operation", "Read", "--topic", "t"]
SET_QUOTA = ["--alter", "--add-config", "producer_byte_rate=1000", "--entity-type", "users", "--entity-name", "a"]


def broker_config(theirs: KafkaNode) -> BrokerConfig:
    settings = {
        "process.roles": "broker",
        "node.id": "31",
        "listeners": "PLAINTEXT://127.0.0.1:0",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{theirs.controller_port}",
    }
    return load_config(settings)[0]


@pytest.mark.timeout(180)
async def test_a_running_broker_that_meets_an_acl_ends_and_says_so_at_each_start(
    kafka_libs: Path, tmp_path: Path
) -> None:
    """A broker that went on would allow what is forbidden."""
    env = real_env()
    directory = str(tmp_path / "ours")
    format_directory(env, directory, cluster_id=CLUSTER_ID, node_id=31)
    with KafkaNode(kafka_libs, properties=AUTHORIZED, features=OLD_PROTOCOLS) as theirs:
        failed = asyncio.Event()
        failures: list[BaseException] = []

        def on_failure(error: BaseException) -> None:
            failures.append(error)
            failed.set()

        node = await asyncio.wait_for(start_node(env, broker_config(theirs), directory, on_failure=on_failure), 30)
        arguments = ["--bootstrap-controller", f"127.0.0.1:{theirs.controller_port}", *ADD_ACL]
        await asyncio.to_thread(run_java, kafka_libs, "org.apache.kafka.tools.AclCommand", arguments)
        await asyncio.wait_for(failed.wait(), 30)
        await node.close()
        assert "ACLs" in str(failures[0])
        with pytest.raises(EnvironmentFailure, match="ACLs"):
            await asyncio.wait_for(start_node(env, broker_config(theirs), directory), 30)
    env.offload.close()


@pytest.mark.timeout(180)
async def test_a_broker_does_not_join_a_cluster_with_client_quotas(kafka_libs: Path, tmp_path: Path) -> None:
    """It would not keep anybody to them."""
    env = real_env()
    directory = str(tmp_path / "ours")
    format_directory(env, directory, cluster_id=CLUSTER_ID, node_id=31)
    with KafkaNode(kafka_libs, features=OLD_PROTOCOLS) as theirs:
        arguments = ["--bootstrap-server", theirs.bootstrap, *SET_QUOTA]
        await asyncio.to_thread(run_java, kafka_libs, "kafka.admin.ConfigCommand", arguments)
        with pytest.raises(EnvironmentFailure, match="client quotas"):
            await asyncio.wait_for(start_node(env, broker_config(theirs), directory), 30)
    env.offload.close()


async def test_a_cluster_with_features_that_a_broker_does_not_have_does_not_take_it(
    kafka: KafkaNode, tmp_path: Path
) -> None:
    """Kafka's controller refuses the registration: groups of KIP-848, share and streams groups, transactions."""
    env = real_env()
    directory = str(tmp_path / "ours")
    format_directory(env, directory, cluster_id=CLUSTER_ID, node_id=31)
    with pytest.raises(EnvironmentFailure, match="UNSUPPORTED_VERSION"):
        await asyncio.wait_for(start_node(env, broker_config(kafka), directory), 30)
    env.offload.close()
