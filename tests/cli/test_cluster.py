"""`streamlog cluster`: processes, ports and files of local nodes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from streamlog.broker.config import load_config, parse_properties
from streamlog.broker.metadata.image import RESOURCE_TOPIC
from streamlog.cli.local_cluster import make_plan, properties
from streamlog.cli.process_files import Process, find
from streamlog.env import real_env
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.running import RawClient
from tests.cli.shell import Shell, until


class Clusters:
    """A shell, and the clusters it made, which are killed in the end."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell

    def __call__(self, *arguments: str, directory: str = "one") -> Any:
        return self.shell.run("cluster", *arguments, "--dir", directory, "--json").json

    def close(self) -> None:
        for path in self.shell.path.glob("*/node-*/process.json"):
            process = find(path)
            if process is not None:
                process.signal(signal.SIGKILL)


@pytest.fixture
def clusters(shell: Shell) -> Iterator[Clusters]:
    made = Clusters(shell)
    yield made
    made.close()


def states(described: dict[str, Any]) -> dict[int, str]:
    return {one["node"]: one["state"].split(",")[0] for one in described["nodes"]}


def test_a_node_is_started_killed_started_and_stopped(clusters: Clusters) -> None:
    """And what was written stays, at the same address, with the settings it was made with."""
    first = clusters("start", "1", "-c", "num.partitions=3")
    assert states(first) == {1: "up"}
    assert "num.partitions=3" in (clusters.shell.path / "one/node-1/server.properties").read_text()
    broker = ("--broker", first["bootstrap"])
    clusters.shell.ok("topics", "create", "kept", *broker)
    assert clusters("kill", "1") == [1]
    assert states(clusters("describe")) == {1: "stopped"}
    second = clusters("start")
    assert (second["bootstrap"], second["cluster_id"]) == (first["bootstrap"], first["cluster_id"])
    assert second["nodes"][0]["pid"] != first["nodes"][0]["pid"]
    assert clusters.shell.run("topics", "list", *broker, "--json").json[0]["partitions"] == 3
    assert clusters("start")["nodes"] == second["nodes"], "what runs stays"
    third = clusters("restart")
    assert third["nodes"][0]["pid"] != second["nodes"][0]["pid"]
    assert clusters("stop") == [1]
    assert clusters("stop") == []
    log = (clusters.shell.path / "one/node-1/node.log").read_text()
    assert log.count("ready on") == 3, "each start adds to the log"


def test_two_clusters_do_not_meet(clusters: Clusters) -> None:
    """Each has its own directory, ports and processes."""
    one, two = clusters("start", "1"), clusters("start", "1", directory="two")
    assert one["cluster_id"] != two["cluster_id"]
    assert one["bootstrap"] != two["bootstrap"]
    assert clusters("stop", directory="two") == [1]
    assert states(clusters("describe")) == {1: "up"}


def test_a_number_of_another_process_is_not_believed(clusters: Clusters) -> None:
    """After a reboot the numbers in the files belong to others, who must not be touched."""
    clusters("start", "1")
    clusters("kill", "1")
    path = clusters.shell.path / "one/node-1/process.json"
    stale = json.loads(path.read_text()) | {"pid": os.getpid()}
    path.write_text(json.dumps(stale))
    assert find(path) is None
    assert clusters("kill", "1") == []
    assert states(clusters("start")) == {1: "up"}


