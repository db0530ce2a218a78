"""Apache Kafka's `kafka-metadata-quorum` describes and changes a quorum of our controllers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from streamlog.broker.raft.quorum import Quorum
from streamlog.wire.uuids import uuid_to_text
from tests.broker.nodes import CONTROLLER, combined, nodes
from tests.broker.raft.controllers import controllers
from tests.interop_java.conftest import KafkaTools

pytestmark = pytest.mark.interop_java

TOOL = "org.apache.kafka.tools.MetadataQuorumCommand"


def are_caught_up(quorum: Quorum, *replicas: int) -> bool:
    """Whether these fetch from this leader, and have all it has."""
    found = quorum.describe()
    if found is None:
        return False
    known = {one.key.id: one.end_offset for one in (*found.voters, *found.observers)}
    return all(known.get(number) == quorum.next_offset for number in replicas)


async def test_kafka_describes_our_quorum(tmp_path: Path, kafka_tools: KafkaTools) -> None:
    """By any of the controllers: who leads, who follows, how far everybody is."""
    async with controllers(tmp_path) as found:
        await found.start()
        await found.write("a", times=3)
        leader = await found.leader()
        await found.until(lambda: len(leader.controller.image.controllers) == 3)  # they have made themselves known
        await found.until(lambda: are_caught_up(leader.quorum, 1, 2, 3))
        any_of_them = ["--bootstrap-controller", f"127.0.0.1:{found.ports[0]}"]
        for number, port in enumerate(found.ports, 1):
            at = ["--bootstrap-controller", f"127.0.0.1:{port}"]
            said = await asyncio.to_thread(kafka_tools.run, TOOL, *at, "describe", "--status")
            assert said.code == 0, said.err
            values = dict(re.findall(r"^(\w+): +(.*)$", said.out, re.MULTILINE))
            assert values["LeaderId"] == str(leader.node_id), f"asked {number}"
            assert values["LeaderEpoch"] == str(leader.quorum.epoch)
            assert values["MaxFollowerLag"] == "0"
            assert all(f"CONTROLLER://127.0.0.1:{one}" in values["CurrentVoters"] for one in found.ports)
        said = await asyncio.to_thread(kafka_tools.run, TOOL, *any_of_them, "describe", "--replication")
        rows = [line.split() for line in said.out.splitlines()[1:]]
        assert sorted((row[0], row[-1]) for row in rows) == sorted(
            (str(number), "Leader" if number == leader.node_id else "Follower") for number in (1, 2, 3)
        )


async def test_kafka_adds_and_removes_a_controller(tmp_path: Path, kafka_tools: KafkaTools) -> None:
    """The tool reads the new controller's own properties file; brokers pass on what it asks them."""
    async with nodes(tmp_path, combined() | {4: CONTROLLER}, voters=(1, 2, 3)) as found:
        await found.start()
        await found.until(lambda: any(are_caught_up(quorum, 4) for quorum in found.quorums.values()))
        by_broker = ["--bootstrap-server", f"127.0.0.1:{found.brokers[2].listening[0].port}"]
        file = tmp_path / "4.properties"
        settings = found.values(4) | {"log.dirs": found.directory(4)}
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        said = await asyncio.to_thread(
            kafka_tools.run, TOOL, *by_broker, "--command-config", str(file), "add-controller"
        )
        assert said.code == 0, said.err
        await found.until(lambda: all(len(quorum.core.voters) == 4 for quorum in found.quorums.values()))
        said = await asyncio.to_thread(kafka_tools.run, TOOL, *by_broker, "describe", "--replication")
        assert [line.split()[-1] for line in said.out.splitlines() if line.startswith("4")] == ["Follower"], said.err
        directory = uuid_to_text(found.controllers[4].logs.directory_id)
        removal = ["remove-controller", "--controller-id", "4", "--controller-directory-id", directory]
        said = await asyncio.to_thread(kafka_tools.run, TOOL, *by_broker, *removal)
        assert said.code == 0, said.err
        await found.until(lambda: all(len(quorum.core.voters) == 3 for quorum in found.quorums.values()))
        said = await asyncio.to_thread(kafka_tools.run, TOOL, *by_broker, "describe", "--replication")
        assert [line.split()[-1] for line in said.out.splitlines() if line.startswith("4")] == ["Observer"], said.err
