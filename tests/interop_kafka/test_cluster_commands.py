"""The commands of a cluster, as an operator types them, on three nodes of Apache Kafka."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Shell, until
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.interop_kafka, pytest.mark.timeout(180)]

_NUMBERS = count(1)


@pytest.fixture(scope="module")
def cluster(kafka_libs: Path) -> Iterator[KafkaCluster]:
    with KafkaCluster(kafka_libs, properties={"broker.session.timeout.ms": "3000"}) as three:
        yield three


@pytest.fixture
def shell(cluster: KafkaCluster, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, {"STREAMLOG_BROKER": cluster.bootstrap})
    yield shell
    shell.close()


def make_topic(shell: Shell, *replicas: tuple[int, ...]) -> str:
    """A topic whose partitions are at these brokers, by way of a reassignment."""
    name = f"topic-{next(_NUMBERS)}"
    shell.ok("topics", "create", name, "-p", str(len(replicas)), "-r", "1")
    move(shell, name, *replicas)
    shell.ok("reassign", "execute", "--file", "move.json", "--wait")
    return name


def move(shell: Shell, topic: str, *replicas: tuple[int, ...]) -> None:
    """Write move.json."""
    partitions = [{"topic": topic, "partition": n, "replicas": list(one)} for n, one in enumerate(replicas)]
    (shell.path / "move.json").write_text(json.dumps({"version": 1, "partitions": partitions}))


def partitions(shell: Shell, topic: str) -> list[dict[str, Any]]:
    (found,) = shell.run("topics", "describe", topic, "--json").json
    described: list[dict[str, Any]] = found["partitions"]
    return described


def behind(shell: Shell) -> dict[str, Any]:
    """Topics with partitions that are under-replicated."""
    return {one["name"]: one for one in shell.run("topics", "describe", "--under-replicated", "--json").json}


def test_the_quorum_is_described_and_changed(shell: Shell, cluster: KafkaCluster) -> None:
    """A fourth controller gets a vote by its configuration file, and loses it by its number."""
    described = shell.run("quorum", "describe", "--json").json
    assert described["leader"] in (1, 2, 3)
    assert [one["node"] for one in described["replicas"]] == [1, 2, 3]
    assert sum(one["role"] == "leader" for one in described["replicas"]) == 1
    lines = shell.ok("quorum", "describe").splitlines()
    assert lines[0].startswith(f"3 voters, led by node {described['leader']} in epoch ")
    assert lines[1].split()[:4] == ["NODE", "ROLE", "DIRECTORY", "LOG"]
    done = shell.run("quorum", "remove", "9")
    assert (done.code, done.err) == (
        1,
        "streamlog: no node 9 has a vote (those that do: 1, 2, 3); see `streamlog quorum describe`\n",
    )
    fourth = cluster.add_controller(4)

    def follows() -> bool:
        found = {one["node"]: one for one in shell.run("quorum", "describe", "--json").json["replicas"]}
        return 4 in found and found[4]["role"] == "observer" and found[4]["lag"] < 10

    until("node 4 follows", follows)
    assert shell.ok("quorum", "add", "--config", str(fourth.config)) == "Node 4 has a vote now; there are 4 voters.\n"
    assert shell.ok("quorum", "remove", "4") == "Node 4 has no vote any more; there are 3 voters.\n"
    at = f"127.0.0.1:{fourth.controller_port}"
    until("node 4 is an observer again", follows)
    assert "has a vote now" in shell.ok("quorum", "add", "4", "--at", at)
    shell.ok("quorum", "remove", "4")
    fourth.stop()


def test_partitions_are_moved_by_a_generated_file(shell: Shell) -> None:
    """generate, execute with a throttle, verify, which takes the throttle off, and back by what was before."""
    topic = make_topic(shell, (1, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))
    generated = shell.run("reassign", "generate", "--topic", topic, "--brokers", "1,2,3")
    assert generated.err == "4 replicas of 6 partitions would be copied, 4 get another preferred leader\n"
    (shell.path / "move.json").write_text(generated.out)
    both = shell.run("reassign", "generate", "--topic", topic, "--brokers", "1,2,3", "--json").json
    assert both["proposed"] == json.loads(generated.out)
    assert [one["replicas"] for one in both["current"]["partitions"]] == [[1, 2]] * 6
    throttled = ("--file", "move.json", "--throttle", "1000000", "--before", "before.json")
    shell.ok("reassign", "execute", *throttled)
    rates = {one["name"]: one["value"] for one in shell.run("configs", "describe", "3", "--json").json}
    assert rates["leader.replication.throttled.rate"] == "1000000"

    def done() -> bool:
        rows = shell.run("reassign", "verify", "--file", "move.json", "--json").json
        return all(one["state"] == "done" for one in rows)

    until("all are moved", done)
    rates = {one["name"]: one["value"] for one in shell.run("configs", "describe", "3", "--json").json}
    assert "leader.replication.throttled.rate" not in rates
    (described,) = shell.run("topics", "describe", topic, "--json").json
    assert "leader.replication.throttled.replicas" not in described["configs"]
    wanted = [one["replicas"] for one in json.loads(generated.out)["partitions"]]
    assert [one["replicas"] for one in described["partitions"]] == wanted
    back = shell.run("reassign", "execute", "--file", "before.json", "--wait", "--json").json
    assert {one["state"] for one in back} == {"done"}
    done_before = shell.run("reassign", "verify", "--file", "move.json")
    assert done_before.code == 1
    assert "elsewhere" in done_before.out


def test_a_move_that_cannot_end_is_listed_and_cancelled(shell: Shell, cluster: KafkaCluster) -> None:
    """While a broker is frozen; its partitions are under-replicated, others lead them, and then the preferred does."""
    # Whoever is frozen is not the controller: its replacement is another test, and takes a busy machine long.
    controller = shell.run("quorum", "describe", "--json").json["leader"]
    first, second, frozen = sorted((1, 2, 3), key=lambda number: number != controller)
    topic = make_topic(shell, (first, second), (frozen, second))
    assert topic not in behind(shell)
    cluster.nodes[frozen].signal(signal.SIGSTOP)
    try:
        until("another leads", lambda: partitions(shell, topic)[1]["leader"] == second)

        def lagging() -> list[tuple[int, list[int]]]:
            found = behind(shell).get(topic, {"partitions": []})
            return [(one["partition"], one["isr"]) for one in found["partitions"]]

        until("every broker knows", lambda: lagging() == [(1, [second])])
        assert f"1       {second}  {frozen},{second}       {second}" in shell.ok(
            "topics", "describe", "--under-replicated"
        )
        move(shell, topic, (frozen, second))
        assert "moving" in shell.ok("reassign", "execute", "--file", "move.json")
        (listed,) = shell.run("reassign", "list", "--json").json
        assert (listed["adding"], listed["removing"]) == ([frozen], [first])
        assert shell.ok("reassign", "cancel", "--file", "move.json") == "Cancelled the move of 1 partition.\n"
        assert shell.ok("reassign", "cancel", "--all") == "Nothing moves.\n"
        failed = shell.run("elect", "--type", "preferred", "--topic", topic, "--partition", "1")
        assert failed.code == 1
        assert "the preferred leader is down or not in sync (PREFERRED_LEADER_NOT_AVAILABLE)" in failed.out
    finally:
        cluster.nodes[frozen].signal(signal.SIGCONT)
    until("all are in sync", lambda: behind(shell) == {})
    elected = shell.run("elect", "--type", "preferred", "--all", "--json").json
    assert {"topic": topic, "partition": 1, "outcome": "elected", "why": None} in elected
    needless = shell.run("elect", "--type", "unclean", "--topic", topic)
    assert (needless.code, needless.err) == (0, "No leader was elected; 2 had the right one.\n")


def test_what_is_wrong_is_said_in_one_line(shell: Shell) -> None:
    """Unknown topics and brokers, files that are none, options that do not go together."""
    topic = make_topic(shell, (1, 2))

    def refused(*arguments: str) -> str:
        done = shell.run(*arguments)
        assert done.code in (1, 2), (arguments, done)
        return done.err.splitlines()[-1]

    move(shell, "nowhere", (1,))
    assert "topic 'nowhere' does not exist" in refused("reassign", "execute", "--file", "move.json")
    move(shell, topic, (1, 2), (1, 2))
    assert f"topic '{topic}' has no partition 1" in refused("reassign", "execute", "--file", "move.json")
    move(shell, topic, (1, 9))
    assert "INVALID_REPLICA_ASSIGNMENT" in refused("reassign", "execute", "--file", "move.json")
    move(shell, topic, (1,))
    assert "INVALID_REPLICATION_FACTOR" in refused(
        "reassign", "execute", "--file", "move.json", "--same-replication-factor"
    )
    assert "there is no broker 7; there are 1, 2, 3" in refused(
        "reassign", "generate", "--topic", topic, "--brokers", "1,7"
    )
    assert "2 replicas of a partition need as many brokers" in refused(
        "reassign", "generate", "--topic", topic, "--brokers", "1"
    )
    assert "is not a list of broker numbers" in refused("reassign", "generate", "--all", "--brokers", "one")
    assert "say --topic, --topics-file or --all" in refused("reassign", "generate")
    assert "exactly one of --topic, --file and --all" in refused("elect", "--type", "preferred")
    assert "cannot be read" in refused("elect", "--type", "preferred", "--file", "no.json")
    assert "say which topics" in refused("topics", "describe")
    assert "say --config FILE" in refused("quorum", "add", "4")