def test_a_frozen_node_is_called_frozen_and_can_be_stopped(clusters: Clusters) -> None:
    """SIGSTOP looks like life to everything but the kernel."""
    pid = clusters("start", "1")["nodes"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    until("frozen", lambda: states(clusters("describe")) == {1: "frozen"})
    assert clusters("stop") == [1]


def test_what_is_wrong_is_said_in_one_line(clusters: Clusters) -> None:
    """No cluster, no such node, another number, a port in use, a setting that cannot be."""
    shell = clusters.shell

    def refused(*arguments: str) -> str:
        done = shell.run("cluster", *arguments)
        assert done.code in (1, 2), done.err
        return done.err

    assert refused("describe", "--dir", "no") == (
        f"streamlog: there is no cluster in {shell.path}/no; `streamlog cluster start 3` makes one\n"
    )
    port = clusters("start", "1")["nodes"][0]["listen"].rpartition(":")[2]
    assert "has no node 7; its nodes are 1" in refused("kill", "7", "--dir", "one")
    assert "has a cluster of 1 node already" in refused("start", "3", "--dir", "one")
    assert "--brokers and --controllers" in refused("start", "--brokers", "2", "--dir", "two")
    assert f"port {port} is in use" in refused("start", "1", "--port-base", port, "--dir", "two")
    assert "num.partitions: must be at least 1" in refused("start", "1", "-c", "num.partitions=-3", "--dir", "three")
    assert "inter.broker.listener.name" in refused("start", "1", "-c", "inter.broker.listener.name=Z", "--dir", "three")
    assert not (shell.path / "three").exists(), "nothing was made that would have to be mended first"
    assert "no cluster can be made in /proc/x/y: " in refused("start", "1", "--dir", "/proc/x/y")
    config = shell.path / "one/node-1/server.properties"
    clusters("stop")
    config.write_text(config.read_text() + "num.partitions=-3\n")
    said = refused("start", "--dir", "one")
    assert "node 1 did not start. It said:" in said
    assert "num.partitions" in said
    plan = shell.path / "one/cluster.json"
    plan.write_text('{"cluster_id": "c", "nodes": []}')
    for command in ("start", "describe"):
        assert "cluster.json names no nodes" in refused(command, "--dir", "one")


def test_a_setting_that_no_node_knows_is_said_to_whoever_sets_it(clusters: Clusters) -> None:
    """The nodes' logs, where it stands too, are read by nobody while everything is up."""
    done = clusters.shell.run("cluster", "start", "1", "-c", "log.retention.hour=1", "--dir", "one")
    assert done.code == 0
    assert done.err.count("unknown setting log.retention.hour is ignored") == 1


def test_configurations_are_ones_that_nodes_accept(tmp_path: Path) -> None:
    """Kafka's names, roles as asked for, three replicas where there are as many brokers."""
    env = real_env()
    plan = make_plan(env, combined=0, brokers=3, controllers=3, port_base=None)
    assert [(one.id, one.roles) for one in plan.nodes] == [
        *((number, ("broker",)) for number in (1, 2, 3)),
        *((number, ("controller",)) for number in (101, 102, 103)),
    ]
    assert len({one.port or one.controller_port for one in plan.nodes}) == 6
    values = parse_properties(properties(plan, plan.nodes[0], tmp_path, {"num.partitions": "6"}))
    assert values["default.replication.factor"] == "3"
    assert values["min.insync.replicas"] == "2"
    assert values["num.partitions"] == "6"
    for node in plan.controllers:
        controller, warnings = load_config(parse_properties(properties(plan, node, tmp_path, {})))
        assert (controller.is_broker, warnings) == (False, [])
        assert controller.integer("default.replication.factor") == 3
        assert controller.topic_defaults["min.insync.replicas"] == "2"
    combined = make_plan(env, combined=2, brokers=0, controllers=0, port_base=None)
    values = parse_properties(properties(combined, combined.nodes[1], tmp_path, {}))
    assert values["process.roles"] == "broker,controller"
    assert values["controller.quorum.bootstrap.servers"].count(":") == 2
    env.offload.close()


def test_three_nodes_keep_a_topic_through_a_kill_and_a_rolling_restart(clusters: Clusters) -> None:
    """And the commands that show and change who leads and where replicas are work on them."""
    shell = clusters.shell
    started = clusters("start", "3")
    assert states(started) == {1: "up", 2: "up", 3: "up"}
    shell.env["STREAMLOG_BROKER"] = started["bootstrap"]
    shell.ok("topics", "create", "kept", "-p", "3")
    shell.ok("produce", "kept", "-q", stdin="a\nb\nc\n")
    assert clusters("kill", "2") == [2]
    shell.ok("produce", "kept", "-q", stdin="d\n")
    behind = shell.run("topics", "describe", "--under-replicated", "--json").json
    assert [len(one["isr"]) for topic in behind if topic["name"] == "kept" for one in topic["partitions"]] == [2] * 3
    assert states(clusters("restart")) == {1: "up", 2: "up", 3: "up"}, "what did not run is started too"
    until("in sync", lambda: shell.run("topics", "describe", "--under-replicated", "--json").json == [])
    assert sorted(shell.ok("consume", "kept", "--from-beginning", "-n", "4").split()) == ["a", "b", "c", "d"]
    shell.ok("elect", "--type", "preferred", "--all")
    (topic,) = shell.run("topics", "describe", "kept", "--json").json
    assert {one["leader"] for one in topic["partitions"]} == {1, 2, 3}
    (shell.path / "move.json").write_text(
        shell.ok("reassign", "generate", "--topic", "kept", "--brokers", "1,3", "-r", "2")
    )
    moved = shell.run("reassign", "execute", "--file", "move.json", "--wait", "--json").json
    assert [one["state"] for one in moved] == ["done"] * 3
    quorum = shell.run("quorum", "describe", "--json").json
    assert sorted(one["node"] for one in quorum["replicas"]) == [1, 2, 3]
    assert clusters("stop") == [1, 2, 3]


R = TypeVar("R", bound=Response)


async def ask(address: str, request: Request, version: int, expected: type[R]) -> R:
    host, _, port = address.rpartition(":")
    client = RawClient(*await asyncio.open_connection(host, int(port)))
    try:
        response = await client.ask(request, version, expected)
    finally:
        await client.close()
    assert isinstance(response, expected)
    return response


def test_separate_roles_promise_what_combined_nodes_do(clusters: Clusters) -> None:
    """Controllers decide how many replicas there are and how many must have a record: the last of three brokers takes
    nothing with acks=all."""
    started = clusters("start", "--brokers", "3", "--controllers", "1")
    clusters.shell.ok("topics", "create", "made", "--broker", started["bootstrap"])
    address = next(one["listen"] for one in started["nodes"] if one["node"] == 1)

    def replicas(topic: str) -> set[int]:
        def known() -> set[int]:
            request = MetadataRequest(topics=[MetadataRequestTopic(name=topic)])
            answer = asyncio.run(ask(address, request, 12, MetadataResponse))
            return {number for one in answer.topics[0].partitions for number in one.replica_nodes}

        found: set[int] = until("the broker has heard of it", known)
        return found

    assert replicas("made") == {1, 2, 3}
    assert replicas("asked-for") == {1, 2, 3}
    resource = DescribeConfigsResource(
        resource_type=RESOURCE_TOPIC, resource_name="made", configuration_keys=["min.insync.replicas"]
    )
    described = asyncio.run(ask(address, DescribeConfigsRequest(resources=[resource]), 4, DescribeConfigsResponse))
    assert [one.value for one in described.results[0].configs] == ["2"]

    clusters("kill", "2", "3")

    def refused() -> bool:
        request = produce_request("made", new_batch(b"x"))
        answer = asyncio.run(ask(address, request, 9, ProduceResponse))
        code = ErrorCode.of(answer.responses[0].partition_responses[0].error_code)
        assert code is not ErrorCode.NONE, "one replica has it, and may be lost"
        return code is ErrorCode.NOT_ENOUGH_REPLICAS

    until("refused", refused)


def test_a_lost_data_directory_is_filled_again_and_promises_nothing_meanwhile(clusters: Clusters) -> None:
    """Node 3 knows nothing of the topic, and the new directory of node 2 knows nothing at all: without node 1 they
    must not decide anything. With it, everything is back, and so are node 2's vote and settings."""
    shell = clusters.shell
    started = clusters("start", "3", "-c", "num.partitions=2")
    shell.env["STREAMLOG_BROKER"] = started["bootstrap"]
    clusters("kill", "3")
    shell.ok("topics", "create", "kept", "-p", "1", "-r", "2", "-c", "min.insync.replicas=2")
    words = [f"word-{number}" for number in range(100)]
    shell.ok("produce", "kept", "-q", stdin="\n".join(words))
    clusters("stop")
    old = (shell.path / "one/node-2/data/meta.properties").read_text()
    shutil.rmtree(shell.path / "one/node-2")
    done = shell.run("cluster", "start", "--node", "2", "--node", "3", "--timeout", "6", "--dir", "one")
    assert done.code == 3, done.out
    assert "node 2: its data directory was lost; it has a new, empty one" in done.err
    assert "start node 1 too" in done.err
    assert (shell.path / "one/node-2/data/meta.properties").read_text() != old
    assert "num.partitions=2" in (shell.path / "one/node-2/server.properties").read_text()
    done = shell.run("cluster", "start", "--dir", "one")
    assert done.code == 0, done.err
    assert "Node 2 has its vote back." in done.err
    replicas = shell.run("quorum", "describe", "--json").json["replicas"]
    assert {one["node"] for one in replicas if one["role"] != "observer"} == {1, 2, 3}
    until("in sync", lambda: shell.run("topics", "describe", "--under-replicated", "--json").json == [])
    assert sorted(shell.ok("consume", "kept", "--from-beginning", "-n", "100").split()) == sorted(words)
    clusters("kill", "1")
    assert sorted(shell.ok("consume", "kept", "--from-beginning", "-n", "100").split()) == sorted(words)
    assert "lost" not in shell.run("cluster", "start", "--dir", "one").err, "once is enough"


def test_without_any_controllers_directory_nothing_is_made_up(clusters: Clusters) -> None:
    """Who starts a cluster again wants the one that was there."""
    clusters("start", "1")
    clusters("kill", "1")
    shutil.rmtree(clusters.shell.path / "one/node-1/data")
    done = clusters.shell.run("cluster", "start", "--dir", "one")
    assert done.code == 1
    assert "the data directories of all controllers" in done.err
    assert "Traceback" not in done.err
    assert not (clusters.shell.path / "one/node-1/data").exists()


def test_a_process_is_known_by_its_number_and_its_beginning(tmp_path: Path) -> None:
    """This one lives; one with its number and another beginning does not."""
    path = tmp_path / "process.json"
    assert find(path) is None
    path.write_text("half a fi")
    assert find(path) is None
    assert Process(os.getpid(), "long ago").state == "ended"
    assert Process(os.getpid(), "long ago").signal(signal.SIGKILL) is False
